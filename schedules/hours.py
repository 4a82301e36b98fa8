"""When is a bank open: in which instants does a place lie inside a window of local hours, and when is the next one?

A place may keep several zones; then:

1. the window must be open in all of them, if they share a quarter of an hour of it;
2. else (Russia spans ten hours) it must be open in the first, and it must not be night in any;
3. where even that leaves nothing, zones are forgiven their night from the last one on.

A debit must moreover fall into the hours and business days of its rail; where those and the window have nothing in
common, the window gives way to the days that are not night.

Wall time is compared as each zone shows it and turned straight back into UTC, so a day of 23 or 25 hours, or one
without a midnight, needs no rule of its own. A fixed distance is kept from both edges, for clocks that differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from schedules.facts import utc
from schedules.places import Place, closed_days

if TYPE_CHECKING:
    from collections.abc import Iterator

EDGE = timedelta(minutes=5)
HORIZON = timedelta(days=40)
SHARED = timedelta(minutes=15)  # the least that zones must have in common, or a batch would fire at one instant
DAY = timedelta(days=1)
TICK = timedelta.resolution
NIGHT_BEGINS, NIGHT_ENDS = time(0, 30), time(6, 0)
# The days that are not night, as stretches of one local date.
AWAKE = ((time.min, time(0, 29, 59, 999999)), (NIGHT_ENDS, time.max))

Hours = tuple[tuple[time, time], ...]
Stretch = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Window:
    """Local hours in which a bank is open; ``business_days`` leaves out its weekends and public or bank holidays.

    Raises ``ValueError`` unless ``closes`` comes later than ``opens`` by more than both edges.
    """

    opens: time
    closes: time
    business_days: bool = False

    def __post_init__(self) -> None:
        if self.opens.tzinfo or self.closes.tzinfo or _offset(self.closes) - _offset(self.opens) <= 2 * EDGE:
            msg = f"window {self.opens}-{self.closes} must be local time and open for more than {2 * EDGE}"
            raise ValueError(msg)

    @property
    def safe(self) -> tuple[time, time]:
        """The first and the last local time that keep ``EDGE`` from both ends."""
        opens, closes = (datetime.combine(date.min, wall) for wall in (self.opens, self.closes))
        return (opens + EDGE).time(), (closes - EDGE).time()

    @property
    def at_night(self) -> bool:
        """Whether it reaches into the night."""
        return self.opens < NIGHT_ENDS and self.closes > NIGHT_BEGINS


@dataclass(frozen=True, slots=True)
class Demand:
    """What one zone must show: local hours, on business days of ``country`` unless that is ``None``."""

    zone: ZoneInfo
    hours: Hours
    country: str | None


def _offset(wall: time) -> timedelta:
    """Time since midnight."""
    return timedelta(hours=wall.hour, minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond)


def is_open(at: datetime, window: Window, place: Place) -> bool:
    """Whether ``at`` keeps ``EDGE`` inside ``window`` in every zone of ``place`` (or as the module says)."""
    at = utc(at)
    stretches = _calm(window, place, at.date())
    if stretches is None:
        return all(_meets(at, demand) for demand in _demands(at, window, place))
    return any(first <= at <= last for first, last in stretches)


def night(at: datetime, place: Place) -> bool:
    """Whether it is between 00:30 and 06:00 in any zone of ``place``."""
    at = utc(at)
    return any(NIGHT_BEGINS <= at.astimezone(zone).time() < NIGHT_ENDS for zone in place.zones)


def next_open(
    at: datetime, window: Window, place: Place, fraction: float, span: timedelta = timedelta(hours=2)
) -> datetime | None:
    """``at`` if it is open, else an instant of the next open stretch; ``None`` when none begins within 40 days.

    The instant lies ``fraction`` (0 <= fraction < 1, from the case, so that a batch is spread) of ``span``, or of
    the stretch if that is shorter, after its beginning.
    """
    if not 0 <= fraction < 1:
        msg = f"fraction must be at least 0 and below 1: {fraction}"
        raise ValueError(msg)
    at = utc(at)
    if is_open(at, window, place):
        return at
    stretch = _next_stretch(at, window, place)
    if stretch is None:
        return None
    spread = stretch[0] + fraction * min(span, stretch[1] - stretch[0])
    # Only where a clock change within the stretch changes which zones can be asked is the spread instant closed.
    return spread if is_open(spread, window, place) else stretch[0]


def open_stretches(begin: datetime, end: datetime, window: Window, place: Place) -> Iterator[Stretch]:
    """Yield the open stretches between two instants, in order, cut to them."""
    told, end = utc(begin), utc(end)
    first = told.date()
    for ahead in range((end.date() - first).days + 1):
        for opens, closes in _begun(window, place, first + ahead * DAY):
            if opens < end and closes > told:
                yield max(opens, told), min(closes, end)
                told = closes  # a stretch over midnight is told by both days


def _next_stretch(at: datetime, window: Window, place: Place) -> Stretch | None:
    """The first common stretch that begins after ``at``, which is closed."""
    for ahead in range(HORIZON.days + 1):
        for stretch in _begun(window, place, at.date() + ahead * DAY):
            if stretch[0] > at:
                return stretch
    return None


@lru_cache(maxsize=16384)
def _calm(window: Window, place: Place, on: date) -> tuple[Stretch, ...] | None:
    """All that is open of the UTC date ``on``; None where a clock changes so near that the walk may miss some."""
    noon = datetime.combine(on, time(12), UTC)
    for zone in _clocks(place):
        before, after = ((noon + days * DAY).astimezone(zone).utcoffset() for days in (-2, 2))
        if before != after:
            return None
    return _begun(window, place, on)


@lru_cache(maxsize=16384)
def _begun(window: Window, place: Place, on: date) -> tuple[Stretch, ...]:
    """The common stretches that begin on the UTC date ``on``, or have begun before it."""
    found: list[Stretch] = []
    start = datetime.combine(on, time.min, UTC)
    stretch = _common(start, window, place)
    while stretch and stretch[0] < start + DAY:
        found.append(stretch)
        stretch = _common(stretch[1] + TICK, window, place)
    return tuple(found)


def _common(start: datetime, window: Window, place: Place) -> Stretch | None:
    """The first stretch at or after ``start`` in which all agree: walk to the latest beginning until they do.

    What the zones must show may change on the way, at a clock change; a stretch of that one day may be missed then.
    """
    latest = start
    while latest <= start + HORIZON:
        found = [_first(latest, demand) for demand in _demands(latest, window, place)]
        begin = max((stretch[0] for stretch in found if stretch), default=latest)
        if None in found:
            return None
        if begin <= latest:
            return latest, min(stretch[1] for stretch in found if stretch)
        latest = begin
    return None


def _first(at: datetime, demand: Demand) -> Stretch | None:
    """The first stretch of one zone that ends at or after ``at``."""
    day = at.astimezone(demand.zone).date()
    for ahead in range(HORIZON.days):
        on = day + ahead * DAY
        if demand.country is None or on not in closed_days(demand.country, on.year):
            for stretch in _stretches(demand.zone, on, demand.hours):
                if stretch[1] >= at:
                    return stretch
    return None


def _meets(at: datetime, demand: Demand) -> bool:
    """Whether the zone shows one of the hours, on a business day where that is asked."""
    local = at.astimezone(demand.zone)
    wall = local.time()
    if not any(first <= wall <= last for first, last in demand.hours):
        return False
    return demand.country is None or local.date() not in closed_days(demand.country, local.year)


def _demands(at: datetime, window: Window, place: Place) -> tuple[Demand, ...]:
    """What each zone must show, given the clocks of the place at ``at``."""
    clocks = _clocks(place)
    if len(clocks) == 1:
        return _agreed(window, place, ())
    return _agreed(window, place, tuple(at.astimezone(zone).utcoffset() or timedelta() for zone in clocks))


def _clocks(place: Place) -> tuple[ZoneInfo, ...]:
    """Every clock that counts: that of the rail, then those of the place."""
    return (*(demand.zone for demand in _rail(place)), *place.zones)


@lru_cache(maxsize=4096)
def _agreed(window: Window, place: Place, offsets: tuple[timedelta, ...]) -> tuple[Demand, ...]:
    """The demands of the first rule that the clocks leave an hour for; ``offsets`` are those of rail and zones."""
    rules = list(_rules(window, place))
    return next((rule for rule in rules if _share([demand.hours for demand in rule], offsets)), rules[-1])


def _rules(window: Window, place: Place) -> Iterator[tuple[Demand, ...]]:
    """The demands of the rules in the text above, the strictest first."""
    country = (place.country or "") if window.business_days else None
    rail = _rail(place)
    inside = [Demand(zone, (window.safe,), country) for zone in place.zones]
    awake = [Demand(zone, AWAKE, None) for zone in place.zones]
    yield (*rail, *inside)
    for kept in range(len(awake), 0, -1):
        yield (*rail, inside[0], *awake[1:kept])
    for kept in range(len(awake) if rail else 0, 0, -1):
        yield (*rail, *awake[:kept])


@lru_cache(maxsize=4096)
def _rail(place: Place) -> tuple[Demand, ...]:
    """What the rail of a debit demands, wherever the payer is."""
    rail = place.rail
    if rail is None:
        return ()
    return (Demand(ZoneInfo(rail.zone), tuple(Window(*each).safe for each in rail.hours), rail.calendar),)


def _share(hours: list[Hours], offsets: tuple[timedelta, ...]) -> bool:
    """Whether zones with these hours and UTC offsets have ``SHARED`` of the day in common; one alone always has."""
    pairs = list(zip(hours, offsets, strict=False))  # rule 3 leaves the last zones out

    def common(instant: timedelta) -> bool:
        return all(
            any(_offset(first) <= (instant + offset) % DAY <= _offset(last) for first, last in each)
            for each, offset in pairs
        )

    starts = [_offset(first) - offset for each, offset in pairs for first, _ in each]
    return any(common(start) and common(start + SHARED) for start in starts)


@lru_cache(maxsize=4096)
def _stretches(zone: ZoneInfo, on: date, hours: Hours) -> tuple[Stretch, ...]:
    """The UTC stretches, both ends included, in which ``zone`` shows ``hours`` of the local date ``on``."""
    begins = datetime.combine(on, time.min, zone).astimezone(UTC)
    ends = datetime.combine(on + DAY, time.min, zone).replace(fold=1).astimezone(UTC) - TICK
    before, after = (edge.astimezone(zone).utcoffset() or timedelta() for edge in (begins, ends))
    parts = [(begins, ends, before)]
    if before != after:
        change = _clock_change(zone, begins, ends)
        parts = [(begins, change - TICK, before), (change, ends, after)]
    found: list[Stretch] = []
    for first, last in hours:
        for low, high, offset in parts:
            wall = datetime.combine(on, time.min, UTC) - offset
            stretch = max(low, wall + _offset(first)), min(high, wall + _offset(last))
            if found and stretch[0] - found[-1][1] <= TICK <= stretch[1] - found[-1][1]:
                found[-1] = (found[-1][0], stretch[1])
            elif stretch[0] <= stretch[1]:
                found.append(stretch)
    return tuple(sorted(found))


def _clock_change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The whole second between ``low`` and ``high`` in which the offset of ``zone`` changes."""
    before = low.astimezone(zone).utcoffset()
    seconds = [0, int((high - low).total_seconds()) + 1]
    while seconds[1] - seconds[0] > 1:
        middle = sum(seconds) // 2
        same = (low + timedelta(seconds=middle)).astimezone(zone).utcoffset() == before
        seconds[0 if same else 1] = middle
    return low + timedelta(seconds=seconds[1])
