"""Settings of the study `deep-linear-exact-solutions`, their checks, and the two tasks they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from separatrix.datasets.hierarchical import hierarchical_items
from separatrix.lab import SettingError, setting
from separatrix.systems.deep_linear.data_setting import data_files, whitened_data
from separatrix.systems.deep_linear.mode_solutions import isotropic_variance

SYNTHETIC = "hierarchical"


@dataclass(frozen=True)
class Settings:
    """Every experiment of the study is a function of these values."""

    seed: int = setting(0, "seed of everything random", low=0, high=2**53)
    data: str = setting(
        SYNTHETIC, "hierarchical (items of a binary tree), digits, fashion-mnist, or a FILE.npz with arrays x and y"
    )
    components: int = setting(16, "principal components of the inputs kept of a data set", low=1, high=1024)
    modes: int = setting(4, "leading modes of a data set to follow", low=1, high=256)
    singular_values: tuple[float, ...] = setting(
        (3.0, 2.0, 1.0, 0.5), "teacher's singular values, decreasing (a data set brings its own)", low=1e-3, high=1e3
    )
    depth: tuple[int, ...] = setting((2, 3, 4, 8), "depths whose learning curves are compared", unit="layers", low=2, high=64)  # fmt: skip  # noqa: E501
    learning_rate: float = setting(
        0.005, "smallest learning rate of the curves at depth 2", low=0, low_open=True, high=1
    )
    initial_strength: float = setting(1e-3, "mode strength at the start at depth 2", low=1e-12, high=10)
    depth_strength: float = setting(
        0.05, "mode strength at the start of the runs that compare depths", low=1e-6, high=10
    )
    hidden_width: int = setting(16, "hidden units of the networks from random starts", low=1, high=4096)
    start_scale: float = setting(
        0.01, "standard deviation of their weights times the square root of the fan-in", low=1e-9, high=0.3
    )
    batch_learning_rate: float = setting(0.05, "their learning rate", low=0, low_open=True, high=10)
    runs: int = setting(12, "random starts", low=4, high=10**5)
    scan_depth: tuple[int, ...] = setting(
        (2, 4, 8, 16, 32, 64), "depths at which steps are counted, increasing", unit="layers", low=2, high=256
    )
    scan_width: int = setting(32, "hidden width of these networks", low=1, high=4096)
    scan_strength: float = setting(0.1, "mode strength at their decoupled start", low=1e-6, high=10)
    scan_runs: int = setting(8, "random starts at each of these depths", low=4, high=10**5)
    most_steps: int = setting(600, "steps after which a run is given up", low=10, high=10**7)
    exact_draws: int = setting(12, "random starts that are compared with an ODE solver", low=2, high=10**4)
    matrix_size: int = setting(100, "size of the matrices whose products are taken", low=2, high=4096)
    factors: tuple[int, ...] = setting((1, 2, 5, 10, 20, 50), "numbers of factors, increasing", low=1, high=1000)
    matrix_draws: int = setting(20, "draws of each product", low=4, high=10**5)

    @property
    def synthetic(self) -> bool:
        """Whether no data set is given."""
        return self.data == SYNTHETIC


@dataclass(frozen=True, eq=False)
class ModeTask:
    """The teacher of the networks that run on its modes alone (white inputs), in its own frame.

    Attributes
    ----------
    singular_values
        Of the modes that are followed, ``(r,)``.
    inputs, outputs
        ``d_0`` and ``d_L``.
    """

    singular_values: Float[np.ndarray, " r"]
    inputs: int
    outputs: int

    @property
    def largest(self) -> float:
        """``s_1``."""
        return float(self.singular_values[0])


@dataclass(frozen=True, eq=False)
class BatchTask:
    """The data of the networks that descend on all samples, with the modes of their correlation.

    Attributes
    ----------
    inputs, outputs
        ``(N, d_0)``, of covariance ``variance * I``, and ``(N, d_L)``.
    left, singular_values, right
        ``(d_L, r)``, ``(r,)`` and ``(d_0, r)``: leading modes of ``Y^T X / N``.
    variance
        c.
    """

    inputs: Float[np.ndarray, "N d_0"]
    outputs: Float[np.ndarray, "N d_L"]
    left: Float[np.ndarray, "d_L r"]
    singular_values: Float[np.ndarray, " r"]
    right: Float[np.ndarray, "d_0 r"]
    variance: float


def mode_task(settings: Settings) -> ModeTask:
    """Teacher of the runs on modes: the setting's singular values, or the leading ones of the data set.

    Raises
    ------
    SettingError
        If the data cannot be used.
    """
    if settings.synthetic:
        s = np.asarray(settings.singular_values)
        return ModeTask(s, s.size, s.size)
    data = whitened_data(settings.data, settings.components, settings.modes, SYNTHETIC)
    return ModeTask(data.singular_values[: data.modes], data.inputs.shape[1], data.outputs.shape[1])


def scan_task(settings: Settings) -> ModeTask:
    """Teacher of the runs that count steps: four modes from 16 inputs to 4 outputs, or those of the data set."""
    return ModeTask(np.array([1.0, 0.8, 0.6, 0.4]), 16, 4) if settings.synthetic else mode_task(settings)


@cache
def batch_task(settings: Settings) -> BatchTask:
    """Data of the full-batch runs: the tree's items, or the whitened data set with its own labels.

    Raises
    ------
    SettingError
        If the data cannot be used.
    """
    if settings.synthetic:
        x, y = hierarchical_items()
        left, s, right = np.linalg.svd(y.T @ x / len(x), full_matrices=False)
        return BatchTask(x, y, left, s, right.T, isotropic_variance(x.T @ x / len(x)))
    data = whitened_data(settings.data, settings.components, settings.modes, SYNTHETIC)
    left, right = np.eye(data.outputs.shape[1], data.modes), np.eye(data.inputs.shape[1], data.modes)
    variance = isotropic_variance(data.inputs.T @ data.inputs / len(data.inputs))
    return BatchTask(data.inputs, data.outputs, left, data.singular_values[: data.modes], right, variance)


def check(settings: Settings) -> Sequence[str]:
    """Refuse settings that contradict each other; warn where a claim cannot be tested.

    Raises
    ------
    SettingError
        One sentence naming the setting, the value and what is allowed.
    """
    s = settings.singular_values
    if any(later >= earlier for earlier, later in pairwise(s)):
        raise SettingError(f"singular_values = {s} is not allowed: they must be strictly decreasing, since equal ones have no modes of their own.")  # fmt: skip  # noqa: E501
    if len(set(settings.depth)) != len(settings.depth):
        raise SettingError(f"depth = {settings.depth} is not allowed: each depth must appear once.")
    for name in ("scan_depth", "factors"):
        values = getattr(settings, name)
        if len(values) < 2 or any(later <= earlier for earlier, later in pairwise(values)):
            raise SettingError(f"{name} = {values} is not allowed: it must be at least two values, increasing.")
    task = mode_task(settings)
    scan = scan_task(settings)
    for name, smallest in (
        ("initial_strength", task.singular_values[-1]),
        ("depth_strength", task.singular_values[-1]),
        ("scan_strength", scan.singular_values[-1]),
    ):
        value = getattr(settings, name)
        if value >= 0.4 * smallest:
            raise SettingError(
                f"{name} = {value:g} is not allowed: the start must lie below {0.4 * smallest:g}, 0.4 times the "
                "smallest singular value."
            )
    fastest = 4 * settings.learning_rate * 2 * task.largest
    if fastest >= 0.5:
        raise SettingError(
            f"learning_rate = {settings.learning_rate:g} is not allowed: the largest of the three rates, four times "
            f"this, must resolve the fastest mode, so that it must be below {0.0625 / task.largest:g}."
        )
    if settings.scan_width < scan.singular_values.size:
        raise SettingError(
            f"scan_width = {settings.scan_width} is not allowed: it must be at least the {scan.singular_values.size} "
            "modes."
        )
    return list(_warnings(settings, scan))


def _warnings(settings: Settings, scan: ModeTask):
    data = batch_task(settings)
    if settings.hidden_width < data.singular_values.size:
        yield (
            f"hidden_width = {settings.hidden_width} is below the {data.singular_values.size} modes of the data: the "
            "random starts cannot learn them all."
        )
    curvature = 2 * data.singular_values[0]
    if settings.batch_learning_rate * curvature > 0.5:
        yield (
            f"batch_learning_rate = {settings.batch_learning_rate:g} does not resolve the fastest mode of the data "
            f"(times its curvature: {settings.batch_learning_rate * curvature:.3g}, small means below 0.5)."
        )
    widest = max(scan.inputs, scan.outputs)
    if settings.scan_width < 2 * widest:
        yield (
            f"scan_width = {settings.scan_width} is below twice the {widest} inputs or outputs: orthogonal starts are "
            "independent of depth only in wide hidden layers."
        )
    if sum(depth >= 32 for depth in settings.scan_depth) < 2:
        yield "scan_depth has fewer than two depths from 32 on: whether the number of steps levels off stays undecided."
    if not {4, 64} <= set(settings.scan_depth):
        yield "scan_depth lacks 4 or 64: how much slower Gaussian starts become stays undecided."


def input_files(settings: Settings) -> list[Path]:
    """Files whose content determines the run."""
    return [] if settings.synthetic else data_files(settings.data)
