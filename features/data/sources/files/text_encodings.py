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
    """A likely encoding of text that is not valid UTF-8, as one writes it in `encoding:`; None if there is none.

    Chinese text has pairs of high bytes, most of them in the range of frequent characters; Western European text has
    single high bytes between ASCII letters. Other languages with an 8-bit encoding cannot be told apart.

    Examples
    --------
    >>> [guess_encoding(text.encode(name)) for text, name in
    ...  (("订单号,客户", "gbk"), ("訂單編號,客戶", "big5"), ("café, 5€", "cp1252"), ("o1,c1", "utf-16-le"))]
    ['gb18030', 'big5', 'windows-1252', 'utf-16-le']
    """
    zeros = data.count(b"\0")
    if zeros > len(data) // 4:  # every second byte of an ASCII character
        return "utf-16-le" if data[1::2].count(b"\0") >= zeros / 2 else "utf-16-be"
    runs = _HIGH_RUN.findall(data)
    if not runs:
        return None
    if sum(len(run) == 1 for run in runs) * 2 > len(runs) and not _decodes_pairs(data, "big5", runs):
        return "windows-1252"
    best, score = None, 0.5
    # share of the characters whose first byte is that of the frequent characters
    for name, first, last in (("gb18030", 0xB0, 0xD7), ("big5", 0xA4, 0xC6)):
        share = _frequent_share(data, name, first, last)
        if share > score:
            best, score = name, share
    return best


def _decodes_pairs(data: bytes, encoding: str, runs: list[bytes]) -> bool:
    """Whether single high bytes are the first bytes of characters of `encoding` with an ASCII second byte."""
    return len(runs) > 2 and _frequent_share(data, encoding, 0xA4, 0xC6) > 0.8


def _frequent_share(data: bytes, encoding: str, first: int, last: int) -> float:
    text = data.decode(encoding, errors="replace")
    high = [char for char in text if ord(char) > 127]
    if not high or text.count("\ufffd") * 20 > len(high):
        return 0.0
    codes = [char.encode(encoding, errors="replace") for char in high if char != "\ufffd"]
    return sum(len(code) == 2 and first <= code[0] <= last for code in codes) / len(high)
