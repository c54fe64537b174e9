"""Words, numbers and addresses that stand where an id should be: they mean "no value" and never link two records."""

from __future__ import annotations

from features.data.lake import literal
from features.data.sources.cells import ERROR_PATTERN, INVISIBLE, NULL_WORDS, enclosed, trimmed

PLACEHOLDER_WORDS = (
    *("undefined", "unknown", "unknown?", "missing", "empty", "not available", "not set", "not known", "not given"),
    *("-", "--", "---", "?", "??", ".", "...", "/", "_", "n.a.", "k.a.", "n.d.", "s.d.", "n.n.", "s/n", "s/d", "tbd"),
    *("keine angabe", "keine", "keiner", "unbekannt", "inconnu", "aucun", "desconocido", "ninguno", "sin datos"),
    *("sconosciuto", "nessuno", "desconhecido", "nenhum", "onbekend", "geen", "ingen", "brak", "yok", "нет"),
    *("00000000-0000-0000-0000-000000000000", "无", "無", "空", "空值", "未知", "暂无", "暫無", "不详", "没有", "缺失"),
    *("なし", "不明", "없음"),
)
# "null null" comes from an expression that joins two empty names; '""' is a quoted empty text.
_NO_VALUE = (
    rf"{enclosed(NULL_WORDS)}(?:[ ,;_-]+{enclosed(NULL_WORDS)})*|{enclosed(PLACEHOLDER_WORDS)}|{ERROR_PATTERN}|[\"'`]+"
)
# In a customer id, zero and -1 are what shops write for a guest.
CUSTOMER_PATTERN = r"[-+]?0+(?:[.,]0+)?|-1(?:[.,]0+)?|-9{2,}|x{3,}"
# "1.38001E+10", "1,38001E+10", "1.38E10"; not "12E5" or "6E10", which may be article numbers
SCIENTIFIC_PATTERN = r"[+-]?[0-9]+([.,][0-9]+)?[eE]\+[0-9]{1,3}|[+-]?[0-9][.,][0-9]+[eE][0-9]{1,3}"
# E-mail addresses that belong to no person: a mailbox that says so, or a name and a domain that are both made up.
_NO_MAILBOX = (
    r"(none|null|invalid|test|dummy|fake|guest|gast|nobody|noone|unknown|undefined|anonymous|n/a|keine|nein|"
    r"no[-_.]?reply|do[-_.]?not[-_.]?reply|"
    r"(no|not|kein|keine|ohne|sin|sans|senza|sem|geen|bez|without)[-_.]?(e[-_.]?)?(mail|correo|courriel))[0-9]*"
    r"([+][^@]*)?"
)
_MADE_UP = (
    r"(test|tester|e?mail|e-mail|user|name|your[-_.]?(name|e?mail)|customer|sample|demo|foo|example|abcd?|xx+|aa+|asdf?|"
    r"no|na|nil|nan|n/a|[a-z0-9])[0-9]*"
)
_NO_DOMAIN = (
    r"(none|noe?mail|no-email|null|invalid|localhost|test|sample|example|(your)?domain|email|na|no|foo|bar|abcd?|xx+|aa+|"
    r"asdf?|[a-z0-9])"
)
EMAIL_PLACEHOLDER_PATTERN = (
    rf"{_NO_MAILBOX}@.*|{_MADE_UP}@{_NO_DOMAIN}(\.[a-z.]+)?|.*@(none|noe?mail|no-email|null|invalid|localhost)(\.[a-z]+)?"
    r"|.*@(.*\.)?(invalid|test|localhost)"
)
# Customer ids that tills and shop systems give to all who do not say who they are: "Guest", "walk-in customer".
# They are in lower case and without accents, as the texts are that are compared with them ("ゲスト").
_GUESTS = (
    *("guest", "gast", "gaest", "gjest", "vieras", "invite", "invitado", "ospite", "convidado", "misafir", "gosc"),
    *("vendeg", "visitor", "visitante", "visiteur", "besucher", "passant", "anonymous", "anonym", "anonyme", "anonimo"),
    *("anonimowy", "walk ?in", "cash sale", "cash", "barverkauf", "laufkunde", "laufkundschaft", "kassenkunde"),
    *("client (de )?passage", "client comptoir", "consumidor final", "cliente final", "publico (en )?general"),
    *("cliente generico", "unregistered", "not registered", "nicht registriert", "non inscrit", "default", "dummy"),
    *("гость", "аноним", "покупатель", "游客", "遊客", "散客", "访客", "訪客", "过客", "匿名", "匿名用户", "零散客户"),
    *("非会员", "非會員", "ケスト", "非会員", "匿名希望", "비회원", "게스트", "손님"),
)
_KINDS = "customer|client|cliente|kunde|user|account|konto|member|buyer|checkout|shopper|order|用户|顾客|客户"
GUEST_PATTERN = rf"((web|online|pos|shop|store|default)[ ]?)?({'|'.join(_GUESTS)})[ ]?({_KINDS})?|({_KINDS})[ ]?guest"
REPEATED_DIGIT_DOMAINS = ("phone", "phone_verified", "card")
MIN_FILLER_DIGITS = 7
_RUNS = ("012345678901234567890", "987654321098765432109")


def is_placeholder(name: str, text: str, blank: bool = False) -> str:
    """SQL condition: the id `text` of column `name` is a word for "no value", or with `blank` has no character.

    Examples
    --------
    >>> import duckdb
    >>> texts = ("[NULL]", "#NAME?", "无", "000", "1", "11", "123.0")
    >>> condition = is_placeholder("source_user_id", "v")
    >>> [duckdb.execute(f"SELECT {condition} FROM (SELECT ? AS v)", [text]).fetchone()[0] for text in texts]
    [True, True, True, True, False, False, False]
    """
    pattern = _NO_VALUE + (f"|{CUSTOMER_PATTERN}" if name == "source_user_id" else "")
    # a pattern, because DuckDB joins the rows with a list of so many words, also where no row needs it
    whole = rf"(?i){INVISIBLE}*(?:{pattern}){'?' if blank else ''}{INVISIBLE}*"
    return f"regexp_full_match({text}, {literal(whole)})"


def is_guest(text: str) -> str:
    """SQL condition: the customer id `text` is a word for people whom the system does not know.

    Examples
    --------
    >>> import duckdb
    >>> texts = ("GUEST", "Walk-in_Customer", "invité", "散客", "guest0412", "Gaston")
    >>> [duckdb.execute(f"SELECT {is_guest('v')} FROM (SELECT ? AS v)", [text]).fetchone()[0] for text in texts]
    [True, True, True, True, False, False]
    """
    words = f"trim(regexp_replace(lower(strip_accents({trimmed(text)})), '[ _.()\\[\\]<>-]+', ' ', 'g'))"
    return f"regexp_full_match({words}, {literal(GUEST_PATTERN)})"


def is_scientific(text: str) -> str:
    """SQL condition: `text` is a number in scientific notation."""
    # cheap conditions first: it begins with a blank, a sign or a digit, and has an E
    return (
        f"CASE WHEN {text} >= ':' AND {text} < '~' THEN false WHEN contains({text}, 'E') OR contains({text}, 'e') "
        f"THEN regexp_full_match(trim({text}), {literal(SCIENTIFIC_PATTERN)}) ELSE false END"
    )


def is_empty_identifier(id_type: str, text: str) -> str:
    """SQL condition: the identifier `text` is a value that many people have: a placeholder of its type.

    Parameters
    ----------
    id_type, text : str
        SQL of the normalised id type, and of the value.
    """
    domains = ", ".join(literal(domain) for domain in REPEATED_DIGIT_DOMAINS)
    return (
        f"{is_placeholder('id_value', text)} OR {is_scientific(text)} OR "
        f"CASE WHEN contains({text}, '@') THEN {_is_placeholder_mailbox(text)} "
        f"WHEN {id_type} IN ({domains}) AND NOT regexp_matches({text}, '[[:alpha:]]') "
        f"THEN {_is_filler_number(id_type, text)} ELSE false END"
    )


def _is_placeholder_mailbox(text: str) -> str:
    """SQL condition: an e-mail address of no person; ``1@1.com`` and ``guest2@guest.de`` repeat the name as domain."""
    # regular expressions are outside of the lambda, which would compile them for every chunk of rows
    words = f"regexp_full_match(lower(trim({text})), {literal(EMAIL_PLACEHOLDER_PATTERN)})"
    label = "split_part(split_part(m, '@', 2), '.', 1)"
    names = "(split_part(m, '@', 1), rtrim(split_part(split_part(m, '@', 1), '+', 1), '0123456789'))"
    # the first comparison is cheap and nearly always false
    repeats = f"CASE WHEN substr(m, strpos(m, '@') + 1, 1) = left(m, 1) THEN {label} IN {names} ELSE false END"
    return f"{words} OR list_transform([lower(trim({text}))], lambda m: {repeats})[1]"


def _is_filler_number(id_type: str, text: str) -> str:
    """SQL condition: a telephone or card number of equal or consecutive digits, as people type to fill a field."""
    # a card number is equal digits; a telephone number ends with them, also after a calling code: "+49 0000000"
    end = f"{id_type} <> 'card' AND (length(d) <= 10 OR replace(right(d, 8), right(d, 1), '') = '')"
    equal = f"replace(d, left(d, 1), '') = '' OR {end}"
    # with a calling code of up to three digits, the number is what follows it
    starts = f"[1, 2, 3, 4][1:CASE WHEN starts_with(ltrim({text}), '+') THEN 4 ELSE 1 END]"
    consecutive = " OR ".join(f"contains({literal(run)}, substr(d, s))" for run in _RUNS)
    long = f"length(d) - s >= {MIN_FILLER_DIGITS - 1}"
    run = f"list_bool_or(list_transform({starts}, lambda s: {long} AND ({consecutive})))"
    last = f"right(d, {MIN_FILLER_DIGITS})"
    condition = (
        f"CASE WHEN length(d) < {MIN_FILLER_DIGITS} THEN false WHEN replace({last}, right(d, 1), '') = '' THEN {equal} "
        f"WHEN {' OR '.join(f'contains({literal(run)}, {last})' for run in _RUNS)} THEN {run} ELSE false END"
    )
    return f"list_transform([regexp_replace({text}, '[^0-9]', '', 'g')], lambda d: {condition})[1]"
