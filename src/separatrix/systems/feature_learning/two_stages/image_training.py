"""Classifiers of real images with wrong labels: two stages (L9), and selection with retraining (L13)."""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from separatrix.datasets.classification import TwoClassData, balanced_split
from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Experiment, Measurement, Results, diverged_fraction
from separatrix.optimizers.early_stopping import TwoStageDetector
from separatrix.optimizers.sample_selection import small_loss
from separatrix.systems.feature_learning.patch_network import flip_labels
from separatrix.systems.feature_learning.relu_classifier import ClassifierTask, small_classifier, train_classifiers
from separatrix.systems.feature_learning.two_stages.settings import Settings, images

#: Scale of the initial weights, over that of He et al.: below 1, so that features must be learned.
START = 0.5
RECORDS = 50
#: Least lag of wrong labels behind right ones (mean difference of accuracy over the logarithm of the steps), least
#: fall of the test accuracy after its peak, least gain by selection.
LAG, FALL, GAIN = 0.05, 0.03, 0.02


@dataclass(frozen=True, eq=False)
class Split:
    """One member: what it is trained and tested on, and what is known of its labels.

    Attributes
    ----------
    inputs, labels
        Standardised training images ``(n, d)`` and their observed labels.
    right, wrong
        Which labels are known to be right, and wrong.
    test_inputs, test_labels
        Images with known labels.
    """

    inputs: Float[np.ndarray, "n d"]
    labels: Float[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    wrong: Bool[np.ndarray, " n"]
    test_inputs: Float[np.ndarray, "T d"]
    test_labels: Float[np.ndarray, " T"]


def draw_split(settings: Settings, data: TwoClassData, member: int, clean: bool = False) -> Split:
    """Balanced training and test set of a member.

    Labels of the training set are flipped at random, unless the data have wrong labels of their own. If ``clean``, none
    is flipped (those known to be wrong are put right), and the samples marked as wrong are random ones of known labels.
    """
    known = None if data.true_labels is None else data.true_labels != 0
    train, test = balanced_split(
        data.labels, settings.image_samples, settings.image_tests, [settings.seed, 4, member], known
    )
    true = data.labels if data.true_labels is None else np.where(data.true_labels != 0, data.true_labels, data.labels)
    observed = data.labels[train].astype(np.float64)
    rng = np.random.default_rng([settings.seed, 5, member])
    injected = flip_labels(observed, settings.image_noise, settings.image_noise, rng)
    if data.true_labels is None:
        noisy, certain = injected, np.ones(train.size, bool)
    else:
        noisy, certain = observed, data.true_labels[train] != 0
    wrong = certain & (noisy != true[train])
    labels = true[train].astype(np.float64) if clean else noisy
    if clean:
        wrong = certain & (injected != observed)
    inputs = data.inputs[train]
    centre, spread = inputs.mean(axis=0), max(float(inputs.std()), 1e-12)
    scaled = lambda x: (x - centre) / spread  # noqa: E731
    return Split(scaled(inputs), labels, certain & ~wrong, wrong, scaled(data.inputs[test]),
                 true[test].astype(np.float64))  # fmt: skip


def noise_guess(settings: Settings, data: TwoClassData) -> float:
    """Share of wrong labels: that of the settings, or measured where a file tells the true labels of many samples."""
    if data.true_labels is None:
        return settings.image_noise
    known = data.true_labels != 0
    share = float(np.mean(data.true_labels[known] != data.labels[known]))
    return share if 0 < share < 0.5 else settings.image_noise


def image_steps(settings: Settings) -> Int[np.ndarray, " t"]:
    """Steps to record at, evenly in the logarithm, and the start."""
    return np.unique(np.concatenate([[0], np.geomspace(1, settings.image_steps, RECORDS)]).round().astype(np.int64))


def _stacked(settings: Settings, splits: list[Split], weights: list[np.ndarray], start: int):
    rngs = [np.random.default_rng([settings.seed, 6, start + row]) for row in range(len(splits))]
    networks = [small_classifier(rng, splits[0].inputs.shape[1], settings.image_width, START) for rng in rngs]
    tasks = [
        (one.inputs, one.labels, weight, one.test_inputs, one.test_labels)
        for one, weight in zip(splits, weights, strict=True)
    ]  # fmt: skip
    single = lambda *arrays: np.stack(arrays).astype(np.float32)  # noqa: E731
    return jax.tree.map(single, *networks), ClassifierTask(*jax.tree.map(single, *tasks))


def simulate_images(settings: Settings, way: str, start: int, stop: int) -> xr.Dataset:
    """Train the members ``start .. stop - 1``: on all samples, on clean labels, or again on a selection."""
    data = images(settings)
    assert data is not None
    splits = [draw_split(settings, data, member, clean=way == "clean") for member in range(start, stop)]
    steps = image_steps(settings)
    # the control knows of right labels only: samples with an unknown one are left out
    weights = [(one.right | one.wrong).astype(np.float64) if way == "clean" else np.ones(len(one.labels))
               for one in splits]  # fmt: skip
    run = lambda weights: train_classifiers(  # noqa: E731
        *_stacked(settings, splits, weights, start), settings.image_rate, steps
    )
    if way in ("selected", "random"):
        margins, _ = run(weights)
        kept = [_selection(course, noise_guess(settings, data)) for course in margins]
        if way == "random":
            kept = [
                np.random.default_rng([settings.seed, 7, start + row]).permutation(one) for row, one in enumerate(kept)
            ]
        # nothing is dropped where the selection would keep nothing
        weights = [one.astype(np.float64) if one.any() else np.ones(one.size) for one in kept]
    margins, accuracy = run(weights)
    lost = np.asarray(~np.isfinite(margins).all(axis=2))
    variables = {
        "margin": (("member", "step", "sample"), margins),
        "test_accuracy": (("member", "step"), accuracy.astype(np.float64)),
        "label": (("member", "sample"), np.stack([one.labels for one in splits])),
        "right": (("member", "sample"), np.stack([one.right for one in splits])),
        "wrong": (("member", "sample"), np.stack([one.wrong for one in splits])),
        "kept": (("member", "sample"), np.stack(weights) > 0),
        "diverged_at_step": ("member", np.where(lost.any(axis=1), steps[lost.argmax(axis=1)], -1)),
    }
    return xr.Dataset(variables, {"member": np.arange(start, stop), "step": steps})


def image_experiments(settings: Settings) -> list[Experiment]:
    """Noisy labels, and again on a selection; for controls clean labels, and randomly dropped samples."""
    data = images(settings)
    if data is None:
        return []
    n, d, h = settings.image_samples, data.inputs.shape[1], settings.image_width
    once = settings.image_members * settings.image_steps * (1e-6 + 4e-11 * n * d * h)
    passes = {"images": 1, "images_selected": 2, "images_clean": 1, "images_random": 2}
    return [
        Experiment(
            name,
            partial(simulate_images, settings, name.removeprefix("images").removeprefix("_")),
            members=settings.image_members,
            bytes_per_member=8 * ((n + settings.image_tests) * (3 * d + 2 * h) + 8 * d * h + 3 * RECORDS * n),
            seconds=1.5 + count * once,
            control=name in ("images_clean", "images_random"),
        )
        for name, count in passes.items()
    ]


def _losses(margins: Float[np.ndarray, "t n"]) -> Float[np.ndarray, "t n"]:
    return np.logaddexp(0.0, -margins.astype(np.float64))


def selection_record(margins: Float[np.ndarray, "t n"], noise_rate: float) -> int:
    """Record at which the share of rejected samples was nearest to the noise rate."""
    detector = TwoStageDetector(noise_rate)
    for record, losses in enumerate(_losses(margins)):
        detector.update(record, losses)
    return detector.selection_step


def _selection(margins: Float[np.ndarray, "t n"], noise_rate: float) -> Bool[np.ndarray, " n"]:
    return small_loss(_losses(margins)[selection_record(margins, noise_rate)])


def image_margins(settings: Settings, data: xr.Dataset) -> Float[np.ndarray, "B n"]:
    """Margins at the end of Stage I, as the detector finds it."""
    source = images(settings)
    assert source is not None
    rate = noise_guess(settings, source)
    return np.stack([course[selection_record(course, rate)] for course in data["margin"].values.astype(np.float64)])


def fitted_images(data: xr.Dataset, which: str) -> Float[np.ndarray, "B t"]:
    """Share of the ``right`` or ``wrong`` samples that are given their observed label."""
    chosen = data[which].values[:, None]
    return np.sum((data["margin"].values > 0) & chosen, axis=2) / np.maximum(chosen.sum(axis=2), 1)


def lag(data: xr.Dataset) -> Float[np.ndarray, " B"]:
    """Accuracy on right minus accuracy on wrong labels, mean over the logarithm of the steps."""
    later = data["step"].values > 0
    logarithm = np.log(data["step"].values[later])
    difference = (fitted_images(data, "right") - fitted_images(data, "wrong"))[:, later]
    return np.trapezoid(difference, logarithm, axis=1) / (logarithm[-1] - logarithm[0])


def images_have_two_stages(settings: Settings, results: Results, name: str = "images") -> list[Measurement]:
    """Lag of the wrong labels, and fall of the test accuracy after the peak of its mean."""
    del settings
    data = results[name]
    excluded = diverged_fraction(data)
    accuracy = data["test_accuracy"].values
    fall = accuracy[:, accuracy.mean(axis=0).argmax()] - accuracy[:, -1]
    measurements = []
    for label, values, least in (("lag of wrong labels behind right ones", lag(data), LAG),
                                 ("test accuracy, peak minus end", fall, FALL)):  # fmt: skip
        if label.startswith("lag") and not data["wrong"].values.any(axis=1).all():
            measurements.append(
                Measurement.missing(label, (least, np.inf), "no label is known to be wrong", excluded)
            )  # fmt: skip
            continue
        estimate, interval = mean_interval(values, confidence=bonferroni(2))
        measurements.append(Measurement(label, estimate, interval, (least, np.inf), excluded, members=values.size))
    return measurements


def images_selection_pays(settings: Settings, results: Results, way: str = "selected") -> list[Measurement]:
    """Test accuracy at the end after selection minus that of plain training."""
    del settings
    plain, other = results["images"], results[f"images_{way}"]
    gain = other["test_accuracy"].values[:, -1] - plain["test_accuracy"].values[:, -1]
    estimate, interval = mean_interval(gain)
    note = f"plain {plain['test_accuracy'].values[:, -1].mean():.3f}, best in time {plain['test_accuracy'].values.mean(axis=0).max():.3f}"  # noqa: E501
    return [
        Measurement("test accuracy at the end, retrained minus plain", estimate, interval, (GAIN, np.inf),
                    diverged_fraction(plain, other), members=gain.size, note=note)
    ]  # fmt: skip
