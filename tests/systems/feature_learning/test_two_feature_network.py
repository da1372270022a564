"""The reduced network is the full one: the same steps as descent on all weights, the same responses to new points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from significance import assert_equally_likely, assert_standard_normal

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.systems.feature_learning.oscillation_map import learning_rate, map_step
from separatrix.systems.feature_learning.two_feature_network import (
    PatchSGD,
    background_coefficients,
    class_accuracy,
    contributions,
    image_responses,
    network_state,
    noise_responses,
    observe,
)
from separatrix.systems.feature_learning.two_feature_task import (
    PatchData,
    TwoFeatureTask,
    feature_norms,
    gaussian_start,
)

TASK = TwoFeatureTask(dimension=30, samples=8, weak_norm=0.3, strong_norm=0.9, strong_share=0.7, noise_power=0.5)
WIDTH, MEMBERS, STEPS, STEP = 4, 3, 40, 1.1


def members(count=MEMBERS, task=TASK, width=WIDTH):
    pairs = []
    for member in range(count):
        rng = np.random.default_rng([5, member])
        data = task.draw(rng)
        pairs.append((data, gaussian_start(rng, width, 0.2, task.weak_norm, task.strong_norm, task.dimension - 2)))
    return [data for data, _ in pairs], [start for _, start in pairs]


def arguments(step=STEP, task=TASK, width=WIDTH, **changes):
    values = {
        "learning_rate": float(learning_rate(step, task.strong_norm, width)),
        "weak_norm": task.weak_norm,
        "strong_norm": task.strong_norm,
        "threshold": 0.1,
        "decay_at": np.inf,
        "decay_factor": 0.1,
    }
    return {name: np.float64(value) for name, value in (values | changes).items()}


def trained(steps, data, starts, keys=None, **changes):
    keys = member_keys(3, "visits", 0, len(data)) if keys is None else keys
    sgd = PatchSGD(len(data[0].labels))
    return evolve(sgd, observe, network_state(data, starts, "float64"), keys, arguments(**changes), np.asarray(steps))


def visited(count, samples, steps):
    sgd, keys = PatchSGD(samples), member_keys(3, "visits", 0, count)
    blocks = -(-steps // sgd.block)
    draw = jax.jit(sgd.draw)
    return np.concatenate([np.asarray(draw(keys, jnp.asarray(block))) for block in range(blocks)])[:steps]


def patches(data, i):
    """The three patches of a point as vectors, the features along the first two axes."""
    weak, strong = np.zeros((2, data.backgrounds.shape[1] + 2))
    weak[0] = data.labels[i] * TASK.weak_norm
    strong[1] = data.labels[i] * TASK.strong_norm * data.strong[i]
    return np.stack([weak, strong, np.concatenate([np.zeros(2), data.backgrounds[i]])])


def output(weights, points):
    """The network of the definition, ``(units, d)`` weights on ``(patches, d)``."""
    signs = jnp.repeat(jnp.array([1.0, -1.0]), WIDTH)
    return signs @ jnp.sum(jnp.maximum(weights @ points.T, 0) ** 2, axis=1) / WIDTH


@pytest.fixture(scope="module")
def full():
    """Weights of every member after descent on all of them by automatic differentiation, and the reduced records."""
    data, starts = members()
    slope = jax.jit(jax.grad(lambda w, points, y: (y - output(w, points)) ** 2 / 2))
    visits, weights = visited(MEMBERS, TASK.samples, STEPS), []
    for k, (points, start) in enumerate(zip(data, starts, strict=True)):
        w = np.column_stack([start.weak / TASK.weak_norm, start.strong / TASK.strong_norm, start.background])
        for i in visits[:, k]:
            change = slope(w, patches(points, i), points.labels[i])
            w = w - float(learning_rate(STEP, TASK.strong_norm, WIDTH)) * np.asarray(change)
        weights.append(w)
    records, diverged = trained([STEPS], data, starts)
    assert np.all(diverged == -1)
    return data, starts, weights, records


def test_inner_products_are_those_of_the_full_network(full):
    data, _, weights, records = full
    for k, w in enumerate(weights):
        np.testing.assert_allclose(records["weak_units"][0, :, k], w[:, 0] * TASK.weak_norm, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            records["background_units"][0, :, :, k], w[:, 2:] @ data[k].backgrounds.T, rtol=1e-9, atol=1e-12
        )


def test_loss_accuracy_and_contributions_are_those_of_the_full_network(full):
    data, _, weights, records = full
    for k, w in enumerate(weights):
        outputs = np.array([output(w, patches(data[k], i)) for i in range(TASK.samples)])
        assert records["loss"][0, k] == pytest.approx(np.mean((data[k].labels - outputs) ** 2) / 2)
        assert records["train_accuracy"][0, k] == np.mean(data[k].labels * outputs > 0)
        residual = np.abs(1 - data[k].labels * outputs)
        assert records["strong_residual"][0, k] == pytest.approx(residual[data[k].strong].mean())
        for label, y in enumerate((1.0, -1.0)):
            lone = np.zeros((1, TASK.dimension))
            lone[0, 1] = y * TASK.strong_norm
            assert records["strong"][0, label, k] == pytest.approx(y * float(output(w, lone)))


def test_responses_to_new_points_are_those_of_the_full_network(full):
    data, starts, weights, records = full
    new = np.random.default_rng(9).normal(size=(7, TASK.dimension - 2))
    labels = np.where(np.arange(7) % 2, 1.0, -1.0)
    for k, w in enumerate(weights):
        c = background_coefficients(starts[k], data[k], records["background_units"][0, :, :, k])
        responses = image_responses(starts[k], data[k], c, new)
        np.testing.assert_allclose(responses, w[:, 2:] @ new.T, rtol=1e-7, atol=1e-10)
        shown = [np.stack([np.r_[y * TASK.weak_norm, np.zeros(TASK.dimension - 1)], np.r_[0, 0, x]])
                 for x, y in zip(new, labels, strict=True)]  # fmt: skip
        right = np.mean([y * float(output(w, points)) > 0 for points, y in zip(shown, labels, strict=True)])
        assert class_accuracy(w[:, 0] * TASK.weak_norm, responses, labels) == right


def test_noise_responses_have_the_covariance_of_the_weights(full):
    data, starts, weights, records = full
    c = background_coefficients(starts[0], data[0], records["background_units"][0, :, :, 0])
    count, scale = 20_000, 0.3
    drawn = noise_responses(np.random.default_rng(1), starts[0], data[0], c, scale, count)
    expected = scale**2 * weights[0][:, 2:] @ weights[0][:, 2:].T
    error = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
    assert_standard_normal((drawn @ drawn.T / count - expected) / error)


def test_sums_count_the_visits_to_points_with_the_strong_feature():
    data, starts = members()
    records, _ = trained(np.arange(STEPS + 1), data, starts)
    visits = visited(MEMBERS, TASK.samples, STEPS)
    for k in range(MEMBERS):
        seen = data[k].strong[visits[:, k]]
        np.testing.assert_array_equal(records["sums"][1:, 0, k], np.cumsum(seen))
        change, square = np.diff(records["sums"][:, 1, k]), np.diff(records["sums"][:, 2, k])
        np.testing.assert_allclose(change**2, square, atol=1e-12)
        np.testing.assert_array_equal(np.diff(records["sums"][:, 3, k]), np.abs(change) >= 0.1)


def test_points_are_visited_equally_often():
    visits = visited(200, 8, 400)
    assert_equally_likely(np.bincount(visits.ravel(), minlength=8))
    assert visits.min() == 0
    assert visits.max() == 7


def test_one_point_without_noise_is_the_map():
    task = TwoFeatureTask(dimension=3, samples=1, weak_norm=0.4, noise_power=0.0, strong_share=1.0)
    rng = np.random.default_rng(0)
    start = gaussian_start(rng, WIDTH, 0.05, task.weak_norm, 1.0, 1)
    data = PatchData(np.ones(1), np.ones(1, bool), np.zeros((1, 1)))
    # the map is about units of the right sign: the others are silent
    start.weak[WIDTH:] = start.strong[WIDTH:] = -0.01
    state = network_state([data], [start], "float64")
    parts = {name: np.asarray(values) for name, values in contributions(state).items()}
    strong, weak = parts["strong"][0, 0], parts["weak"][0, 0]
    records, _ = evolve(
        PatchSGD(1), observe, state, member_keys(0, "visits", 0, 1), arguments(1.2, task), np.arange(60)
    )  # fmt: skip
    for t in range(60):
        assert records["strong"][t, 0, 0] == pytest.approx(float(strong), rel=1e-9)
        assert records["weak"][t, 0, 0] == pytest.approx(float(weak), rel=1e-9)
        strong, weak = map_step(strong, weak, 1.2, 1.2 * task.ratio)


def test_the_learning_rate_drops_when_it_should():
    data, starts = members()
    plain, _ = trained([20], data, starts)
    slow, _ = trained([20], data, starts, learning_rate=0.1 * float(learning_rate(STEP, TASK.strong_norm, WIDTH)))
    late, _ = trained([20], data, starts, decay_at=20)
    early, _ = trained([20], data, starts, decay_at=0)
    np.testing.assert_allclose(late["weak"], plain["weak"], rtol=1e-12)
    np.testing.assert_allclose(early["weak"], slow["weak"], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: TwoFeatureTask(weak_norm=1.0), "0 < weak < strong"),
        (lambda: TwoFeatureTask(strong_share=0.0), "strong_share must lie in"),
        (lambda: TwoFeatureTask(strong_share=1.1), "strong_share must lie in"),
        (lambda: TwoFeatureTask(noise_power=-1.0), "noise_power must be finite and not negative"),
        (lambda: TwoFeatureTask(dimension=2), "dimension must be at least 3"),
        (lambda: gaussian_start(np.random.default_rng(0), 2, 0.0, 0.2, 1.0, 3), "silent units have no gradient"),
        (lambda: PatchData(np.array([0.0, 1.0]), np.ones(2, bool), np.ones((2, 3))), r"labels must be \+1 or -1"),
        (lambda: PatchData(np.ones(2), np.ones(1, bool), np.ones((2, 3))), "must be equally many"),
        (lambda: PatchData(np.ones(1), np.ones(1, bool), np.full((1, 3), np.nan)), "backgrounds must be finite"),
        (lambda: feature_norms(np.array([0.2, 0.1]), np.array([0.0, 1.0])), "must be orthogonal"),
        (lambda: feature_norms(np.array([2.0, 0.0]), np.array([0.0, 1.0])), "0 < weak < strong"),
    ],
)
def test_what_is_no_task_is_refused(make, reason):
    with pytest.raises(ValueError, match=reason):
        make()


def test_norms_and_rates_of_memorising():
    assert feature_norms(np.array([0.2, 0.0]), np.array([0.0, 1.0])) == (0.2, 1.0)
    assert TwoFeatureTask().memorisation_over_learning == pytest.approx(0.4 / (40 * 0.1 * 0.04))
    assert np.isinf(TwoFeatureTask(strong_share=1.0).memorisation_over_learning)
