"""HTML that is escaped by construction: a text becomes markup only through `element`."""

from __future__ import annotations

from html import escape

VOID = frozenset(("meta", "line", "rect", "circle", "path", "polyline", "col"))  # elements without children


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: object) -> Markup:
    """An HTML or SVG element.

    Parameters
    ----------
    name : str
        Name of the element.
    *children : str
        Its content; what is no `Markup` is escaped.
    **attributes : object
        Attributes, escaped. ``class_`` is ``class``, and other underscores are hyphens; None and False leave one out,
        True gives it no value.

    Examples
    --------
    >>> element("td", "<b>", class_="name", data_value=1)
    '<td class="name" data-value="1">&lt;b&gt;</td>'
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{written}/>" if name not in ("meta", "col") else f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*parts: str) -> Markup:
    """Parts after one another, escaped where they are no markup."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))
