"""Coverage of every interval over synthetic data sets, within its binomial error, and what each refuses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from significance import FALSE_ALARM

from separatrix.engines.intervals import (
    bonferroni,
    bootstrap,
    clopper_pearson,
    log_slope,
    mean_interval,
    median_interval,
    paired_difference,
    spread_interval,
)

SETS = 1200


def covered(intervals, truth):
    return sum(low <= truth <= high for _, (low, high) in intervals)


def assert_coverage(hits, trials, low, high=None):
    """The probability of a hit lies in ``[low, high]`` as far as ``hits`` of ``trials`` tell."""
    high = low if high is None else high
    assert stats.binom.cdf(hits, trials, low) > FALSE_ALARM, f"{hits / trials} below {low}"
    assert stats.binom.sf(hits - 1, trials, high) > FALSE_ALARM, f"{hits / trials} above {high}"


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("members", [2, 5, 40])
def test_mean_interval_covers_exactly_for_normal_members(members, confidence):
    data = np.random.default_rng(members).normal(3.0, 2.0, (SETS, members))
    assert_coverage(covered([mean_interval(x, confidence=confidence) for x in data], 3.0), SETS, confidence)


def exact_median_coverage(members, confidence):
    """The largest order statistics whose binomial tails stay within the confidence."""
    tail = stats.binom.cdf(np.arange(members // 2), members, 0.5)
    allowed = tail[tail <= (1 - confidence) / 2 * (1 + 1e-12)]
    return 1 - 2 * (allowed[-1] if allowed.size else 0.5**members)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("members", [1, 4, 9, 30, 101])
def test_median_interval_covers_at_least_and_no_wider_than_needed(members, confidence):
    data = np.random.default_rng(members).standard_exponential((SETS, members))  # a skew law
    hits = covered([median_interval(x, confidence=confidence) for x in data], np.log(2))
    exact = exact_median_coverage(members, confidence)
    assert_coverage(hits, SETS, exact)
    if members >= 9:
        assert confidence <= exact < confidence + 0.12


@pytest.mark.parametrize("statistic", [np.mean, np.median, np.std], ids=["mean", "median", "spread"])
def test_bootstrap_covers_to_its_order(statistic):
    """A percentile interval of 100 members misses its confidence by order 1/100, not more than 4 %."""
    data = np.random.default_rng(7).normal(1.0, 1.0, (400, 100))
    truth = 1.0
    hits = covered([bootstrap(statistic, x, confidence=0.9, resamples=400) for x in data], truth)
    assert_coverage(hits, 400, 0.86, 0.93)


def test_bootstrap_agrees_with_student_on_large_samples():
    x = np.random.default_rng(8).standard_exponential(3000)
    estimate, interval = bootstrap(np.mean, x, resamples=4000)
    exact, reference = mean_interval(x)
    assert estimate == exact
    np.testing.assert_allclose(interval, reference, atol=0.1 * (reference[1] - reference[0]))


def test_bootstrap_of_rows_resamples_members_together():
    """A statistic of pairs: the first column is twice the second in every member, and so in every resample."""
    x = np.random.default_rng(9).normal(size=50)
    pairs = np.stack([2 * x, x], axis=1)
    ratio = lambda values, axis: np.sum(values[..., 0], axis=axis) / np.sum(values[..., 1], axis=axis)  # noqa: E731
    assert bootstrap(ratio, pairs) == (pytest.approx(2), (pytest.approx(2), pytest.approx(2)))


def test_bootstrap_is_deterministic_and_reaches_as_far_as_asked():
    x = np.random.default_rng(10).normal(size=40)
    assert bootstrap(np.mean, x) == bootstrap(np.mean, x)
    assert bootstrap(np.mean, x, seed=1) != bootstrap(np.mean, x)
    widths = [np.diff(bootstrap(np.mean, x, confidence=c)[1])[0] for c in (0.8, 0.95, 0.999)]
    # A normal law's quantiles: 1.28, 1.96, 3.29 standard errors.
    np.testing.assert_allclose(widths / (2 * x.std() / np.sqrt(40)), stats.norm.isf([0.1, 0.025, 0.0005]), rtol=0.1)


@pytest.mark.parametrize("law", [stats.norm(), stats.expon(), stats.uniform()], ids=["normal", "skew", "flat"])
def test_spread_interval_covers_for_any_law(law):
    data = law.rvs((SETS, 400), random_state=11)
    hits = covered([spread_interval(x, confidence=0.9) for x in data], law.std())
    # Large-sample theory: 400 members of a skew law still miss a few per cent.
    assert_coverage(hits, SETS, 0.85, 0.915)


@pytest.mark.parametrize("power", [-0.5, 1.0])
def test_log_slope_covers_the_power(power):
    rng, x = np.random.default_rng(12), np.array([0.5, 1.0, 2.0, 4.0])
    results = []
    for _ in range(SETS):
        samples = [-3 * a**power * (1 + 0.3 * rng.normal(size=80)) for a in x]
        results.append(log_slope(x, samples, confidence=0.9))
    assert_coverage(covered(results, power), SETS, 0.88, 0.915)


def test_log_slope_of_exact_powers():
    x = np.array([1.0, 3.0, 7.0])
    slope, (low, high) = log_slope(x, [np.array([a**2, a**2]) for a in x])
    assert (slope, low, high) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize(("first", "second", "shared"), [(0.5, 0.4, 0.3), (0.9, 0.95, 0.88), (0.2, 0.2, 0.2)])
def test_paired_difference_covers(first, second, shared):
    """Outcomes of the same 60 members; ``shared`` is the probability of both."""
    rng = np.random.default_rng(13)
    cells = [shared, first - shared, second - shared, 1 - first - second + shared]
    outcome = rng.choice(4, size=(SETS, 60), p=np.clip(cells, 0, 1))
    results = [paired_difference(o <= 1, (o == 0) | (o == 2), confidence=0.95) for o in outcome]
    assert_coverage(covered(results, first - second), SETS, 0.94, 1.0)
    if shared < 0.3 + 1e-9 and first != second:
        assert_coverage(covered(results, first - second), SETS, 0.94, 0.965)


def test_paired_difference_with_full_agreement_keeps_a_length():
    same = np.ones(40, bool)
    difference, (low, high) = paired_difference(same, same)
    assert difference == 0
    assert -0.1 < low < 0 < high < 0.1
    assert paired_difference(same, ~same)[1][1] <= 1


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("trials", [1, 7, 40])
def test_clopper_pearson_covers_every_probability(trials, confidence):
    """The coverage itself, summed over all outcomes: at least the confidence at every p."""
    intervals = np.array([clopper_pearson(k, trials, confidence=confidence) for k in range(trials + 1)])
    tail = (1 - confidence) / 2
    for p in np.concatenate([np.linspace(0, 1, 51), intervals[:, 0] + 1e-9, intervals[:, 1] - 1e-9]):
        inside = (intervals[:, 0] <= p) & (p <= intervals[:, 1])
        assert stats.binom.pmf(np.arange(trials + 1), trials, p)[inside].sum() >= confidence - 1e-9
    # No wider than that: at the lower end of k the chance of k or more is the tail.
    for k in range(1, trials + 1):
        assert stats.binom.sf(k - 1, trials, intervals[k, 0]) == pytest.approx(tail, rel=1e-6)
    assert intervals[0, 0] == 0
    assert intervals[-1, 1] == 1
    assert intervals[0, 1] == pytest.approx(1 - tail ** (1 / trials))


@pytest.mark.parametrize("parts", [1, 3, 20])
def test_bonferroni_intervals_hold_together(parts):
    assert 1 - bonferroni(parts, 0.9) == pytest.approx(0.1 / parts)
    assert bonferroni(0, 0.9) == bonferroni(1, 0.9)


FINITE = arrays(np.float64, st.integers(2, 40), elements=st.floats(-1e3, 1e3))


@settings(max_examples=60, deadline=None)
@given(FINITE, st.floats(0.1, 100), st.floats(-100, 100), st.floats(0.5, 0.99))
def test_intervals_contain_their_estimate_and_move_with_the_data(x, scale, shift, confidence):
    for interval in (mean_interval, median_interval):
        value, (low, high) = interval(x, confidence=confidence)
        assert low - 1e-9 <= value <= high + 1e-9
        moved, (moved_low, moved_high) = interval(scale * x + shift, confidence=confidence)
        np.testing.assert_allclose([moved, moved_low, moved_high], scale * np.array([value, low, high]) + shift,
                                   rtol=1e-9, atol=1e-6 * scale)  # fmt: skip
        wider = interval(x, confidence=(1 + confidence) / 2)[1]
        assert wider[0] <= low
        assert wider[1] >= high
        np.testing.assert_allclose(interval(x[::-1], confidence=confidence)[1], (low, high), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap(np.mean, np.array([])), "a bootstrap needs at least one member"),
        (lambda: bootstrap(np.mean, np.ones(3), confidence=1.0), r"confidence must lie in \(0, 1\), got 1"),
        (lambda: bootstrap(np.mean, np.ones(3), confidence=0.0), r"confidence must lie in \(0, 1\), got 0"),
        (lambda: mean_interval(np.array([1.0])), "at least two members, got 1"),
        (lambda: median_interval(np.array([])), "at least one member"),
        (lambda: spread_interval(np.array([1.0])), "at least two different members"),
        (lambda: spread_interval(np.ones(5)), "at least two different members"),
        (lambda: log_slope(np.array([1.0]), [np.ones(3)]), "at least two different x"),
        (lambda: log_slope(np.array([1.0, 1.0]), [np.ones(3), np.ones(3)]), "at least two different x"),
        (lambda: paired_difference(np.ones(3, bool), np.ones(4, bool)), "the same members twice"),
        (lambda: paired_difference(np.array([], bool), np.array([], bool)), "the same members twice"),
        (lambda: clopper_pearson(1, 0), "successes must lie between 0 and the number of trials"),
        (lambda: clopper_pearson(5, 4), "got 5 of 4"),
        (lambda: clopper_pearson(-1, 4), "got -1 of 4"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
