from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.stats import invgauss

from separatrix.systems.deep_linear.diffusion_peak import peak_progress
from separatrix.systems.deep_linear.learning_times import (
    escape_drift,
    flow_time,
    lead_time,
    passage_density,
    passage_moments,
)
from separatrix.systems.deep_linear.scalar_mode import flow_speed, log_diffusion, log_drift


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_gradient_flow_arrives_at_the_flow_time(depth):
    s, start, end = 1.7, 0.02, 1.6
    time = float(flow_time(start, end, s, depth))
    path = solve_ivp(lambda t, w: flow_speed(w, s, depth), (0, time), [start], rtol=1e-11, atol=1e-13)
    assert path.y[0, -1] == pytest.approx(end, rel=1e-8)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 10), st.floats(1e-6, 0.9), st.floats(0.01, 0.999), st.floats(0.1, 10))
def test_flow_time_is_the_integral_of_the_inverse_speed(depth, start, share, s):
    end = start + share * (0.99 - start)
    exact = quad(lambda y: s * np.exp(y) / flow_speed(s * np.exp(y), s, depth), np.log(start), np.log(end))[0]
    assert flow_time(start * s, end * s, s, depth) == pytest.approx(exact, rel=1e-7)


def test_depth_two_in_closed_form_and_additivity():
    w0, w1, w2, s = 0.01, np.array([0.3, 0.5]), 1.9, 2.0
    expected = np.log(w1 * (s - w0) / (w0 * (s - w1))) / (2 * s)
    np.testing.assert_allclose(flow_time(w0, w1, s, 2), expected, rtol=1e-13)
    for depth in (2, 3):
        whole = flow_time(w0, w2, s, depth)
        np.testing.assert_allclose(flow_time(w0, w1, s, depth) + flow_time(w1, w2, s, depth), whole, rtol=1e-12)
        assert flow_time(w2, w0, s, depth) == pytest.approx(-whole)


@pytest.mark.parametrize(("depth", "lead"), [(2, 1.472), (3, 0.955), (4, 0.706)])
def test_lead_times(depth, lead):
    assert lead_time(1.0, depth) == pytest.approx(lead, abs=5.1e-4)
    s = np.array([0.5, 1.0, 3.0])
    np.testing.assert_allclose(lead_time(s, depth), lead_time(1.0, depth) * s ** -(2 - 2 / depth), rtol=1e-12)
    # With label noise the peak comes later, at the progress that the diffusion's maximum has then.
    noise = 0.25
    expected = flow_time(peak_progress(depth, noise) * 3, 0.9 * 3, 3.0, depth)
    assert lead_time(3.0, depth, missing=0.1, label_noise=noise) == pytest.approx(expected, rel=1e-13)
    assert lead_time(1.0, depth, label_noise=noise) < lead_time(1.0, depth)
    # No peak, no lead.
    lead, none = lead_time(1.0, depth, label_noise=np.array([0.0, 0.6]))
    assert lead == pytest.approx(lead_time(1.0, depth))
    assert np.isnan(none)


PASSAGE = {"initial": 1e-4, "final": 0.02, "singular_value": 1.0, "label_noise": 0.0, "noise_scale": 0.02}


def test_passage_moments():
    mean, variance = passage_moments(**PASSAGE)
    assert mean == pytest.approx(2.703, abs=5e-4)
    assert np.sqrt(variance) == pytest.approx(0.3355, abs=5e-5)
    # ln 200 / (2 - 0.02 * 2), and 4 * 0.02 * 2 ln 200 / (2 - 0.02 * 2)^3.
    assert mean == pytest.approx(np.log(200) / 1.96, rel=1e-13)
    assert variance == pytest.approx(0.16 * np.log(200) / 1.96**3, rel=1e-13)


@pytest.mark.parametrize("change", [{}, {"label_noise": 2.0, "singular_value": 1.5, "noise_scale": 0.1}])
def test_passage_density_is_normalised_with_the_moments_stated(change):
    parameters = {**PASSAGE, **change}
    mean, variance = (float(v) for v in passage_moments(**parameters))
    density = lambda t: passage_density(np.array([t]), **parameters)[0]  # noqa: E731
    ends = [1e-9, mean, mean + 10 * np.sqrt(variance), mean + 100 * np.sqrt(variance)]
    power = lambda k: sum(quad(lambda t: t**k * density(t), *piece, epsabs=1e-13)[0] for piece in pairwise(ends))  # noqa: E731
    moment = [power(0), power(1), power(2)]
    np.testing.assert_allclose(moment, [1, mean, variance + mean**2], rtol=1e-8)
    # SciPy's inverse Gaussian: shape distance^2 / rate.
    shape = mean**3 / variance
    t = np.linspace(0.2, 3, 8) * mean
    np.testing.assert_allclose(passage_density(t, **parameters), invgauss(mean / shape, scale=shape).pdf(t), rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.1, 3), st.floats(0, 3), st.floats(1e-4, 0.1))
def test_escape_is_the_scalar_equation_far_below_the_singular_value(s, sigma, kappa):
    tiny = 1e-13
    drift, rate = log_drift(tiny, s, 2, kappa, sigma), 2 * log_diffusion(tiny, s, 2, kappa, sigma)
    assert escape_drift(s, sigma, kappa) == pytest.approx(drift, abs=1e-10)
    if drift > 1e-3:
        mean, variance = passage_moments(1e-6, 1e-4, s, sigma, kappa)
        assert mean == pytest.approx(np.log(100) / drift, rel=1e-6)
        assert variance == pytest.approx(rate * np.log(100) / drift**3, rel=1e-6)


FLOW = {"initial": 0.1, "final": 0.5, "singular_value": 1.0, "depth": 2}
LEAD = {"singular_value": 1.0, "depth": 2}
ESCAPE = {"singular_value": 1.0, "label_noise": 0.1, "noise_scale": 0.02}


@pytest.mark.parametrize(
    ("function", "good", "name", "value"),
    [
        (flow_time, FLOW, "depth", 0.5), (flow_time, FLOW, "initial", 0.0), (flow_time, FLOW, "final", -1.0),
        (flow_time, FLOW, "singular_value", 0.0), (flow_time, FLOW, "initial", np.nan),
        (lead_time, LEAD, "depth", 1.5), (lead_time, LEAD, "singular_value", -1.0),
        (lead_time, LEAD, "label_noise", -0.1), (lead_time, LEAD, "missing", 0.0), (lead_time, LEAD, "missing", 1.0),
        (escape_drift, ESCAPE, "singular_value", 0.0), (escape_drift, ESCAPE, "label_noise", -1.0),
        (escape_drift, ESCAPE, "noise_scale", -0.1),
        (passage_moments, PASSAGE, "initial", 0.0), (passage_moments, PASSAGE, "final", np.inf),
        (passage_moments, PASSAGE, "final", 1e-5), (passage_moments, PASSAGE, "label_noise", -1.0),
        (passage_moments, PASSAGE, "noise_scale", 0.0), (passage_moments, PASSAGE, "noise_scale", 1.1),
        (passage_density, {**PASSAGE, "time": np.ones(1)}, "time", np.zeros(1)),
        (passage_density, {**PASSAGE, "time": np.ones(1)}, "singular_value", -1.0),
    ],
)  # fmt: skip
def test_bad_input_is_refused(function, good, name, value):
    function(**good)
    with pytest.raises(ValueError, match=rf"^{name} must"):
        function(**{**good, name: value})


def test_strengths_at_or_above_the_singular_value_take_for_ever():
    for initial, final in ((0.1, 1.0), (1.2, 1.1)):
        with pytest.raises(ValueError, match=r"^initial and final strengths must lie below the singular value"):
            flow_time(initial, final, 1.0, 2)
