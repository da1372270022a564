"""Lazy networks: weights move in proportion to the temperature (K5), and the temperature at which they leave (K6)."""

from functools import partial

import numpy as np
from jaxtyping import Float, Int

from separatrix.engines.intervals import bonferroni
from separatrix.engines.power_laws import log_crossing, power_law
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.feature_learning.hinge_networks import DenseNetwork
from separatrix.systems.feature_learning.noise_regimes.data import sign_sets
from separatrix.systems.feature_learning.noise_regimes.runs import Conditions, by_condition, network_experiment
from separatrix.systems.feature_learning.noise_regimes.settings import Settings
from separatrix.systems.feature_learning.perceptron_theory import exponents

#: Temperatures in units of 1/alpha: from gradient flow across the crossover at 1 to where weights change as a whole.
TEMPERATURES = np.array([0.1, 0.3, 1.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0])
NOISY, QUIET = (10.0, 1000.0), (0.0, 0.3)
#: Relative change of the weights at which a network counts as no longer lazy.
CHANGED = 0.3
_RESAMPLES = 1000


def lazy_network(settings: Settings) -> DenseNetwork:
    """One hidden layer."""
    return DenseNetwork(1, settings.lazy_width)


def lazy_experiments(settings: Settings) -> list[Experiment]:
    """Lazy networks at every P and temperature."""
    experiments = []
    temperatures = TEMPERATURES / settings.lazy_alpha
    for samples in settings.lazy_samples:
        sets = partial(sign_sets, settings.seed, 30, settings.lazy_runs, samples, settings.test_samples,
                       settings.network_dimension, settings.chi)  # fmt: skip
        # Gradient flow takes about 2.5 in time; with noise the number of steps grows with P and not with T.
        steps = 300 / TEMPERATURES / settings.network_batch + 60 * (samples / 128) ** 1.3
        experiments.append(
            network_experiment(
                settings, f"lazy_P{samples}",
                Conditions.grid([settings.lazy_alpha], temperatures, settings.lazy_runs), sets, lazy_network(settings),
                samples, settings.network_dimension, expected_steps=float(np.mean(steps)),
            )
        )  # fmt: skip
    return experiments


def _table(settings: Settings, results: Results, samples: int, variable: str) -> Float[np.ndarray, "c runs"]:
    return by_condition(results[f"lazy_P{samples}"], variable, settings.lazy_runs)


def _within(window: tuple[float, float]) -> np.ndarray:
    return (window[0] <= TEMPERATURES) & (window[1] >= TEMPERATURES)


def weights_against_temperature(
    settings: Settings, results: Results, window: tuple[float, float] = NOISY
) -> list[Measurement]:
    """Power of T in the relative change of the weights, at every P (for the control, below the crossover)."""
    chosen, measurements = _within(window), []
    for samples in settings.lazy_samples:
        fitted = _table(settings, results, samples, "fitted")[chosen]
        label, accepted = f"P = {samples}: power of T in the change of the weights", (0.9, 1.1)
        if not fitted.any(axis=1).all():
            measurements.append(Measurement.missing(label, accepted, "no run was fitted at some temperature"))
            continue
        fit = power_law(
            TEMPERATURES[chosen], list(_table(settings, results, samples, "weight_change")[chosen]), list(~fitted),
            confidence=bonferroni(len(settings.lazy_samples)), seed=settings.seed, paired=True,
        )  # fmt: skip
        measurements.append(
            Measurement(label, fit.exponent, fit.interval, accepted, excluded=fit.censored,
                        members=settings.lazy_runs, note=f"straight line p = {fit.p_value:.2g}")
        )  # fmt: skip
    return measurements


def steps_against_temperature(
    settings: Settings, results: Results, window: tuple[float, float] = NOISY
) -> list[Measurement]:
    """Largest over smallest geometric mean of the number of steps within the window of temperatures, pooled over P."""
    chosen = _within(window)
    logs, fitted = [], []
    for samples in settings.lazy_samples:
        logs.append(np.log(_table(settings, results, samples, "steps")[chosen]))
        fitted.append(_table(settings, results, samples, "fitted")[chosen])
    log_steps = np.stack(logs, axis=0)  # (P, c, runs)

    def ratio(index: Int[np.ndarray, "P runs"]) -> float:
        mean = np.take_along_axis(log_steps, index[:, None], axis=2).mean(axis=(0, 2))
        return float(np.exp(mean.max() - mean.min()))

    sizes, runs = log_steps.shape[0], log_steps.shape[2]
    rng = np.random.default_rng(settings.seed)
    redrawn = [ratio(rng.integers(0, runs, (sizes, runs))) for _ in range(_RESAMPLES)]
    estimate = ratio(np.tile(np.arange(runs), (sizes, 1)))
    low, high = np.quantile(redrawn, [0.025, 0.975])
    return [
        Measurement(
            "largest over smallest number of steps", estimate, (min(low, estimate), high), (1.0, 1.3),
            excluded=float(1 - np.mean(fitted)), members=runs,
        )
    ]  # fmt: skip


def critical_temperatures(
    settings: Settings, results: Results, resamples: int = _RESAMPLES
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "r P"]]:
    """Temperature in units of 1/alpha at which the weights change by 30 %, at each P, and its resamples over runs."""
    curves, redrawn = [], []
    for k, samples in enumerate(settings.lazy_samples):
        change = np.log(_table(settings, results, samples, "weight_change"))
        rng = np.random.default_rng([settings.seed, k])
        index = rng.integers(0, settings.lazy_runs, (resamples, settings.lazy_runs))
        curves.append(change.mean(axis=1))
        redrawn.append(change[:, index].mean(axis=2).T)
    at = log_crossing(TEMPERATURES, np.exp(np.stack(curves)), CHANGED)
    return at, log_crossing(TEMPERATURES, np.exp(np.stack(redrawn, axis=1)), CHANGED)


def _slope(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    centred = np.log(x) - np.log(x).mean()
    return np.log(values) @ centred / np.sum(centred**2)


def critical_exponent(settings: Settings, results: Results, reverse: bool = False) -> list[Measurement]:
    """Power ``-a`` of P in ``T_c`` plus ``gamma / delta`` from the change of the weights far from ``T_c``.

    Gamma and delta come from half as much change as defines ``T_c`` and less. For the control the numbers of samples
    are assigned in reverse.
    """
    label, accepted = "power of P in T_c plus gamma / delta", (-0.1, 0.1)
    sizes = np.asarray(settings.lazy_samples, float)
    at, redrawn = critical_temperatures(settings, results)
    excluded = float(1 - np.mean([_table(settings, results, p, "fitted").mean() for p in settings.lazy_samples]))
    kept = np.isfinite(redrawn).all(axis=1)
    if not np.isfinite(at).all() or kept.mean() < 0.99:
        return [Measurement.missing(label, accepted, "the weights do not change by 30 % within the temperatures")]
    chosen = _within((NOISY[0], 100.0))
    gammas, deltas = [], []
    for index in (None, redrawn):
        means = []
        for k, samples in enumerate(settings.lazy_samples):
            change = np.log(_table(settings, results, samples, "weight_change")[chosen])
            if index is None:
                means.append(change.mean(axis=1))
            else:
                rng = np.random.default_rng([settings.seed, k])
                draw = rng.integers(0, settings.lazy_runs, (_RESAMPLES, settings.lazy_runs))
                means.append(change[:, draw].mean(axis=2).T)
        surface = np.stack(means, axis=-2)  # (..., P, c)
        gammas.append(_slope(sizes, np.exp(np.swapaxes(surface, -1, -2))).mean(axis=-1))
        deltas.append(_slope(TEMPERATURES[chosen], np.exp(surface)).mean(axis=-1))
    order = sizes[::-1] if reverse else sizes
    statistic = lambda t, gamma, delta: _slope(order, t) + gamma / delta  # noqa: E731
    estimate = float(statistic(at, gammas[0], deltas[0]))
    low, high = np.quantile(statistic(redrawn[kept], gammas[1][kept], deltas[1][kept]), [0.025, 0.975])
    return [
        Measurement(
            label, estimate, (low, high), accepted, excluded=excluded, members=settings.lazy_runs,
            note=f"a = {-float(_slope(order, at)):.3f}, gamma / delta = {float(gammas[0] / deltas[0]):.3f}; perceptron "
            f"theory {exponents(settings.chi).critical:.3g}",
        )
    ]  # fmt: skip
