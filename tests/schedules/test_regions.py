"""Is the zone of an address found, however people write the address, and never guessed?"""

from __future__ import annotations

import csv
from collections import Counter
from importlib.resources import files
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules.places import COUNTRY_OF_ZONE, place_of
from schedules.regions import LENGTHS, zone_of_address

ROWS = list(csv.DictReader(files("schedules").joinpath("regions.csv").read_text(encoding="utf-8").splitlines()))
REGIONS = [row for row in ROWS if row["region"]]
WHOLE = {"AU": "0000", "BR": "00000000", "CA": "x9z9z9", "MX": "00000", "US": "00000"}


def of_row(row: dict[str, str]) -> str:
    """Return the name of a row's test."""
    return f"{row['country']} {row['name'].partition('/')[0]}"


@pytest.mark.parametrize("row", ROWS, ids=of_row)
def test_the_zone_of_a_row_lies_in_its_country(row: dict[str, str]) -> None:
    """Otherwise the place of a card would ignore it."""
    assert COUNTRY_OF_ZONE[row["zone"]] == row["country"]
    assert place_of(row["country"], row["zone"]).zones == (ZoneInfo(row["zone"]),)


@pytest.mark.parametrize("row", REGIONS, ids=of_row)
def test_a_region_is_known_by_its_code_and_by_each_of_its_names(row: dict[str, str]) -> None:
    """With or without the country before the code, in any case, with blanks around."""
    country, code = row["country"], row["region"]
    names = row["name"].split("/")
    for written in (code, code.lower(), f"{country}-{code}", *names, *(f" {name.upper()} " for name in names)):
        assert zone_of_address(country, written, None) == row["zone"], written


@pytest.mark.parametrize("row", ROWS, ids=of_row)
def test_a_row_is_known_by_a_postal_code_alone(row: dict[str, str]) -> None:
    """Forms of cards often ask for nothing else."""
    prefix = row["postal"].split()[0].partition("-")[0]
    code = prefix + WHOLE[row["country"]][len(prefix) :]
    assert zone_of_address(row["country"], None, code) == row["zone"]


def test_the_table_holds_every_region_of_its_countries() -> None:
    """As many as ISO 3166-2 counts, without territories that are countries of their own."""
    assert Counter(row["country"] for row in REGIONS) == {"US": 51, "CA": 13, "AU": 8, "BR": 27, "MX": 32}


def test_no_name_and_no_postal_code_stands_in_two_rows() -> None:
    """The later row would hide the earlier one."""
    told = [(row["country"], name) for row in REGIONS for name in {row["region"], *row["name"].split("/")}]
    told += [(row["country"], part) for row in ROWS for part in row["postal"].split()]
    assert [each for each, count in Counter(told).items() if count > 1] == []


@pytest.mark.parametrize(
    ("country", "region", "postal_code", "expected"),
    [
        ("US", "CA", None, "America/Los_Angeles"),
        ("us", "california ", "", "America/Los_Angeles"),
        ("US", "US-CA", None, "America/Los_Angeles"),
        ("US", "Washington, D.C.", None, "America/New_York"),
        ("US", None, "94105-1234", "America/Los_Angeles"),
        ("US", None, " 02134 ", "America/New_York"),
        ("CA", "Québec", None, "America/Toronto"),
        ("CA", "Quebec", None, "America/Toronto"),
        ("CA", "ile du prince edouard", None, "America/Halifax"),
        ("CA", None, "k1a 0b1", "America/Toronto"),
        ("CA", None, "V6B", "America/Vancouver"),
        ("CA", None, "X0C 0G0", "America/Rankin_Inlet"),
        ("AU", "N.S.W.", None, "Australia/Sydney"),
        ("AU", None, "0800", "Australia/Darwin"),
        ("BR", "Para", None, "America/Belem"),
        ("BR", None, "69005-010", "America/Manaus"),
        ("BR", None, "69.900-000", "America/Rio_Branco"),
        ("MX", "CDMX", None, "America/Mexico_City"),
        ("MX", "Q. Roo", None, "America/Cancun"),
        ("MX", None, "22000", "America/Tijuana"),
    ],
)
def test_an_address_is_read_as_people_type_it(
    country: str, region: str | None, postal_code: str | None, expected: str
) -> None:
    """Codes, names, abbreviations, accents, blanks, hyphens."""
    assert zone_of_address(country, region, postal_code) == expected


@pytest.mark.parametrize(
    ("country", "region", "postal_code", "most", "here"),
    [
        ("US", "TX", "79901", "America/Chicago", "America/Denver"),
        ("US", "FL", "32501", "America/New_York", "America/Chicago"),
        ("US", "TN", "37902", "America/Chicago", "America/New_York"),
        ("CA", "BC", "V1C 2H2", "America/Vancouver", "America/Edmonton"),
        ("AU", "NSW", "2880", "Australia/Sydney", "Australia/Broken_Hill"),
        ("MX", "CHH", "32000", "America/Chihuahua", "America/Ciudad_Juarez"),
    ],
)
def test_the_postal_code_tells_the_part_of_a_region_that_keeps_another_clock(
    country: str, region: str, postal_code: str, most: str, here: str
) -> None:
    """By itself a region keeps the clock of most of its people."""
    assert zone_of_address(country, region, None) == most
    assert zone_of_address(country, region, postal_code) == here


@pytest.mark.parametrize("postal_code", ["2134", "00901", "09012", "SW1A 1AA", "n/a"])
def test_a_postal_code_that_is_not_known_leaves_the_answer_to_the_region(postal_code: str) -> None:
    """Its leading zero lost, a territory's, the army's, another country's, none."""
    assert zone_of_address("US", None, postal_code) is None
    assert zone_of_address("US", "MA", postal_code) == "America/New_York"


@pytest.mark.parametrize(
    ("country", "region", "postal_code"),
    [
        (None, None, None),
        (None, "CA", "94105"),
        ("", "", ""),
        ("US", None, None),
        ("US", "", ""),
        ("US", "PR", None),
        ("US", "AE", None),
        ("US", "U", None),
        ("US", "Ontario", None),
        ("CA", "CA", None),
        ("DE", "BY", "80331"),
        ("XX", "CA", "94105"),
    ],
)
def test_nothing_is_guessed(country: str | None, region: str | None, postal_code: str | None) -> None:
    """No country, nothing of the address, a region of another country, a country outside the table."""
    assert zone_of_address(country, region, postal_code) is None


@given(st.sampled_from(sorted(LENGTHS)), st.text(), st.text() | st.from_regex(r"\d{4,9}", fullmatch=True))
def test_any_text_gives_a_zone_of_its_country_or_none(country: str, region: str, postal_code: str) -> None:
    """What people type is never an error."""
    zone = zone_of_address(country, region, postal_code)
    assert zone is None or COUNTRY_OF_ZONE[zone] == country
