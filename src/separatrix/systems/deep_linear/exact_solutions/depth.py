"""What depth does: steps from decoupled, orthogonal and Gaussian starts (A5 to A7), spectra of products (A8)."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, bootstrap, mean_interval
from separatrix.lab import Measurement, Results
from separatrix.systems.deep_linear.exact_solutions.experiments import GAIN, SQUARE_DEPTH
from separatrix.systems.deep_linear.exact_solutions.settings import Settings
from separatrix.systems.deep_linear.product_spectra import fraction_below

#: Singular values below this have collapsed.
COLLAPSED = 0.01


def best_steps(data: xr.Dataset, most_steps: int) -> tuple[Float[np.ndarray, " n"], float]:
    """Steps of each run at its best step size, and the share of runs that did not arrive at any.

    A step size that diverges counts as infinitely slow. A run that arrives at none is censored: ``most_steps`` is then
    a lower bound of its number of steps.
    """
    steps = data["steps"].values
    best = np.where(steps >= 0, steps, np.iinfo(steps.dtype).max).min(axis=1)
    return np.minimum(best, most_steps).astype(np.float64), float(np.mean(np.all(steps < 0, axis=1)))


def _all_steps(settings: Settings, results: Results, kind: str, depths: tuple[int, ...]):
    """Best steps ``(n, depths)`` and the censored share at each depth."""
    found = [best_steps(results[f"scan_{kind}_depth{depth}"], settings.most_steps) for depth in depths]
    return np.stack([steps for steps, _ in found], axis=1), np.array([share for _, share in found])


def finite_delay(settings: Settings, results: Results, kind: str = "decoupled") -> list[Measurement]:
    """Growth of the number of steps for each doubling of the depth, between the two largest depths (A5)."""
    label, accepted = "growth of the steps when the depth doubles", (-1.0, 0.15)
    shallow, deep = settings.scan_depth[-2:]
    if shallow < 32:
        return [Measurement.missing(label, accepted, "needs two depths from 32 on")]
    steps, censored = _all_steps(settings, results, kind, (shallow, deep))
    growth = (steps[:, 1] / steps[:, 0]) ** (1 / np.log2(deep / shallow)) - 1
    # Runs given up at the larger depth make the growth a lower bound: enough to say that it is too large.
    unknown = censored[0] + (censored[1] if growth.min() <= accepted[1] else 0.0)
    return [
        Measurement(
            f"from depth {shallow} to {deep}, {label}", growth.mean(), (growth.min(), growth.max()), accepted,
            excluded=min(unknown, 1.0), members=len(growth), note=_listed(np.median(steps, axis=0), censored),
        )
    ]  # fmt: skip


def depth_independence(settings: Settings, results: Results, kind: str = "orthogonal") -> list[Measurement]:
    """Largest over smallest median number of steps over all depths (A6)."""
    depths = settings.scan_depth
    if kind == "square":
        depths = tuple(depth for depth in depths if depth <= SQUARE_DEPTH)
    label, accepted = "largest over smallest median number of steps over depths", (1.0, 2.0)
    if len(depths) < 2:
        return [Measurement.missing(label, accepted, "needs two depths")]
    steps, censored = _all_steps(settings, results, kind, depths)

    def ratio(rows: np.ndarray, axis: int = 0) -> np.ndarray:
        medians = np.median(rows, axis=axis)
        return medians.max(axis=-1) / medians.min(axis=-1)

    estimate, interval = bootstrap(ratio, steps, seed=settings.seed)
    # With runs given up the ratio is a lower bound, unless they are what it divides by.
    bounded = interval[0] > accepted[1] and censored[np.median(steps, axis=0).argmin()] == 0
    return [
        Measurement(
            label, estimate, interval, accepted, excluded=0.0 if bounded else censored.mean(),
            members=len(steps), note=_listed(np.median(steps, axis=0), censored),
        )
    ]  # fmt: skip


def gaussian_slowdown(settings: Settings, results: Results, kind: str = "gaussian") -> list[Measurement]:
    """Median number of steps at depth 64 over that at depth 4 (A7); a run given up counts with a lower bound."""
    label, accepted = "median steps at depth 64 over depth 4", (10.0, np.inf)
    if not {4, 64} <= set(settings.scan_depth):
        return [Measurement.missing(label, accepted, "needs depths 4 and 64")]
    steps, censored = _all_steps(settings, results, kind, (4, 64))

    def ratio(rows: np.ndarray, axis: int = 0) -> np.ndarray:
        medians = np.median(rows, axis=axis)
        return medians[..., 1] / medians[..., 0]

    estimate, interval = bootstrap(ratio, steps, seed=settings.seed)
    note = _listed(np.median(steps, axis=0), censored)
    # Runs given up at depth 64 make the ratio a lower bound, which is what the claim asks for.
    unknown = censored[0] + (censored[1] if interval[0] < accepted[0] else 0.0)
    return [Measurement(label, estimate, interval, accepted, excluded=min(unknown, 1.0), members=len(steps), note=note)]


def _listed(medians: np.ndarray, censored: np.ndarray) -> str:
    text = "median steps " + ", ".join(f"{m:g}" for m in medians)
    return text + (f"; {censored.mean():.0%} of the runs given up" if censored.any() else "")


def spectra(settings: Settings, results: Results, exchanged: bool = False) -> list[Measurement]:
    """Collapse of Gaussian products, measured and predicted, and isometry of orthogonal ones (A8)."""
    gaussian, orthogonal = "spectra_gaussian", "spectra_orthogonal"
    if exchanged:
        gaussian, orthogonal = orthogonal, gaussian
    collapsed = (results[gaussian]["value"].values < COLLAPSED).mean(axis=2)
    factors = np.array(settings.factors)
    confidence = bonferroni(2 * factors.size - 1)
    measurements = []
    for k in range(1, factors.size):
        estimate, interval = mean_interval(collapsed[:, k] - collapsed[:, k - 1], confidence=confidence)
        measurements.append(
            Measurement(
                f"Gaussian, D = {factors[k - 1]} to {factors[k]}, rise of the share below {COLLAPSED:g}",
                estimate, interval, (0.002, 1.0), members=len(collapsed),
            )
        )  # fmt: skip
    # Edges of a finite matrix's spectrum are blurred by about one singular value in N.
    near = 0.02 + 1 / settings.matrix_size
    for k, number in enumerate(factors):
        predicted = fraction_below(COLLAPSED, int(number))
        estimate, interval = mean_interval(collapsed[:, k] - predicted, confidence=confidence)
        measurements.append(
            Measurement(
                f"Gaussian, D = {number}, share below {COLLAPSED:g} minus that of infinite size",
                estimate, interval, (-near, near), members=len(collapsed), note=f"infinite size: {predicted:.3f}",
            )
        )  # fmt: skip
    values = results[orthogonal]["value"].values
    gap = np.abs(values / GAIN ** factors[:, None] - 1).max(axis=(1, 2))
    measurements.append(
        Measurement(
            "orthogonal, largest relative distance of a singular value from gain^D", gap.max(), (gap.min(), gap.max()),
            (0.0, 1e-12), members=gap.size,
        )
    )  # fmt: skip
    return measurements
