"""What is trained, and on what: the settings that studies of training share, the data and the network they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Array, Float, Int

from separatrix.datasets import text
from separatrix.datasets.multiclass import NAMES, ClassSplit, load_classes, source_files, split_classes
from separatrix.datasets.text import TextSplit
from separatrix.lab import SettingError, setting
from separatrix.networks.activations import Activation
from separatrix.networks.cnn import CNN
from separatrix.networks.mlp import MLP
from separatrix.networks.transformer import Transformer
from separatrix.systems.training_phases.kernel_course import SUBSETS
from separatrix.systems.training_phases.training import Network


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of data, network and optimiser; a study adds its own and may declare other defaults."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**31)
    data: str = setting(
        "digits", "digits, fashion-mnist, plays, a FILE.npz with arrays x and y (class numbers), or a text FILE.txt"
    )
    samples: int = setting(
        10_000, "samples of the data set (windows of a text) to use at most, for training and testing", low=20
    )
    test_share: float = setting(
        0.2, "share of the samples to test on", low=0, low_open=True, high=1, high_open=True
    )  # fmt: skip
    network: Literal["mlp", "cnn", "transformer"] = setting(
        "mlp", "what is trained: a perceptron, a convolutional network, or (on text) a transformer"
    )
    hidden_widths: tuple[int, ...] = setting((64,) * 4, "hidden layers of the perceptron", low=1, high=10**5)
    channels: tuple[int, ...] = setting((16, 32, 32), "channels of the convolutional network", low=1, high=10**4)
    context: int = setting(32, "characters that the transformer sees", low=2, high=10**4)
    depth: int = setting(2, "blocks of the transformer", low=1, high=1000)
    width: int = setting(32, "size of the stream of the transformer, a multiple of the heads", low=1, high=10**5)
    heads: int = setting(4, "attention heads in each block of the transformer", low=1, high=10**4)
    activation: Literal["gelu", "relu", "tanh"] = setting("gelu", "activation of the hidden layers")
    learning_rate: float = setting(0.05, "learning rate of SGD", low=0, low_open=True, high=100)
    momentum: float = setting(0.9, "momentum of SGD", low=0, high=1, high_open=True)
    weight_decay: float = setting(1e-4, "weight decay", low=0, high=1)
    batch_size: int = setting(64, "samples of a batch", low=1)
    examples: int = setting(64, "training examples of the tangent kernel, a multiple of four", low=4, high=4096)
    kernel: Literal["auto", "exact", "estimated"] = setting(
        "auto",
        "how tangent kernels are taken: exactly, or from products with random vectors, where exact ones cost more",
    )
    kernel_vectors: int = setting(32, "random sign vectors of an estimated kernel", low=2, high=4096)
    runs: int = setting(6, "training runs, each with its own start and order of batches", low=3, high=10**4)


@dataclass(frozen=True, eq=False)
class Task:
    """Training and test samples, and the size of what is trained on them.

    Attributes
    ----------
    split
        Inputs with mean 0 and variance 1 over the training set, and classes; or windows of text and what follows each
        character.
    labels
        ``(N,)``, of text ``(N, T)``: training labels, with the label noise.
    classes
        C, of text the size of the vocabulary.
    image_shape
        Of an input; None where it is no image.
    """

    split: ClassSplit | TextSplit
    labels: np.ndarray
    classes: int
    image_shape: tuple[int, ...] | None


def load_task(settings: TrainingSettings, label_noise: float = 0.0) -> Task:
    """The data of the settings, read once.

    Parameters
    ----------
    settings
        Of the study.
    label_noise
        Share of the training labels that are drawn anew at random.

    Raises
    ------
    SettingError
        If they cannot be read or used: one sentence.
    """
    source, context = settings.data, settings.context if text.is_text(settings.data) else None
    return _read(source, context, settings.test_share, settings.seed, settings.samples, label_noise)


@cache
def _read(
    source: str, context: int | None, test_share: float, seed: int, most: int, label_noise: float
) -> Task:  # fmt: skip
    if source not in NAMES and not source.endswith(".npz") and context is None:
        raise SettingError(
            f"data = {source!r} is not allowed: it must be {', '.join((*NAMES, *text.NAMES))}, a FILE.npz with arrays "
            "x and y, or a FILE.txt."
        )
    try:
        if context is None:
            data = load_classes(source)
            split, classes, shape = split_classes(data, test_share, seed, most), data.classes, data.image_shape
        else:
            split = text.split_text(text.load_text(source), context, test_share, seed, most)
            classes, shape = len(split.vocabulary), None
    except (ValueError, OSError, ImportError) as error:
        raise SettingError(f"data = {source!r} cannot be used: {str(error).rstrip('.')}.") from None
    rng = np.random.default_rng([seed, 1])
    drawn = rng.integers(0, classes, split.labels.shape)
    labels = np.where(rng.random(split.labels.shape) < label_noise, drawn, split.labels)
    return Task(split, labels, classes, shape)


def input_files(settings: TrainingSettings) -> Sequence[Path]:
    """Files whose content is the data."""
    return text.text_files(settings.data) if text.is_text(settings.data) else source_files(settings.data)


def describe_data(settings: TrainingSettings, task: Task) -> str:
    """What the data are, for a text also how well it is predicted by counting characters and pairs of them."""
    split = task.split
    sizes = f"Data: {len(split.labels)} training and {len(split.test_labels)} test "
    if not isinstance(split, TextSplit):
        return f"{sizes}samples of {settings.data}, {task.classes} classes."
    single, pair = text.ngram_entropies(split)
    return (
        f"{sizes}windows of {settings.context} characters of {settings.data}, {task.classes} different ones. Every "
        "character is predicted from those before it in its window; losses, accuracies and disagreements are means "
        f"over all of them. The entropy of a character is {single:.2f} nats by itself and {pair:.2f} nats given the "
        "one before it. Tangent kernels are those of the outputs at the last character of a window."
    )


@dataclass(frozen=True)
class LastPosition:
    """The outputs of a language model at the end of each window: the kernel of those at all positions is too large."""

    network: Network

    def __call__(self, parameters: Any, tokens: Int[Array, "b t"]) -> Float[Array, "b v"]:
        """Logits of the character after the window."""
        return self.network(parameters, tokens)[:, -1]


def kernel_function(task: Task, network: Network) -> Network | LastPosition:
    """The function whose tangent kernel is taken: the outputs of the network, for text at the last position alone."""
    return LastPosition(network) if isinstance(task.split, TextSplit) else network


def kernel_examples(settings: TrainingSettings, task: Task) -> tuple[np.ndarray, Float[np.ndarray, "N C"]]:
    """Inputs of the first training samples, and their centred one-hot labels (of the last position)."""
    labels = task.labels[: settings.examples].reshape(settings.examples, -1)[:, -1]
    targets = np.eye(task.classes)[labels]
    return task.split.inputs[: settings.examples], targets - targets.mean(axis=0)


def make_network(
    settings: TrainingSettings, task: Task, activation: Activation | None = None, batch_norm: bool = False
) -> MLP | CNN | Transformer:
    """What is trained, perhaps with another activation than that of the settings."""
    activation = activation or settings.activation
    if settings.network == "transformer":
        sizes = (settings.context, settings.depth, settings.width, settings.heads)
        return Transformer(task.classes, *sizes, activation)
    if settings.network == "cnn":
        assert task.image_shape is not None
        return CNN(task.image_shape, task.classes, settings.channels, activation)
    widths = (task.split.inputs.shape[1], *settings.hidden_widths, task.classes)
    return MLP(widths, activation, batch_norm=batch_norm)


def check_task(settings: TrainingSettings, task: Task) -> None:
    """Refuse settings that do not fit the data.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    if settings.examples % SUBSETS:
        raise SettingError(f"examples = {settings.examples} is not allowed: it must be a multiple of {SUBSETS}.")
    if (settings.network == "transformer") != isinstance(task.split, TextSplit):
        allowed = (
            "must be 'mlp' or 'cnn', for the data are no text"
            if settings.network == "transformer"
            else "must be 'transformer', for the data are text"
        )
        raise SettingError(
            f"network = {settings.network!r} is not allowed with data = {settings.data!r}: it {allowed}."
        )
    if settings.network == "transformer" and settings.width % settings.heads:
        raise SettingError(
            f"width = {settings.width} is not allowed: it must be a multiple of heads = {settings.heads}."
        )
    if settings.network == "cnn" and task.image_shape is None:
        raise SettingError("network = 'cnn' is not allowed: the inputs of the data are no images.")
    training = len(task.labels)
    for name in ("examples", "batch_size"):
        if getattr(settings, name) > training:
            raise SettingError(
                f"{name} = {getattr(settings, name)} is not allowed: it must be at most {training}, the number of "
                "training samples."
            )
