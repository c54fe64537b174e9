"""Record linkage leaves out what a form writes where nothing is known: default birth dates, repeated digits, no addresses."""

from __future__ import annotations

import pyarrow as pa
import pytest

from features.data.identity.probabilistic import link
from features.data.identity.records import RecordFiles
from tests.features.data.exports import CASES

SURNAMES = tuple(
    first + second for first in ("bel", "cor", "dun", "fal", "gri", "hol") for second in ("ba", "ke", "mi", "to")
)


def people(**changes):
    """24 different people of one till who have a given name and what `changes` says in common."""
    rows = [
        {
            "source": "till",
            "source_user_id": f"r{n}",
            "given_name": "Ada",
            "surname": surname,
            "birth_date": f"{1950 + n}-{n % 12 + 1:02}-{n % 27 + 2:02}",
            **changes,
        }
        for n, surname in enumerate(SURNAMES)
    ]
    return pa.Table.from_pylist(rows)


def test_placeholder_birth_dates_and_numbers_link_nobody():
    records = RecordFiles(CASES / "44-placeholder-birth-dates-in-linking" / "records.yaml").read()
    links = link(records.table)
    assert (links.pairs.num_rows, links.review.num_rows) == (0, 0)
    assert links.placeholders == {"birth_date": 64}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"birth_date": "1970-01-01"}, "birth_date"),
        ({"birth_date": "1985-01-01"}, "birth_date"),  # a first of January that all of them have
        ({"birth_date": "1990-06-15"}, "birth_date"),  # the default of a form
        ({"national_id": "000000000"}, "national_id"),
        ({"national_id": "N/A"}, "national_id"),
        ({"email": "none@none.com"}, "email"),
    ],
)
def test_values_that_stand_for_not_known_are_not_compared(changes, field):
    links = link(people(**changes))
    assert links.placeholders == {field: len(SURNAMES)}
    assert links.pairs.num_rows == 0


@pytest.mark.parametrize("phone", ["1.38001E+10", "00000000000", "N/A"])
def test_a_number_without_its_digits_links_nobody(phone):
    links = link(people(phone=phone))
    assert (links.pairs.num_rows, links.compared) == (0, 0)


def test_real_birth_dates_and_numbers_still_link():
    till = people(phone=None)
    twice = [
        {
            **row,
            "source": "club",
            "birth_date": "1950-01-02" if n == 0 else row["birth_date"],
            "phone": f"1380013800{n % 10}.0",
        }
        for n, row in enumerate(till.to_pylist())
    ]
    first = [{**row, "phone": f"1380013800{n % 10}"} for n, row in enumerate(till.to_pylist())]
    links = link(pa.Table.from_pylist([*first, *twice]))
    assert links.placeholders == {}
    pairs = zip(
        links.pairs["left_source_user_id"].to_pylist(), links.pairs["right_source_user_id"].to_pylist(), strict=True
    )
    assert {(a, b) for a, b in pairs} == {(f"r{n}", f"r{n}") for n in range(len(SURNAMES))}
