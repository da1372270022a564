"""Orders, conservation, positivity and the steady state of the Fokker-Planck solver."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.stats import norm

from separatrix.engines.fokker_planck import bernoulli, fokker_planck, steady_state

# An Ornstein-Uhlenbeck process off its resting place, so that drift and spread both change.
CENTRE, NOISE, START, SPREAD = 0.3, 0.8, 1.5, 0.3
TIMES = np.array([0.5, 1.0, 2.0])


def pull(x):
    return CENTRE - x


def constant(x):
    return np.full_like(x, NOISE**2)


def exact_moments(t):
    variance = SPREAD**2 * np.exp(-2 * t) + NOISE**2 / 2 * (1 - np.exp(-2 * t))
    return CENTRE + (START - CENTRE) * np.exp(-t), np.sqrt(variance)


def cell_averages(edges, mean, spread):
    return np.diff(norm.cdf(edges, mean, spread)) / np.diff(edges)


def solved(cells, time_step, order):
    edges = np.linspace(-5.0, 6.0, cells + 1)
    return fokker_planck(pull, constant, edges, cell_averages(edges, START, SPREAD), TIMES, time_step, order)


def uneven(cells):
    """Cells whose widths change by a factor of about 3."""
    u = np.linspace(-1, 1, cells + 1)
    return 0.5 + 5.5 * (u + 0.5 * u**3) / 1.5


@pytest.mark.parametrize("grid", [lambda n: np.linspace(-5.0, 6.0, n + 1), uneven], ids=["even", "uneven"])
def test_second_order_in_the_grid(grid):
    errors = []
    for cells in (100, 200, 400):
        edges = grid(cells)
        law = fokker_planck(pull, constant, edges, cell_averages(edges, START, SPREAD), TIMES, 0.004, order=2)
        exact = np.array([cell_averages(edges, *exact_moments(t)) for t in TIMES])
        mean, spread = exact_moments(TIMES)
        errors.append([np.sum(np.abs(law.density - exact) * np.diff(edges), axis=1), np.abs(law.mean() - mean),
                       np.abs(law.standard_deviation() - spread)])  # fmt: skip
    orders = np.log2(np.array(errors)[:-1] / np.array(errors)[1:])
    np.testing.assert_allclose(orders, 2, atol=0.15)
    assert np.max(errors[-1]) < 8e-4


@pytest.mark.parametrize("order", [1, 2])
def test_order_in_time(order):
    """Against the exact solution in time of the same cells, the exponential of their matrix of rates."""
    cells = 120
    edges = np.linspace(-5.0, 6.0, cells + 1)
    start = cell_averages(edges, START, SPREAD)
    # The columns of the rate matrix: what one implicit step makes of a full cell.
    step = 1e-3
    columns = [fokker_planck(pull, constant, edges, unit, [step], step).density[0] for unit in np.eye(cells)]
    rates = (np.eye(cells) - np.linalg.inv(np.array(columns).T)) / step
    exact = np.array([expm(rates * t) @ start for t in TIMES])
    errors = [np.abs(solved(cells, h, order).density - exact).max(axis=1) for h in (0.02, 0.01, 0.005)]
    np.testing.assert_allclose(np.log2(np.array(errors)[:-1] / np.array(errors)[1:]), order, atol=0.1)
    assert np.max(errors[-1]) < (4e-3 if order == 1 else 6e-5)


def test_implicit_euler_smears_a_moving_density_by_half_the_squared_drift_times_the_step():
    edges, h = np.linspace(-2.0, 6.0, 4001), 0.02
    law = fokker_planck(lambda x: 2.0 + 0 * x, lambda x: 0.05 + 0 * x, edges, cell_averages(edges, 0, 0.2), [1.0], h)
    assert law.mean() == pytest.approx(2.0, abs=1e-6)
    assert law.standard_deviation() ** 2 == pytest.approx(0.2**2 + 0.05 + 2.0**2 * h, rel=2e-3)


def double_well(x):
    return 3 * (x - x**3)


def rising_noise(x):
    return 0.1 * (1 + x**2)


def test_mass_is_conserved_to_rounding():
    edges = np.linspace(-4.0, 4.0, 2001)
    start = 2.5 * cell_averages(edges, 1.0, 0.1)  # any mass
    for order in (1, 2):
        law = fokker_planck(double_well, rising_noise, edges, start, np.linspace(0, 2, 5), 1e-3, order)
        np.testing.assert_allclose(law.mass, np.sum(start * np.diff(edges)), rtol=1e-12)
        np.testing.assert_array_equal(law.density[0], start)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(-200, 200), st.floats(-100, 100), st.floats(1e-6, 100), st.floats(-6, 6), st.integers(0, 59),
    st.booleans(),
)  # fmt: skip
def test_positive_and_conserving_however_stiff(speed, slope, noise, exponent, cell, wide):
    """One full cell, any drift, any diffusion, any step: nothing negative, nothing lost."""
    edges = np.linspace(-1, 1, 61) if wide else np.sort(np.random.default_rng(cell).uniform(-1, 1, 61))
    start = np.zeros(60)
    start[cell] = 1 / (edges[cell + 1] - edges[cell])
    step = 10.0**exponent
    law = fokker_planck(lambda x: speed + slope * x, lambda x: noise * (1 + x**2), edges, start, [step, 3 * step], step)
    assert np.all(law.density >= 0)
    np.testing.assert_allclose(law.mass, 1, rtol=1e-12)


def test_the_steady_state_does_not_move():
    edges = uneven(300)
    steady = steady_state(double_well, rising_noise, edges)
    assert np.sum(steady * np.diff(edges)) == pytest.approx(1, rel=1e-14)
    law = fokker_planck(double_well, rising_noise, edges, steady, [0.1, 10.0], 0.05)
    np.testing.assert_allclose(law.density, [steady, steady], rtol=1e-9, atol=1e-300)


def test_the_steady_state_is_the_zero_current_density_to_second_order():
    """``p ~ exp(int 2 mu / v) / v``; for this drift and variance rate v in closed form."""
    errors = []
    for cells in (100, 200, 400):
        edges = np.linspace(-4.0, 4.0, cells + 1)
        x = (edges[1:] + edges[:-1]) / 2
        exact = np.exp(6 / 0.1 * (np.log1p(x**2) - x**2 / 2)) / rising_noise(x)
        exact /= np.sum(exact) * (edges[1] - edges[0])
        errors.append(np.max(np.abs(steady_state(double_well, rising_noise, edges) - exact)) / exact.max())
    np.testing.assert_allclose(np.log2(np.array(errors)[:-1] / np.array(errors)[1:]), 2, atol=0.1)
    assert errors[-1] < 2e-3


def test_everything_ends_in_the_steady_state():
    edges = np.linspace(-5.0, 6.0, 301)
    start = np.zeros(300)
    start[7] = 1 / (edges[1] - edges[0])
    end = fokker_planck(pull, constant, edges, start, [60.0], 0.1)
    np.testing.assert_allclose(end.density[0], steady_state(pull, constant, edges), rtol=1e-9, atol=1e-30)
    # Second order: the cells carry the Gaussian of variance 0.32.
    assert end.mean() == pytest.approx(CENTRE, abs=1e-9)
    assert end.standard_deviation() == pytest.approx(NOISE / np.sqrt(2), rel=1e-3)


def test_constant_drift_and_noise_are_exact_at_any_cell_width():
    """The steady state between two walls is exponential; cells of any width hold it without error."""
    edges = np.array([0.0, 0.7, 1.0, 3.0, 3.2])
    x = (edges[1:] + edges[:-1]) / 2
    steady = steady_state(lambda x: -1.5 + 0 * x, lambda x: 0.4 + 0 * x, edges)
    np.testing.assert_allclose(steady[1:] / steady[:-1], np.exp(-2 * 1.5 / 0.4 * np.diff(x)), rtol=1e-12)


def test_a_cell_without_noise_at_its_centre_absorbs():
    edges = 0.02 * (np.arange(202) - 100.5)  # 0 is the centre of a cell
    start = cell_averages(edges, 1.0, 0.1)
    law = fokker_planck(lambda x: -x, lambda x: 0.1 * x**2, edges, start, [1.0, 30.0], 0.01)
    assert law.masses[0, 100] < 0.01
    assert law.masses[1, 100] == pytest.approx(1, abs=1e-9)
    with pytest.raises(ValueError, match="variance_rate must be positive at every centre"):
        steady_state(lambda x: -x, lambda x: 0.1 * x**2, edges)


def test_times_may_repeat_and_need_not_be_multiples_of_the_step():
    edges = np.linspace(-5.0, 6.0, 101)
    start = cell_averages(edges, START, SPREAD)
    law = fokker_planck(pull, constant, edges, start, [0.0, 0.25, 0.25, 0.61], 0.1)
    np.testing.assert_array_equal(law.density[1], law.density[2])
    by_hand = fokker_planck(pull, constant, edges, start, [0.25], 0.25 / 3).density[0]
    np.testing.assert_allclose(law.density[1], by_hand, rtol=1e-13)
    later = fokker_planck(pull, constant, edges, by_hand, [0.36], 0.09).density[0]
    np.testing.assert_allclose(law.density[3], later, rtol=1e-12)


def test_bernoulli_function_over_its_whole_range():
    small = np.array([1e-300, 1e-12, -1e-12, 1e-5, -1e-5])
    np.testing.assert_allclose(bernoulli(small), 1 - small / 2 + small**2 / 12, rtol=1e-15)
    x = np.array([0.5, 3.0, 40.0, 650.0])
    np.testing.assert_allclose(bernoulli(x), x / (np.exp(x) - 1), rtol=1e-12)
    x = np.array([0.0, 1e-7, 0.3, 30.0, 699.0, 701.0, 1e4])
    np.testing.assert_allclose(bernoulli(-x) - bernoulli(x), x, rtol=1e-15, atol=1e-15)
    assert bernoulli(0.0) == 1
    assert bernoulli(-1e4) == 1e4
    assert np.all((bernoulli(np.array([700.0, 1e4])) > 0) & (bernoulli(np.array([700.0, 1e4])) < 1e-290))


GOOD = {
    "drift": pull, "variance_rate": constant, "edges": np.linspace(0, 1, 4), "initial": np.ones(3),
    "times": [1.0], "time_step": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"edges": np.array([0.0, 1.0, 1.0, 2.0])}, "edges"),
        ({"edges": np.array([0.0, np.nan, 1.0, 2.0])}, "edges"),
        ({"edges": np.array([0.0, 1.0]), "initial": np.ones(1)}, "edges"),
        ({"initial": np.ones(4)}, "initial"),
        ({"initial": np.array([1.0, -1e-9, 1.0])}, "initial"),
        ({"initial": np.array([1.0, np.nan, 1.0])}, "initial"),
        ({"times": [-0.1]}, "times"),
        ({"times": [1.0, 0.5]}, "times"),
        ({"times": [np.inf]}, "times"),
        ({"time_step": 0.0}, "time_step"),
        ({"time_step": np.nan}, "time_step"),
        ({"order": 3}, "order"),
        ({"variance_rate": lambda x: 0 * x}, "variance_rate"),
        ({"variance_rate": lambda x: np.where(x > 0.8, np.inf, 1.0)}, "variance_rate"),
        ({"variance_rate": lambda x: -1 + 0 * x}, "variance_rate"),
        ({"drift": lambda x: np.nan + x}, "drift"),
    ],
)
def test_bad_input_is_refused(change, name):
    fokker_planck(**GOOD)
    with pytest.raises(ValueError, match=f"^{name} must"):
        fokker_planck(**{**GOOD, **change})
