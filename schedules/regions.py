"""Which clock does an address keep, in the countries whose regions keep different ones?

``regions.csv`` lists the regions of the United States, Canada, Australia, Brazil and Mexico: the code of ISO 3166-2,
the names that people type (divided by ``/``), the zone of the tz database that most of its people live in, and the
beginnings of its postal codes (one by one, or the first and last of a range). A line without a code is a part of a
region that keeps another clock (El Paso, the Florida panhandle): it is known by its postal codes only. Written by
hand from ISO 3166-2, the tz database and the prefix tables that the postal services publish.

The longest known beginning of the postal code decides, being more exact than the region; without one the region does.
Military and territories' codes of the United States are left out: the first lie anywhere, the second are countries of
their own. Other countries are not in the table: they keep one clock, or nothing is known here.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator
from importlib.resources import files

# Of whole postal codes: one that lost its leading zero in a spreadsheet would be read as that of another place.
LENGTHS = {"AU": (4,), "BR": (8,), "CA": (3, 6), "MX": (5,), "US": (5, 9)}

Zones = dict[tuple[str, str], str]


def zone_of_address(country: str | None, region: str | None, postal_code: str | None) -> str | None:
    """The zone (tz database name) of an address in ``country`` (ISO 3166-1 alpha-2), or ``None`` if it is not known.

    ``region`` is a code or a name and ``postal_code`` a whole code, both as people type them.
    """
    country = (country or "").strip().upper()
    code = _folded(postal_code or "")
    lengths = range(len(code), 0, -1) if len(code) in LENGTHS.get(country, ()) else ()
    exact = next((ZONE_OF_PREFIX[country, code[:n]] for n in lengths if (country, code[:n]) in ZONE_OF_PREFIX), None)
    return exact or ZONE_OF_REGION.get((country, _folded(region or "")))


def _folded(text: str) -> str:
    """Letters and digits only, in one case and without accents: ``"Nuevo León"`` and ``"nuevo-leon"`` agree."""
    return "".join(each for each in unicodedata.normalize("NFKD", text).casefold() if each.isalnum())


def _read_regions() -> tuple[Zones, Zones]:
    """The zone of each region, by country and folded code or name, and that of each beginning of a postal code."""
    of_region: Zones = {}
    of_prefix: Zones = {}
    for row in csv.DictReader(files("schedules").joinpath("regions.csv").read_text(encoding="utf-8").splitlines()):
        country, region, zone = row["country"], row["region"], row["zone"]
        names = (region, country + region, *row["name"].split("/")) if region else ()
        of_region |= {(country, _folded(name)): zone for name in names}
        of_prefix |= {(country, prefix): zone for prefix in _prefixes(row["postal"])}
    return of_region, of_prefix


def _prefixes(postal: str) -> Iterator[str]:
    """Every beginning in a list such as ``005 100-149``."""
    for part in postal.split():
        first, _, last = part.partition("-")
        numbers = range(int(first), int(last) + 1) if last else ()
        yield from (f"{number:0{len(first)}}" for number in numbers)
        if not last:
            yield _folded(first)


ZONE_OF_REGION, ZONE_OF_PREFIX = _read_regions()
