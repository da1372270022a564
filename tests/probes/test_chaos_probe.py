"""The chaos probe against maps whose amplification is known in closed form, and against brute force on networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from separatrix.networks.mlp import MLP
from separatrix.probes.chaos.copies import checked_grids, dissimilarity, separate
from separatrix.probes.chaos.measure import NotDeterministicError, measure_chaos
from separatrix.probes.chaos.perturbation import norms, perturbed, random_direction, smallest_sigma
from separatrix.probes.chaos.tangent import lyapunov_spectrum, tangent_growth
from separatrix.probes.operators import ProbeError
from separatrix.systems.training_phases.training import BatchOrder, MomentumStep, fresh_states, training_arguments

STRETCH = np.array([1.2, 0.9, 0.5])


def linear_step(state, batch):
    """A linear map with known multipliers, shifted by the batch."""
    parameters, rest = state
    return {"x": jnp.asarray(STRETCH) * parameters["x"] + batch}, rest


def momentum_step(state, batch):
    """Momentum 0.8 and learning rate 1 on parabolas of curvatures batch."""
    x, v = state
    v = 0.8 * v + batch * x
    return x - v, v


def logistic_step(state, batch):
    (x,), rest = state
    return (4 * x * (1 - x) + 0 * batch,), rest


class TestPerturbation:
    def test_size_is_relative_and_the_direction_uniform(self):
        rng = np.random.default_rng(0)
        parameters = {"w": rng.normal(size=(30, 20)), "b": np.zeros(20)}
        direction = random_direction(rng, parameters)
        copy = perturbed(parameters, direction, 1e-4)
        moved = jax.tree.map(lambda a, b: (a - b)[None], copy, parameters)
        size = norms(jax.tree.map(lambda a: a[None], parameters))[0]
        assert norms(moved)[0] == pytest.approx(1e-4 * size, rel=1e-10)
        overlaps = [np.sum(random_direction(rng, parameters)["b"] ** 2) for _ in range(200)]
        # The share of the biases in the squared norm is that of their number, with standard error 2e-3 sqrt(2 / 200).
        assert np.mean(overlaps) == pytest.approx(20 / 620, abs=4 * 20 / 620 * np.sqrt(2 / 20 / 200))

    def test_zero_size_gives_the_same_bits(self):
        parameters = [np.random.default_rng(0).normal(size=50)]
        np.testing.assert_array_equal(perturbed(parameters, [np.ones(50)], 0.0)[0], parameters[0])

    def test_float32_swallows_small_perturbations_and_the_smallest_usable_one_is_told(self):
        rng = np.random.default_rng(0)
        weights = [rng.normal(0, 0.05, 10**5).astype(np.float32)]
        direction = random_direction(rng, weights)
        size = norms([weights[0][None]])[0]
        with pytest.raises(ProbeError, match="smallest usable one is"):
            # As in the dossier's trap: an absolute norm of 1e-7 / sqrt(10) on 10^5 weights of scale 0.05.
            perturbed(weights, direction, 1e-7 / np.sqrt(10) / size)
        least = smallest_sigma(weights)
        copy = (weights[0] + np.float32(least * size) * direction[0].astype(np.float32)).astype(np.float32)
        assert np.mean(copy != weights[0]) == pytest.approx(0.5, abs=0.02)
        perturbed(weights, direction, 1.1 * least)

    def test_negative_sizes_and_directions_of_no_length_are_refused(self):
        with pytest.raises(ProbeError, match="negative"):
            perturbed([np.ones(3)], [np.ones(3)], -1.0)
        with pytest.raises(ProbeError, match="positive, finite norm"):
            measure_chaos(linear_step, ({"x": np.zeros(0)}, ()), np.zeros((4, 1)))


class TestLinearMap:
    batches = np.random.default_rng(1).normal(size=(2, 120, 3))
    start = ({"x": np.random.default_rng(2).normal(size=(2, 3))}, ())

    def spawn(self, step, parameters):
        return {"x": parameters["x"][:, None] + 1e-6 * np.eye(3)}

    def test_amplification_is_the_multiplier_to_the_number_of_steps(self):
        result = separate(
            linear_step, self.start, lambda a, b: self.batches[:, a:b], [0, 60], [60, 70, 120], self.spawn
        )
        assert result.distance.shape == (2, 3, 2, 3)
        for s, t0 in enumerate((0, 60)):
            for t, t1 in enumerate((60, 70, 120)):
                if t1 >= t0:
                    # Distances shrink below the rounding of states of order one: what is left then is noise.
                    expected = STRETCH ** (t1 - t0)
                    seen = np.abs(result.amplification[:, :, s, t])
                    scale = 1 if t0 else 1.2**60
                    np.testing.assert_allclose(seen, np.tile(expected, (2, 1)), rtol=1e-3, atol=1e-8 * scale)
        np.testing.assert_array_equal(result.diverged_at_step, -1)

    def test_nothing_is_known_before_a_copy_is_spawned(self):
        result = separate(linear_step, self.start, lambda a, b: self.batches[:, a:b], [0, 30], [10, 40], self.spawn)
        assert np.isnan(result.distance[:, :, 1, 0]).all()
        assert np.isfinite(result.distance[:, :, 0, 0]).all()

    def test_other_batches_separate_identical_copies(self):
        others = self.batches[::-1]
        result = separate(
            linear_step, self.start, lambda a, b: self.batches[:, a:b], [0], [20],
            lambda _, p: {"x": p["x"][:, None]}, copy_batches=lambda a, b: others[:, a:b],
        )  # fmt: skip
        assert (result.distance > 1e-3).all()
        assert (result.initial_distance == 0).all()

    def test_tangents_grow_exactly(self):
        growth = tangent_growth(
            linear_step, self.start, lambda a, b: self.batches[:, a:b], [0, 60], [70, 120],
            lambda _, p: {"x": np.tile(np.eye(3), (2, 1, 1))},
        )  # fmt: skip
        expected = np.log(STRETCH)[:, None, None] * (np.array([70, 120]) - np.array([0, 60])[:, None])
        np.testing.assert_allclose(growth, np.broadcast_to(expected, (2, 3, 2, 2)), rtol=1e-10)

    def test_spectrum_is_that_of_the_map(self):
        found = lyapunov_spectrum(linear_step, self.start, lambda a, b: self.batches[:, a:b], 120, 3)
        np.testing.assert_allclose(found.exponents, np.tile(np.log(STRETCH), (2, 1)), atol=1e-4)
        assert found.growth.shape == (2, 3, 12)


def test_momentum_turns_unstable_where_curvature_exceeds_twice_one_plus_momentum():
    limit = 2 * (1 + 0.8)  # over a learning rate of 1
    for curvature, sign in ((0.98 * limit, -1), (1.02 * limit, 1)):
        batches = np.full((1, 400, 1), curvature)
        start = (np.ones((1, 1)), np.zeros((1, 1)))
        top = lyapunov_spectrum(momentum_step, start, lambda a, b, x=batches: x[:, a:b], 400, 1).exponents[0, 0]
        multipliers = np.linalg.eigvals(np.array([[1 - curvature, -0.8], [curvature, 0.8]]))
        assert top == pytest.approx(np.log(np.abs(multipliers).max()), abs=2e-3)
        assert np.sign(top) == sign


def test_the_logistic_map_has_the_exponent_log_two():
    start = ((np.array([[0.3], [0.7123]]),), ())
    found = lyapunov_spectrum(logistic_step, start, lambda a, b: np.zeros((2, b - a, 1)), 20_000, 1, interval=20)
    # The time average over 10^4 steps has a standard error of about 0.005 or less.
    np.testing.assert_allclose(found.exponents, np.log(2), atol=0.02)


def test_finite_copies_saturate_where_the_tangent_goes_on():
    chaos = measure_chaos(logistic_step, ((np.array([0.3]),), ()), np.zeros((100, 1)), sigma=1e-6)
    assert chaos.relative_distance.max() < 5
    assert np.all(chaos.predicted[:, -1] > 1e3 * chaos.amplification[:, -1])


class TestNetwork:
    net = MLP((6, 10, 3), "tanh")
    rng = np.random.default_rng(0)
    step = MomentumStep(net)
    arguments = (training_arguments(rng.normal(size=(60, 6)), rng.integers(0, 3, 60), 0.1, 0.9, 1e-3),)
    order = BatchOrder(0, "batches", 60, 12)
    state = jax.tree.map(lambda leaf: leaf[0], fresh_states(net, 0, "start", [0]))

    def test_tangent_predicts_small_finite_copies_of_a_smooth_network(self):
        chaos = measure_chaos(self.step, self.state, self.order([0], 0, 60)[0], arguments=self.arguments)
        np.testing.assert_allclose(chaos.amplification, chaos.predicted, rtol=1e-4)
        assert chaos.exponent[1][0] < chaos.exponent[0] < chaos.exponent[1][1]

    def test_tangent_is_the_jacobian_of_the_whole_course(self):
        batches = self.order([0], 0, 2)[0]
        parameters, velocity = self.state
        flat, rebuild = ravel_pytree(parameters)

        def course(vector):
            state = (rebuild(vector), velocity)
            for batch in batches:
                state = self.step(state, batch, *self.arguments)
            return ravel_pytree(state[0])[0]

        jacobian = jax.jacobian(course)(flat)
        way = random_direction(np.random.default_rng([0, 0]), parameters)
        expected = np.linalg.norm(jacobian @ ravel_pytree(way)[0])
        chaos = measure_chaos(self.step, self.state, batches, records=1, arguments=self.arguments)
        assert chaos.predicted[0, 0] == pytest.approx(float(expected), rel=1e-10)

    def test_counters_in_the_state_are_no_obstacle(self):
        def counted(state, batch, arguments):
            parameters, (velocity, count) = state
            parameters, velocity = self.step((parameters, velocity), batch, arguments)
            return parameters, (velocity, count + 1)

        batches = self.order([0], 0, 20)[0]
        state = (self.state[0], (self.state[1], np.int32(0)))
        chaos = measure_chaos(counted, state, batches, arguments=self.arguments)
        plain = measure_chaos(self.step, self.state, batches, arguments=self.arguments)
        np.testing.assert_allclose(chaos.predicted, plain.predicted, rtol=1e-9)


def test_a_step_with_random_numbers_of_its_own_is_refused():
    rng = np.random.default_rng(0)

    def noisy(state, batch):
        parameters, rest = state
        shape = jax.ShapeDtypeStruct(parameters.shape, parameters.dtype)
        return parameters + jax.pure_callback(lambda x: rng.normal(size=x.shape), shape, parameters,
                                              vmap_method="sequential"), rest  # fmt: skip

    with pytest.raises(NotDeterministicError, match="not deterministic"):
        measure_chaos(noisy, (np.ones(3), ()), np.zeros((4, 1)), tangent=False)


def test_runs_that_blow_up_are_recorded_with_their_copies():
    start = ({"x": np.array([[1.0, 1.0, 1.0], [np.inf, 1.0, 1.0]])}, ())
    result = separate(linear_step, start, lambda a, b: np.zeros((2, b - a, 3)), [0], [5, 9],
                      lambda _, p: {"x": p["x"][:, None] * np.ones((1, 2, 1))})  # fmt: skip
    np.testing.assert_array_equal(result.diverged_at_step[:, :, 0], [[-1, -1], [5, 5]])


def test_dissimilarity_keeps_its_digits_for_nearly_parallel_vectors():
    a = np.array([[3.0, 4.0]])
    b = a + 1e-9 * np.array([[-4.0, 3.0]])
    assert dissimilarity([a], [b])[0] == pytest.approx(1e-18 / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("spawns", "records"), [([], [5]), ([3], []), ([3, 3], [5]), ([0], [5, 4]), ([5], [5]), ([-1], [3]), ([0.5], [3])]
)
def test_impossible_grids_are_refused(spawns, records):
    with pytest.raises(ProbeError, match=r"must increase|increase from 0|must come after"):
        checked_grids(spawns, records)
