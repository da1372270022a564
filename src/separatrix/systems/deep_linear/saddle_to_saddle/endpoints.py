"""Where SGD ends: the stationary law with label noise (C4), the solution itself without (C5)."""

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.deep_linear.saddle_to_saddle.chain import CONTRACTION, scalar_rates
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, task
from separatrix.systems.deep_linear.stationary import (
    boltzmann_temperature,
    contraction_exponent,
    relaxation_rate,
    stationary_law,
)


def stationary_statistics(settings: Settings, results: Results, independent_layers: bool = False) -> list[Measurement]:
    """KS distances of the scalar chain to its laws against the learning rate, and temperatures of the full network."""
    modes = _testable_modes(settings)
    confidence = bonferroni(3 * len(settings.depth) + len(modes))
    laws = (_law_measurements(settings, results, d, independent_layers, confidence) for d in settings.depth)
    temperatures = (_temperature(settings, results, *mode, independent_layers, confidence) for mode in modes)
    return [*(m for law in laws for m in law), *temperatures]


def law_distances(
    settings: Settings, results: Results, depth: int, weaker: float = 1.0
) -> tuple[Float[np.ndarray, "rates 2"], Float[np.ndarray, "rates 2"]]:
    """:func:`ks_distance` of the scalar chain to the exact law and to Boltzmann at each of its learning rates.

    ``weaker`` divides the noise of the theory.
    """
    sigma = settings.scalar_label_noise
    exact, boltzmann = [], []
    for k, rate in enumerate(scalar_rates(settings, depth)):
        strength = _strengths(results[f"law_depth{depth}_rate{k}"], depth)
        exact.append(ks_distance(strength, stationary_law(depth, 1.0, sigma, rate / weaker).cdf))
        spread = np.sqrt(boltzmann_temperature(depth, 1.0, sigma, rate / weaker))
        boltzmann.append(ks_distance(strength, stats.norm(1.0, spread).cdf))
    return np.array(exact), np.array(boltzmann)


def _law_measurements(
    settings: Settings, results: Results, depth: int, independent_layers: bool, confidence: float
) -> Iterator[Measurement]:
    rates = scalar_rates(settings, depth)
    weaker = depth if independent_layers else 1
    exact, boltzmann = law_distances(settings, results, depth, weaker)
    lost = diverged_fraction(*(results[f"law_depth{depth}_rate{k}"] for k in range(rates.size)))
    for name, distances, accepted in (
        ("KS distance to the exact law, power of the learning rate", exact, (0.8, 1.3)),
        ("KS distance to Boltzmann, power of the learning rate", boltzmann, (0.3, 0.7)),
    ):
        estimate, interval, note = _power_law(rates, distances, confidence)
        yield Measurement(
            f"depth {depth}, {name}",
            estimate,
            interval,
            accepted,
            excluded=lost,
            members=settings.chain_runs,
            note=note,
        )
    data = results[f"law_depth{depth}_sde"]
    law = stationary_law(depth, 1.0, settings.scalar_label_noise, rates[-1] / weaker)
    value, error = ks_distance(_strengths(data, depth), law.cdf)
    reach = float(stats.norm.ppf(0.5 + confidence / 2)) * error
    yield Measurement(
        f"depth {depth}, KS distance of the SDE to the exact law, learning rate {rates[-1]:g}",
        value,
        (value - reach, value + reach),
        (-0.01, 0.01),
        excluded=diverged_fraction(data),
        members=settings.chain_runs,
    )


def _strengths(data: xr.Dataset, depth: int) -> Float[np.ndarray, "n t"]:
    """Strengths of the members that did not diverge."""
    kept = data["root"].values[data["diverged_at_step"].values < 0]
    # Near the power law's end a strength can overflow where its root does not: no law speaks of such a member.
    return kept[np.all(np.abs(kept) < 1e300 ** (1 / depth), axis=1)] ** depth


def ks_distance(
    samples: Float[np.ndarray, "n t"], cdf: Callable[[np.ndarray], np.ndarray], blocks: int = 50, cells: int = 4000
) -> tuple[float, float]:
    """Largest deviation of the empirical from the predicted distribution function, and its standard error.

    Both are compared at the ends of ``cells`` equal cells. The error is taken over blocks of members (rows) at the
    place where the deviation is largest; there the sampling noise is nearly unbiased once it is above the floor.
    """
    edges = np.linspace(samples.min(), samples.max(), cells + 1)
    cell = np.minimum((samples - edges[0]) * (cells / (edges[-1] - edges[0])), cells - 1).astype(np.int64)
    block = np.arange(len(samples)) * min(blocks, len(samples)) // len(samples)
    counts = np.bincount((block[:, None] * cells + cell).ravel(), minlength=(block[-1] + 1) * cells)
    cumulative = np.cumsum(counts.reshape(-1, cells), axis=1)
    deviation = cumulative / cumulative[:, -1:] - cdf(edges[1:])
    place = np.abs(deviation.mean(axis=0)).argmax()
    at = deviation[:, place]
    return float(abs(at.mean())), float(at.std(ddof=1) / np.sqrt(at.size))


def _power_law(
    rates: np.ndarray, distances: Float[np.ndarray, "rates 2"], confidence: float
) -> tuple[float, tuple[float, float], str]:
    """Slope of log distance against log rate by weighted least squares, points at the sampling floor left out."""
    value, error = distances.T
    above = value > 5 * error
    listed = ", ".join(f"{v:.4f}" for v in value)
    if above.sum() < 2:
        return (
            float("nan"),
            (float("nan"), float("nan")),
            f"distances {listed}: fewer than two above the sampling floor",
        )
    x, y, spread = np.log(rates[above]), np.log(value[above]), error[above] / value[above]
    weight = 1 / spread**2
    centre = np.sum(weight * x) / weight.sum()
    variance = 1 / np.sum(weight * (x - centre) ** 2)
    slope = np.sum(weight * (x - centre) * y) * variance
    # Curvature counts as error too: a power law that does not fit is not known better than its residuals.
    residual = y - np.sum(weight * y) / weight.sum() - slope * (x - centre)
    inflation = max(1.0, np.sum(weight * residual**2) / max(above.sum() - 2, 1))
    reach = stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(variance * inflation)
    return float(slope), (float(slope - reach), float(slope + reach)), f"distances {listed}"


def _testable_modes(settings: Settings) -> list[tuple[int, int]]:
    """(depth, mode) at which the continuum's temperature should show: ``noise scale * lambda < 0.05``."""
    problem = task(settings)
    kappa = settings.learning_rate * problem.noise_scale_factor
    return [
        (depth, mode)
        for depth in settings.depth
        for mode in range(problem.modes)
        if kappa * relaxation_rate(depth, problem.followed[mode]) < 0.05
    ]


def _temperature(
    settings: Settings, results: Results, depth: int, mode: int, independent_layers: bool, confidence: float
) -> Measurement:
    problem = task(settings)
    kappa = settings.learning_rate * problem.noise_scale_factor
    label, accepted = f"depth {depth}, variance of mode {mode + 1} over its temperature", (0.95, 1.15)
    sigma = problem.mode_label_noise[mode]
    if sigma == 0:
        return Measurement.missing(label, accepted, "no label noise")
    temperature = float(boltzmann_temperature(depth, problem.followed[mode], sigma, kappa))
    temperature /= depth if independent_layers else 1
    strength = results[f"stationary_depth{depth}"]["strength_matrix"].values[:, :, mode, mode]
    kept = strength[np.isfinite(strength).all(axis=1)]
    if len(kept) < 2:
        return Measurement.missing(label, accepted, "the runs diverged", excluded=1 - len(kept) / len(strength))
    # The mean over all runs and snapshots is known far better than the variance: the runs' squares are the members.
    squares = np.mean((kept - kept.mean()) ** 2, axis=1) / temperature
    estimate, interval = mean_interval(squares, confidence=confidence)
    return Measurement(label, estimate, interval, accepted, excluded=1 - len(kept) / len(strength), members=len(kept))


def convergence(settings: Settings, results: Results) -> list[Measurement]:
    """Largest final distance to the teacher, and the contraction rate of the scalar chain against theory."""
    measurements = [_final_distance(f"depth {d}", results[f"aligned_depth{d}_clean"]) for d in settings.depth]
    for depth in settings.depth:
        data = results[f"contraction_depth{depth}"]
        # A rare run is thrown onto the solution to the last digit: rounding is all that can be said of its distance.
        error = np.log(np.maximum(np.abs(1 - data["root"].values ** depth), np.finfo(float).eps))
        time = data["time"].values
        slopes = (error[:, -1] - error[:, 0]) / (time[-1] - time[0])
        predicted = float(contraction_exponent(depth, 1.0, CONTRACTION["rate"], settings.batch_size))
        estimate, interval = mean_interval(slopes / predicted, confidence=bonferroni(len(settings.depth)))
        measurements.append(
            Measurement(
                f"depth {depth}, contraction rate over theory", estimate, interval, (0.99, 1.01),
                excluded=diverged_fraction(data), members=slopes.size, note=f"theory {predicted:.4f} per unit time",
            )
        )  # fmt: skip
    return measurements


def noisy_convergence(settings: Settings, results: Results) -> list[Measurement]:
    """Final distances of the runs with label noise."""
    return [_final_distance(f"depth {d}, noisy labels", results[f"aligned_depth{d}_noisy"]) for d in settings.depth]


def _final_distance(label: str, data: xr.Dataset) -> Measurement:
    distance = np.sqrt(2 * data["loss"].values[:, -1])
    finite = distance[np.isfinite(distance)]
    largest = float(finite.max()) if finite.size else float("nan")
    return Measurement(
        f"{label}, largest distance to the teacher at the end", largest, (largest, largest), (0.0, 1e-8),
        excluded=1 - finite.size / distance.size, members=distance.size,
    )  # fmt: skip
