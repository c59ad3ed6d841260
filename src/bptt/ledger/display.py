"""What a notebook shows of a ledger or a diagnosis: text, and where they can be drawn, a picture and HTML.

What draws stands on a higher floor and is looked up on first use: a ledger knows no report. A cell of a notebook must
never end in a traceback because a picture failed, so whatever goes wrong there leaves the text
and a warning.
"""

import importlib
import warnings
from collections.abc import Collection
from typing import Any

DRAWERS = "bptt.report.cards"
KINDS = {"image/svg+xml": "svg", "text/html": "html"}


def mimebundle(
    shown: Any, what: str, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> dict[str, str]:
    """MIME type → content, as IPython asks for it.

    Args:
        shown: whose `repr` is the text.
        what: "ledger" or "diagnosis"; `bptt.report.cards` has a function WHAT_svg and WHAT_html for each.
        include: only these types, None for all.
        exclude: all but these.
    """
    wanted = [kind for kind in ("text/plain", *KINDS) if include is None or kind in include]
    out = {kind: _drawn(shown, what, kind) for kind in wanted if kind not in (exclude or ())}
    return {kind: content for kind, content in out.items() if content}


def _drawn(shown: Any, what: str, kind: str) -> str:
    """The content of one type; empty where it cannot be drawn."""
    if kind == "text/plain":
        return repr(shown)
    try:
        drawn = getattr(importlib.import_module(DRAWERS), f"{what}_{KINDS[kind]}")(shown)
    except Exception as error:  # noqa: BLE001 — whatever it is, the text is shown, and what went wrong is said
        warnings.warn(f"no {KINDS[kind]} of this {what}: {error!r}", RuntimeWarning, stacklevel=2)
        return ""
    return drawn if isinstance(drawn, str) else ""
