"""How much is tried? A little in every run, and on ``make fuzz`` a hundred thousand inputs in all."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fuzz", max_examples=50_000, print_blob=True)
