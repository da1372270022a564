"""The window of step sizes in which oscillation teaches a weak feature: is a step inside it, and if not, why not."""

import math
from dataclasses import dataclass
from typing import Literal

from separatrix.systems.feature_learning.oscillation_map import (
    STABILITY_LIMIT,
    SURVIVAL_LIMIT,
    effective_step,
    small_step_weak_end,
    stable_weak_share,
    visits_to_saturation,
    weak_growth,
)
from separatrix.systems.feature_learning.two_feature_task import check_norms

Regime = Literal[
    "useful", "stable", "neurons die", "noise unstable", "weak feature unstable", "growth too slow"
]  # fmt: skip


@dataclass(frozen=True)
class OscillationWindow:
    """Diagnosis of a step size.

    Attributes
    ----------
    regime
        ``useful``, or what is wrong with the step: it is too small (``stable``), too large for the strong feature
        (``neurons die``), for the background (``noise unstable``) or for the weak feature (``weak feature unstable``),
        or the weak feature does not arrive within the horizon (``growth too slow``).
    reason
        One sentence with the numbers that decide.
    strong_step, weak_step, noise_step
        Effective steps ``2 eta norm^2 / m`` of the strong and the weak feature and of a background.
    growth
        Factor on ``<w, u>`` in two visits while the weak feature is small (theory of the 2-cycle).
    weak_end
        Contribution of the weak feature at which oscillation stops; NaN where none is stable.
    visits
        Visits to points with the strong feature, of one label, until it is reached; infinite where nothing grows.
    """

    regime: Regime
    reason: str
    strong_step: float
    weak_step: float
    noise_step: float
    growth: float
    weak_end: float
    visits: float

    @property
    def useful(self) -> bool:
        """Whether oscillation teaches the weak feature within the horizon."""
        return self.regime == "useful"


def oscillation_window(
    learning_rate: float,
    *,
    strong_norm: float,
    weak_norm: float,
    width: int,
    noise_power: float = 0.0,
    start_scale: float = 0.05,
    horizon: float = math.inf,
) -> OscillationWindow:
    """Diagnose a step size of batch-1 SGD on ``(y - f)^2 / 2`` with squared-ReLU units, see :class:`OscillationWindow`.

    Parameters
    ----------
    learning_rate
        ``eta``.
    strong_norm, weak_norm
        Norms of the features, ``0 < weak_norm < strong_norm``.
    width
        ``m``, units of each output sign.
    noise_power
        Mean squared norm of a background patch.
    start_scale
        Standard deviation of a weight at the start. From it the weak feature's contribution at the moment when the
        strong one is fitted follows (:func:`separatrix.systems.feature_learning.oscillation_map.small_step_weak_end`).
    horizon
        Visits to points with the strong feature, of one label: about ``rho / 2`` times the SGD steps.

    Raises
    ------
    ValueError
        If a number is not positive (``noise_power``: negative), or the weak feature is not the weaker one.
    """
    check_norms(weak_norm, strong_norm)
    for name, value in (("learning_rate", learning_rate), ("width", width), ("start_scale", start_scale),
                        ("horizon", horizon)):  # fmt: skip
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if not noise_power >= 0:
        raise ValueError(f"noise_power must not be negative, got {noise_power}")
    strong, weak, noise = (
        float(effective_step(learning_rate, norm, width)) for norm in (strong_norm, weak_norm, math.sqrt(noise_power))
    )
    ratio = (weak_norm / strong_norm) ** 2
    end = float(stable_weak_share(strong, ratio))
    # half of the units of the right sign are active, so that a contribution is half a variance
    strong_start, weak_start = (min((start_scale * norm) ** 2 / 2, 0.25) for norm in (strong_norm, weak_norm))
    fitted = small_step_weak_end(strong_start, weak_start, ratio)
    visits = float(visits_to_saturation(fitted, strong, ratio))
    regime, reason = _judge(strong, weak, noise, end, visits, horizon)
    return OscillationWindow(regime, reason, strong, weak, noise, float(weak_growth(strong, ratio)), end, visits)


def _judge(strong: float, weak: float, noise: float, end: float, visits: float, horizon: float) -> tuple[Regime, str]:
    """Regime and sentence; what ruins training comes before what merely does not help."""
    if strong >= SURVIVAL_LIMIT:
        return "neurons die", (
            f"The strong feature's step {strong:.4g} is beyond {SURVIVAL_LIMIT:.4g}, where a visit can turn its units "
            "over and kill them."
        )
    if noise >= STABILITY_LIMIT:
        return "noise unstable", (
            f"The background's step {noise:.4g} is not below {STABILITY_LIMIT:g}: fitted points become unstable "
            "through their own background."
        )
    if strong <= STABILITY_LIMIT:
        return "stable", (
            f"The strong feature's step {strong:.4g} does not exceed {STABILITY_LIMIT:g}: its residual vanishes and "
            "nothing drives the weak feature."
        )
    if weak >= STABILITY_LIMIT:
        return "weak feature unstable", (
            f"The weak feature's step {weak:.4g} is not below {STABILITY_LIMIT:g}: however much it takes over, the "
            "oscillation does not stop."
        )
    if visits > horizon:
        return "growth too slow", (
            f"The weak feature needs {visits:.4g} visits to reach its share {end:.4g}, more than the horizon of "
            f"{horizon:.4g}."
        )
    return "useful", (
        f"The strong feature's step {strong:.4g} lies between {STABILITY_LIMIT:g} and {SURVIVAL_LIMIT:.4g}: the weak "
        f"feature grows to a share of {end:.4g} within {visits:.4g} visits."
    )
