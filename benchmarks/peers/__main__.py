"""Prepare a peer, or give it work: ``python -m benchmarks.peers dramatiq enqueue 100 2026-01-15T16:00:00+00:00``."""

from __future__ import annotations

import sys
from datetime import datetime

from benchmarks.peers import peer

if __name__ == "__main__":
    _, name, verb, count, due = sys.argv
    if verb == "prepare":
        peer(name).prepare()
    else:
        peer(name).enqueue(int(count), datetime.fromisoformat(due))
