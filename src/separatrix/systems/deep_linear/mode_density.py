"""The law of one mode's strength over time, from the Fokker-Planck equation of its logarithm.

``y = ln w`` has drift ``L w^{1-2/L} (s - w) - (L/2) kappa w^{2-4/L} Qm`` and variance rate
``kappa L^2 w^{2-4/L} Qm`` (:mod:`separatrix.systems.deep_linear.scalar_mode`); its density is propagated by
:mod:`separatrix.engines.fokker_planck` on a uniform grid in y, wide enough that no probability reaches the ends, and
tends to :class:`separatrix.systems.deep_linear.stationary.StationaryLaw`. Times are learning rate times steps.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from separatrix.engines.fokker_planck import fokker_planck
from separatrix.systems.deep_linear.domain import check_depth, check_kurtosis, check_nonnegative, check_positive
from separatrix.systems.deep_linear.scalar_mode import log_diffusion, log_drift
from separatrix.systems.deep_linear.stationary import boltzmann_temperature, relaxation_rate


@dataclass(frozen=True)
class ModeDensity:
    """Laws of the strength w of one mode at several times.

    Attributes
    ----------
    time
        Times, ``(t,)``.
    strength
        Strength in the middle (in ln w) of each cell, ``(cells,)``.
    edges
        Cell edges in strength, ``(cells + 1,)``.
    density
        Probability per unit of strength, cell averages, ``(t, cells)``; where negligible, possibly just below 0.
    """

    time: Float[np.ndarray, " t"]
    strength: Float[np.ndarray, " cells"]
    edges: Float[np.ndarray, " edges"]
    density: Float[np.ndarray, "t cells"]

    @cached_property
    def masses(self) -> Float[np.ndarray, "t cells"]:
        """Probability of each cell."""
        return self.density * np.diff(self.edges)

    @property
    def mass(self) -> Float[np.ndarray, " t"]:
        """Total probability, 1 to rounding."""
        return self.masses.sum(axis=1)

    @property
    def mean(self) -> Float[np.ndarray, " t"]:
        """Mean strength."""
        return self.masses @ self.strength

    @property
    def standard_deviation(self) -> Float[np.ndarray, " t"]:
        """Standard deviation of the strength."""
        return np.sqrt(np.sum(self.masses * (self.strength - self.mean[:, None]) ** 2, axis=1))


def mode_density(
    depth: int,
    singular_value: float,
    label_noise: float,
    noise_scale: float,
    initial_strength: float,
    times: Float[np.ndarray, " t"],
    initial_log_spread: float = 0.05,
    kurtosis: float = 1.0,
    log_step: float | None = None,
    time_step: float | None = None,
) -> ModeDensity:
    """Laws at ``times`` of the strength that starts log-normally around ``initial_strength``.

    Parameters
    ----------
    depth, singular_value, label_noise, noise_scale, kurtosis
        As in :mod:`separatrix.systems.deep_linear.scalar_mode`. Without label noise ``w = s`` absorbs: what arrives
        within the cell around s stays there.
    initial_strength
        Median strength at time 0.
    times
        Nondecreasing and not negative, ``(t,)``.
    initial_log_spread
        Standard deviation of ln w at time 0; a point start would need a finer grid than it is worth.
    log_step
        Width of the cells in ln w; by default a tenth of the narrowest of the initial and the stationary law. The
        error is of second order in it.
    time_step
        Largest time step, by default a hundredth of the mode's relaxation time ``1 / (L s^{2-2/L})``. The error is of
        second order in it.

    Raises
    ------
    ValueError
        If an argument is outside its domain.
    """
    check_depth(depth)
    check_positive(
        singular_value=singular_value, noise_scale=noise_scale, initial_strength=initial_strength,
        initial_log_spread=initial_log_spread,
    )  # fmt: skip
    check_nonnegative(label_noise=label_noise, times=times)
    check_kurtosis(kurtosis)
    if time_step is None:
        time_step = 0.01 / float(relaxation_rate(depth, singular_value))
    if log_step is None:
        temperature = boltzmann_temperature(depth, singular_value, label_noise, noise_scale)
        stationary_spread = float(np.sqrt(temperature)) / singular_value if label_noise else np.inf
        log_step = min(initial_log_spread, stationary_spread) / 10
    check_positive(log_step=log_step, time_step=time_step)
    parameters = (singular_value, depth, noise_scale, label_noise, kurtosis)
    times = np.asarray(times, np.float64)
    log_edges = _log_edges(parameters, initial_strength, initial_log_spread, float(times.max(initial=0.0)), log_step)
    initial = np.diff(norm.cdf(log_edges, np.log(initial_strength), initial_log_spread)) / log_step
    law = fokker_planck(
        lambda y: log_drift(np.exp(y), *parameters),
        lambda y: 2 * log_diffusion(np.exp(y), *parameters),
        log_edges,
        initial / (initial.sum() * log_step),
        times,
        time_step,
        order=2,
    )
    edges = np.exp(log_edges)
    return ModeDensity(times, np.exp(law.centres), edges, law.masses / np.diff(edges))


def _log_edges(parameters, initial_strength, initial_log_spread, time, step):
    """Uniform edges in ln w, ln s in the middle of a cell (where the diffusion vanishes without label noise)."""
    centre, start = np.log(parameters[0]), np.log(initial_strength)
    # Eight standard deviations of pure diffusion and drift below the start, unless the drift to diffusion ratio P > 0
    # gives up sooner: the probability of ever falling by d is below exp(-P d).
    low = np.exp(min(start, centre - np.log(2))) * np.geomspace(1e-12, 1, 200)
    drift, diffusion = log_drift(low, *parameters), log_diffusion(low, *parameters)
    fall = 8 * np.sqrt(2 * diffusion.max() * time) + max(-drift.min(), 0.0) * time
    ratio = np.min(drift / diffusion)
    if ratio > 0:
        fall = min(fall, 40 / ratio)
    below = min(start - 8 * initial_log_spread, centre) - fall
    # The stationary density of ln w falls as exp(-(4 - 3/L) y) above s, from a small factor.
    above = max(start + 8 * initial_log_spread, centre) + 5
    first, last = np.ceil((centre - below) / step), np.ceil((above - centre) / step)
    return centre + step * (np.arange(-first, last + 2) - 0.5)
