"""The exact unaligned solution against an ODE solver, against the aligned one, and against its own composition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from separatrix.systems.deep_linear.mode_solutions import balanced_strength
from separatrix.systems.deep_linear.starts import decoupled_weights, orthogonal_weights, zero_balanced_weights
from separatrix.systems.deep_linear.teacher import Teacher
from separatrix.systems.deep_linear.zero_balanced_flow import zero_balanced_flow

WIDTHS = (5, 7, 3)


def problem(seed, widths=WIDTHS, scale=0.5, rank=None):
    rng = np.random.default_rng(seed)
    first, second = zero_balanced_weights(rng, widths, scale * rng.uniform(0.1, 1, min(widths)))
    teacher = rng.normal(size=(widths[2], widths[0]))
    if rank is not None:
        left, s, right = np.linalg.svd(teacher, full_matrices=False)
        teacher = (left[:, :rank] * s[:rank]) @ right[:rank]
    return first, second, teacher


def solved(first, second, teacher, times):
    """Both layers at ``times``."""
    size = first.size

    def speed(_t, state):
        one, two = state[:size].reshape(first.shape), state[size:].reshape(second.shape)
        error = teacher - two @ one
        return np.concatenate([(two.T @ error).ravel(), (error @ one.T).ravel()])

    now, state, states = 0.0, np.concatenate([first.ravel(), second.ravel()]), []
    for time in times:
        state = solve_ivp(speed, (now, time), state, method="DOP853", rtol=1e-13, atol=1e-15).y[:, -1]
        now = time
        states.append((state[:size].reshape(first.shape), state[size:].reshape(second.shape)))
    return states


def one_shot(first, second, teacher, time):
    """The solution as it is written down, without the precautions."""
    d_in = first.shape[1]
    matrix = np.block([[np.zeros((d_in, d_in)), teacher.T], [teacher, np.zeros((len(second), len(second)))]])
    rate, frame = np.linalg.eigh(matrix)
    state = frame.T @ np.concatenate([first.T, second])
    rate = np.where(np.abs(rate) < 1e-12, 1e-12, rate)
    bracket = np.eye(len(first)) + state.T @ ((np.expm1(2 * rate * time) / (2 * rate))[:, None] * state)
    grown = np.exp(rate * time)[:, None] * state
    try:
        square = frame @ (grown @ np.linalg.solve(bracket, grown.T)) @ frame.T
    except np.linalg.LinAlgError:
        return np.full(teacher.shape, np.nan)
    return square[d_in:, :d_in]


@pytest.mark.parametrize("scale", [0.5, 1e-3])
@pytest.mark.parametrize(("widths", "rank"), [(WIDTHS, None), ((3, 2, 6), None), ((4, 4, 4), 2)])
def test_all_entries_follow_gradient_flow(widths, rank, scale):
    case = problem(7, widths, scale, rank)
    times = [0.5, 2.0, 8.0, 20.0]
    flow = zero_balanced_flow(*case, times)
    for k, (first, second) in enumerate(solved(*case, times)):
        np.testing.assert_allclose(flow.product[k], second @ first, atol=2e-11)
        np.testing.assert_allclose(flow.input_similarity[k], first.T @ first, atol=2e-11)
        np.testing.assert_allclose(flow.output_similarity[k], second @ second.T, atol=2e-11)


def test_the_formula_as_written_loses_its_digits_and_the_composed_form_does_not():
    worst = {"one shot": 0.0, "composed": 0.0}
    with np.errstate(all="ignore"):
        for seed in range(4):
            case = problem(seed)
            first, second = solved(*case, [20.0])[0]
            for name, found in (
                ("one shot", one_shot(*case, 20.0)),
                ("composed", zero_balanced_flow(*case, [20.0]).product[0]),
            ):
                error = np.max(np.abs(found - second @ first))
                worst[name] = max(worst[name], np.inf if np.isnan(error) else error)
            early = one_shot(*case, 1.0)
            np.testing.assert_allclose(early, zero_balanced_flow(*case, [1.0]).product[0], atol=1e-11)
    assert worst["one shot"] > 1e-3
    assert worst["composed"] < 1e-10


@profile(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 30), st.floats(0, 30), st.sampled_from([0.5, 1e-2]))
def test_steps_compose(seed, first_time, second_time, scale):
    case = problem(seed, scale=scale)
    whole = zero_balanced_flow(*case, [first_time + second_time]).product[0]
    halfway = zero_balanced_flow(*case, [first_time, first_time + second_time])
    np.testing.assert_allclose(halfway.product[1], whole, atol=1e-9)


def test_times_in_any_order_and_time_zero():
    case = problem(3)
    times = np.array([4.0, 0.0, 1.0, 1.0, 300.0])
    flow = zero_balanced_flow(*case, times).product
    np.testing.assert_allclose(flow[1], case[1] @ case[0], atol=1e-15)
    np.testing.assert_array_equal(flow[2], flow[3])
    np.testing.assert_allclose(flow[0], zero_balanced_flow(*case, [4.0]).product[0], atol=1e-12)


def test_aligned_starts_agree_with_the_modes():
    teacher = Teacher.diagonal([3.0, 2.0, 1.0, 0.5])
    first, second = decoupled_weights(np.random.default_rng(0), teacher, (4, 8, 4), np.full(4, 1e-3))
    times = np.array([0.5, 1.3, 3.0, 10.0, 1e3])
    flow = zero_balanced_flow(first, second, teacher.matrix, times).product
    expected = balanced_strength(times[:, None], 1e-3, teacher.singular_values)
    np.testing.assert_allclose(flow, expected[..., None] * np.eye(4), atol=1e-12)


@pytest.mark.parametrize("time", [1e3, 1e6, 1e12])
def test_at_long_times_the_teacher_is_learned_or_its_null_space_forgotten(time):
    case = problem(1)
    np.testing.assert_allclose(zero_balanced_flow(*case, [time]).product[0], case[2], atol=1e-12)
    first, second, teacher = problem(2, rank=1)
    # What the teacher does not use decays as 1 / t.
    error = np.linalg.norm(zero_balanced_flow(first, second, teacher, [time]).product[0] - teacher)
    assert 0.01 / time < error < 10 / time
    assert np.linalg.norm(zero_balanced_flow(first, second, 0 * teacher, [time]).product[0]) < 3 / time


@pytest.mark.parametrize("same_sign", [True, False])
def test_square_orthogonal_starts_reach_only_teachers_with_the_sign_of_their_determinant(same_sign):
    first, second = orthogonal_weights(np.random.default_rng(0), (4, 4, 4))
    if (np.linalg.det(second @ first) > 0) != same_sign:
        first = np.diag([-1.0, 1, 1, 1]) @ first
    teacher = np.diag([1.0, 0.9, 0.8, 0.7])
    flow = zero_balanced_flow(first, second, teacher, [0.5, 2.0, 10.0]).product
    assert np.all((np.linalg.det(flow[:2]) > 0) == same_sign)
    # one direction would have to pass through zero: no matrix of rank three is nearer than the smallest singular value
    error = np.linalg.svd(teacher - flow[2])[1]
    np.testing.assert_allclose(error[1:], 0, atol=1e-4)
    assert error[0] < 1e-4 if same_sign else error[0] > 0.7 - 1e-9


def test_what_is_not_zero_balanced_is_refused():
    first, second, teacher = problem(0)
    with pytest.raises(ValueError, match="must be zero-balanced"):
        zero_balanced_flow(first, 1.001 * second, teacher, [1.0])
    zero_balanced_flow(first, second * (1 + 1e-10), teacher, [1.0])
    with pytest.raises(ValueError, match="shapes"):
        zero_balanced_flow(first, second[:, :-1], teacher, [1.0])
    with pytest.raises(ValueError, match="teacher must have shape"):
        zero_balanced_flow(first, second, teacher.T, [1.0])
    with pytest.raises(ValueError, match="times must be finite and not negative"):
        zero_balanced_flow(first, second, teacher, [-1.0])
    with pytest.raises(ValueError, match="must be finite"):
        zero_balanced_flow(first, second, teacher * np.nan, [1.0])
