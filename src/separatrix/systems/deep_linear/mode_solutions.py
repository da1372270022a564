"""Exact solutions of gradient flow for one singular mode of a deep linear network, at every depth.

A mode of singular value s whose L layers are aligned with the teacher and balanced has strength u with
``du/dt = L u^{2-2/L} (s - c u)``, c the variance of the inputs (1 where they are white). In units of its target, ``x =
c u / s``, and of the scaled time ``tau = L c (s/c)^{2-2/L} t`` all modes of a depth follow one curve, ``dx/dtau =
x^{2-2/L} (1 - x)``, which has a limit at infinite depth. Time is learning rate times steps. Source: Saxe, McClelland,
Ganguli 2014, arXiv 1312.6120, sections 1.1 to 1.3 and appendix (their ``N_l - 1`` is L); the forms that stay accurate
in every limit are derived here.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import boxcox, expit, hyp2f1, logit, psi

from separatrix.systems.deep_linear.domain import check_depth, check_nonnegative, check_positive
from separatrix.systems.deep_linear.quadrature import legendre_rule

Values = Float[np.ndarray, "..."] | float


def balanced_strength(
    time: Values, initial: Values, singular_value: Values, input_variance: Values = 1.0
) -> Float[np.ndarray, "..."]:
    """Strength at ``time`` of a balanced mode at depth 2, ``s / (c + (s/u_0 - c) e^{-2 s t})``.

    Arguments broadcast against each other. Starts above the target are allowed; without overflow at any time.

    Raises
    ------
    ValueError
        If a strength, singular value or variance is not positive, or a time is negative.
    """
    check_positive(initial=initial, singular_value=singular_value, input_variance=input_variance)
    check_nonnegative(time=time)
    t, u, s, c = (np.asarray(one, np.float64) for one in (time, initial, singular_value, input_variance))
    left = np.exp(-2 * s * t)
    return np.asarray(s * u / (s * left - c * u * np.expm1(-2 * s * t)))


def unbalanced_amplitudes(
    time: Values, input_amplitude: Values, output_amplitude: Values, singular_value: Values
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Input and output amplitude (a, b) at ``time`` of a mode at depth 2 from any start: ``u = a b``.

    ``da/dt = b (s - a b)``, ``db/dt = a (s - a b)`` conserve ``c_0 = a^2 - b^2``. The paper's hyperbolic substitution
    ``u = (c_0 / 2) sinh(theta)`` gives, with ``R = sqrt(c_0^2 + 4 s^2)``, ``tau = tanh(R t / 2)`` and p, q = a + b,
    a - b::

        p^2 = p_0^2 G / H,  q^2 = q_0^2 H / G,  G = R + 2 s tau + tau q_0^2,  H = R - 2 s tau + tau p_0^2

    which covers both signs of ``c_0``, its limit 0, starts with ``a b < 0`` (which cross zero first; ``a = -b`` exactly
    ends in the saddle) and starts above the target, without cancellation or overflow at any time. Arguments broadcast.

    Raises
    ------
    ValueError
        If an amplitude is not finite, the singular value is not positive or a time is negative.
    """
    check_positive(singular_value=singular_value)
    check_nonnegative(time=time)
    t, a, b, s = (np.asarray(one, np.float64) for one in (time, input_amplitude, output_amplitude, singular_value))
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        raise ValueError(f"amplitudes must be finite, got {input_amplitude} and {output_amplitude}")
    p, q = a + b, a - b
    conserved = p * q
    rate = np.hypot(conserved, 2 * s)
    tanh, missing = np.tanh(rate * t / 2), 2 * expit(-rate * t)  # missing = 1 - tanh
    upper = np.sqrt(rate + 2 * s * tanh + tanh * q**2)
    # The root of R - 2 s tau + tau p^2: nearly equal terms are taken together, and hypot squares no tiny number.
    lower = np.hypot(np.hypot(conserved / np.sqrt(rate + 2 * s), np.sqrt(2 * s * missing)), np.sqrt(tanh) * p)
    # lower is 0 only on a = -b at late times, where the amplitudes have decayed into the saddle
    p, q = p * upper / np.where(lower > 0, lower, 1.0), q * lower / upper
    return (p + q) / 2, (p - q) / 2


def scaled_time(initial: Values, final: Values, depth: float) -> Float[np.ndarray, "..."]:
    """Scaled time ``tau`` from progress ``initial`` to ``final``, the integral of ``dx / (x^{2-2/L} (1 - x))``.

    Both progresses lie in (0, 1), or both above 1. This is also the number of steps of gradient descent with the
    learning rate ``1 / (L s^{2-2/L})``, the inverse of the largest curvature on the way: the paper's n(L), finite at
    ``depth = inf``, where it is ``logit(x_1) - logit(x_0) + 1/x_0 - 1/x_1``.

    Raises
    ------
    ValueError
        If the depth is below 1, or the progresses are not positive or lie on different sides of 1.
    """
    check_depth(depth, least=1)
    check_positive(initial=initial, final=final)
    x0, x1 = np.broadcast_arrays(np.asarray(initial, np.float64), np.asarray(final, np.float64))
    if np.any(np.sign(1 - x0) * np.sign(1 - x1) <= 0):
        raise ValueError(
            f"initial and final strengths must both lie below or both lie above the target, got {initial} and {final} "
            "of it"
        )
    above = x0 > 1
    odds = [np.where(above, -np.log(np.abs(x - 1)), logit(np.where(above, 0.5, x))) for x in (x0, x1)]
    return np.asarray(_primitive(odds[1], depth, above) - _primitive(odds[0], depth, above))


def progress(time: Values, initial: Values, depth: float) -> Float[np.ndarray, "..."]:
    """Progress x after the scaled time ``time``, the inverse of :func:`scaled_time`; ``depth`` from 1 to infinity.

    Raises
    ------
    ValueError
        If the depth is below 1, ``initial`` is not positive or ``time`` is negative.
    """
    check_depth(depth, least=1)
    check_positive(initial=initial)
    check_nonnegative(time=time)
    tau, x0 = np.broadcast_arrays(np.asarray(time, np.float64), np.asarray(initial, np.float64))
    if depth == 2:
        return balanced_strength(tau / 2, x0, 1.0)
    if depth == 1:
        return np.asarray(1 + (x0 - 1) * np.exp(-tau))
    end = np.array(x0)
    below, above = (x0 < 1) & (tau > 0), (x0 > 1) & (tau > 0)
    if below.any():
        end[below] = expit(_advance(logit(x0[below]), tau[below], 2 / depth - 1))
    if above.any():
        # With z = 1/x the flow is dz/dtau = z^{2/L-1} (1 - z): the same in the logit of z.
        end[above] = 1 + np.exp(-_advance(-np.log(x0[above] - 1), tau[above], 2 - 2 / depth))
    return end


#: Beyond these logits x is 1, or its logarithm is the logit, to rounding.
_FLAT = 40.0
_PANEL, _POINTS, _ITERATIONS = 0.5, 10, 6


def _advance(start: Float[np.ndarray, " n"], tau: Float[np.ndarray, " n"], power: float) -> Float[np.ndarray, " n"]:
    """Where the logit y is after ``tau`` on ``dtau/dy = x^power``, ``x = 1 / (1 + e^{-y})``.

    The time is summed over panels of y, short enough for Gauss-Legendre quadrature to be exact to rounding, from the
    end at which ``x^power`` is small: so that small times are known relative to themselves. Newton's method then places
    the end within its panel.
    """
    node, weight = legendre_rule(_POINTS)
    node, weight = (node + 1) / 2, weight / 2

    def span(y: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Time from y to y + length."""
        return length * (expit(y[..., None] + length[..., None] * node) ** power @ weight)

    from_top = power < 0.02  # a small positive power is as good as none, and has no time since minus infinity
    low = min(float(start.min()), _FLAT) if from_top else -_FLAT
    count = max(int(np.ceil((_FLAT - low) / _PANEL)), 1)
    edges = _FLAT - _PANEL * np.arange(count, -1, -1.0)
    panels = span(edges[:-1], np.full(count, _PANEL))
    if from_top:  # time still to pass until the upper end, beyond which it is y itself
        passed = -np.append(np.cumsum(panels[::-1])[::-1], 0.0)
    else:  # time since minus infinity
        passed = np.exp(power * edges[0]) / power + np.append(0.0, np.cumsum(panels))

    place = np.clip(np.searchsorted(edges, start, side="right") - 1, 0, count - 1)
    inside = np.clip(start, edges[0], edges[-1])
    if from_top:
        begun = passed[place + 1] - span(inside, edges[place + 1] - inside)
    else:
        begun = passed[place] + span(edges[place], inside - edges[place])
        begun = np.where(start < edges[0], np.exp(power * start) / power, begun)
    goal = begun + np.maximum(start - _FLAT, 0.0) + tau

    place = np.clip(np.searchsorted(passed, goal, side="right") - 1, 0, count - 1)
    left, right = edges[place], edges[place + 1]
    wanted = passed[place + 1] - goal if from_top else goal - passed[place]
    share = np.clip((goal - passed[place]) / panels[place], 0, 1)
    y = left + _PANEL * share
    for _ in range(_ITERATIONS):
        error = wanted - span(y, right - y) if from_top else span(left, y - left) - wanted
        y = np.clip(y - error * expit(y) ** -power, left, right)
    y = np.where(goal > passed[-1], _FLAT + (goal - passed[-1]), y)
    if not from_top:
        with np.errstate(divide="ignore"):
            y = np.where(goal < passed[0], np.log(power * goal) / power, y)
    return y


def mode_strength(
    time: Values, initial: Values, singular_value: Values, depth: float, input_variance: Values = 1.0
) -> Float[np.ndarray, "..."]:
    """Strength at ``time`` of an aligned and balanced mode of a network of ``depth`` layers; arguments broadcast.

    Starts above the target are allowed. At depth 1 the distance to the target decays as ``e^{-c t}``.

    Raises
    ------
    ValueError
        If the depth is below 1 or infinite (the flow then takes no time at all: use :func:`progress`), a strength,
        singular value or variance is not positive, or a time is negative.
    """
    check_depth(depth, least=1)
    if not np.isfinite(depth):
        raise ValueError("depth must be finite, since gradient flow takes no time at infinite depth; use progress")
    check_positive(initial=initial, singular_value=singular_value, input_variance=input_variance)
    t, u, s, c = (np.asarray(one, np.float64) for one in (time, initial, singular_value, input_variance))
    return np.asarray(s / c * progress(depth * c * (s / c) ** (2 - 2 / depth) * t, c * u / s, depth))


def half_time(
    initial: Values, singular_value: Values, depth: float, input_variance: Values = 1.0
) -> Float[np.ndarray, "..."]:
    """Time at which a mode reaches half its target ``s / c``; depth 2 gives ``ln(s / (c u_0) - 1) / (2 s)``.

    Raises
    ------
    ValueError
        If an argument is outside its domain.
    """
    check_positive(initial=initial, singular_value=singular_value, input_variance=input_variance)
    u, s, c = (np.asarray(one, np.float64) for one in (initial, singular_value, input_variance))
    return scaled_time(c * u / s, 0.5, depth) / (depth * c * (s / c) ** (2 - 2 / depth))


def large_depth_time(initial: Values, final: Values, singular_value: Values, depth: float) -> Float[np.ndarray, "..."]:
    """Leading order in 1/L of the time from one strength to another, ``tau(L = inf) / (L s^2)``.

    Raises
    ------
    ValueError
        If an argument is outside its domain.
    """
    check_positive(initial=initial, final=final, singular_value=singular_value)
    s = np.asarray(singular_value, np.float64)
    return scaled_time(np.asarray(initial) / s, np.asarray(final) / s, np.inf) / (depth * s**2)


def isotropic_variance(input_covariance: Float[np.ndarray, "d d"], tolerance: float = 1e-6) -> float:
    """Variance c of inputs with covariance ``c I``, the only ones for which the modes decouple exactly.

    Raises
    ------
    ValueError
        If the covariance is not a positive multiple of the identity within ``tolerance`` of c.
    """
    covariance = np.asarray(input_covariance, np.float64)
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(f"input_covariance must be a square matrix, got shape {covariance.shape}")
    variance = float(np.trace(covariance) / len(covariance))
    check_positive(variance=variance)
    gap = float(np.max(np.abs(covariance - variance * np.eye(len(covariance)))) / variance)
    if not gap <= tolerance:
        raise ValueError(
            "the exact solution needs inputs whose covariance is a multiple of the identity, and this one is off by "
            f"{gap:.2g} of it: whiten the inputs, or simulate"
        )
    return variance


def _primitive(y: np.ndarray, depth: float, above: np.ndarray) -> np.ndarray:
    """Primitive of the scaled time in ``y = -ln |1 - x|`` plus, below the target, ``ln x``; up to a constant.

    Below, with ``e = 2/L``: ``x^{e-2} / (1 - x) = x^{e-2} + x^{e-1} + x^e / (1 - x)``. Above, with ``z = 1/x``, the
    integrand is ``z^{1-e} / (1 - z) = z^{1-e} + z^{2-e} / (1 - z)``.
    """
    e = 2 / depth
    x = expit(y)
    below = boxcox(x, e - 1) + boxcox(x, e) + _geometric(y, e)
    # y = -ln(x - 1) above: z = 1 / (1 + e^{-y}), the same function of y
    return np.where(above, boxcox(x, 2 - e) + _geometric(y, 2 - e), below)


def _geometric(y: np.ndarray, power: float) -> np.ndarray:
    """``int_0^x z^power / (1 - z) dz`` at ``x = 1 / (1 + e^{-y})``, accurate for x near 1, for powers from 0 to 2."""
    x, rest = expit(y), expit(-y)
    near = rest < 0.3
    away = np.where(near, 0.5, x)
    far = away ** (1 + power) / (1 + power) * hyp2f1(1, 1 + power, 2 + power, away)
    # -ln(1 - x) - int_0^x (1 - z^power) / (1 - z) dz, the second from its value at 1 and a series in 1 - x
    q = np.where(near, rest, 0.1)
    series, coefficient = np.zeros_like(q), 1.0
    for k in range(1, 40):
        coefficient *= -(power - k + 1) / k  # (-1)^k binomial(power, k)
        series -= coefficient * q**k / k
    close = np.logaddexp(0, y) - (psi(1 + power) + np.euler_gamma) + series
    return np.where(near, close, far)
