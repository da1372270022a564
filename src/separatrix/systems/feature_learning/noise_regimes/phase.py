"""The phase diagram over alpha and temperature (K8), and the single point that sweeps map."""

from functools import partial

import numpy as np
from jaxtyping import Float

from separatrix.engines.intervals import bootstrap
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.feature_learning.hinge_networks import ConvolutionalNetwork, DenseNetwork
from separatrix.systems.feature_learning.noise_regimes.data import image_shape, phase_sets
from separatrix.systems.feature_learning.noise_regimes.runs import Conditions, by_condition, network_experiment
from separatrix.systems.feature_learning.noise_regimes.settings import Settings

#: Of a row of the diagram those temperatures count at which at least this share of the runs is fitted.
_FITTED = 0.99


def phase_network(settings: Settings) -> DenseNetwork | ConvolutionalNetwork:
    """Architecture of the phase diagram."""
    if settings.network == "dense":
        return DenseNetwork(settings.hidden_layers, settings.width)
    shape = image_shape(settings)
    assert shape is not None
    return ConvolutionalNetwork(settings.hidden_layers, settings.width, shape)


def phase_axes(settings: Settings) -> tuple[Float[np.ndarray, " a"], Float[np.ndarray, " t"]]:
    """Alphas and temperatures of the phase diagram."""
    alphas = np.geomspace(1e-3, 1e2, settings.phase_alphas)
    return alphas, np.geomspace(3e-3, 30.0, settings.phase_temperatures)


def _inputs(settings: Settings) -> int:
    if settings.data == "sign":
        return settings.network_dimension
    return phase_sets(settings, 50, 1)["inputs"].shape[1]


def _expected_steps(settings: Settings, alphas: np.ndarray, temperatures: np.ndarray) -> float:
    """Mean number of steps: the time of gradient flow over the step, or what it takes to fit P samples with noise."""
    flow = 900 / (1 + alphas)
    steps = flow / (temperatures * settings.network_batch) + 60 * (settings.network_samples / 128) ** 1.3
    return float(np.mean(np.minimum(steps, settings.network_most_steps)))


def phase_experiments(settings: Settings) -> list[Experiment]:
    """The diagram, and the single point at (``alpha``, ``temperature``)."""
    grid = Conditions.grid(*phase_axes(settings), settings.phase_runs)
    point = Conditions.grid([settings.alpha], [settings.temperature], settings.phase_runs)
    return [
        network_experiment(
            settings, name, conditions, partial(phase_sets, settings, 50, settings.phase_runs), phase_network(settings),
            settings.network_samples, _inputs(settings),
            expected_steps=_expected_steps(settings, conditions.alpha, conditions.temperature),
        )
        for name, conditions in (("phase", grid), ("point", point))
    ]  # fmt: skip


def phase_table(settings: Settings, results: Results, variable: str) -> np.ndarray:
    """A variable over the diagram, ``(alphas, temperatures, runs)``."""
    return by_condition(results["phase"], variable, settings.phase_runs).reshape(
        settings.phase_alphas, settings.phase_temperatures, settings.phase_runs
    )


def row_slopes(settings: Settings, results: Results, row: int) -> Float[np.ndarray, " runs"] | None:
    """Slope of each run's test error against ``ln T`` over the mean error of the row; None with too few temperatures.

    Only temperatures at which the runs are fitted count: a lost network has no test error of interest.
    """
    error, fitted = (phase_table(settings, results, name)[row] for name in ("test_error", "fitted"))
    kept = fitted.mean(axis=1) >= _FITTED
    if kept.sum() < 3 or not error[kept].mean() > 0:
        return None
    log_t = np.log(phase_axes(settings)[1][kept])
    log_t = log_t - log_t.mean()
    return (log_t @ error[kept]) / np.sum(log_t**2) / error[kept].mean()


def effects(settings: Settings, results: Results) -> dict[str, np.ndarray | None]:
    """Slopes of the rows of the largest (``lazy``) and of the smallest alpha (``feature``)."""
    return {
        "lazy": row_slopes(settings, results, settings.phase_alphas - 1),
        "feature": row_slopes(settings, results, 0),
    }


def opposite_effects(settings: Settings, results: Results, same_row: bool = False) -> list[Measurement]:
    """Product of the effects of noise on the test error in the two regimes.

    Negative if noise helps in one and hurts in the other. For the control the row with the clearer effect is compared
    with itself.
    """
    label, accepted = "effect in the lazy times effect in the feature regime", (-np.inf, 0.0)
    found = effects(settings, results)
    first, second = found["lazy"], found["feature"]
    if first is None or second is None:
        return [Measurement.missing(label, accepted, "fewer than three temperatures at which all runs are fitted")]
    if same_row:
        clearness = lambda slopes: abs(slopes.mean()) / max(slopes.std(ddof=1), 1e-300)  # noqa: E731
        first = second = max(first, second, key=clearness)

    def product(pairs: np.ndarray, axis: int = 0) -> np.ndarray:
        mean = pairs.mean(axis=axis)
        return mean[..., 0] * mean[..., 1]

    pairs = np.stack([first, second], axis=1)
    estimate, interval = bootstrap(product, pairs, seed=settings.seed)
    words = [f"{name} {describe(values)}" for name, values in found.items() if values is not None]
    return [Measurement(label, estimate, interval, accepted, members=len(pairs), note="; ".join(words))]


def describe(slopes: Float[np.ndarray, " runs"]) -> str:
    """An effect in words: relative change of the test error for each factor e of T, with its bootstrap interval."""
    estimate, (low, high) = bootstrap(np.mean, slopes)
    sign = "noise hurts" if low > 0 else "noise helps" if high < 0 else "no sign"
    return f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}] per factor e of T, {sign}"
