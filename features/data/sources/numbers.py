r"""SQL of numbers as people write them: decimal comma, thousands separators, currency signs, accounting negatives.

A text such as ``1.250`` is 1,250 or 1.25, depending on the decimal separator of its column. The whole column decides;
a column that gives no answer is refused (`features.data.ingest.number_columns`).
"""

from __future__ import annotations

from features.data.lake import literal, quote
from features.data.sources.cells import value_text
from features.data.sources.currencies import CURRENCY_TOKEN

# full-width digits and signs, other minus signs (triangles in Japan), typographic apostrophes, and what they become
_FROM, _TO = "０１２３４５６７８９．，＋－−–—△▲（）’＇", "0123456789.,+------()''"
_BLANK = r"[\s\x{00A0}\x{2007}\x{2009}\x{202F}\x{3000}]"
_GROUP_MARK = f"'|{_BLANK}"
_GROUPED_BY_BLANK = rf"[+-]?[0-9]{{1,3}}(({_GROUP_MARK})[0-9]{{3}})+([.,][0-9]*)?"


def _forms(decimal: str, thousands: str) -> str:
    """Pattern of all numbers with this decimal separator; groups of two digits are Indian (``1,00,000.00``)."""
    return rf"[+-]?([1-9][0-9]{{0,2}}({thousands}[0-9]{{2,3}})*{thousands}[0-9]{{3}}|[0-9]+)?({decimal}[0-9]*)?"


def _certain_forms(decimal: str, thousands: str) -> str:
    """Pattern of the numbers that cannot be read with the other separator as the decimal one."""
    decimals = rf"([0-9]*{decimal}([0-9]{{1,2}}|[0-9]{{4,}})|(0[0-9]*|[0-9]{{4,}})?{decimal}[0-9]{{3}}|[0-9]+{decimal})"
    grouped = rf"[1-9][0-9]{{0,2}}({thousands}[0-9]{{2,3}})*{thousands}[0-9]{{3}}"
    return rf"[+-]?({decimals}|{grouped}{decimal}[0-9]*|{grouped.replace('*', '+')})"


POINT_FORMS, COMMA_FORMS = _forms(r"\.", ","), _forms(",", r"\.")
POINT_ONLY, COMMA_ONLY = _certain_forms(r"\.", ","), _certain_forms(",", r"\.")
EITHER = r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}"


def decimal_variable(column: str) -> str:
    """Name of the variable with the decimal separator of a text column that an expression casts to a number."""
    return f"decimal separator of {column}"


def plain_number(text: str) -> str:
    """SQL of the digits and separators of a number: without currency and blanks, the sign in front.

    Examples
    --------
    >>> import duckdb
    >>> cells = ("€ 12,50", "1 250,00", "(12.50)", "△1,250", "12.50-", "12,-", "￥１２", "1'250.–", "12 pieces")
    >>> [duckdb.execute(f"SELECT {plain_number('v')} FROM (SELECT ? AS v)", [cell]).fetchone()[0] for cell in cells]
    ['12,50', '1250,00', '-12.50', '-1,250', '-12.50', '12,00', '12', '1250.00', '12 pieces']
    """
    plain = f"translate({text}, {literal(_FROM)}, {literal(_TO)})"
    plain = f"regexp_replace({plain}, {literal(f'{_BLANK}*{CURRENCY_TOKEN}{_BLANK}*')}, '')"
    plain = rf"regexp_replace({plain}, '([0-9][.,])-{{1,2}}$', '\100')"  # "12,-" and "9.--" are prices without cents
    plain = rf"regexp_replace({plain}, '^\((.*)\)$', '-\1')"
    plain = rf"regexp_replace({plain}, {literal(f'^(.*[0-9.,]){_BLANK}*-$')}, '-\1')"
    plain = rf"regexp_replace({plain}, {literal(f'^([+-]){_BLANK}+')}, '\1')"
    ungrouped = (
        f"CASE WHEN regexp_full_match(g, {literal(_GROUPED_BY_BLANK)}) "
        f"THEN regexp_replace(g, {literal(_GROUP_MARK)}, '', 'g') ELSE g END"
    )
    # a lambda, because DuckDB computes what occurs twice in a query for all rows, also where no row needs it
    return f"list_transform([{plain}], lambda g: {ungrouped})[1]"


def number(text: str, decimal: str) -> str:
    """SQL of the number that `text` means, DOUBLE; null if it is none.

    Parameters
    ----------
    text : str
        SQL of the text without outer blanks.
    decimal : str
        SQL of the decimal separator, ``'.'`` or ``','``; null counts as ``'.'``.

    Examples
    --------
    >>> import duckdb
    >>> cells = ("1.250,00", "1.250", "12,5", "12.50", "-3", "1e3")
    >>> def read(decimal):
    ...     return [duckdb.execute(f"SELECT {number('v', decimal)} FROM (SELECT ? AS v)", [cell]).fetchone()[0]
    ...             for cell in cells]
    >>> read("','")
    [1250.0, 1250.0, 12.5, None, -3.0, 1000.0]
    >>> read("'.'")
    [None, 1.25, None, 12.5, -3.0, 1000.0]
    """
    as_is = f"CASE WHEN {decimal} IS DISTINCT FROM ',' OR NOT contains({text}, '.') THEN TRY_CAST({text} AS DOUBLE) END"
    read = (
        "CASE WHEN NOT regexp_matches(n, '[0-9]') THEN NULL "
        f"WHEN {decimal} = ',' THEN CASE WHEN regexp_full_match(n, {literal(COMMA_FORMS)}) "
        "THEN TRY_CAST(replace(replace(n, '.', ''), ',', '.') AS DOUBLE) END "
        f"WHEN regexp_full_match(n, {literal(POINT_FORMS)}) THEN TRY_CAST(replace(n, ',', '') AS DOUBLE) END"
    )
    # the cast reads nearly all cells and is cheap
    return f"coalesce({as_is}, list_transform([{plain_number(text)}], lambda n: {read})[1])"


def number_cell(column: str) -> str:
    """SQL of the number in a text column that an expression uses as a number (`Quantity * UnitPrice`).

    Parameters
    ----------
    column : str
        Name of the column; its decimal separator is the variable `decimal_variable`.
    """
    cell = quote(column)
    as_is = f"TRY_CAST(trim({cell}) AS DOUBLE)"
    decimal = f"getvariable({literal(decimal_variable(column))})"
    usual = f"CASE WHEN {decimal} IS DISTINCT FROM ',' AND isfinite({as_is}) THEN {as_is} END"
    return f"coalesce({usual}, list_transform([{value_text(cell)}], lambda v: {number('v', decimal)})[1])"
