"""The compiled map against the plain one, and the recorded growth and ends."""

import numpy as np
import pytest

from separatrix.systems.feature_learning.oscillation_map import map_step, stable_weak_share, weak_growth
from separatrix.systems.feature_learning.oscillation_simulation import iterate_map


def test_the_compiled_map_is_the_map():
    steps, ratios = np.array([0.3, 1.1, 1.5, 1.9]), np.array([0.1, 0.04, 0.3, 0.2])
    records = iterate_map(steps, ratios, np.arange(80), strong_start=0.02, weak_start=0.01)
    strong, weak = np.full(4, 0.02), np.full(4, 0.01)
    sums = np.zeros(4)
    for t in range(80):
        np.testing.assert_allclose(records["strong"][t], strong, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(np.exp(records["log_weak"][t]), weak, rtol=1e-7)
        np.testing.assert_allclose(records["residual_sum"][t], sums, atol=1e-7)
        sums = sums + 1 - strong - weak
        strong, weak = map_step(strong, weak, steps, ratios * steps)
    assert records["strong"][-1, 3] == 0  # beyond the end of the window it has died


def test_growth_in_chaos_is_recorded_and_bracketed_by_the_formula():
    steps = np.array([1.2, 1.3, 1.5, 1.59])
    records = iterate_map(steps, np.full(4, 0.1), np.array([2000, 42_000]), weak_start=None)
    growth = np.exp(np.diff(records["log_weak"], axis=0)[0] / 40_000)
    assert growth[0] == pytest.approx(weak_growth(1.2, 0.1), abs=1e-9)
    np.testing.assert_allclose(growth[1:], [1.02436, 1.05800, 1.10411], atol=2e-3)
    assert growth[1] < weak_growth(1.3, 0.1)
    assert growth[2] > weak_growth(1.5, 0.1)


def test_an_infinitesimal_feature_may_grow_beyond_all_numbers():
    records = iterate_map(np.array([1.5]), np.array([0.25]), np.array([40_000]), weak_start=None)
    assert records["log_weak"][0, 0] > 800
    assert 0 < records["strong"][0, 0] < 3


@pytest.mark.parametrize(
    ("step", "ratio", "end"),
    [(0.2, 0.1, 0.0021), (1.05, 0.1, 0.0541), (1.2, 0.1, 0.1894), (1.3, 0.1, 0.2623), (1.5, 0.1, 0.379),
     (1.59, 0.1, 0.4219), (1.05, 0.25, 0.0665), (1.2, 0.25, 0.2328), (1.5, 0.25, 0.4662)],
)  # fmt: skip
def test_recorded_ends(step, ratio, end):
    records = iterate_map(np.array([step]), np.array([ratio]), np.array([20_000]))
    found = float(np.exp(records["log_weak"][-1, 0]))
    assert found == pytest.approx(end, abs=6e-5 if end < 0.379 else 2e-3)
    if step > 1:
        assert 1 <= found / stable_weak_share(step, ratio) < 1.06


@pytest.mark.parametrize("starts", [{"strong_start": 1.0}, {"strong_start": 0.0}, {"weak_start": 0.0}])
def test_starts_that_do_not_oscillate_are_refused(starts):
    with pytest.raises(ValueError, match="starts must be positive"):
        iterate_map(np.array([1.1]), np.array([0.1]), np.array([1]), **starts)
