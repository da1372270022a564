"""A perceptron under SGD with the hinge loss, on data that are depleted at the decision boundary: what theory says.

Data ``x = (x_1, x_perp)`` in d dimensions with ``y = sign(x_1)``; ``x_perp`` is standard Gaussian and ``|x_1|`` has
the density ``c r^chi exp(-r^2 / 2)``, chi > -1 (chi = 0: Gaussian). The perceptron ``f = w . x / sqrt(d)`` pays ``(m -
y f)_+`` per sample. Its state is the *signal* ``w_1``, the *noise* ``R = |w_perp|`` and their ratio ``lambda = w_1 /
R``; time is learning rate times steps, the temperature ``T`` is learning rate over batch size. With ``c_r = (m sqrt(d)
- w_1 r) / R`` a sample at distance r is unfitted with probability ``Phi(c_r)``.

Source: Sclocchi, Geiger, Wyart 2023 (arXiv 2301.13703) for the setting and the exponents; drift, noise and asymptotics
are derived here.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import integrate, special

_STEP = 0.02  # of the quadrature in log r; its error falls exponentially in 1 / step
_DECADES = 40.0  # the quadrature begins where the mass below is exp(-40) of that below 1 / lambda
_REACH = 9.0  # standard deviations of r beyond its typical size at which it ends

_SHARP = 8.0  # margin over noise from which on the average over the noise is the one that is smooth
_Z, _Z_WEIGHTS = np.polynomial.hermite_e.hermegauss(48)
_Z, _Z_WEIGHTS = _Z[np.abs(_Z) < _SHARP], _Z_WEIGHTS[np.abs(_Z) < _SHARP] / np.sqrt(2 * np.pi)

Number = Float[np.ndarray, "..."] | float


class Drift(NamedTuple):
    """Averages over samples that move the perceptron, all of one shape.

    Attributes
    ----------
    unfitted
        ``n = E[Phi(c_r)]``, the fraction of samples with a positive loss.
    signal
        ``g_1 = E[r Phi(c_r)]``: the signal grows by ``g_1 / sqrt(d)`` per unit of time.
    noise
        ``g_perp = -E[phi(c_r)]``: the noise shrinks by ``|g_perp| / sqrt(d)``, before SGD adds to it.
    """

    unfitted: Float[np.ndarray, "..."]
    signal: Float[np.ndarray, "..."]
    noise: Float[np.ndarray, "..."]


class Exponents(NamedTuple):
    """Powers of the late stage: ``t* ~ T P^time``, ``|Delta w| ~ T^temperature P^weights``, ``T_c ~ P^-critical``."""

    time: float
    weights: float
    temperature: float
    critical: float


class Path(NamedTuple):
    """Signal and noise along a course, ``(t,)`` each."""

    signal: Float[np.ndarray, " t"]
    noise: Float[np.ndarray, " t"]


def _check_boundary(chi: float) -> None:
    if not chi > -1 or not np.isfinite(chi):
        raise ValueError(f"chi must be a finite number above -1, got {chi}: at -1 the density is no longer integrable")


def density_constant(chi: float) -> float:
    """Constant c of the density ``c r^chi exp(-r^2 / 2)`` of ``|x_1|``; ``c r^chi`` is its form at the boundary.

    Raises
    ------
    ValueError
        If chi is not above -1.
    """
    _check_boundary(chi)
    return float(2 / (2 ** ((1 + chi) / 2) * special.gamma((1 + chi) / 2)))


def half_moment(k: float) -> float:
    """``mu_k``, the integral of ``z^k`` times the normal density over ``z > 0``, for k > -1."""
    _check_boundary(k)
    return float(2 ** (k / 2 - 1) * special.gamma((k + 1) / 2) / np.sqrt(np.pi))


def boundary_quantile(u: Float[np.ndarray, "..."], chi: float) -> Float[np.ndarray, "..."]:
    """Distance ``|x_1|`` below which a fraction u of the samples lies.

    Raises
    ------
    ValueError
        If chi is not above -1.
    """
    _check_boundary(chi)
    return np.sqrt(2 * special.gammaincinv((1 + chi) / 2, u))


def _quadrature(ratio: Number, chi: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of ``E_r``, along a new last axis: the trapezoidal rule in log r.

    Equidistant quantiles would leave few nodes where it matters, at ``r ~ 1 / lambda``; in log r the integrand is
    smooth on a scale of one and vanishes at both ends.
    """
    ratio = np.asarray(ratio, np.float64)
    first = -np.log(np.maximum(ratio, 1.0)) - _DECADES / (1 + chi)
    last = np.log(np.sqrt(1 + chi) + _REACH)
    count = int(np.ceil((last - first.min()) / _STEP)) + 1
    log_r = first[..., None] + (last - first)[..., None] * np.linspace(0, 1, count)
    r = np.exp(log_r)
    weights = np.exp((1 + chi) * log_r - r**2 / 2)
    return r, weights / weights.sum(axis=-1, keepdims=True)


def drift(signal: Number, noise: Number, dimension: int, chi: float, margin: float = 1.0) -> Drift:
    """Averages over fresh samples at given signal and noise, exact for every dimension.

    Parameters
    ----------
    signal, noise
        ``w_1 >= 0`` and ``R >= 0``, of shapes that broadcast.
    dimension
        d.
    chi
        Exponent of the depletion.
    margin
        m.

    Raises
    ------
    ValueError
        If chi is not above -1.
    """
    _check_boundary(chi)
    signal, noise = np.broadcast_arrays(np.asarray(signal, np.float64), np.asarray(noise, np.float64))
    reach = margin * np.sqrt(dimension)
    quiet = noise * _SHARP < reach
    loud = Drift(*(np.zeros(signal.shape) for _ in Drift._fields))
    if not quiet.all():
        loud = _over_distances(np.where(quiet, 0.0, signal), np.where(quiet, 1.0, noise), reach, chi)
    if not quiet.any():
        return loud
    sharp = _over_noise(signal, np.where(quiet, noise, 0.0), reach, chi)
    return Drift(*(np.where(quiet, a, b) for a, b in zip(sharp, loud, strict=True)))


def _over_distances(signal: np.ndarray, noise: np.ndarray, reach: float, chi: float) -> Drift:
    """Averages over the noise in closed form, over distances by quadrature."""
    r, weights = _quadrature(signal / noise, chi)
    c = (reach - signal[..., None] * r) / noise[..., None]
    inside = special.ndtr(c)
    density = np.exp(-(c**2) / 2) / np.sqrt(2 * np.pi)
    mean = lambda values: np.sum(weights * values, axis=-1)  # noqa: E731
    return Drift(mean(inside), mean(r * inside), -mean(density))


def _over_noise(signal: np.ndarray, noise: np.ndarray, reach: float, chi: float) -> Drift:
    """Averages over distances in closed form, over the noise by quadrature.

    For noise far below the margin, where a sample's distance decides almost sharply whether it is fitted.
    """
    with np.errstate(divide="ignore"):
        edge = (reach - noise[..., None] * _Z) / signal[..., None]
    half = edge**2 / 2
    inside = special.gammainc((1 + chi) / 2, half)
    mean_distance = np.sqrt(2) * special.gamma((2 + chi) / 2) / special.gamma((1 + chi) / 2)
    return Drift(
        inside @ _Z_WEIGHTS, mean_distance * (special.gammainc((2 + chi) / 2, half) @ _Z_WEIGHTS),
        inside @ (_Z * _Z_WEIGHTS),
    )  # fmt: skip


def asymptotic_drift(ratio: Number, chi: float) -> Drift:
    """Leading terms of :func:`drift` for ``lambda = ratio >> 1`` and a margin far below the noise."""
    ratio, c = np.asarray(ratio, np.float64), density_constant(chi)
    falling = ratio ** -(1 + chi)
    return Drift(
        c * half_moment(chi + 1) / (chi + 1) * falling,
        c * half_moment(chi + 2) / (chi + 2) * falling / ratio,
        -c * half_moment(chi) * falling,
    )


def order_parameters(
    time: Float[np.ndarray, " t"],
    temperature: float,
    dimension: int,
    chi: float,
    *,
    margin: float = 1.0,
    start: tuple[float, float] = (0.0, 0.0),
) -> Path:
    """Signal and noise of online SGD at small steps, to leading order in 1/d.

    ``dw_1/dt = g_1 / sqrt(d)``, ``dR/dt = g_perp / sqrt(d) + T (d - 2) n / (2 d R)``: the last term is what SGD's noise
    of covariance ``T n / d`` adds to a length (Ito). Integrated for ``R^2``, which is smooth at zero.

    Parameters
    ----------
    time
        Increasing, ``(t,)``; the course begins with ``start`` at ``time[0]``.
    temperature
        T, learning rate over batch size, at least 0.
    dimension, chi, margin
        d (at least 2), chi and m.
    start
        ``(w_1, R)``.

    Raises
    ------
    ValueError
        If chi is not above -1, the temperature is negative, d is below 2 or the times do not increase.
    RuntimeError
        If the integration fails.
    """
    _check_boundary(chi)
    time = np.asarray(time, np.float64)
    if not temperature >= 0 or dimension < 2:
        raise ValueError(f"temperature must be at least 0 and dimension at least 2, got {temperature} and {dimension}")
    if time.size < 2 or np.any(np.diff(time) <= 0):
        raise ValueError("time must hold at least two increasing values")

    def velocity(_: float, state: np.ndarray) -> np.ndarray:
        signal, square = np.maximum(state, 0.0)
        noise = np.sqrt(square)
        at = drift(signal, noise, dimension, chi, margin)
        growth = temperature * (dimension - 2) / dimension * at.unfitted
        return np.array([at.signal, 2 * noise * at.noise + np.sqrt(dimension) * growth]) / np.sqrt(dimension)

    begin = np.array([start[0], start[1] ** 2], np.float64)
    solved = integrate.solve_ivp(
        velocity, (time[0], time[-1]), begin, method="LSODA", t_eval=time, rtol=1e-7, atol=1e-9,
    )  # fmt: skip
    if not solved.success:
        raise RuntimeError(f"the order parameters could not be integrated: {solved.message}")
    return Path(solved.y[0], np.sqrt(np.maximum(solved.y[1], 0.0)))


def stationary_noise(temperature: float, dimension: int, chi: float) -> float:
    """``R_inf = T (d - 2) / (2 sqrt(d)) * mu_{chi+1} / ((chi + 1) mu_chi)``: where the noise settles at large T.

    It depends neither on time nor on the number of samples: what SGD adds and what the loss removes are the same power
    of lambda.
    """
    balance = half_moment(chi + 1) / ((chi + 1) * half_moment(chi))
    return float(temperature * (dimension - 2) / (2 * np.sqrt(dimension)) * balance)


def late_signal(time: Number, temperature: float, dimension: int, chi: float) -> Float[np.ndarray, "..."]:
    """Late signal ``w_1 ~ t^{1/(chi+3)} T^{(chi+2)/(chi+3)}`` at the stationary noise."""
    pull = density_constant(chi) * half_moment(chi + 2) / ((chi + 2) * np.sqrt(dimension))
    noise = stationary_noise(temperature, dimension, chi)
    return ((chi + 3) * pull * noise ** (chi + 2) * np.asarray(time, np.float64)) ** (1 / (chi + 3))


def exponents(chi: float) -> Exponents:
    """Powers in T and P once the noise of SGD rules: ``b = 1 + 2/(1+chi)``, ``gamma = 1/(1+chi)``, ``delta = 1``.

    All P samples are fitted when ``P n(lambda) ~ 1``, so ``lambda* ~ P^{1/(1+chi)}``; the noise is proportional to T,
    and the time follows from the growth of the signal. ``T_c``, where ``|Delta w|`` reaches a fixed size, falls with
    the power ``a = gamma / delta``.

    Raises
    ------
    ValueError
        If chi is not above -1.
    """
    _check_boundary(chi)
    weights = 1 / (1 + chi)
    return Exponents(1 + 2 * weights, weights, 1.0, weights)


def stopping_ratio(samples: float, chi: float, unfitted: float = 1.0) -> float:
    """Lambda at which ``unfitted`` of ``samples`` samples are expected to be unfitted, in the asymptotic regime."""
    c = density_constant(chi) * half_moment(chi + 1) / (chi + 1)
    return float((c * samples / unfitted) ** (1 / (1 + chi)))


def stopping_time(samples: float, temperature: float, dimension: int, chi: float, unfitted: float = 1.0) -> float:
    """Time at which the asymptotic signal reaches :func:`stopping_ratio` times the stationary noise."""
    reached = late_signal(1.0, temperature, dimension, chi)
    signal = stopping_ratio(samples, chi, unfitted) * stationary_noise(temperature, dimension, chi)
    return float((signal / reached) ** (chi + 3))


def crossover_temperature(dimension: int, chi: float, margin: float = 1.0) -> float:
    """Temperature at which ``R_inf / sqrt(d)`` equals the margin: below it training does not feel the noise of SGD."""
    return float(margin * np.sqrt(dimension) / stationary_noise(1.0, dimension, chi))


def test_error(ratio: Number, chi: float) -> Float[np.ndarray, "..."]:
    """Fraction of fresh samples on the wrong side, ``E_r[Phi(-lambda r)]``: noise at a fixed signal hurts.

    Raises
    ------
    ValueError
        If chi is not above -1.
    """
    _check_boundary(chi)
    ratio = np.asarray(ratio, np.float64)
    r, weights = _quadrature(ratio, chi)
    return np.sum(weights * special.ndtr(-ratio[..., None] * r), axis=-1)


test_error.__test__ = False  # its name is the field's, not that of a test  # pyright: ignore[reportFunctionMemberAccess]


def feature_exponent(hidden_layers: int) -> float:
    """``k = (D - 1) / (D + 1)``: in the feature regime the noise of SGD matters from ``T ~ alpha^k`` on.

    A network of D hidden layers is homogeneous of degree ``D + 1``, so its weights end at ``omega = alpha^{-1/(D+1)}``;
    its gradient is ``omega^D``, its training time ``omega^{1-D}``, and the displacement ``sqrt(T t) omega^D`` that the
    noise adds equals omega there.

    Raises
    ------
    ValueError
        If there is no hidden layer.
    """
    if hidden_layers < 1:
        raise ValueError(f"hidden_layers must be at least 1, got {hidden_layers}")
    return (hidden_layers - 1) / (hidden_layers + 1)
