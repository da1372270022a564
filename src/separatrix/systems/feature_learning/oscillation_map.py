"""Two features, one residual: the exact map of large-step descent on a datum, and what follows from it.

A unit of the right sign that is active on a feature of norm ``nu`` multiplies its inner product with it by
``1 + eta_u l`` at each visit of the datum, with the effective step ``eta_u = 2 eta nu^2 / m`` and the residual
``l = 1 - y f``. All units get the same factor, so that the contributions ``A`` of the strong and ``B`` of the weak
feature to ``y f`` are closed:

    A <- A (1 + eta_v l)^2,    B <- B (1 + eta_u l)^2,    l = 1 - A - B.

Setting and question: Lu, Wu, Yang and Zou 2023 (arXiv 2310.17074). The map and its consequences are derived here; the
functions say what they hold for. ``k = eta_u / eta_v = (nu / nv)^2`` is the feature ratio. Everything broadcasts.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import root_scalar

#: Effective step from which the fitted strong feature alone is unstable: its multiplier ``1 - 2 eta_v`` leaves (-1, 1).
STABILITY_LIMIT = 1.0
#: Effective step up to which its 2-cycle is stable; period doubling and chaos follow.
TWO_CYCLE_LIMIT = np.sqrt(5) - 1
#: Effective step beyond which an orbit can reach ``1 + eta_v l < 0``, where all units of a sign flip over and die.
SURVIVAL_LIMIT = 1.5 * np.sqrt(3) - 1


def effective_step(learning_rate: ArrayLike, norm: ArrayLike, width: ArrayLike) -> Float[np.ndarray, "..."]:
    """``2 eta norm^2 / m``: the step that the residual takes along a feature.

    Parameters
    ----------
    learning_rate
        ``eta`` of descent on ``(y - f)^2 / 2``.
    norm
        Norm of the feature.
    width
        ``m``, units of each sign; the output is ``sum_r relu(.)^2 / m`` over them.
    """
    return 2 * np.asarray(learning_rate, float) * np.asarray(norm, float) ** 2 / np.asarray(width, float)


def learning_rate(step: ArrayLike, norm: ArrayLike, width: ArrayLike) -> Float[np.ndarray, "..."]:
    """Learning rate at which a feature has this effective step, the inverse of :func:`effective_step`."""
    return np.asarray(step, float) * np.asarray(width, float) / (2 * np.asarray(norm, float) ** 2)


def neuron_factor(step: ArrayLike, residual: ArrayLike, right_sign: bool = True) -> Float[np.ndarray, "..."]:
    """Factor on the inner product of an active unit with a feature: ``1 + step l``, for the wrong sign ``1 - step l``.

    A negative factor turns the inner product over: the unit dies on this feature.
    """
    change = np.asarray(step, float) * np.asarray(residual, float)
    return 1 + change if right_sign else 1 - change


def map_step(
    strong: ArrayLike, weak: ArrayLike, strong_step: ArrayLike, weak_step: ArrayLike
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """One visit of the datum: ``(A, B)`` afterwards; a contribution whose factor is negative dies and stays zero."""
    strong, weak = np.asarray(strong, float), np.asarray(weak, float)
    residual = 1 - strong - weak
    alive = lambda step: np.maximum(neuron_factor(step, residual), 0)  # noqa: E731
    return strong * alive(strong_step) ** 2, weak * alive(weak_step) ** 2


def multiplier(
    strong: ArrayLike, weak: ArrayLike, strong_step: ArrayLike, weak_step: ArrayLike
) -> Float[np.ndarray, "..."]:
    """Factor on a small residual at the fixed points ``A + B = 1``: ``1 - 2 (eta_v A + eta_u B)``; stable above -1."""
    return 1 - 2 * (np.asarray(strong_step) * np.asarray(strong) + np.asarray(weak_step) * np.asarray(weak))


def two_cycle(strong_step: ArrayLike) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Both contributions ``A`` of the strong feature alone on its 2-cycle, the larger first; NaN at ``eta_v < 1``.

    ``A = (a +- sqrt(a^2 - 4)) / (2 eta_v)`` with ``a = 1 + eta_v``: the orbit of period two of the cubic map
    ``z <- z (1 + eta_v (1 - z^2))``, ``z = sqrt(A)``. Stable between :data:`STABILITY_LIMIT` and
    :data:`TWO_CYCLE_LIMIT`.
    """
    step = np.asarray(strong_step, float)
    a = 1 + step
    with np.errstate(invalid="ignore"):
        root = np.sqrt(np.where(step < STABILITY_LIMIT, np.nan, a**2 - 4))
    return (a + root) / (2 * step), (a - root) / (2 * step)


def two_cycle_multiplier(strong_step: ArrayLike) -> Float[np.ndarray, "..."]:
    """Factor on a small distance from the 2-cycle in two visits, ``9 - 2 (1 + eta_v)^2``."""
    return 9 - 2 * (1 + np.asarray(strong_step, float)) ** 2


def residual_bias(strong_step: ArrayLike) -> Float[np.ndarray, "..."]:
    """Sum of residuals over sum of their squares on the 2-cycle, ``eta_v / (1 + eta_v)``.

    The residual oscillates about a positive mean: ``ln A`` is bounded, so that ``sum ln(1 + eta_v l) = O(1)``, which to
    second order is ``sum l = (eta_v / 2) sum l^2`` (:func:`second_order_bias`).
    """
    step = np.asarray(strong_step, float)
    return step / (1 + step)


def second_order_bias(strong_step: ArrayLike) -> Float[np.ndarray, "..."]:
    """Sum of residuals over sum of their squares for small oscillations of any kind, ``eta_v / 2``."""
    return np.asarray(strong_step, float) / 2


def weak_growth(strong_step: ArrayLike, ratio: ArrayLike) -> Float[np.ndarray, "..."]:
    """Factor on ``<w, u>`` of an infinitesimal weak feature in two visits on the 2-cycle.

    Exactly ``1 + k (1 - k) (eta_v - 1)``; its square is the factor on ``B``. It is 1 where the strong feature is
    stable, for ``k = 0`` (no weak feature) and ``k = 1`` (no strong one). Beyond :data:`TWO_CYCLE_LIMIT` it is a
    reference value: the measured growth lies below it just above the limit, and above it from about 1.4 on.
    """
    step, k = np.asarray(strong_step, float), np.asarray(ratio, float)
    return 1 + k * (1 - k) * np.maximum(step - STABILITY_LIMIT, 0)


def stable_weak_share(strong_step: ArrayLike, ratio: ArrayLike) -> Float[np.ndarray, "..."]:
    """Weak contribution at which ``A + B = 1`` becomes stable, ``(eta_v - 1) / (eta_v - eta_u)``: growth stops there.

    Zero where the strong feature alone is stable, NaN where ``eta_u >= 1`` and no share is stable.
    """
    step, k = np.asarray(strong_step, float), np.asarray(ratio, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.maximum(step - STABILITY_LIMIT, 0) / (step * (1 - k))
    return np.where(k * step < STABILITY_LIMIT, share, np.nan)


def small_step_weak_end(strong: float, weak: float, ratio: float) -> float:
    """Weak contribution after training with small steps: on ``A + B = 1`` with ``B = B_0 (A / A_0)^k``.

    In the limit of small steps ``d ln B = k d ln A``, so that a small weak feature stays small.

    Parameters
    ----------
    strong, weak
        ``A_0`` and ``B_0``, positive, together below 1.
    ratio
        ``k``.

    Raises
    ------
    ValueError
        If a start is not positive, or they add up to 1 or more.
    """
    if not (strong > 0 and weak > 0 and strong + weak < 1):
        raise ValueError(f"the starts must be positive and add up to less than 1, got {strong} and {weak}")
    # in ln(A / A_0), which lies between zero and that of A = 1
    gap = lambda x: strong * np.exp(x) + weak * np.exp(ratio * x) - 1  # noqa: E731
    rise = root_scalar(gap, bracket=(0.0, -np.log(strong)), xtol=1e-13).root
    return float(weak * np.exp(ratio * rise))


def visits_to_saturation(weak: ArrayLike, strong_step: ArrayLike, ratio: ArrayLike) -> Float[np.ndarray, "..."]:
    """Visits of the datum until a weak feature that contributes ``weak`` has grown to its stable share.

    ``ln(B_end / B_0) / ln(growth)`` with the growth of the 2-cycle (two visits square it in ``B``); infinite where
    nothing grows, zero where the share is reached from the start.
    """
    growth = np.log(weak_growth(strong_step, ratio))
    share = np.nan_to_num(stable_weak_share(strong_step, ratio), nan=1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        way = np.maximum(np.log(share / np.asarray(weak, float)), 0)
        return np.where(growth > 0, way / growth, np.inf)
