"""Power laws are found with their errors; censored members are neither lost nor believed, bent data are told apart."""

import numpy as np
import pytest

from separatrix.engines.power_laws import collapse_spread, geometric_means, log_crossing, power_law

X = np.array([1.0, 2.0, 4.0, 8.0, 16.0])


def draw(rng, exponent=1.5, scatter=0.5, members=40, bend=0.0):
    log_x = np.log(X)
    return [np.exp(0.3 + exponent * u + bend * u**2 + scatter * rng.normal(size=members)) for u in log_x]


def test_without_censored_members_it_is_least_squares():
    samples = draw(np.random.default_rng(0))
    fit = power_law(X, samples)
    slope, intercept = np.polyfit(np.repeat(np.log(X), 40), np.log(np.concatenate(samples)), 1)
    assert fit.exponent == pytest.approx(slope, abs=1e-12)
    assert fit.prefactor == pytest.approx(np.exp(intercept), rel=1e-12)
    np.testing.assert_allclose(
        fit.local_exponents, np.diff([np.log(s).mean() for s in samples]) / np.log(2), rtol=1e-10
    )


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for k in range(100):
        fit = power_law(X, draw(rng, members=20), seed=k, resamples=300, confidence=0.9)
        inside += fit.interval[0] <= 1.5 <= fit.interval[1]
    # 90 expected, standard deviation 3
    assert 78 <= inside <= 99


def test_censored_members_are_used_as_lower_bounds():
    rng = np.random.default_rng(2)
    samples = draw(rng, members=400)
    cap = np.exp(0.3 + 1.5 * np.log(X[-1]))  # half of the members at the largest x
    censored = [s > cap for s in samples]
    cut = [np.minimum(s, cap) for s in samples]
    fit = power_law(X, cut, censored, resamples=100)
    assert fit.exponent == pytest.approx(1.5, abs=4 * 0.5 / np.sqrt(2000) / np.log(X).std() * 1.3)
    assert fit.scatter == pytest.approx(0.5, rel=0.1)
    assert 0.1 < fit.censored < 0.2
    # what the two wrong ways give: believing the bounds, and dropping those members
    believed = power_law(X, cut, resamples=50).exponent
    dropped = power_law(X, [s[~c] for s, c in zip(cut, censored, strict=True)], resamples=50).exponent
    assert believed < fit.exponent - 0.05
    assert dropped < believed
    np.testing.assert_allclose(geometric_means(cut, censored)[-1], cap, rtol=0.1)


def test_a_bent_law_is_no_power_law_and_a_straight_one_is():
    rng = np.random.default_rng(3)
    assert power_law(X, draw(rng, bend=0.15)).p_value < 1e-3
    values = np.array([power_law(X, draw(rng), resamples=2).p_value for _ in range(200)])
    # uniform under the null: 10 of 200 expected below 0.05, standard deviation 3.1
    assert 1 <= np.sum(values < 0.05) <= 23


def test_a_bent_law_is_recognised_behind_censored_members():
    samples = draw(np.random.default_rng(4), members=150, bend=0.2)
    cap = np.quantile(samples[-1], 0.7)
    fit = power_law(X, [np.minimum(s, cap) for s in samples], [s > cap for s in samples], resamples=20)
    assert fit.p_value < 1e-3


def test_paired_members_share_their_errors():
    rng = np.random.default_rng(5)
    common = np.exp(rng.normal(size=30))
    samples = [common * x**0.7 for x in X]
    paired = power_law(X, samples, paired=True)
    assert np.ptp(paired.interval) < 1e-9
    assert np.ptp(power_law(X, samples).interval) > 0.1


@pytest.mark.parametrize(
    ("x", "samples", "censored", "sentence"),
    [
        ([1.0], [[1.0, 2.0]], None, "at least two increasing"),
        ([2.0, 1.0], [[1.0, 2.0]] * 2, None, "at least two increasing"),
        ([1.0, 2.0], [[1.0, 2.0], [1.0]], None, "at least two members"),
        ([1.0, 2.0], [[1.0, 2.0], [1.0, np.inf]], None, "finite positive"),
        ([1.0, 2.0], [[1.0, 2.0], [1.0, 0.0]], None, "finite positive"),
        ([1.0, 2.0], [[1.0, 2.0]] * 2, [[False, True], [True, True]], "all members are censored"),
    ],
)
def test_what_is_no_sample_is_refused(x, samples, censored, sentence):
    with pytest.raises(ValueError, match=sentence):
        power_law(np.array(x), samples, censored)


def test_crossings_are_exact_on_power_laws():
    y = np.stack([0.1 * X**1.3, 5 * X, X**-1.0])
    at = log_crossing(X, y, 1.0)
    assert at[0] == pytest.approx(10 ** (1 / 1.3), rel=1e-12)
    assert np.isnan(at[1:]).all()


def test_rescaled_curves_collapse_and_others_do_not():
    x = np.geomspace(0.01, 100, 60)
    shape = lambda u: 1 + u**0.8  # noqa: E731
    curves = [shape(x) for _ in range(3)]
    assert collapse_spread([x / s for s in (1, 3, 9)], [shape(x / s) for s in (1, 3, 9)], (0.1, 5)) < 1e-3
    spread = collapse_spread([x, x], [curves[0], 1.2 * curves[1]], (0.1, 5))
    assert spread == pytest.approx(0.2 / 1.1, rel=1e-9)
    stacked = collapse_spread([x, x], [np.stack([curves[0]] * 4), np.stack([curves[1]] * 4)], (0.1, 5))
    assert stacked.shape == (4,)
    with pytest.raises(ValueError, match="in common"):
        collapse_spread([x, x], curves[:2], (1e4, 1e5))
