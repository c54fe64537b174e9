"""Blocking keys of record linkage: two records are compared only if they agree on one of them."""

from __future__ import annotations

import itertools

# Keys of one group are correlated, so they are not paired: otherwise all records of a suburb would be compared.
_BLOCKING_KEYS: dict[str, dict[str, str]] = {
    "given": {"given_sound": "given_sound"},
    "surname": {"surname_sound": "surname_sound"},
    "birth": {
        "birth_date": "birth_date",
        "birth_month": "CASE WHEN length(birth_date) = 8 THEN left(birth_date, 6) END",
        "birthday": "CASE WHEN length(birth_date) = 8 THEN right(birth_date, 4) END",
        "birth_year_and_day": "CASE WHEN length(birth_date) = 8 THEN left(birth_date, 4) || right(birth_date, 2) END",
    },
    "street": {"house": "street_number || ' ' || left(address, 4)", "address": "address", "address_2": "address_2"},
    "area": {"suburb": "suburb", "postcode": "postcode"},
    "national_id": {
        f"national_id_{name}": "CASE WHEN length(national_id) >= 6 "
        f"THEN {function}(national_id, length(national_id) // 2 + 1) END"
        for name, function in (("begin", "left"), ("end", "right"))
    },
    "phone": {"phone_end": "right(phone, 6)"},
    "email": {"mailbox": "split_part(email, '@', 1)"},
}
# the sounds of both names in either order, and values that belong to one person alone
_SINGLE_BLOCKING_KEYS = (
    "CASE WHEN given_sound < surname_sound THEN given_sound || chr(31) || surname_sound "
    "ELSE surname_sound || chr(31) || given_sound END",
    "national_id",
    "phone",
    "email",
)


def blocking_keys() -> list[str]:
    """SQL expressions of the blocking keys: two independent fields together, or one field that belongs to one person.

    Examples
    --------
    >>> "surname_sound || chr(31) || birth_date" in blocking_keys()
    True
    """
    pairs = [
        f"{one} || chr(31) || {other}"
        for first, second in itertools.combinations(_BLOCKING_KEYS.values(), 2)
        for one in first.values()
        for other in second.values()
    ]
    return [*_SINGLE_BLOCKING_KEYS, *(pair for pair in pairs if pair != "given_sound || chr(31) || surname_sound")]
