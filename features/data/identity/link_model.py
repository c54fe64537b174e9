"""What is compared between two store records, which pairs are compared at all, and how the weights are learnt without labels."""

from __future__ import annotations

import copy
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from splink import Linker

U_PAIRS = 800_000  # random pairs from which the chance of agreeing by accident is counted
EM_PAIRS = 1_000_000
MIN_RANDOM_PAIRS = (
    1_000  # among fewer, the pairs of one person are no longer rare: Splink's defaults are the better guess
)
MIN_TRAINING_PAIRS = 30  # fewer would teach little but their own accidents
MIN_M = 0.0005  # nobody's data is so clean that one mistake rules a match out
MAX_M_TO_U_RATIO = 0.8  # "matches" that differ nearly as often as strangers are strangers
RECALL_OF_STRICT_RULES = 0.8
# two clues of one group say nearly the same thing, so they are not paired: a whole suburb would be compared with itself
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
        "national_id_begin": "CASE WHEN length(national_id) >= 6 THEN left(national_id, length(national_id) // 2 + 1) END",
        "national_id_end": "CASE WHEN length(national_id) >= 6 THEN right(national_id, length(national_id) // 2 + 1) END",
    },
    "phone": {"phone_end": "right(phone, 6)"},
    "email": {"mailbox": "split_part(email, '@', 1)"},
}
# both spellings of the name in either order, and what belongs to one person alone
_SINGLE_BLOCKING_KEYS = (
    "CASE WHEN given_sound < surname_sound THEN given_sound || chr(31) || surname_sound ELSE surname_sound || chr(31) || given_sound END",
    "national_id",
    "phone",
    "email",
)
# agreeing on all columns of one of these is nearly proof: their number says how many matches to expect
_STRICT_RULES = (
    ("given_name", "surname", "birth_date"),
    ("given_name", "surname", "address"),
    ("national_id", "surname"),
    ("national_id", "given_name"),
    ("phone", "given_name"),
    ("email", "given_name"),
    ("birth_date", "surname", "address"),
)
# two clues where one is common: among people of one name, or of one birth date, most pairs are strangers
_TRAINING_RULES = (
    ("national_id",),
    ("phone",),
    ("email",),
    ("birth_date",),
    ("birth_date", "postcode"),
    ("surname", "birth_date"),
    ("given_name", "surname", "suburb"),
    ("given_name", "surname"),
    ("address", "postcode"),
)


def blocking_keys() -> list[str]:
    """SQL of every clue: agreeing on two independent parts, or on one that is a person's own, brings a pair to comparison.

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


@dataclass(frozen=True)
class ComparisonSpec:
    """One comparison: its name, the columns it reads, and its levels from most to least alike as (Splink's level, words for people)."""

    name: str
    columns: tuple[str, ...]
    levels: tuple[tuple[Any, str], ...]

    def label(self, level: int) -> str:
        """Words for the value Splink gives the comparison: −1 missing, 0 different, the higher the more alike."""
        if level < 0:
            return "missing"
        return "different" if level == 0 else self.levels[len(self.levels) - level][1]


def comparisons(filled: frozenset[str]) -> list[ComparisonSpec]:
    """The comparisons that the filled columns allow.

    Street, house number and second address line are one comparison, suburb and postcode another: people of one household agree on all of
    them at once, and evidence that always comes together must count once.

    Examples
    --------
    >>> [specs.name for specs in comparisons(frozenset({"surname", "postcode", "phone"}))]
    ['surname', 'area', 'phone']
    """
    import splink.comparison_level_library as levels

    exact, both, either = levels.ExactMatchLevel, levels.And, levels.Or

    def typing_error(column: str, edits: int, alike: float = 0.7) -> Any:
        # the similarity costs a tenth of the edit distance and is never lower where that few edits are enough
        return both(levels.JaroWinklerLevel(column, alike), levels.DamerauLevenshteinLevel(column, edits))

    def similar(column: str) -> Any:
        return either(levels.JaroWinklerLevel(column, 0.92), typing_error(column, 2, 0.8))

    def name(column: str, other: str) -> tuple[tuple[Any, str], ...]:
        swapped = (
            ((levels.ColumnsReversedLevel(column, other, symmetrical=True), "given name and surname swapped"),)
            if other in filled
            else ()
        )
        return (
            (exact(column, term_frequency_adjustments=True), "same"),
            *swapped,
            (either(levels.JaroWinklerLevel(column, 0.92), typing_error(column, 1)), "typing error"),
            (levels.JaroWinklerLevel(column, 0.8), "similar"),
        )

    def code(column: str) -> tuple[tuple[Any, str], ...]:
        return (
            (exact(column), "same"),
            (typing_error(column, 1), "one typing error"),
            (typing_error(column, 2), "two typing errors"),
        )

    street: list[tuple[Any, str]] = [(exact("address"), "same street"), (similar("address"), "similar street")]
    if "street_number" in filled:
        street = [
            (both(exact("address"), exact("street_number")), "same street and number"),
            (both(similar("address"), exact("street_number")), "similar street, same number"),
            (similar("address"), "similar street, other number"),
        ]
    if "address_2" in filled:
        lines = (
            levels.ColumnsReversedLevel("address", "address_2"),
            levels.ColumnsReversedLevel("address_2", "address"),
            similar("address_2"),
        )
        street.append((either(*lines), "second line, or lines swapped"))
    if "street_number" in filled:
        street.append((exact("street_number"), "same number only"))
    suburb, postcode = exact("suburb"), exact("postcode")
    near_suburb, near_postcode = similar("suburb"), typing_error("postcode", 1)
    area: tuple[tuple[Any, str], ...] = (
        (both(suburb, postcode), "same suburb and postcode"),
        (either(both(suburb, near_postcode), both(near_suburb, postcode)), "one the same, the other similar"),
        (either(suburb, postcode), "suburb or postcode the same"),
        (both(near_suburb, near_postcode), "both similar"),
        (either(near_suburb, near_postcode), "one similar"),
    )
    if not {"suburb", "postcode"} <= filled:
        one = "suburb" if "suburb" in filled else "postcode"
        area = ((exact(one), f"same {one}"), (near_suburb if one == "suburb" else near_postcode, f"similar {one}"))
    mailbox = levels.ExactMatchLevel(_mailbox())
    found = [
        ComparisonSpec("given_name", ("given_name", "surname"), name("given_name", "surname")),
        ComparisonSpec("surname", ("surname", "given_name"), name("surname", "given_name")),
        ComparisonSpec("birth_date", ("birth_date",), code("birth_date")),
        ComparisonSpec("street", ("address", "street_number", "address_2"), tuple(street)),
        ComparisonSpec("area", ("suburb", "postcode"), area),
        ComparisonSpec("phone", ("phone",), code("phone")[:2]),
        ComparisonSpec(
            "email",
            ("email",),
            ((exact("email"), "same"), (mailbox, "same mailbox"), (typing_error("email", 2, 0.9), "typing error")),
        ),
        ComparisonSpec("national_id", ("national_id",), code("national_id")),
    ]
    if "suburb" not in filled and "postcode" not in filled:
        found = [each for each in found if each.name != "area"]
        if "state" in filled:
            found.append(ComparisonSpec("state", ("state",), ((exact("state"), "same"),)))
    needed = {"given_name": "given_name", "surname": "surname", "street": "address"}
    return [
        each
        for each in found
        if (needed[each.name] in filled if each.name in needed else filled.intersection(each.columns))
    ]


def _mailbox() -> Any:
    from splink import ColumnExpression

    return ColumnExpression("email").regex_extract("^[^@]+")


def household_condition(specs: list[ComparisonSpec]) -> str:
    """SQL condition on the words of a pair: it may be two people of one household, however probable it is.

    Surname, address and telephone agree together in every family, and a sum of weights counts them as if they were independent. So one pair
    is not merged without a look where nothing of given name, birth date and national id agrees and one of them differs, or where the given
    name differs and no national id speaks for it (twins).

    Examples
    --------
    >>> household_condition(comparisons(frozenset({"surname", "phone"})))
    'false'
    """
    names = {each.name for each in specs}
    own = [name for name in ("given_name", "birth_date", "national_id") if name in names]
    conditions = []
    if own:
        agrees = " OR ".join(f"{name} NOT IN ('missing', 'different', 'similar', 'two typing errors')" for name in own)
        differs = " OR ".join(f"{name} = 'different'" for name in own)
        conditions.append(f"(NOT ({agrees}) AND ({differs}))")
    if "given_name" in names:
        unproven = " AND national_id = 'missing'" if "national_id" in names else ""
        conditions.append(f"(given_name = 'different'{unproven})")
    return " OR ".join(conditions) or "false"


def splink_settings(specs: list[ComparisonSpec], filled: frozenset[str], link_type: str, prior: float) -> Any:
    """The Splink settings, the same for every engine."""
    import splink.comparison_level_library as levels
    import splink.comparison_library as library
    from splink import SettingsCreator, block_on

    made: list[Any] = []
    for each in specs:
        # a name that is missing is missing, also where the other name could have been compared with it
        columns = (
            each.columns[:1]
            if each.name in ("given_name", "surname")
            else tuple(c for c in each.columns if c in filled)
        )
        absent: Any = levels.NullLevel(columns[0])
        if len(columns) > 1:
            absent = levels.And(*(levels.NullLevel(column) for column in columns)).configure(is_null_level=True)
        named = [level.configure(label_for_charts=words) for level, words in each.levels]
        rest = levels.ElseLevel().configure(label_for_charts="different")
        made.append(
            library.CustomComparison(
                [absent.configure(label_for_charts="missing"), *named, rest], output_column_name=each.name
            )
        )
    return SettingsCreator(
        link_type=link_type,  # type: ignore[arg-type]
        comparisons=made,
        blocking_rules_to_generate_predictions=[block_on("keys", arrays_to_explode=["keys"])],
        probability_two_random_records_match=prior,
        unique_id_column_name="rid",
        source_dataset_column_name="source_dataset",
        retain_matching_columns=True,
        retain_intermediate_calculation_columns=True,
        linker_uid="qianmian",
    )


def prior_match_probability(
    connection: duckdb.DuckDBPyConnection, filled: frozenset[str], between_sources: bool
) -> float:
    """How likely two random records are one person: pairs that agree on a strict rule, over all pairs and the rules' recall."""
    rules = [rule for rule in _STRICT_RULES if filled.issuperset(rule)]
    apart = "AND l.source <> r.source" if between_sources else ""
    total = _scalar(
        connection, f"SELECT {_pairs(between_sources)} FROM (SELECT source, count(*) AS n FROM cleaned GROUP BY source)"
    )
    unions = " UNION ".join(
        f"SELECT l.rid AS one, r.rid AS other FROM cleaned AS l JOIN cleaned AS r ON l.rid < r.rid {apart} AND "
        + " AND ".join(f"l.{column} = r.{column}" for column in rule)
        for rule in rules
    )
    found = _scalar(connection, f"SELECT count(*) FROM ({unions})") if unions else 0
    return float(min(max(found, 1) / RECALL_OF_STRICT_RULES / max(total, 2), 0.5))


def train(
    engine: Callable[[Any], Linker],
    connection: duckdb.DuckDBPyConnection,
    specs: list[ComparisonSpec],
    filled: frozenset[str],
    settings: Any,
    between_sources: bool,
    seed: int,
) -> tuple[Linker, list[str]]:
    """Learn the weights; the trained linker, and the names of the comparisons that stay at usual weights.

    u, the chance of agreeing by accident, is counted over random pairs. m, the chance that two records of one person agree, comes from
    expectation maximisation (Winkler 1988) over pairs that agree on other columns, once for each rule; the median is taken. A run that
    took namesakes for matches (those "matches" then differ like strangers do) teaches nothing and is left out.

    Parameters
    ----------
    engine : callable
        Splink settings → a linker over the records.
    """
    from splink import block_on

    linker = engine(settings)
    random_pairs = _scalar(
        connection, f"SELECT {_pairs(between_sources)} FROM (SELECT source, count(*) AS n FROM cleaned GROUP BY source)"
    )
    if random_pairs >= MIN_RANDOM_PAIRS:
        linker.training.estimate_u_using_random_sampling(
            max_pairs=U_PAIRS, seed=seed, min_count_per_level=None, num_chunks=1
        )
    model = linker.misc.save_model_to_json()
    if random_pairs >= MIN_RANDOM_PAIRS:
        for level in _levels(model):
            level["u_probability"] = max(level.get("u_probability", 0.0), 0.5 / min(random_pairs, U_PAIRS))
    learnt: dict[str, list[list[float]]] = {}
    for rule in _TRAINING_RULES:
        left = [each.name for each in specs if not set(each.columns) & set(rule)]
        if not filled.issuperset(rule) or not left:
            continue
        group, present = ", ".join(rule), " AND ".join(f"{column} IS NOT NULL" for column in rule)
        pairs = _scalar(
            connection,
            f"""
            SELECT coalesce(sum(pairs), 0) FROM (SELECT {_pairs(between_sources)} AS pairs FROM (
                SELECT {group}, source, count(*) AS n FROM cleaned WHERE {present} GROUP BY {group}, source) GROUP BY {group})""",
        )
        if pairs < MIN_TRAINING_PAIRS:
            continue
        trial = engine(copy.deepcopy(model))
        trial.training.estimate_parameters_using_expectation_maximisation(
            block_on(*rule), max_pairs=EM_PAIRS if pairs > EM_PAIRS else None, record_sample_proportion=1.0
        )
        found = {
            name: _m_values(comparison)
            for name, comparison in _by_name(trial.misc.save_model_to_json()).items()
            if name in left
        }
        sound = [
            name
            for name, m in found.items()
            if m[-1] < MAX_M_TO_U_RATIO * _by_name(model)[name]["comparison_levels"][-1].get("u_probability", 1)
        ]
        if 2 * len(sound) > len(found):
            for name in sound:
                learnt.setdefault(name, []).append(found[name])
    for name, values in learnt.items():
        medians = [max(statistics.median(level), MIN_M) for level in zip(*values, strict=True)]
        rated = [level for level in _by_name(model)[name]["comparison_levels"] if not level.get("is_null_level")]
        for level, m in zip(rated, medians, strict=True):
            level["m_probability"] = m / sum(medians)
    return engine(model), [each.name for each in specs if each.name not in learnt]


def _by_name(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {comparison["output_column_name"]: comparison for comparison in model["comparisons"]}


def _levels(model: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        level
        for comparison in model["comparisons"]
        for level in comparison["comparison_levels"]
        if not level.get("is_null_level")
    ]


def _m_values(comparison: dict[str, Any]) -> list[float]:
    """m of each level, most alike first; a level nobody reached has none."""
    return [
        float(level.get("m_probability", 0.0))
        for level in comparison["comparison_levels"]
        if not level.get("is_null_level")
    ]


def _pairs(between_sources: bool) -> str:
    """SQL of the number of pairs of records, from the number `n` of each source."""
    return "(sum(n) * sum(n) - sum(n * n)) // 2" if between_sources else "sum(n) * (sum(n) - 1) // 2"


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
