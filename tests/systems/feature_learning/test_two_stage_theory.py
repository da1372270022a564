import numpy as np
import pytest
from scipy.special import expit

from separatrix.systems.feature_learning import two_stage_theory as theory
from separatrix.systems.feature_learning.two_stage_theory import Flips, reduced_course

TWO_STAGES = [(4, 0.2), (8, 0.4), (8, 0.1), (1.2, 0.05), (40, 0.3)]


def euler(kappa, tau, end, step=1e-3):
    """The equations of the reduced dynamics, step by step as written in the docstring."""
    g = c = f = 0.0
    for _ in range(round(end / step)):
        clean, flipped = 1 / (1 + np.exp(g + c / 2)), 1 / (1 + np.exp(f / 2 - g))
        g += step * kappa / 2 * ((1 - tau) * clean - tau * flipped)
        c, f = c + step * clean, f + step * flipped
    return g, c, f


@pytest.mark.parametrize(("kappa", "tau"), [(4, 0.2), (8, 0.4), (0.5, 0.0)])
def test_the_course_solves_the_equations(kappa, tau):
    course = reduced_course(np.array([0.0, 0.5, 3.0]), kappa, tau)
    assert course.signal[0] == course.clean[0] == course.flipped[0] == 0
    for k, end in ((1, 0.5), (2, 3.0)):
        expected = euler(kappa, tau, end)
        np.testing.assert_allclose((course.signal[k], course.clean[k], course.flipped[k]), expected, atol=2e-3)


def test_stored_courses():
    course = reduced_course(np.array([0.8, 2.72, 27.9]), 4, 0.2)
    np.testing.assert_allclose(course.signal, [0.379, 0.824, 1.725], atol=6e-4)
    np.testing.assert_allclose(course.clean, [0.342, 0.880, 2.966], atol=6e-4)
    np.testing.assert_allclose(course.flipped, [0.420, 1.459, 7.552], atol=3e-3)


def test_the_start_of_the_course_has_the_early_slopes():
    course = reduced_course(np.array([1e-6]), 4, 0.2)
    signal, memory = theory.early_slopes(4, 0.2)
    np.testing.assert_allclose([course.signal[0], course.clean[0], course.flipped[0]],
                               [1e-6 * signal, 1e-6 * memory, 1e-6 * memory], rtol=1e-5)  # fmt: skip


@pytest.mark.parametrize(("kappa", "tau", "end"), [(4, 0.2, 3.4397), (8, 0.4, 0.9012), (8, 0.1, 6.5406)])
def test_stored_ends_of_stage_one(kappa, tau, end):
    assert theory.stage_two_time(kappa, tau) == pytest.approx(end, abs=6e-5)


@pytest.mark.parametrize(("kappa", "tau"), TWO_STAGES)
def test_flipped_samples_are_rejected_in_stage_one_most_of_all_at_the_selection_time(kappa, tau):
    chosen, end = theory.selection_time(kappa, tau), theory.stage_two_time(kappa, tau)
    assert 0 < chosen < end
    course = reduced_course(np.array([1e-3, 0.5, 1, 2, 4]) * chosen, kappa, tau)
    assert np.all(reduced_course(np.array([0.1, 0.9]) * end, kappa, tau).flipped_margin < 0)
    assert reduced_course(np.array([1.01 * end]), kappa, tau).flipped_margin[0] > 0
    assert course.flipped_margin.argmin() == 2
    assert np.all(course.clean_margin > 0)
    inside = theory.within_stage_one(np.array([0, 0.5, 1.5]) * end, kappa, tau)
    assert inside.tolist() == [False, True, False]


@pytest.mark.parametrize(("kappa", "tau"), [(1, 0.0), (5, 0.4), (1.6, 0.3)])
def test_below_the_border_there_is_no_first_stage(kappa, tau):
    assert not theory.two_stages_exist(kappa, tau)
    assert np.isnan(theory.stage_two_time(kappa, tau))
    assert np.isnan(theory.selection_time(kappa, tau))
    assert not theory.within_stage_one(np.array([0.5]), kappa, tau).any()
    assert np.all(np.diff(reduced_course(np.linspace(0, 20, 50), kappa, tau).flipped_margin) > 0)


@pytest.mark.parametrize(("kappa", "tau"), [(4, 0.2), (8, 0.4), (1, 0.1), (4, 0.0)])
def test_late_growth_is_logarithmic(kappa, tau):
    time = np.array([1e12, 1e14])
    course, law = reduced_course(time, kappa, tau), theory.late_law(kappa, tau)
    for values, slope in ((course.signal, law.signal), (course.clean, law.clean), (course.flipped, law.flipped)):
        assert np.diff(values)[0] / np.log(100) == pytest.approx(slope, abs=2e-3)
    assert time[1] * course.loss(tau)[1] == pytest.approx(law.loss, rel=1e-2)
    assert law.flipped / law.signal > 1


@pytest.mark.parametrize(("kappa", "tau"), [(8, 0.4), (400, 0.49), (1, 0.49), (30, 0.1)])
def test_the_signal_never_shrinks(kappa, tau):
    # at g' = 0 its derivative is proportional to s(1 - s) of flipped minus that of clean samples, and z_c + z_n >= 0
    signal = reduced_course(np.concatenate([np.linspace(0, 20, 500), np.geomspace(21, 1e5, 200)]), kappa, tau).signal
    assert np.all(np.diff(signal) > 0)


def test_the_share_of_rejected_samples_counts_active_filters():
    # one filter: it is inactive with probability 1/2, and a sample without active filters is never memorised
    assert theory.rejected_share(1, 4, 0.4) == 0.5
    assert theory.rejected_share(10, 8, 0.2) == 1.0
    assert theory.rejected_share(2, 2, 0.25) == 0.25  # 2 p < 1: of 0, 1, 2 active filters only none
    assert theory.rejected_share(10, 8, 0.4) == pytest.approx(0.945, abs=1e-3)


@pytest.mark.parametrize(
    ("sizes", "kappa", "theta", "error"),
    [((100, 400), 4, 24.0, 0.189), ((100, 400), 8, 24.0, 0.163), ((200, 400), 4, 12.0, 0.224),
     ((100, 2000), 4, 120.0, 0.069)],
)  # fmt: skip
def test_stored_test_errors(sizes, kappa, theta, error):
    course = reduced_course(np.array([theta]), kappa, 0.4)
    pair = lambda values: (values[0], values[0])  # noqa: E731
    found = theory.reduced_test_error(
        pair(course.signal), pair(course.clean), pair(course.flipped), Flips(*sizes, 10, 0.4, 0.4),
        np.random.default_rng(0), networks=30, draws=500,
    )  # fmt: skip
    # 0.05 is the spread over sets of active filters, of which 30 are drawn
    assert found == pytest.approx(error, abs=4 * 0.05 / np.sqrt(30))


def test_the_test_error_without_memory_is_that_of_the_signal():
    zero = (0.0, 0.0)
    sizes = Flips(20, 50, 4, 0.2, 0.2)
    rng = np.random.default_rng(0)
    assert theory.reduced_test_error((1.0, 1.0), zero, zero, sizes, rng, 1, 10) == 0
    assert theory.reduced_test_error(zero, zero, zero, sizes, rng, 1, 10) == 1  # on the boundary is wrong
    assert theory.reduced_test_error((1.0, -1.0), zero, zero, sizes, rng, 1, 10) == 0.5


@pytest.mark.parametrize(
    ("kappa", "tau", "sentence"),
    [
        (0.0, 0.2, "kappa must be positive and finite, got 0.0"),
        (np.inf, 0.2, "kappa must be positive and finite, got inf"),
        (np.nan, 0.2, "kappa must be positive and finite, got nan"),
        (4.0, 0.5, "tau must lie in [0, 0.5), got 0.5"),
        (4.0, -0.1, "tau must lie in [0, 0.5), got -0.1"),
        (4.0, np.nan, "tau must lie in [0, 0.5), got nan"),
    ],
)
def test_parameters_out_of_range_are_refused(kappa, tau, sentence):
    functions = (theory.late_law, theory.stage_two_time, theory.two_stages_exist,
                 lambda k, t: reduced_course(np.array([1.0]), k, t))  # fmt: skip
    for function in functions:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            function(kappa, tau)
        assert str(error.value) == sentence


@pytest.mark.parametrize("theta", [[], [-1.0, 2.0], [2.0, 1.0], [1.0, 1.0]])
def test_times_that_do_not_increase_are_refused(theta):
    with pytest.raises(ValueError, match="theta must be increasing"):
        reduced_course(np.array(theta), 4, 0.2)


def test_the_loss_is_the_mean_over_clean_and_flipped():
    course = reduced_course(np.array([2.0]), 4, 0.2)
    expected = -0.8 * np.log(expit(course.clean_margin)) - 0.2 * np.log(expit(course.flipped_margin))
    np.testing.assert_allclose(course.loss(0.2), expected)
