"""Text: what an id stands for, what comes back, and what is said about text that cannot be learnt from."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt.data import Text, join_words, read_text, split_words
from bptt.errors import DataError, FileError, UnknownName

SURROGATES_TOO = st.characters()
DOCUMENTS = st.text(SURROGATES_TOO, min_size=2).filter(lambda document: len(set(document)) > 1)


def written(folder, content, name="my text.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@given(DOCUMENTS)
def test_characters_come_back_exactly(document):
    text = Text.from_string(document)
    assert text.decode(text.ids) == document
    assert text.vocabulary == tuple(sorted(set(document)))
    assert text.ids.dtype == np.int32
    np.testing.assert_array_equal(text.encode(document), text.ids)


@given(DOCUMENTS, st.integers(2, 5))
def test_a_cut_vocabulary_keeps_the_most_frequent_characters(document, most):
    text = Text.from_string(document, max_vocabulary=most)
    assert len(text.vocabulary) == min(most, len(set(document)))
    counts = Counter(document)
    for character, i in zip(document, text.ids, strict=True):
        assert text.vocabulary[i] == (character if character in text.vocabulary else "<unk>")
    lost = [counts[c] for c in counts if c not in text.vocabulary]
    kept = [counts[c] for c in text.vocabulary if c != "<unk>"]
    assert bool(lost) == ("<unk>" in text.vocabulary) == (text.vocabulary[0] == "<unk>")
    assert max(lost, default=0) <= min(kept)


def test_words_are_ranked_by_frequency_then_alphabet():
    text = Text.from_string("b a c b . a b", unit="word")
    assert text.vocabulary == ("b", "a", ".", "c")
    assert text.ids.tolist() == [0, 1, 3, 0, 2, 1, 0]


def test_rare_words_become_unk_and_unk_is_never_at_two_ids():
    text = Text.from_string("<unk> a a b b c", unit="word", max_vocabulary=3)
    assert text.vocabulary == ("<unk>", "a", "b")
    assert text.ids.tolist() == [0, 1, 1, 2, 2, 0]
    assert text.encode("a zebra").tolist() == [1, 0]
    assert Text.from_string("a a <unk>", unit="word").vocabulary == ("<unk>", "a")


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("the cat sat down", ["the", "cat", "sat", "down"]),
        ("  Don't,\n\tstop! ", ["Don't", ",", "stop", "!"]),
        ("π ≈ 3.14, 1,000 v2", ["π", "≈", "3.14", ",", "1,000", "v2"]),
        ("well-known - yes…", ["well-known", "-", "yes", "…"]),
        ("Größe über Öl", ["Größe", "über", "Öl"]),
        ("मैं हिन्दी बोलता हूँ।", ["मैं", "हिन्दी", "बोलता", "हूँ", "।"]),
        ("می‌خواهم بروم", ["می‌خواهم", "بروم"]),  # a zero-width non-joiner inside the word
        ("cafe\u0301 noir", ["cafe\u0301", "noir"]),
        ("我爱你。", ["我", "爱", "你", "。"]),
        ("I ❤\ufe0f it", ["I", "❤\ufe0f", "it"]),
        ("an <unk> word", ["an", "<unk>", "word"]),
        ("snake_case", ["snake_case"]),
        ("", []),
    ],
)
def test_words_of_any_language(sentence, words):
    assert split_words(sentence) == words


@given(st.text(SURROGATES_TOO))
def test_splitting_loses_nothing_but_white_space(sentence):
    assert "".join(split_words(sentence)) == "".join(sentence.split())


@pytest.mark.parametrize(
    "sentence", ["Yes, he (John) said: no!", 'She said "no way" and left.', "我爱你。真的", "a [b] c; d?", "It's 3.5 %"]
)
def test_sentences_survive_the_round_trip_by_word(sentence):
    assert join_words(split_words(sentence)) == sentence.replace(" %", "%")


def test_entropy_is_that_of_the_unit_frequencies():
    text = Text.from_string("aab" + "c" * 5)
    by_hand = -sum(p * math.log(p) for p in (2 / 8, 1 / 8, 5 / 8))
    assert text.unigram_entropy == pytest.approx(by_hand, rel=1e-14)
    assert Text.from_string("abcd" * 3).unigram_entropy == pytest.approx(math.log(4), rel=1e-14)


def test_entropy_ignores_entries_that_never_occur():
    text = Text("t", "char", ("a", "b", "c"), np.array([0, 2, 0, 2]))
    assert text.unigram_entropy == pytest.approx(math.log(2))


def test_a_text_without_units_has_no_entropy():
    with pytest.raises(DataError, match="without units"):
        _ = Text("t", "char", ("a", "b"), np.empty(0, np.int32)).unigram_entropy


def test_bom_and_windows_line_ends_do_not_reach_the_vocabulary(tmp_path):
    text = read_text(written(tmp_path, b"\xef\xbb\xbfab\r\nc\rd"))
    assert text.decode(text.ids) == "ab\nc\rd"
    assert text.name == "my text.txt"


def test_without_a_path_it_reads_what_python_ships():
    text = read_text()
    assert 'The "assert" statement' in text.decode(text.ids)
    assert len(text) > 100_000
    assert 2 < text.unigram_entropy < math.log(len(text.vocabulary))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"\xef\xbb\xbf", "got no characters, expected at least two different characters"),
        (b"a", "got only 'a', 1 time, expected at least two different characters"),
        (b"aaa", "got only 'a', 3 times"),
        (b"abc\xe9def", "got byte 0xe9 at byte offset 3, which is not UTF-8, expected text in UTF-8. Convert it first"),
        (b"\xef\xbb\xbfab\xff", "0xff at byte offset 5"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a binary file (a zero byte at byte offset 8)"),
        ("hello".encode("utf-16"), "UTF-16"),
    ],
)
def test_files_that_cannot_be_learnt_from(tmp_path, content, message):
    with pytest.raises(DataError) as caught:
        read_text(written(tmp_path, content))
    assert message in str(caught.value)
    assert "my text.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b" \n\t", b"word", b"word word"])
def test_documents_without_two_words(tmp_path, content):
    with pytest.raises(DataError, match="at least two different words"):
        read_text(written(tmp_path, content), unit="word")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileError, match=r"nothing\.txt': got no such file\. Check the name"):
        read_text(tmp_path / "nothing.txt")
    with pytest.raises(FileError, match="got a folder, expected a file"):
        read_text(tmp_path)
    with pytest.raises(FileError, match="expected a file that can be read"):
        read_text("a\0b")


def test_an_unknown_character_is_named_with_its_position():
    with pytest.raises(DataError, match=r"character 4: got 'X', expected a character of the vocabulary"):
        Text.from_string("abc").encode("abcX")
    with pytest.raises(DataError, match="character 1: got '\U0001f600'"):  # far above every known code
        Text.from_string("abc").encode("\U0001f600a")
    with pytest.raises(DataError, match="character 2: got 'b'"):  # between known codes
        Text.from_string("ac").encode("ab")
    with pytest.raises(DataError, match="word 2: got 'dog'"):
        Text.from_string("the cat", unit="word").encode("the dog")


@pytest.mark.parametrize("ids", [[3], [-1], [[0, 1]], [0.5]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(DataError, match=r"\bids?: got"):
        Text.from_string("abc").decode(np.array(ids))


def test_nothing_encodes_to_nothing():
    text = Text.from_string("abc")
    assert text.encode("").shape == (0,)
    assert text.decode([]) == ""


def test_arguments_that_make_no_sense():
    with pytest.raises(UnknownName, match="Did you mean 'word'"):
        read_text(unit="words")
    with pytest.raises(DataError, match="max_vocabulary: got 1, expected a whole number of at least 2"):
        read_text(max_vocabulary=1)
