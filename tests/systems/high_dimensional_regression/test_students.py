"""Random features, readouts on samples, ReLU and deep linear students."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.systems.high_dimensional_regression import deep_student as deep
from separatrix.systems.high_dimensional_regression import random_features, relu_student
from separatrix.systems.high_dimensional_regression.random_features import feature_courses, random_layer, relu_task
from separatrix.systems.high_dimensional_regression.sample_course import sample_course

TIME = np.array([0.0, 0.5, 10.0, 1e12])


def task(seed=0, samples=20):
    return relu_task(np.random.default_rng(seed), 6, 4, samples, 50, 0.5)


class TestSampleCourse:
    def test_courses_are_those_of_descent_with_a_small_step(self):
        rng = np.random.default_rng(1)
        H, y, T, z = rng.normal(size=(8, 5)), rng.normal(size=(8, 2)), rng.normal(size=(9, 5)), rng.normal(size=(9, 2))
        course = sample_course(H, y, T, z, jnp.asarray([0.2]))
        weights, steps = np.zeros((5, 2)), 20_000
        for _ in range(steps):
            weights += 0.2 / steps * H.T @ (y - H @ weights)
        assert float(course.test[0]) == pytest.approx(np.mean(np.sum((T @ weights - z) ** 2, axis=1)), rel=1e-3)
        assert float(course.training[0]) == pytest.approx(np.mean(np.sum((H @ weights - y) ** 2, axis=1)), rel=1e-3)

    def test_the_end_is_least_squares_of_smallest_norm(self):
        rng = np.random.default_rng(2)
        H, y, T, z = rng.normal(size=(5, 8)), rng.normal(size=(5, 1)), rng.normal(size=(9, 8)), rng.normal(size=(9, 1))
        course = sample_course(H, y, T, z, jnp.asarray([0.0]))
        expected = np.mean((T @ np.linalg.pinv(H) @ y - z) ** 2)
        assert float(course.final_test) == pytest.approx(expected, rel=1e-10)
        assert float(course.test[0]) == pytest.approx(np.mean(z**2))
        assert float(course.training[0]) == pytest.approx(np.mean(y**2))

    def test_the_cut_off_is_relative(self):
        """An eigenvalue 1e-16 times the largest is still a mode; an exact zero is not."""
        H = np.diag([1.0, 1e-8, 0.0])
        course = sample_course(H, np.ones((3, 1)), np.eye(3), np.zeros((3, 1)), jnp.asarray([0.0]))
        assert int(course.rank) == 2
        assert float(course.final_test) == pytest.approx(1e16 / 3, rel=1e-6)


class TestRandomFeatures:
    def courses(self, width, samples=20, members=3):
        tasks = [task(k, samples) for k in range(members)]
        layers = np.stack([random_layer(np.random.default_rng([9, k]), width, 6) for k in range(members)])
        arrays = [
            np.stack([getattr(one, n) for one in tasks]) for n in ("inputs", "labels", "test_inputs", "test_labels")
        ]
        return tasks, layers, feature_courses(layers, *arrays, TIME)

    @pytest.mark.parametrize("width", [7, 20, 33])
    def test_frozen_directions_and_ends(self, width):
        tasks, layers, course = self.courses(width)
        assert np.all(np.asarray(course.rank) == min(width, 20))
        for k, (one, layer) in enumerate(zip(tasks, layers, strict=True)):
            H, T = (np.maximum(x @ layer.T, 0) / np.sqrt(width) for x in (one.inputs, one.test_inputs))
            solution = np.linalg.pinv(H, rcond=1e-13) @ one.labels
            assert float(course.final_test[k]) == pytest.approx(
                np.mean((T @ solution - one.test_labels) ** 2), rel=1e-5
            )
            values = np.sort(np.linalg.svd(H)[1] ** 2)[::-1] / 20
            np.testing.assert_allclose(course.eigenvalues[k], values, rtol=1e-6)
            assert float(course.training[k, 0]) == pytest.approx(np.mean(one.labels**2))

    def test_clean_labels_have_unit_variance_and_the_noise_is_that_asked_for(self):
        large = relu_task(np.random.default_rng(3), 6, 4, 20_000, 20_000, 0.5)
        assert large.test_labels.std() == pytest.approx(1)
        assert large.labels.var() == pytest.approx(1.25, rel=0.03)


class TestReluStudent:
    def test_one_step_is_the_gradient(self):
        one, rng = task(), np.random.default_rng(4)
        W, a = relu_student.small_start(rng, 5, 6, 1.0)
        x, y = one.inputs, one.labels
        stack = lambda *arrays: tuple(np.asarray(v)[None] for v in arrays)  # noqa: E731
        test, training = relu_student.train(
            stack(W, a), *stack(x, y, one.test_inputs, one.test_labels), np.float64(0.1), 1, 1
        )
        hidden = np.maximum(x @ W.T, 0)
        error = hidden @ a - y
        down = (error[:, None] * a * (hidden > 0)).T @ x / len(y)
        after = np.maximum(x @ (W - 0.1 * down).T, 0) @ (a - 0.1 * hidden.T @ error / len(y)) - y
        np.testing.assert_allclose(training[0], [np.mean(error**2), np.mean(after**2)], rtol=1e-10)
        start = np.maximum(one.test_inputs @ W.T, 0) @ a - one.test_labels
        assert float(test[0, 0]) == pytest.approx(np.mean(start**2))

    def test_members_do_not_depend_on_each_other(self):
        tasks = [task(k) for k in range(3)]
        starts = [relu_student.small_start(np.random.default_rng(k), 5, 6, 0.1) for k in range(3)]

        def run(members):
            weights = tuple(np.stack([starts[k][layer] for k in members]) for layer in (0, 1))
            names = ("inputs", "labels", "test_inputs", "test_labels")
            arrays = [np.stack([getattr(tasks[k], name) for k in members]) for name in names]
            return relu_student.train(weights, *arrays, np.float64(0.05), 4, 20)

        together, alone = run([0, 1, 2]), run([1])
        np.testing.assert_allclose(together[0][1], alone[0][0], rtol=1e-12)


class TestDeepStudent:
    INPUTS, SAMPLES = 9, 6

    def problem(self):
        rng = np.random.default_rng(5)
        X = rng.normal(size=(self.INPUTS, self.SAMPLES)) / 3
        y = rng.normal(size=self.SAMPLES)
        values, vectors = np.linalg.eigh(X @ X.T)
        values = np.where(values > 1e-12, values, 0.0)
        return rng, X, y, values, vectors, vectors.T @ np.linalg.pinv(X.T) @ y

    @pytest.mark.parametrize("depth", [1, 2, 3, 4])
    def test_the_products_velocity_is_that_of_the_network(self, depth):
        rng, X, y, values, vectors, target = self.problem()
        layers = deep.balanced_layers(rng, rng.normal(size=self.INPUTS), depth, 4)
        for low, high in pairwise(layers):
            np.testing.assert_allclose(low @ low.T, high.T @ high, atol=1e-13)
        moved, speed = jax.jvp(deep.product, (layers,), (deep.network_velocity(layers, X, y),))
        expected = vectors @ deep.product_velocity(vectors.T @ moved, values, target, float(depth), depth - 1.0)
        np.testing.assert_allclose(speed, expected, rtol=1e-10, atol=1e-11)

    def test_the_fourth_order_scheme_converges_and_the_frozen_invariant_holds(self):
        rng, X, y, values, vectors, target = self.problem()
        start = 0.05 * rng.normal(size=self.INPUTS)
        time = np.array([0.5, 2.0, 8.0])
        layers = [layer[None] for layer in deep.balanced_layers(rng, start, 3, 4)]
        network = np.asarray(deep.network_path(layers, X[None], y[None], values[-1:], time, np.float64(0.05)))[0]
        paths = [
            np.asarray(
                deep.product_path((vectors.T @ start)[None], values[None], target[None], np.float64(3), np.float64(2),
                                  time, np.float64(share))
            )[0] @ vectors.T
            for share in (0.2, 0.1, 0.05)
        ]  # fmt: skip
        gaps = [np.linalg.norm(path - network) / np.linalg.norm(network) for path in paths]
        assert gaps[2] < 1e-6
        assert gaps[0] / gaps[1] > 8  # the error of the larger step falls as its fourth power, 16 in the limit
        outside = np.eye(self.INPUTS) - X @ np.linalg.pinv(X)
        frozen = np.linalg.norm(np.vstack([start, network]) @ outside, axis=1)
        invariant = frozen / np.linalg.norm(np.vstack([start, network]), axis=1) ** (2 / 3)
        np.testing.assert_allclose(invariant, invariant[0], rtol=1e-6)
        assert frozen[-1] > 2 * frozen[0]

    def test_depth_one_is_linear_regression(self):
        rng, X, y, values, vectors, target = self.problem()
        w = vectors.T @ rng.normal(size=self.INPUTS)
        np.testing.assert_allclose(
            vectors @ deep.product_velocity(w, values, target, 1.0, 0.0), X @ (y - X.T @ (vectors @ w)), atol=1e-12
        )

    def test_a_start_without_direction_is_refused(self):
        with pytest.raises(ValueError, match="the start not zero"):
            deep.balanced_layers(np.random.default_rng(0), np.zeros(3), 2, 4)


def test_features_are_scaled_by_their_number():
    layer, x = np.array([[1.0], [2.0], [-1.0], [0.5]]), np.array([[2.0]])
    np.testing.assert_allclose(random_features.features(layer, x), [[1.0, 2.0, 0.0, 0.5]])
