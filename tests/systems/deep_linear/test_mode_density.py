"""The Fokker-Planck law of a mode against its stationary law, its SDE and its grid's own refinement."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from significance import FALSE_ALARM, assert_means

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.engines.fokker_planck import fokker_planck
from separatrix.systems.deep_linear.mode_density import mode_density
from separatrix.systems.deep_linear.scalar_mode import log_diffusion, log_drift
from separatrix.systems.deep_linear.scalar_simulation import scalar_sde
from separatrix.systems.deep_linear.stationary import StationaryLaw

MODE = {"depth": 2, "singular_value": 1.0, "label_noise": 0.5, "noise_scale": 0.02, "initial_strength": 0.05}


@pytest.fixture(scope="module")
def rise():
    return mode_density(**MODE, times=np.array([0.0, 1.6, 12.0]))


def test_mass_and_start(rise):
    np.testing.assert_allclose(rise.mass, 1, rtol=0, atol=1e-12)
    assert np.all(rise.masses > -1e-10)
    start = stats.lognorm(0.05, scale=0.05)
    np.testing.assert_allclose(rise.mean[0], start.mean(), rtol=1e-3)
    np.testing.assert_allclose(rise.standard_deviation[0], start.std(), rtol=1e-3)


def test_it_ends_in_the_stationary_law(rise):
    law = StationaryLaw(2, 1.0, 0.5, 0.02)
    assert (law.mean, law.standard_deviation) == pytest.approx((0.99740, 0.07208), abs=6e-6)
    assert rise.mean[2] == pytest.approx(law.mean, abs=2e-6)
    assert rise.standard_deviation[2] == pytest.approx(law.standard_deviation, abs=3e-6)
    where = rise.density[2] > 1e-8
    np.testing.assert_allclose(rise.density[2, where], law.pdf(rise.strength[where]), rtol=1e-3)
    np.testing.assert_allclose(np.cumsum(rise.masses[2]), law.cdf(rise.edges[1:]), rtol=0, atol=1e-4)


def test_on_the_way_it_is_the_limit_of_fine_grids_and_short_steps(rise):
    """Implicit Euler at a step of 0.002 gives 0.1372 for the spread: its error is that of the step, not of the law."""
    fine = mode_density(**MODE, times=np.array([1.6]), log_step=0.0025, time_step=0.0025)
    for law, tolerance in ((rise, 1.5e-4), (fine, 4e-5)):
        at = np.flatnonzero(law.time == 1.6)[0]
        assert law.mean[at] == pytest.approx(0.55472, abs=tolerance)
        assert law.standard_deviation[at] == pytest.approx(0.13463, abs=tolerance)
    parameters = (1.0, 2, 0.02, 0.5)
    edges = np.linspace(-8, 1.5, 1001)
    start = np.diff(stats.norm.cdf(edges, np.log(0.05), 0.05)) / np.diff(edges)
    first = fokker_planck(
        lambda y: log_drift(np.exp(y), *parameters), lambda y: 2 * log_diffusion(np.exp(y), *parameters),
        edges, start, [1.6], 0.002,
    )  # fmt: skip
    w = np.exp(first.centres)
    mean = first.expectation(w)
    assert mean == pytest.approx(0.5546, abs=1e-4)
    assert np.sqrt(first.expectation((w - mean) ** 2)) == pytest.approx(0.1373, abs=2e-4)


@pytest.mark.parametrize(
    ("depth", "singular_value", "initial", "time", "step"), [(2, 1.0, 0.05, 1.6, 0.01), (3, 1.5, 0.1, 1.0, 0.005)]
)
def test_it_is_the_law_of_the_sde(depth, singular_value, initial, time, step):
    members, kappa, noise = 40_000, 0.02, 0.5
    log_start = np.random.default_rng(0).normal(np.log(initial), 0.05, members)
    arguments = {"singular_value": singular_value, "label_noise": noise, "noise_scale": kappa, "step_size": step}
    keys, root = member_keys(1, "density", 0, members), jnp.asarray(np.exp(log_start / depth))[None]
    records, diverged = evolve(scalar_sde(depth), _state, root, keys, arguments, np.array([round(time / step)]))
    assert np.all(diverged == -1)
    w = records[0, 0] ** depth
    law = mode_density(depth, singular_value, noise, kappa, initial, np.array([time]))
    mean, spread = law.mean[0], law.standard_deviation[0]
    assert_means(np.stack([w, (w - mean) ** 2]), [mean, spread**2])
    cumulative = np.concatenate([[0.0], np.cumsum(law.masses[0])])
    assert stats.kstest(w, lambda x: np.interp(x, law.edges, cumulative)).pvalue > FALSE_ALARM


def _state(state, arguments):
    return state


def test_without_label_noise_all_probability_ends_at_the_singular_value():
    law = mode_density(2, 1.5, 0.0, 0.02, 0.05, np.array([1.0, 20.0]))
    assert law.standard_deviation[0] > 0.1
    assert law.mean[1] == pytest.approx(1.5, abs=1e-8)
    assert law.standard_deviation[1] < 1e-6
    np.testing.assert_allclose(law.mass, 1, rtol=0, atol=1e-12)


def test_collapse_above_the_threshold_only_at_depth_two():
    """The threshold is 2 s / (2 s^2 + sigma^2) = 0.0441; at depth 3 the mode of the same noise is learned."""
    s, sigma, times = 0.2, 3.0, np.array([60.0])
    medians = {}
    for depth, kappa in ((2, 0.09), (2, 0.005), (3, 0.005)):
        law = mode_density(depth, s, sigma, kappa, 0.02, times, log_step=0.04, time_step=0.05)
        medians[depth, kappa] = law.strength[np.searchsorted(np.cumsum(law.masses[0]), 0.5)]
    assert medians[2, 0.09] < 1e-6
    assert 0.15 < medians[2, 0.005] < 0.22
    assert medians[3, 0.005] > 0.15
    # Far below s the logarithm drifts at 2 s - kappa (2 s^2 + sigma^2) with variance rate 4 kappa (2 s^2 + sigma^2).
    law = mode_density(2, s, sigma, 0.09, 1e-12, times, log_step=0.04, time_step=0.05)
    noise = 2 * s**2 + sigma**2
    mean = np.log(1e-12) + (2 * s - 0.09 * noise) * 60
    log_mean = law.masses[0] @ np.log(law.strength)
    log_spread = np.sqrt(law.masses[0] @ (np.log(law.strength) - log_mean) ** 2)
    assert log_mean == pytest.approx(mean, rel=2e-4)
    assert log_spread == pytest.approx(np.sqrt(4 * 0.09 * noise * 60 + 0.05**2), rel=2e-3)


def test_the_kurtosis_of_the_inputs_enters_as_in_the_stationary_law():
    law = mode_density(2, 1.0, 0.5, 0.05, 1.0, np.array([15.0]), kurtosis=2.0)
    limit = StationaryLaw(2, 1.0, 0.5, 0.05, kurtosis=2.0)
    assert limit.standard_deviation > 1.05 * StationaryLaw(2, 1.0, 0.5, 0.05).standard_deviation
    assert law.mean[0] == pytest.approx(limit.mean, rel=1e-4)
    assert law.standard_deviation[0] == pytest.approx(limit.standard_deviation, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("depth", 1), ("singular_value", 0.0), ("singular_value", -1.0), ("label_noise", -0.1), ("label_noise", np.nan),
        ("noise_scale", 0.0), ("noise_scale", -0.02), ("initial_strength", 0.0), ("initial_strength", np.inf),
        ("initial_log_spread", 0.0), ("kurtosis", 1 / 3), ("log_step", 0.0), ("time_step", -1.0),
        ("times", np.array([-1.0])), ("times", np.array([2.0, 1.0])), ("times", np.array([np.nan])),
    ],
)  # fmt: skip
def test_bad_input_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        mode_density(**{**MODE, "times": np.array([0.1]), name: value})
