"""Descent in the coefficients is descent of the network: the decomposition is exact, and runs do not see each other."""

import numpy as np
import pytest

from separatrix.systems.feature_learning import patch_network as network
from separatrix.systems.feature_learning import signal_noise_decomposition as decomposition
from separatrix.systems.feature_learning.two_stage_theory import reduced_course

STEPS = np.array([0, 1, 7, 60, 250])
WIDTH, RATE = 6, 0.2


def draw(seed, samples=30, dimension=120, kappa=4.0, rates=(0.2, 0.2), width=WIDTH, fresh=60, scale=1e-2, sigma=1.5):
    rng = np.random.default_rng(seed)
    data = network.draw_patch_data(rng, samples, dimension, kappa, *rates, noise_scale=sigma)
    start = network.initial_weights(rng, width, dimension, scale)
    return data, start, decomposition.gram_task(data, start, fresh, sigma, rates, rng)


def train(*tasks, rates=None, steps=STEPS, validation=20, keep=False):
    stacked = decomposition.stack_tasks(list(tasks))
    learning_rate = np.full(len(tasks), RATE) if rates is None else np.asarray(rates)
    return decomposition.descend_in_coefficients(stacked, learning_rate, steps, validation, keep)


@pytest.fixture(scope="module")
def explicit():
    data, start, _ = draw(0)
    between = tuple(np.diff(STEPS, prepend=0).tolist())
    weights = network.descend(start, data.signal, data.true_labels, data.noise, data.labels, np.float64(RATE), between)
    return np.asarray(weights)


def test_the_decomposition_gives_the_weights_of_explicit_descent(explicit):
    data, start, task = draw(0)
    records = train(task, keep=True)
    weights = decomposition.reconstruct_weights(data, start, records.coefficients[0])
    np.testing.assert_allclose(weights, explicit, atol=1e-13)
    assert np.abs(explicit[-1] - start).max() > 0.05


def test_neglecting_products_of_the_vectors_is_an_approximation(explicit):
    data, start, task = draw(0)
    records = train(decomposition.without_cross_products(task), keep=True)
    weights = decomposition.reconstruct_weights(data, start, records.coefficients[0])
    assert np.abs(weights - explicit).max() > 1e-2


def test_the_records_are_functions_of_the_weights(explicit):
    data, _, task = draw(0)
    records = train(task, keep=True)
    for k, weights in enumerate(explicit):
        output = network.network_output(weights, data.signal, data.true_labels, data.noise)
        np.testing.assert_allclose(records.margins[0, k], data.labels * output, atol=1e-12)
    along = explicit[-1] @ data.signal - draw(0)[1] @ data.signal
    by_output = (records.coefficients[0, -1, :, 0] * np.repeat([1, -1], WIDTH)).reshape(2, WIDTH)
    np.testing.assert_allclose(records.signal[0, -1], by_output.mean(axis=1), rtol=1e-12)
    assert np.all(along[:WIDTH] > 0)
    assert np.all(along[WIDTH:] < 0)
    own = np.where(data.labels > 0, 0, 1)
    rho = np.abs(records.coefficients[0, -1, :, 1:].reshape(2, WIDTH, -1)).max(axis=1)
    np.testing.assert_allclose(records.memory[0, -1], rho[own, np.arange(own.size)], rtol=1e-12)


def test_memory_of_the_observed_label_grows_and_that_of_the_other_stays_bounded():
    data, _, task = draw(1, scale=1e-3)
    rho = train(task, steps=np.arange(0, 400, 20), keep=True).coefficients[0, :, :, 1:]
    filters = np.repeat([1, -1], WIDTH)[:, None]
    own = filters == data.labels
    assert np.all(np.diff(rho[:, own], axis=0) >= 0)
    assert np.all(np.diff(rho[:, ~own], axis=0) <= 0)
    assert np.abs(rho[-1, own]).max() > 5 * np.abs(rho[-1, ~own]).max()


def test_a_run_has_the_same_numbers_in_any_company():
    tasks = [draw(seed)[2] for seed in range(3)]
    together = train(*tasks, rates=[0.1, 0.2, 0.3])
    alone = train(tasks[2], rates=[0.3])
    for whole, one in zip(together[:-1], alone[:-1], strict=True):
        np.testing.assert_allclose(whole[2], one[0], rtol=1e-9, atol=1e-13)


def test_a_sample_of_weight_zero_is_not_trained_on():
    data, start, task = draw(2, samples=24)
    kept = np.flatnonzero(np.arange(24) % 4 > 0)
    smaller = network.PatchData(data.signal, data.noise[kept], data.true_labels[kept], data.labels[kept])
    alone = decomposition.gram_task(smaller, start, 60, 1.5, (0, 0), np.random.default_rng(0))
    left_out = task._replace(weights=(np.arange(24) % 4 > 0).astype(float))
    np.testing.assert_allclose(train(left_out).margins[0][:, kept], train(alone).margins[0], atol=1e-12)
    assert np.all(train(left_out).memory[0][:, ::4] == 0)


# -- fresh samples ----------------------------------------------------------------------------------------------------


def test_products_with_fresh_noise_have_the_law_of_explicit_ones():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4, 30))
    products = decomposition.fresh_products(vectors, 200_000, 2.0, rng)
    covariance = 4 * vectors @ vectors.T
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(np.cov(products) / scale, covariance / scale, atol=0.02)


def test_more_vectors_than_dimensions_have_dependent_products():
    vectors = np.random.default_rng(0).normal(size=(5, 2))
    products = decomposition.fresh_products(vectors, 10, 1.0, np.random.default_rng(1))
    assert np.linalg.matrix_rank(products, tol=1e-6) == 2


def test_the_test_error_is_that_of_explicit_samples():
    data, start, task = draw(4, samples=40, dimension=60, kappa=2.0, rates=(0.4, 0.4), fresh=20_000)
    records = train(task, validation=0, steps=np.array([0, 250]), keep=True)
    weights = decomposition.reconstruct_weights(data, start, records.coefficients[0, -1])
    noise = 1.5 * np.random.default_rng(9).normal(size=(20_000, 60))
    for column, sign in enumerate((1.0, -1.0)):
        classes = np.full(len(noise), sign)
        wrong = sign * np.asarray(network.network_output(weights, data.signal, classes, noise)) <= 0
        assert records.test_error[0, -1, column] == pytest.approx(wrong.mean(), abs=0.015)
        assert wrong.mean() > 0.05


def test_validation_samples_are_kept_apart():
    _, _, task = draw(5, rates=(0.4, 0.1), fresh=4000)
    records = train(task, validation=2000)
    clean, noisy = records.validation_error[0, -1], records.noisy_validation_error[0, -1]
    assert clean == pytest.approx(records.test_error[0, -1].mean(), abs=0.03)
    # a flipped label turns right into wrong and wrong into right: 1/4 of the labels are flipped
    assert noisy == pytest.approx(0.25 + clean / 2, abs=0.05)


# -- data -------------------------------------------------------------------------------------------------------------


def test_exact_numbers_of_labels_are_flipped_in_each_class():
    labels = network.flip_labels(np.repeat([1.0, -1.0], 50), 0.3, 0.11, np.random.default_rng(0))
    assert (labels[:50] == -1).sum() == 15
    assert (labels[50:] == 1).sum() == 6  # 5.5 rounds to the even number


def test_the_signal_has_the_ratio_asked_for():
    data, _, _ = draw(0, samples=30, dimension=120, kappa=4.0, sigma=1.5)
    assert 30 * np.sum(data.signal**2) / (1.5**2 * 120) == pytest.approx(4.0)
    assert network.time_per_step(0.1, 30, 120, 6, 1.5) == pytest.approx(0.1 * 1.5**2 * 120 / 180)


def test_an_odd_number_of_samples_is_refused():
    with pytest.raises(ValueError, match=r"^samples must be an even number, got 31$"):
        network.draw_patch_data(np.random.default_rng(0), 31, 10, 1.0, 0.0, 0.0)


# -- reduced dynamics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [(0.2, 0.2), (0.35, 0.1)])
def test_each_class_follows_its_own_reduced_course(rates):
    samples, dimension, width = 40, 4000, 30
    _, _, task = draw(0, samples, dimension, 4.0, rates, width, fresh=20, scale=1e-4, sigma=1.0)
    rate = 0.05 * samples * width / dimension
    theta = np.array([0.5, 1.0, 2.0, 3.0])
    records = train(task, rates=[rate], steps=np.round(theta / 0.05).astype(int), validation=0)
    flipped = task.labels != task.true_labels
    for column, (sign, tau) in enumerate(zip((1, -1), rates, strict=True)):
        course = reduced_course(theta, 4.0, tau)
        of_class = task.true_labels == sign
        # filters that start on the wrong side of the signal learn from the other class at first
        np.testing.assert_allclose(records.signal[0, :, column], course.signal, rtol=0.1)
        np.testing.assert_allclose(records.memory[0][:, of_class & ~flipped].mean(1), course.clean, rtol=0.1)
        np.testing.assert_allclose(records.memory[0][:, of_class & flipped].mean(1), course.flipped, rtol=0.15)
