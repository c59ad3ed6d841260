"""Text as a sequence of ids, by character or by word."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from bptt.data.counts import whole
from bptt.data.files import read_utf8, shown
from bptt.data.words import UNKNOWN, join_words, split_words
from bptt.errors import DataError, FileError, unknown
from bptt.typing import Array

Unit = Literal["char", "word"]


@dataclass(frozen=True, eq=False, repr=False)
class Text:
    """A document as ids into its vocabulary.

    name: where it came from.
    unit: "char" or "word": what one id stands for.
    vocabulary: the units, by id. Characters in code point order; words by falling frequency, then alphabetically.
        "<unk>" is at 0 when `max_vocabulary` cut some away, or when the words of the document contain it.
    ids: (N,) int32.

    >>> text = Text.from_string("hello")
    >>> text.vocabulary, text.ids.tolist(), text.decode(text.ids)
    (('e', 'h', 'l', 'o'), [1, 0, 2, 2, 3], 'hello')
    """

    name: str
    unit: Unit
    vocabulary: tuple[str, ...]
    ids: Array

    @classmethod
    def from_string(
        cls, document: str, *, name: str = "text", unit: Unit = "char", max_vocabulary: int | None = None
    ) -> "Text":
        """The ids and the vocabulary of `document`; see `read_text` for the arguments and errors.

        >>> Text.from_string("no, no, yes", unit="word", max_vocabulary=2).vocabulary
        ('<unk>', ',')
        """
        _check(unit, max_vocabulary)
        words = split_words(document) if unit == "word" else None
        counts = _count_characters(document) if words is None else Counter(words)
        _check_learnable(f"text {name!r}", unit, counts)
        empty = cls(name, unit, _vocabulary(counts, unit, max_vocabulary), np.empty(0, np.int32))
        ids = empty._encode_characters(document) if words is None else empty._encode_words(words)
        return cls(name, unit, empty.vocabulary, ids)

    def encode(self, document: str) -> Array:
        """(N,) int32 ids of any string. DataError names the first unit not in the vocabulary, unless it has "<unk>".

        >>> Text.from_string("hello").encode("hole").tolist()
        [1, 3, 2, 0]
        """
        return self._encode_words(split_words(document)) if self.unit == "word" else self._encode_characters(document)

    def decode(self, ids: Iterable[int] | Array) -> str:
        """The string that `ids` (N,) stand for; words are joined as a reader expects. DataError for an id out of range.

        >>> Text.from_string("Yes, he said.", unit="word").decode([2, 0, 3])
        'Yes, he'
        """
        ids = np.asarray(list(ids))
        if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
            raise DataError("ids", got=f"shape {ids.shape} of {ids.dtype}", expected="(N,) whole numbers")
        outside = (ids < 0) | (ids >= len(self.vocabulary))
        if outside.any():
            raise DataError("id", got=ids[outside][0], expected=f"0 to {len(self.vocabulary) - 1}")
        units = [self.vocabulary[i] for i in ids]
        return join_words(units) if self.unit == "word" else "".join(units)

    @property
    def unigram_entropy(self) -> float:
        """Entropy of the unit frequencies, in nats per unit: the loss of the best guess that ignores all context.

        >>> f"{Text.from_string('abab').unigram_entropy:.4f}"
        '0.6931'
        """
        if not len(self):
            raise DataError("unigram entropy", got="a text without units", expected="at least one")
        counts = np.bincount(self.ids)
        p = counts[counts > 0] / len(self)
        return float(-(p * np.log(p)).sum())

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        size = len(self.vocabulary)
        return f"Text(name={self.name!r}, unit={self.unit!r}, units={len(self)}, vocabulary={size})"

    @cached_property
    def _ids_by_unit(self) -> dict[str, int]:
        return {unit: i for i, unit in enumerate(self.vocabulary)}

    @cached_property
    def _ids_by_code(self) -> Array:
        codes = {ord(unit): i for unit, i in self._ids_by_unit.items() if unit != UNKNOWN}
        table = np.full(max(codes, default=0) + 2, self._ids_by_unit.get(UNKNOWN, -1), np.int32)  # last: all above
        table[list(codes)] = list(codes.values())
        return table

    def _encode_characters(self, document: str) -> Array:
        table = self._ids_by_code
        ids = table[np.minimum(_codes(document), len(table) - 1)]
        if ids.size and ids.min() < 0:
            position = int(np.argmax(ids < 0))
            raise _not_in_vocabulary("character", document[position], position)
        return ids

    def _encode_words(self, words: list[str]) -> Array:
        index, fallback = self._ids_by_unit, self._ids_by_unit.get(UNKNOWN)
        ids = [index.get(word, fallback) for word in words]
        if fallback is None and None in ids:
            position = ids.index(None)
            raise _not_in_vocabulary("word", words[position], position)
        return np.array(ids, np.int32)


def read_text(path: str | Path | None = None, *, unit: Unit = "char", max_vocabulary: int | None = None) -> Text:
    r"""A UTF-8 file as ids; without a path, the English that CPython ships for `help()`.

    path: any UTF-8 file. A byte order mark is dropped, "\r\n" becomes "\n".
    unit: "char", or "word" (see `split_words`; line breaks are not words).
    max_vocabulary: at most so many entries, "<unk>" among them; the rarest units become "<unk>".

    FileError: no such file, a folder, not readable. DataError: empty, binary, not UTF-8 (with the byte offset), or
    fewer than two distinct units, so that there is nothing to learn.

    >>> read_text(unit="word", max_vocabulary=1000)
    Text(name='python-help', unit='word', units=..., vocabulary=1000)
    """
    _check(unit, max_vocabulary)
    document, name = (_python_help(), "python-help") if path is None else (read_utf8(path), Path(path).name)
    return Text.from_string(document.replace("\r\n", "\n"), name=name, unit=unit, max_vocabulary=max_vocabulary)


def _python_help() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions split it off
        do = "Name a text file of your own."
        raise FileError("the text that Python ships", got="no module pydoc_data.topics", do=do) from None
    return "".join(topics[key] for key in sorted(topics))


def _check(unit: str, max_vocabulary: int | None) -> None:
    if unit not in ("char", "word"):
        raise unknown("unit", unit, ["char", "word"])
    if max_vocabulary is not None:
        whole("max_vocabulary", max_vocabulary, least=2)


def _check_learnable(what: str, unit: Unit, counts: Mapping[str, int]) -> None:
    if len(counts) >= 2:
        return
    noun = "character" if unit == "char" else "word"
    total, only = sum(counts.values()), next(iter(counts), "")
    got = f"no {noun}s" if not total else f"only {shown(only)}, {total} time{'s' * (total > 1)}"
    raise DataError(what, got=got, expected=f"at least two different {noun}s", do="There is nothing to learn from it.")


def _codes(document: str) -> Array:
    return np.frombuffer(document.encode("utf-32-le", "surrogatepass"), np.uint32)


def _count_characters(document: str) -> dict[str, int]:
    counts = np.bincount(_codes(document))
    return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}


def _vocabulary(counts: Mapping[str, int], unit: Unit, most: int | None) -> tuple[str, ...]:
    ranked = sorted(counts.keys() - {UNKNOWN}, key=lambda word: (-counts[word], word))
    if UNKNOWN in counts or (most is not None and len(ranked) > most):
        kept = ranked if most is None else ranked[: most - 1]
        return UNKNOWN, *(sorted(kept) if unit == "char" else kept)
    return tuple(sorted(ranked) if unit == "char" else ranked)


def _not_in_vocabulary(kind: str, unit: str, position: int) -> DataError:
    do = 'Leave it out, or read the text with max_vocabulary so that "<unk>" stands for it.'
    what = f"{kind} {position + 1}"
    return DataError(what, got=shown(unit), expected=f"a {kind} of the vocabulary", do=do)
