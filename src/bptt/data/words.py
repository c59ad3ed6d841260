"""Sentences to words and back, in any language."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

UNKNOWN = "<unk>"

# Chinese and Japanese put no spaces between words: there, each sign stands for itself.
_SIGN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_ASIAN = re.compile(f"[{_SIGN}\u3001-\u301f\uff01-\uff65]")  # with their full-width punctuation
_CLOSES = frozenset(".,;:!?)]}%»”’…।؟،؛")
_OPENS = frozenset("([{«“‘¿¡$£€")


def split_words(sentence: str) -> list[str]:
    """The words of a sentence; each punctuation mark is a word of its own, white space is none.

    Numbers (3.14), contractions (don't) and hyphened words (well-known) stay whole, and so does the `<unk>` of
    prepared corpora. Chinese and Japanese signs are one word each. Case is kept.

    >>> split_words("The cat's well-known: it sat (3.5 hours) down!")
    ['The', "cat's", 'well-known', ':', 'it', 'sat', '(', '3.5', 'hours', ')', 'down', '!']
    """
    return [match.group() for match in _pattern(sentence).finditer(sentence)]


def _pattern(sentence: str) -> re.Pattern[str]:
    # `re` has no class for combining marks, and \w leaves them out: हिन्दी would fall to pieces. Joiners (Cf) likewise.
    marks = "".join(sorted(c for c in set(sentence) if c > "\x7f" and unicodedata.category(c) in _MARKS))
    marks = re.escape(marks)
    letters = f"(?:[^\\W{_SIGN}]|[{marks}])" if marks else f"[^\\W{_SIGN}]"
    trail = f"[{marks}]*" if marks else ""
    return re.compile(
        f"{UNKNOWN}|\\d+(?:[.,]\\d+)+(?!\\w)|[{_SIGN}]{trail}|{letters}+(?:['’\\-]{letters}+)*|[^\\w\\s]{trail}"
    )


_MARKS = frozenset({"Mn", "Mc", "Me", "Cf"})


def join_words(words: Sequence[str] | Iterable[str]) -> str:
    """One string, with spaces where a reader expects them.

    >>> join_words(["Yes", ",", "(", "he", ")", "said", '"', "no", '"', "."])
    'Yes, (he) said "no".'
    """
    pieces: list[str] = []
    left, inside_quotes = "", False
    for word in words:
        closing_quote = word == '"' and inside_quotes
        glued = not left or left in _OPENS or word in _CLOSES or closing_quote or (left == '"' and inside_quotes)
        pieces.append(word if glued or _both_asian(left, word) else f" {word}")
        inside_quotes ^= word == '"'
        left = word
    return "".join(pieces)


def _both_asian(left: str, right: str) -> bool:
    return bool(_ASIAN.match(left) and _ASIAN.match(right))
