"""Where may a test kill this process? At named places, which do nothing unless ``DUNNING_FAILPOINT`` names one.

The variable holds a place, or a place and a payment (``before_send in_1``), and is read once, when this is imported.
"""

import os
import signal

_ARMED = os.environ.get("DUNNING_FAILPOINT")


def _nothing(place: str, payment_id: str = "") -> None:
    """Go on."""


def _kill(place: str, payment_id: str = "") -> None:
    """End this process as ``kill -9`` would, if this is the place and the payment."""
    if _ARMED in {place, f"{place} {payment_id}"}:
        os.kill(os.getpid(), signal.SIGKILL)


failpoint = _kill if _ARMED else _nothing
