"""Reduced dynamics of signal and noise under label noise: when there are two stages, and when the second begins.

Setting: Han, Huang, Zhou, Niu, Chen, Yan, Takeda, Suzuki (ICML 2025, arXiv 2505.18909), two-layer ReLU network with
shared filters on a signal and a noise patch, full-batch descent on the logistic loss. With as many dimensions per
sample as one likes, a vanishing start and many filters, the course depends on two numbers only, ``kappa = n SNR^2`` and
the share ``tau`` of flipped labels. In the time ``theta = step * learning_rate sigma^2 d / (n m)``

    g' = (kappa/2) [(1 - tau) s(z_c) - tau s(z_n)],   c' = s(z_c),   f' = s(z_n),   s(z) = 1 / (1 + e^z),
    z_c = g + c/2,   z_n = f/2 - g,                   all zero at theta = 0,

where g is the signal coefficient, c and f are the noise coefficients of clean and flipped samples (of a filter that is
active on the sample: half of them are), and z_c, z_n the margins with respect to the observed label. The equations and
all that follows from them are derived here. The signal never shrinks in them: where ``g' = 0`` its derivative has the
sign of ``s(z_n)(1 - s(z_n)) - s(z_c)(1 - s(z_c))``, and ``z_c + z_n = (c + f)/2 >= 0`` makes that positive. If the two
classes are flipped at different rates they decouple: each has a course of its own, at its own tau.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from scipy.integrate import solve_ivp
from scipy.special import expit

#: Logarithm of the latest time that a stage is searched for: margins are then far beyond anything that trains.
_LAST = 700.0
_ACCURACY = {"method": "DOP853", "rtol": 1e-10, "atol": 1e-12}


@dataclass(frozen=True, eq=False)
class ReducedCourse:
    """The reduced state at some times.

    Attributes
    ----------
    theta
        ``(t,)``, in units of ``n m / (learning_rate sigma^2 d)`` steps.
    signal, clean, flipped
        ``(t,)``: coefficient g of the signal, and of the noise vectors of clean (c) and flipped (f) samples.
    """

    theta: Float[np.ndarray, " t"]
    signal: Float[np.ndarray, " t"]
    clean: Float[np.ndarray, " t"]
    flipped: Float[np.ndarray, " t"]

    @property
    def clean_margin(self) -> Float[np.ndarray, " t"]:
        """``g + c/2``: positive where clean samples are fitted."""
        return self.signal + self.clean / 2

    @property
    def flipped_margin(self) -> Float[np.ndarray, " t"]:
        """``f/2 - g``: negative while flipped samples are rejected."""
        return self.flipped / 2 - self.signal

    def loss(self, tau: float) -> Float[np.ndarray, " t"]:
        """Mean logistic loss over clean and flipped samples."""
        clean, flipped = (np.logaddexp(0, -margin) for margin in (self.clean_margin, self.flipped_margin))
        return (1 - tau) * clean + tau * flipped


def _refuse(kappa: float, tau: float) -> None:
    if not (kappa > 0 and np.isfinite(kappa)):
        raise ValueError(f"kappa must be positive and finite, got {kappa}")
    if not 0 <= tau < 0.5:
        raise ValueError(f"tau must lie in [0, 0.5), got {tau}")


def _velocity(log_time: float, state: np.ndarray, kappa: float, tau: float) -> np.ndarray:
    """Derivative in ``log(1 + theta)``, in which late times are as smooth as early ones."""
    g, c, f = state
    fitted, rejected = expit(-(g + c / 2)), expit(g - f / 2)
    return np.exp(log_time) * np.array([kappa / 2 * ((1 - tau) * fitted - tau * rejected), fitted, rejected])


def reduced_course(theta: Float[np.ndarray, " t"], kappa: float, tau: float) -> ReducedCourse:
    """Signal and noise coefficients at the times ``theta``.

    Parameters
    ----------
    theta
        ``(t,)``, nonnegative and increasing.
    kappa
        ``n SNR^2 = n |mu|^2 / (sigma^2 d)``.
    tau
        Share of flipped labels, in ``[0, 0.5)``.

    Raises
    ------
    ValueError
        If a parameter is out of range or the times are not increasing.
    """
    _refuse(kappa, tau)
    theta = np.asarray(theta, np.float64)
    if theta.ndim != 1 or theta.size == 0 or theta[0] < 0 or np.any(np.diff(theta) <= 0):
        raise ValueError("theta must be increasing and not negative")
    times = np.log1p(theta)
    if times[-1] == 0:
        return ReducedCourse(theta, *np.zeros((3, 1)))
    solved = solve_ivp(_velocity, (0, times[-1]), np.zeros(3), t_eval=times, args=(kappa, tau), **_ACCURACY)
    return ReducedCourse(theta, *solved.y)


def early_slopes(kappa: float, tau: float) -> tuple[float, float]:
    """``dg/dtheta`` and ``dc/dtheta = df/dtheta`` at the start: ``kappa (1 - 2 tau) / 4`` and 1/2."""
    _refuse(kappa, tau)
    return kappa * (1 - 2 * tau) / 4, 0.5


def signal_strength(kappa: float, tau: float) -> float:
    """``kappa (1 - 2 tau)``, twice the initial speed of the signal over that of the memory of one sample."""
    _refuse(kappa, tau)
    return kappa * (1 - 2 * tau)


def two_stages_exist(kappa: float, tau: float) -> bool:
    """Whether flipped samples are first given their true label: ``kappa (1 - 2 tau) > 1``.

    Otherwise they are memorised from the start, and no threshold on the loss ever tells them from the clean ones.
    """
    return signal_strength(kappa, tau) > 1


def rejected_share(width: int, kappa: float, tau: float) -> float:
    """Share of flipped samples that are rejected at first in a network of ``width`` filters per output.

    A filter is active on a sample with probability 1/2, so that the active fraction p of a sample is binomial; the
    sample is rejected if ``2 p < kappa (1 - 2 tau)``. All are above ``kappa (1 - 2 tau) = 2``.
    """
    return float(stats.binom.cdf(np.ceil(width * signal_strength(kappa, tau) / 2) - 1, width, 0.5))


def _crossing(kappa: float, tau: float, event) -> float:
    """First time at which ``event(log_time, state)`` rises through zero; NaN without two stages."""
    if not two_stages_exist(kappa, tau):
        return float("nan")
    event.terminal, event.direction = True, 1
    solved = solve_ivp(_velocity, (0, _LAST), np.zeros(3), events=event, args=(kappa, tau), **_ACCURACY)
    return float(np.expm1(solved.t_events[0][0]))


def stage_two_time(kappa: float, tau: float) -> float:
    """``theta_x``, at which the flipped samples' margin returns to zero and Stage I ends; NaN if there is no Stage I.

    Multiply by ``n m / (learning_rate sigma^2 d)`` for steps.
    """

    def margin(log_time: float, state: np.ndarray, *_: float) -> float:
        # zero at the start as well, from where it falls
        return state[2] / 2 - state[0] if log_time > 0 else -1.0

    return _crossing(kappa, tau, margin)


def selection_time(kappa: float, tau: float) -> float:
    """The time in Stage I at which flipped samples are rejected most clearly (their margin is smallest).

    From here on memory outgrows the signal for them. NaN if there is no Stage I.
    """

    def speed(log_time: float, state: np.ndarray, kappa: float, tau: float) -> float:
        velocity = _velocity(log_time, state, kappa, tau)
        return float(velocity[2] / 2 - velocity[0])

    return _crossing(kappa, tau, speed)


@dataclass(frozen=True)
class LateLaw:
    """Late growth: ``g``, ``c`` and ``f`` as these multiples of ``ln theta``, the mean loss as ``loss / theta``."""

    signal: float
    clean: float
    flipped: float
    loss: float


def late_law(kappa: float, tau: float) -> LateLaw:
    """Growth at late times, with ``delta = 2 kappa (1 - 2 tau) / (1 + kappa)``.

    ``signal = delta/2``, ``clean = 2 - delta``, ``flipped = 2 + delta``: memory of the flipped samples overtakes the
    signal at every tau, ``f/g -> (4 + 2 delta) / delta > 1``.
    """
    _refuse(kappa, tau)
    delta = 2 * kappa * (1 - 2 * tau) / (1 + kappa)
    return LateLaw(delta / 2, 2 - delta, 2 + delta, (1 - tau) * (2 - delta) + tau * (2 + delta))


@dataclass(frozen=True)
class Flips:
    """Sizes of the problem that the test error depends on beside the reduced state.

    Attributes
    ----------
    samples, dimension, width
        Training samples n (half of each class), dimension d of a patch, filters m per output.
    positive, negative
        Shares of flipped labels among the samples of class +1 and -1.
    """

    samples: int
    dimension: int
    width: int
    positive: float
    negative: float


def reduced_test_error(
    signal: tuple[float, float], clean: tuple[float, float], flipped: tuple[float, float], sizes: Flips,
    rng: np.random.Generator, networks: int = 20, draws: int = 2000,
) -> float:  # fmt: skip
    """Probability that a fresh sample is on the wrong side, or on the boundary, in the reduced state; by Monte Carlo.

    ``y f = g + mean_r relu(a_r^own) - mean_r relu(a_r^other)`` with ``a_r^j = sum_i b_ri rho_i N_i`` over the training
    samples with observed label j, ``b_ri`` Bernoulli(1/2) and ``N_i ~ N(0, 1/d)``, the same for all filters. Products
    of different training samples are neglected, so that this is rather a lower bound.

    Parameters
    ----------
    signal, clean, flipped
        Coefficients g, c and f for the samples of class +1 and of class -1.
    rng
        Of the Monte Carlo.
    networks, draws
        Sets of active filters, and fresh samples of each class for each of them.
    """
    half = sizes.samples // 2
    counts = [round(tau * half) for tau in (sizes.positive, sizes.negative)]
    # observed label j: the clean samples of class j and the flipped ones of the other class
    memory = [
        np.concatenate([np.full(half - counts[j], clean[j]), np.full(counts[1 - j], flipped[1 - j])]) for j in (0, 1)
    ]
    wrong = 0
    for _ in range(networks):
        mean_active = []
        for coefficients in memory:
            active = (rng.random((sizes.width, coefficients.size)) < 0.5) * coefficients
            noise = rng.normal(size=(coefficients.size, 2, draws)) / np.sqrt(sizes.dimension)
            mean_active.append(np.maximum(np.einsum("ri,icd->rcd", active, noise), 0).mean(axis=0))
        difference = mean_active[0] - mean_active[1]
        wrong += np.sum(signal[0] + difference[0] <= 0) + np.sum(signal[1] - difference[1] <= 0)
    return float(wrong) / (2 * networks * draws)


def within_stage_one(theta: Float[np.ndarray, " t"], kappa: float, tau: float) -> Bool[np.ndarray, " t"]:
    """Whether the times lie in Stage I; nowhere if it does not exist."""
    end = stage_two_time(kappa, tau)
    return (np.asarray(theta) > 0) & (np.asarray(theta) < end)
