"""Text encodings of CSV files: the declared one, the one that a byte order mark names, and a guess from the bytes."""

from __future__ import annotations

import codecs
import re

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16, so it is compared first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Programs that take the mark for text write it again: doubled, cut, or as the characters ï»¿.
_REPEATED_BOM = re.compile(rb"(?:\xbb\xbf)?(?:\xef\xbb\xbf|\xc3\xaf\xc2\xbb\xc2\xbf)+")
# Programs write the larger encoding and name the smaller one.
_LARGER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "ascii": "utf-8"}
_PLAIN = "\n\r\"',;|\t azAZ09"
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
# first bytes of the frequent characters; on a tie the first counts, as Korean text is a subset of the Chinese range
_FREQUENT_LEADS = {"euc_kr": (0xB0, 0xC8), "gb18030": (0xB0, 0xD7), "big5": (0xA4, 0xC6), "shift_jis": (0x81, 0x98)}
_FREQUENT_SYLLABLES = (
    "이다는가의을를에서고하지한로인기도사자리시대일수나주문번호회원상품코드량결제금액명날짜구매고객주소"
)
_ASCII_TRAILS = ("big5", "shift_jis")  # the second byte of a pair may be ASCII
# encoding → the letters beyond ASCII of each language that is written in it
_ALPHABETS: dict[str, tuple[str, ...]] = {
    "windows-1252": (
        *("äöüß", "àâæçéèêëîïôœùûüÿ", "áéíñóúüç", "ãõáâàçéêíóôúü", "àèéìíòóù", "åäöæøéü", "éèëïóöüáíê", "áðéíóúýþæö"),
    ),
    "windows-1250": (*("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíľňóôšťúýž", "áéíóöőúüű", "ăâîşţșț", "čćđšž", "äöüßéèà"),),
    "windows-1251": ("абвгдеёжзийклмнопрстуфхцчшщъыьэюя", "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя"),
}
_LETTER = r"[^\W\d_]"
_SIGN_IN_WORD = re.compile(
    rf"(?<={_LETTER})[^\w\s\x00-\x7f’‘“”–—…´`•·](?={_LETTER})|[a-zA-Z][а-яёіїєґ]|[а-яёіїєґ][a-zA-Z]|(?<={_LETTER})[³¹¿¡¯¶¾]|[³¹¾¶¯](?={_LETTER})"
)
_C1 = bytes(range(0x80, 0xA0))
_NOT_C1 = bytes(set(range(256)) - set(_C1))


def codec_name(name: str) -> str:
    """Python's name of an encoding; the smaller ones of a family give the one that contains them.

    Raises
    ------
    ValueError
        There is no text encoding of this name.

    Examples
    --------
    >>> codec_name("Windows-1252"), codec_name("GBK"), codec_name("UTF8")
    ('cp1252', 'gb18030', 'utf-8')
    """
    try:
        found = codecs.lookup(name).name
        "".encode(found)  # codecs such as base64 are no text encodings
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no text encoding; for example utf-8, utf-16, gb18030, big5, shift_jis, windows-1252"
        ) from error
    return "utf-8" if found == "utf-8-sig" else _LARGER.get(found, found)


def bom_of(head: bytes) -> tuple[bytes, str | None]:
    """The byte order mark at the beginning of a file and the encoding it names; (b"", None) without one.

    Examples
    --------
    >>> bom_of("\ufeff\ufefforder".encode()), bom_of(b"order")
    ((b'\xef\xbb\xbf\xef\xbb\xbf', 'utf-8'), (b'', None))
    """
    repeated = _REPEATED_BOM.match(head)
    if repeated:
        return repeated[0], "utf-8"
    return next(((mark, name) for mark, name in BOMS if head.startswith(mark)), (b"", None))


def ends_lines_as_ascii(encoding: str) -> bool:
    """Whether line ends, quotes and delimiters have the bytes of ASCII, so that the bytes can be cut there."""
    return _PLAIN.encode(encoding) == _PLAIN.encode("ascii")


def c1_controls(data: bytes) -> int:
    """Number of bytes that are C1 control characters in Latin-1; text has none, but Windows puts €, ’ and – there."""
    return len(data.translate(None, _NOT_C1))


def guess_encoding(data: bytes) -> str | None:
    """The most likely encoding of text that is not valid UTF-8; None if there is none.

    Examples
    --------
    >>> [guess_encoding(text.encode(name)) for text, name in
    ...  (("订单号,客户", "gbk"), ("訂單編號,客戶", "big5"), ("café, 5€", "cp1252"), ("o1,c1", "utf-16-le"))]
    ['gb18030', 'big5', 'windows-1252', 'utf-16-le']
    """
    return next(iter(likely_encodings(data)), None)


def likely_encodings(data: bytes) -> list[str]:
    """Encodings that text which is not valid UTF-8 may have, as one writes them in `encoding:`; the likeliest first.

    Several are given where the bytes are text in more than one language.

    Examples
    --------
    >>> [likely_encodings(text.encode(name)) for text, name in
    ...  (("注文番号,ステータス", "cp932"), ("주문번호,회원", "euc_kr"), ("Zamówienie;Ilość;S-ł", "cp1250"),
    ...   ("Заказ;Клиент", "cp1251"), ("crème", "cp1252"))]
    [['shift_jis'], ['euc_kr'], ['windows-1250'], ['windows-1251'], ['windows-1252', 'windows-1250']]
    """
    zeros = data.count(b"\0")
    if zeros > len(data) // 4:  # every second byte of an ASCII character
        return ["utf-16-le" if data[1::2].count(b"\0") >= zeros / 2 else "utf-16-be"]
    runs = _HIGH_RUN.findall(data)
    if not runs:
        return []
    shares = {name: _frequent_share(data, name, leads) for name, leads in _FREQUENT_LEADS.items()}
    mostly_single = sum(len(run) == 1 for run in runs) * 2 > len(runs)
    if mostly_single:  # letters between ASCII letters, unless they are the first bytes of pairs
        name = max(_ASCII_TRAILS, key=lambda name: shares[name])
        return [name] if len(runs) > 2 and shares[name] > 0.8 else _eight_bit(data) or ["windows-1252"]
    high = b"".join(runs)
    if sum(byte >= 0xE0 for byte in high) > 0.6 * len(high):  # small Cyrillic letters; in pairs these bytes are rare
        return _eight_bit(data) or ["windows-1251"]
    best = max(shares, key=lambda name: shares[name])
    if shares[best] <= 0.5:
        return _eight_bit(data)
    if best == "euc_kr" and shares["gb18030"] == shares[best]:  # each of the bytes is frequent in Chinese as well
        text = data.decode(codec_name(best), errors="replace")
        syllables = sum(char in _FREQUENT_SYLLABLES for char in text)
        pairs = sum(ord(char) > 127 for char in text)
        if syllables > 0.3 * pairs:
            return ["euc_kr"]
        # twenty Chinese characters in a row are hardly all in the smaller range
        return ["euc_kr", "gb18030"] if pairs >= 20 else ["gb18030", "euc_kr"] if syllables else ["gb18030"]
    return [best]


def _eight_bit(data: bytes) -> list[str]:
    """The 8-bit encodings in which the letters beyond ASCII are those of one language."""
    found: dict[str, str] = {}
    for name, alphabets in _ALPHABETS.items():
        text = data.decode(codec_name(name), errors="replace")
        letters = [char for char in text.casefold() if ord(char) > 127 and char.isalpha() and char not in "ªºµ"]
        # a sign within a word, such as £ in `P£atno`, is a letter of another encoding
        strange = len(_SIGN_IN_WORD.findall(text.lower())) + text.count("\ufffd")
        fits = any(sum(char in alphabet for char in letters) >= 0.95 * len(letters) for alphabet in alphabets)
        if strange * 20 <= len(letters) and fits and text not in found.values():
            found[name] = text
    return list(found)


def _frequent_share(data: bytes, encoding: str, leads: tuple[int, int]) -> float:
    """Share of the characters beyond ASCII whose first byte is that of the frequent characters of the encoding."""
    text = data.decode(codec_name(encoding), errors="replace")
    high = [char for char in text if ord(char) > 127]
    if not high or text.count("\ufffd") * 20 > len(high):
        return 0.0
    codes = [char.encode(codec_name(encoding), errors="replace") for char in high if char != "\ufffd"]
    return sum(len(code) == 2 and leads[0] <= code[0] <= leads[1] for code in codes) / len(high)
