"""Elements of HTML and SVG as text. What is not `Markup` is escaped, whoever it comes from."""

import re
from html import escape

_NAMES = {"cls": "class", "for_": "for"}
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # no document may hold them


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """What stands for itself: escaped, unless it is markup.

    >>> text("a < b"), text(Markup("<b>a</b>"))
    ('a &lt; b', '<b>a</b>')
    """
    return value if isinstance(value, Markup) else Markup(escape(_UNSEEN.sub("\ufffd", str(value))))


def join(*parts: object) -> Markup:
    """Parts one after the other; None is nothing."""
    return Markup("".join(text(part) for part in parts if part is not None))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element. An attribute that is None is left out; `_` in its name is written `-`, and cls is class.

    >>> tag("a", "x & y", href="#z", cls="quiet")
    '<a href="#z" class="quiet">x &amp; y</a>'
    >>> tag("rect", width=3)
    '<rect width="3"/>'
    """
    shown = {_NAMES.get(key, key.replace("_", "-")): value for key, value in attributes.items() if value is not None}
    given = "".join(f' {key}="{text(value)}"' for key, value in shown.items())
    if not children:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{join(*children)}</{name}>")
