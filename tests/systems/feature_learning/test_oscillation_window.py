"""The diagnosis of a step size: each way to be outside of the window, and its inputs."""

import pytest

from separatrix.systems.feature_learning.oscillation_map import learning_rate, stable_weak_share, weak_growth
from separatrix.systems.feature_learning.oscillation_window import oscillation_window

WIDTH, STRONG, WEAK = 10, 1.0, 0.2


def diagnose(step, **changes):
    values = {"strong_norm": STRONG, "weak_norm": WEAK, "width": WIDTH, "noise_power": 0.4, **changes}
    return oscillation_window(float(learning_rate(step, values["strong_norm"], values["width"])), **values)


@pytest.mark.parametrize(
    ("step", "changes", "regime"),
    [
        (0.8, {}, "stable"),
        (1.0, {}, "stable"),
        (1.01, {}, "useful"),
        (1.3, {}, "useful"),
        (1.59, {}, "useful"),
        (1.6, {}, "neurons die"),
        (1.3, {"noise_power": 0.8}, "noise unstable"),
        (0.8, {"noise_power": 1.3}, "noise unstable"),
        (1.3, {"weak_norm": 0.9}, "weak feature unstable"),
        (1.3, {"weak_norm": 0.01}, "useful"),
        (1.3, {"weak_norm": 0.01, "horizon": 2000}, "growth too slow"),
        (1.3, {"horizon": 2000}, "useful"),
    ],
)
def test_regimes(step, changes, regime):
    found = diagnose(step, **changes)
    assert found.regime == regime
    assert found.useful == (regime == "useful")
    assert found.reason.endswith(".")
    assert found.strong_step == pytest.approx(step)


def test_numbers_behind_the_regime():
    found = diagnose(1.2)
    assert found.weak_step == pytest.approx(1.2 * 0.04)
    assert found.noise_step == pytest.approx(1.2 * 0.4)
    assert found.growth == pytest.approx(weak_growth(1.2, 0.04))
    assert found.weak_end == pytest.approx(stable_weak_share(1.2, 0.04))
    # only ratios of norms matter, once the start is scaled against them
    scaled = diagnose(1.2, strong_norm=3.0, weak_norm=0.6, start_scale=0.05 / 3)
    assert scaled.visits == pytest.approx(found.visits)
    assert diagnose(1.2, start_scale=1e-4).visits > found.visits


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weak_norm": 1.0}, "0 < weak < strong"),
        ({"weak_norm": 0.0}, "0 < weak < strong"),
        ({"start_scale": 0.0}, "start_scale must be positive"),
        ({"horizon": -1.0}, "horizon must be positive"),
        ({"noise_power": -0.1}, "noise_power must not be negative"),
    ],
)
def test_bad_numbers_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        diagnose(1.2, **changes)


def test_bad_rates_are_refused():
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        oscillation_window(0.0, strong_norm=1.0, weak_norm=0.2, width=10)
