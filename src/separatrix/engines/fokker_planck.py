"""The one-dimensional Fokker-Planck equation in time, between walls: mass and positivity hold to rounding.

For the Ito equation ``dx = mu dt + sqrt(2 D) dB`` the density p obeys ``dp/dt = -dJ/dx`` with
``J = mu p - (D p)' = (mu/D) g - g'``, ``g = D p``. Finite volumes with the exponentially fitted flux of Scharfetter and
Gummel (IEEE Trans. Electron Devices 16, 64, 1969): exact for constant J and mu/D on a cell, second order in the grid,
and monotone however strong the drift. Implicit Euler in time keeps the density nonnegative at every step size; no
linear scheme of second order does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs

Coefficient = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Density:
    """Probability densities on a grid of cells at several times.

    Attributes
    ----------
    time
        Times, ``(t,)``.
    edges
        Cell edges, ``(cells + 1,)``.
    density
        Probability per unit of x, cell averages, ``(t, cells)``.
    """

    time: Float[np.ndarray, " t"]
    edges: Float[np.ndarray, " edges"]
    density: Float[np.ndarray, "t cells"]

    @property
    def centres(self) -> Float[np.ndarray, " cells"]:
        """Cell centres."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @cached_property
    def masses(self) -> Float[np.ndarray, "t cells"]:
        """Probability of each cell."""
        return self.density * np.diff(self.edges)

    @property
    def mass(self) -> Float[np.ndarray, " t"]:
        """Total probability."""
        return self.masses.sum(axis=1)

    def expectation(self, values: Float[np.ndarray, " cells"]) -> Float[np.ndarray, " t"]:
        """Mean of a function of x given by its values at the centres."""
        return self.masses @ values / self.mass

    def mean(self) -> Float[np.ndarray, " t"]:
        """Mean of x."""
        return self.expectation(self.centres)

    def standard_deviation(self) -> Float[np.ndarray, " t"]:
        """Standard deviation of x."""
        return np.sqrt(np.sum(self.masses * (self.centres - self.mean()[:, None]) ** 2, axis=1) / self.mass)


def fokker_planck(
    drift: Coefficient,
    variance_rate: Coefficient,
    edges: Float[np.ndarray, " edges"],
    initial: Float[np.ndarray, " cells"],
    times: Float[np.ndarray, " t"],
    time_step: float,
    order: Literal[1, 2] = 1,
) -> Density:
    """Densities at ``times`` of ``dx = drift(x) dt + sqrt(variance_rate(x)) dB`` (Ito) that starts from ``initial``.

    Nothing flows through the two ends.

    Parameters
    ----------
    drift, variance_rate
        Functions of an array of positions; ``variance_rate = 2 D``. At a centre it may vanish: what enters stays.
    edges
        Cell edges, strictly increasing, ``(cells + 1,)``.
    initial
        Density at time 0, cell averages, ``(cells,)``; its mass is kept as it is.
    times
        Times of the answer, nondecreasing and not negative, ``(t,)``.
    time_step
        Largest step; the steps between two times are equal.
    order
        Order in ``time_step``. 1: implicit Euler, never negative, but it smears a moving density as if the diffusion
        were larger by ``drift**2 time_step / 2``. 2: Richardson extrapolation of it (three times the work), which can
        be slightly negative where the density is below its error.

    Raises
    ------
    ValueError
        If an argument is outside its domain, the drift is not finite or the diffusion not positive between cells.
    """
    edges, initial, times = (np.asarray(values, np.float64) for values in (edges, initial, times))
    rightward, leftward = _rates(drift, variance_rate, edges)
    if initial.shape != (edges.size - 1,) or not np.all(np.isfinite(initial) & (initial >= 0)):
        raise ValueError(f"initial must hold one finite, nonnegative density for each of the {edges.size - 1} cells")
    if times.ndim != 1 or not np.all(np.isfinite(times)) or np.any(np.diff(times, prepend=0.0) < 0):
        raise ValueError(f"times must be finite, nonnegative and nondecreasing, got {times}")
    if not (np.isfinite(time_step) and time_step > 0):
        raise ValueError(f"time_step must be finite and positive, got {time_step}")
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    widths = np.diff(edges)
    # Both marches start from the same number of coarse steps, or their errors would not be in the ratio 2.
    counts = np.ceil(np.diff(times, prepend=0.0) / time_step * (1 - 1e-12)).astype(int)
    density = _march(rightward, leftward, widths, initial, times, counts)
    if order == 2:
        density = 2 * _march(rightward, leftward, widths, initial, times, 2 * counts) - density
    return Density(times, edges, density)


def steady_state(
    drift: Coefficient, variance_rate: Coefficient, edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, " cells"]:
    """The normalised density that :func:`fokker_planck` leaves unchanged, ``(cells,)``.

    With no flux anywhere ``g`` grows from cell to cell by ``exp(mu h / D)``: a product, taken in logarithms.

    Raises
    ------
    ValueError
        As :func:`fokker_planck`, or if the diffusion vanishes at a centre.
    """
    edges = np.asarray(edges, np.float64)
    exponent, diffusion, _ = _fitted(drift, variance_rate, edges)
    if np.any(diffusion == 0):
        raise ValueError("variance_rate must be positive at every centre for a steady state with a density")
    logs = np.concatenate([[0.0], np.cumsum(exponent)]) - np.log(diffusion)
    density = np.exp(logs - logs.max())
    return density / np.sum(density * np.diff(edges))


def bernoulli(x: Float[np.ndarray, "..."] | float) -> Float[np.ndarray, "..."]:
    """``x / (exp(x) - 1)``, 1 at 0, to rounding at every x."""
    x = np.asarray(x, np.float64)
    # Beyond 700 the exponential overflows; the quotient is below 1e-301 there and stays positive.
    denominator = np.expm1(np.minimum(x, 700.0))
    return np.where(x == 0, 1.0, x / np.where(x == 0, 1.0, denominator))


def _fitted(drift, variance_rate, edges):
    """``mu h / D`` at the inner edges, D at the centres, and the distances h between centres."""
    if edges.ndim != 1 or edges.size < 3 or not np.all(np.isfinite(edges)) or np.any(np.diff(edges) <= 0):
        raise ValueError("edges must be finite and strictly increasing and make at least two cells")
    centres, inner = (edges[1:] + edges[:-1]) / 2, edges[1:-1]
    at_centres, at_edges, speed = (
        np.broadcast_to(np.asarray(f(x), np.float64), x.shape)
        for f, x in ((variance_rate, centres), (variance_rate, inner), (drift, inner))
    )
    if not (np.all(np.isfinite(at_centres) & (at_centres >= 0)) and np.all(np.isfinite(at_edges) & (at_edges > 0))):
        raise ValueError("variance_rate must be finite, positive at the inner edges and not negative at the centres")
    if not np.all(np.isfinite(speed)):
        raise ValueError("drift must be finite at the inner edges")
    distance = np.diff(centres)
    return 2 * speed / at_edges * distance, at_centres / 2, distance


def _rates(drift, variance_rate, edges):
    """Flux through each inner edge per unit density of the cell on its left, and of the one on its right."""
    exponent, diffusion, distance = _fitted(drift, variance_rate, edges)
    return (
        bernoulli(-exponent) * diffusion[:-1] / distance,
        bernoulli(exponent) * diffusion[1:] / distance,
    )


def _march(rightward, leftward, widths, initial, times, counts):
    """Implicit Euler with ``counts[k]`` equal steps up to ``times[k]``."""
    out = np.empty((times.size, widths.size))
    (solve,) = get_lapack_funcs(("gttrs",), dtype=np.float64)
    density, factors, last_step = initial, (), np.inf
    for k, (interval, count) in enumerate(zip(np.diff(times, prepend=0.0), counts, strict=True)):
        step = interval / max(count, 1)
        # Intervals of one length differ by rounding: one factorisation serves them all.
        if count and abs(step - last_step) > 1e-12 * step:
            factors, last_step = _factorise(step * rightward, step * leftward, widths), step
        for _ in range(count):
            density = solve(*factors, widths * density)[0]
        out[k] = density
    return out


def _factorise(rightward, leftward, widths):
    """Factors, as LAPACK's ``gttrs`` wants them, of the matrix of one implicit step.

    The columns sum to ``widths``: eliminating in terms of these sums instead of the diagonal needs no subtraction
    (Grassmann, Taksar and Heyman, Oper. Res. 33, 1107, 1985), so that every pivot is positive and accurate to
    rounding, and with it every density, however stiff the step.
    """
    pivots = np.empty_like(widths)
    held = widths[0]
    for i in range(widths.size - 1):
        pivots[i] = held + rightward[i]
        held = widths[i + 1] + leftward[i] * (held / pivots[i])
    pivots[-1] = held
    order = np.arange(1, widths.size + 1, dtype=np.int32)
    return -rightward / pivots[:-1], pivots, -leftward, np.zeros(widths.size - 2), order
