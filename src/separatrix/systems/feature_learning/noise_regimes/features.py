"""The feature regime: temperatures rescaled by ``alpha^k`` collapse the final weights of every alpha (K7)."""

from functools import partial

import numpy as np
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, bootstrap, clopper_pearson, mean_interval
from separatrix.engines.power_laws import collapse_spread
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.feature_learning.hinge_networks import DenseNetwork
from separatrix.systems.feature_learning.noise_regimes.data import sign_sets
from separatrix.systems.feature_learning.noise_regimes.runs import Conditions, by_condition, network_experiment
from separatrix.systems.feature_learning.noise_regimes.settings import Settings
from separatrix.systems.feature_learning.perceptron_theory import feature_exponent

#: Temperatures in units of ``alpha^k``; the lowest stands for no noise at all.
RATIOS = np.array([0.03, 0.1, 0.3, 1.0, 3.0, 10.0])
WINDOW = (0.03, 1.0)


def feature_experiments(settings: Settings) -> list[Experiment]:
    """Networks of every depth and small alpha."""
    experiments = []
    for depth in settings.depths:
        k = feature_exponent(depth)
        alphas = np.repeat(settings.feature_alphas, RATIOS.size)
        temperatures = np.tile(RATIOS, len(settings.feature_alphas)) * alphas**k
        sets = partial(sign_sets, settings.seed, 40 + depth, settings.feature_runs, settings.feature_samples,
                       settings.test_samples, settings.network_dimension, settings.chi)  # fmt: skip
        # The time of gradient flow is about 900, 60 and 27 at one, two and three hidden layers, of the order of
        # w^{1-D}.
        flow = {1: 900.0, 2: 65.0}.get(depth, 27.0)
        steps = flow / (temperatures * settings.network_batch) + 100
        experiments.append(
            network_experiment(
                settings, f"feature_depth{depth}", Conditions(alphas, temperatures, settings.feature_runs), sets,
                DenseNetwork(depth, settings.feature_width), settings.feature_samples, settings.network_dimension,
                expected_steps=float(np.mean(np.minimum(steps, settings.network_most_steps))),
            )
        )  # fmt: skip
    return experiments


def _tables(settings: Settings, results: Results, depth: int, variable: str) -> np.ndarray:
    """``(alphas, ratios, runs)``."""
    values = by_condition(results[f"feature_depth{depth}"], variable, settings.feature_runs)
    return values.reshape(len(settings.feature_alphas), RATIOS.size, settings.feature_runs)


def growth(settings: Settings, results: Results, depth: int) -> Float[np.ndarray, "a t runs"]:
    """Final norm of the weights over that of the same start and samples without noise; NaN where a run is not at rest.

    A run whose last unfitted sample has lost its gradient is at rest, too, and counts.
    """
    norm, diverged, censored = (
        _tables(settings, results, depth, name) for name in ("weight_norm", "diverged", "censored")
    )
    at_rest = ~(diverged | censored)
    return np.where(at_rest & at_rest[:, :1], norm / np.where(at_rest[:, :1], norm[:, :1], 1.0), np.nan)


def collapse(settings: Settings, results: Results, shift: float = 0.0) -> list[Measurement]:
    """Spread over alpha of the final norms against ``T / alpha^k``, their growth at 1, and runs lost at 10.

    ``shift`` changes the exponent k (the control). The temperatures are then compared in units that agree at the
    geometric mean of the alphas.
    """
    confidence = bonferroni(2 * len(settings.depths))
    measurements = []
    alphas = np.asarray(settings.feature_alphas)
    middle = np.exp(np.log(alphas).mean())
    inside = (WINDOW[0] <= RATIOS) & (WINDOW[1] >= RATIOS)
    for depth in settings.depths:
        grown = growth(settings, results, depth)
        lost = float(np.isnan(grown[:, inside]).mean())
        label = f"D = {depth}: spread over alpha of the final norms"
        rows = np.moveaxis(grown, -1, 0)
        rows = rows[np.isfinite(rows[:, :, inside]).all(axis=(1, 2))]
        if len(rows) < 2:
            measurements.append(Measurement.missing(label, (-np.inf, 0.15), "too few runs came to rest", excluded=lost))
            continue
        # Another exponent moves the curve of each alpha along the axis of temperatures.
        scale = (alphas / middle) ** -shift
        # Beyond the window a lost run stands for a large norm; medians bear that as long as fewer than half are lost.
        filled = np.where(np.isfinite(rows), rows, 1e6)
        abscissas = [RATIOS * one for one in scale]

        def spread(values: np.ndarray, axis: int = 0, abscissas: list[np.ndarray] = abscissas) -> np.ndarray:
            curves = np.median(values, axis=axis)
            return collapse_spread(abscissas, [curves[..., a, :] for a in range(len(abscissas))], WINDOW)

        estimate, interval = bootstrap(spread, filled, confidence=confidence, seed=settings.seed)
        measurements.append(
            Measurement(label, estimate, interval, (0.0, 0.15), excluded=lost, members=len(rows),
                        note=f"k = {feature_exponent(depth) + shift:.3g}")
        )  # fmt: skip
        if shift:
            continue
        mean, (low, high) = mean_interval(np.log(rows[:, 0, RATIOS == 1.0][:, 0]), confidence=confidence)
        ends = float(np.exp(low) - 1), float(np.exp(high) - 1)
        measurements.append(
            Measurement(f"D = {depth}: growth of the norm at T = alpha^k, smallest alpha", np.exp(mean) - 1, ends,
                        (0.1, 0.3), excluded=lost, members=len(rows))
        )  # fmt: skip
        gone = int((~_tables(settings, results, depth, "fitted"))[0, RATIOS == 10.0].sum())
        measurements.append(
            Measurement(f"D = {depth}: runs lost at 10 alpha^k, smallest alpha", gone / settings.feature_runs,
                        clopper_pearson(gone, settings.feature_runs, confidence=0.95), (0.5, 1.0),
                        members=settings.feature_runs)
        )  # fmt: skip
    return measurements


def uncollapsed(settings: Settings, results: Results) -> list[Measurement]:
    """The control of :func:`collapse`: k is wrong by one half."""
    return collapse(settings, results, shift=0.5)
