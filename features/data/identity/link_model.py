"""The model of record linkage: comparisons of two records, and weights that are learnt without labels."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from splink import Linker

U_PAIRS = 800_000  # random pairs to estimate u, the probability of agreement by chance
EM_PAIRS = 1_000_000  # pairs per run of expectation maximisation
MIN_RANDOM_PAIRS = 1_000  # among fewer pairs, matches are not rare, and Splink's default u is more accurate
MIN_TRAINING_PAIRS = 30  # with fewer pairs, the estimates of m are mostly noise
MIN_M = 0.0005  # lower bound of m: no single error may rule out a match
MAX_M_TO_U_RATIO = 0.8  # a run whose matches differ nearly as often as random pairs found no matches
RECALL_OF_STRICT_RULES = 0.8  # assumed share of the matches that agree on a strict rule
# Pairs that agree on all columns of a strict rule are almost certainly matches; their number estimates the prior.
_STRICT_RULES = (
    ("given_name", "surname", "birth_date"),
    ("given_name", "surname", "address"),
    ("national_id", "surname"),
    ("national_id", "given_name"),
    ("phone", "given_name"),
    ("email", "given_name"),
    ("birth_date", "surname", "address"),
)
# Blocking rules for expectation maximisation. A common value is combined with another one: most pairs that share only
# a name or a birth date are different people.
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


@dataclass(frozen=True)
class ComparisonSpec:
    """One comparison of two records.

    Attributes
    ----------
    name : str
        Name of the comparison.
    columns : tuple of str
        Columns it reads.
    levels : tuple of (Splink level, str)
        Levels with their labels, from most to least similar.
    """

    name: str
    columns: tuple[str, ...]
    levels: tuple[tuple[Any, str], ...]

    def label(self, level: int) -> str:
        """Label of a level number of Splink: −1 is missing, 0 is different, higher is more similar."""
        if level < 0:
            return "missing"
        return "different" if level == 0 else self.levels[len(self.levels) - level][1]


def comparisons(filled: frozenset[str]) -> list[ComparisonSpec]:
    """Comparisons that the filled columns allow.

    Street, house number and second address line are one comparison, suburb and postcode another: members of a household
    agree on all of them at once, and dependent evidence must count once.

    Examples
    --------
    >>> [spec.name for spec in comparisons(frozenset({"surname", "postcode", "phone"}))]
    ['surname', 'area', 'phone']
    """
    import splink.comparison_level_library as levels

    exact, both, either = levels.ExactMatchLevel, levels.And, levels.Or

    def typing_error(column: str, edits: int, alike: float = 0.7) -> Any:
        # Jaro–Winkler is a fast filter: a pair within so few edits always has at least this similarity
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
        column, near = ("suburb", near_suburb) if "suburb" in filled else ("postcode", near_postcode)
        area = ((exact(column), f"same {column}"), (near, f"similar {column}"))
    mailbox = levels.ExactMatchLevel(_mailbox())
    specs = [
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
        specs = [spec for spec in specs if spec.name != "area"]
        if "state" in filled:
            specs.append(ComparisonSpec("state", ("state",), ((exact("state"), "same"),)))
    required = {"given_name": "given_name", "surname": "surname", "street": "address"}
    return [
        spec
        for spec in specs
        if (required[spec.name] in filled if spec.name in required else filled.intersection(spec.columns))
    ]


def _mailbox() -> Any:
    from splink import ColumnExpression

    return ColumnExpression("email").regex_extract("^[^@]+")


def household_condition(specs: list[ComparisonSpec]) -> str:
    """SQL condition on the labels of a pair that may be two people of one household, however high its probability.

    Members of a family agree on surname, address and telephone at once, but the sum of weights treats these as
    independent. Such a pair goes to review in two cases: none of given name, birth date and national id agrees and at
    least one of them differs; or the given names differ and no national id is available (twins).

    Examples
    --------
    >>> household_condition(comparisons(frozenset({"surname", "phone"})))
    'false'
    """
    names = {spec.name for spec in specs}
    personal = [name for name in ("given_name", "birth_date", "national_id") if name in names]
    conditions = []
    if personal:
        weak = "'missing', 'different', 'similar', 'two typing errors'"
        agrees = " OR ".join(f"{name} NOT IN ({weak})" for name in personal)
        differs = " OR ".join(f"{name} = 'different'" for name in personal)
        conditions.append(f"(NOT ({agrees}) AND ({differs}))")
    if "given_name" in names:
        unproven = " AND national_id = 'missing'" if "national_id" in names else ""
        conditions.append(f"(given_name = 'different'{unproven})")
    return " OR ".join(conditions) or "false"


def splink_settings(specs: list[ComparisonSpec], filled: frozenset[str], link_type: str, prior: float) -> Any:
    """Splink settings, the same for every engine; `prior` is the match probability of two random records."""
    import splink.comparison_level_library as levels
    import splink.comparison_library as library
    from splink import SettingsCreator, block_on

    splink_comparisons: list[Any] = []
    for spec in specs:
        # a missing name counts as missing, even if the other name could be compared with it (swapped names)
        if spec.name in ("given_name", "surname"):
            columns = spec.columns[:1]
        else:
            columns = tuple(column for column in spec.columns if column in filled)
        missing: Any = levels.NullLevel(columns[0])
        if len(columns) > 1:
            missing = levels.And(*(levels.NullLevel(column) for column in columns)).configure(is_null_level=True)
        labelled_levels = [level.configure(label_for_charts=label) for level, label in spec.levels]
        different = levels.ElseLevel().configure(label_for_charts="different")
        splink_comparisons.append(
            library.CustomComparison(
                [missing.configure(label_for_charts="missing"), *labelled_levels, different],
                output_column_name=spec.name,
            )
        )
    return SettingsCreator(
        link_type=link_type,  # type: ignore[arg-type]
        comparisons=splink_comparisons,
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
    """Probability that two random records are one person.

    It is the number of pairs that agree on a strict rule, divided by the assumed recall of these rules and by the
    number of all pairs.
    """
    rules = [rule for rule in _STRICT_RULES if filled.issuperset(rule)]
    apart = "AND l.source <> r.source" if between_sources else ""
    total = _scalar(connection, _all_pairs(between_sources))
    unions = " UNION ".join(
        f"SELECT l.rid AS one, r.rid AS other FROM cleaned AS l JOIN cleaned AS r ON l.rid < r.rid {apart} AND "
        + " AND ".join(f"l.{column} = r.{column}" for column in rule)
        for rule in rules
    )
    matches = _scalar(connection, f"SELECT count(*) FROM ({unions})") if unions else 0
    return float(min(max(matches, 1) / RECALL_OF_STRICT_RULES / max(total, 2), 0.5))


def train(
    engine: Callable[[Any], Linker],
    connection: duckdb.DuckDBPyConnection,
    specs: list[ComparisonSpec],
    filled: frozenset[str],
    settings: Any,
    between_sources: bool,
    seed: int,
) -> tuple[Linker, list[str]]:
    """Estimate the weights without labels.

    u, the probability that two different people agree, is estimated from random pairs. m, the probability that two
    records of one person agree, is estimated by expectation maximisation (Winkler 1988) over pairs that agree on other
    columns, once per training rule; the median is taken. A run whose estimated matches differ as often as random pairs
    do is discarded: it took people of the same name for matches.

    Parameters
    ----------
    engine : callable
        Splink settings → linker over the records.
    connection : DuckDBPyConnection
        Connection with the table `cleaned`.
    specs : list of ComparisonSpec
        Comparisons of the model.
    filled : frozenset of str
        Columns with at least one value.
    settings : SettingsCreator
        Settings of `splink_settings`.
    between_sources : bool
        Whether only records of different sources are compared.
    seed : int
        Seed of the random pairs.

    Returns
    -------
    linker : Linker
        Trained linker.
    untrained : list of str
        Comparisons that keep Splink's default weights.
    """
    from splink import block_on

    linker = engine(settings)
    random_pairs = _scalar(connection, _all_pairs(between_sources))
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
        trainable = [spec.name for spec in specs if not set(spec.columns) & set(rule)]
        if not filled.issuperset(rule) or not trainable:
            continue
        group, present = ", ".join(rule), " AND ".join(f"{column} IS NOT NULL" for column in rule)
        pairs = _scalar(
            connection,
            f"""
            SELECT coalesce(sum(pairs), 0) FROM (SELECT {_pairs(between_sources)} AS pairs FROM (
                SELECT {group}, source, count(*) AS n FROM cleaned WHERE {present} GROUP BY {group}, source)
            GROUP BY {group})""",
        )
        if pairs < MIN_TRAINING_PAIRS:
            continue
        trial = engine(copy.deepcopy(model))
        trial.training.estimate_parameters_using_expectation_maximisation(
            block_on(*rule), max_pairs=EM_PAIRS if pairs > EM_PAIRS else None, record_sample_proportion=1.0
        )
        estimates = {
            name: _m_values(comparison)
            for name, comparison in _by_name(trial.misc.save_model_to_json()).items()
            if name in trainable
        }
        plausible = [
            name
            for name, m in estimates.items()
            if m[-1] < MAX_M_TO_U_RATIO * _by_name(model)[name]["comparison_levels"][-1].get("u_probability", 1)
        ]
        if 2 * len(plausible) > len(estimates):
            for name in plausible:
                learnt.setdefault(name, []).append(estimates[name])
    for name, values in learnt.items():
        medians = [max(statistics.median(level), MIN_M) for level in zip(*values, strict=True)]
        rated = [level for level in _by_name(model)[name]["comparison_levels"] if not level.get("is_null_level")]
        for level, m in zip(rated, medians, strict=True):
            level["m_probability"] = m / sum(medians)
    return engine(model), [spec.name for spec in specs if spec.name not in learnt]


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
    """m of each level, the most similar first; 0 for a level that no pair reached."""
    return [
        float(level.get("m_probability", 0.0))
        for level in comparison["comparison_levels"]
        if not level.get("is_null_level")
    ]


def _pairs(between_sources: bool) -> str:
    """SQL of the number of pairs of records, from the number `n` of records per source."""
    return "(sum(n) * sum(n) - sum(n * n)) // 2" if between_sources else "sum(n) * (sum(n) - 1) // 2"


def _all_pairs(between_sources: bool) -> str:
    """SELECT of the number of all pairs of records in `cleaned`."""
    return f"SELECT {_pairs(between_sources)} FROM (SELECT source, count(*) AS n FROM cleaned GROUP BY source)"


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
