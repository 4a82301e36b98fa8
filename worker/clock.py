"""What time is it? The only place that reads a clock.

Business time drives decisions (due instants, windows, deadlines). It is the real clock, unless
``DUNNING_CLOCK_FILE`` names a file with one ISO instant: then a driver steps it (demo and stories).
Machine time (leases, key age) is always real and is read from PostgreSQL, whose one clock all share.
"""

from datetime import UTC, datetime
from pathlib import Path


def business_now(clock_file: Path | None) -> datetime:
    """Return the present business instant in UTC; raise ``ValueError`` for a clock file without a valid one."""
    if clock_file is None:
        return datetime.now(UTC)
    return datetime.fromisoformat(clock_file.read_text(encoding="ascii").strip()).astimezone(UTC)


def set_clock(clock_file: Path, now: datetime) -> None:
    """Step the shared business clock; readers see the old instant or the new one, never half of it."""
    part = clock_file.with_suffix(".part")
    part.write_text(now.astimezone(UTC).isoformat(), encoding="ascii")
    part.replace(clock_file)


def machine_now() -> datetime:
    """Return the real time in UTC, for logs, signatures and network time limits."""
    return datetime.now(UTC)
