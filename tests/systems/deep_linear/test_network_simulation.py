from functools import partial
from itertools import pairwise, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from significance import assert_equally_likely, assert_standard_normal
from test_gradient_noise import full_covariance

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.systems.deep_linear.gradient_noise import mean_gradient
from separatrix.systems.deep_linear.network_observables import NetworkObserver
from separatrix.systems.deep_linear.network_simulation import (
    DatasetSGD,
    GradientDescent,
    Langevin,
    OnlineSGD,
    member_weights,
    network_state,
)
from separatrix.systems.deep_linear.teacher import Teacher, aligned_balanced_weights

NETWORKS = [(2, 3, 4), (4, 3, 5, 2), (2, 3, 5, 4, 3)]
RATE, SIGMA = 0.05, 0.4


def start(widths, members=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.6, (members, after, before)) for before, after in pairwise(widths)]


def teacher_of(widths):
    s = np.arange(min(widths[0], widths[-1]), 0, -1.0)
    return s, Teacher.diagonal(s, widths[0], widths[-1]).matrix


def settings(widths, **more):
    return {"singular_values": teacher_of(widths)[0], "learning_rate": RATE, "label_noise": SIGMA, **more}


def noise_shapes(step, members):
    """What one step is handed of the noise of its block."""
    block = jax.eval_shape(step.draw, member_keys(0, "step", 0, members), jnp.uint32(0))
    return jax.tree.map(lambda a: a.shape[1:], block)


def some_noise(step, members):
    """Noise of the shapes the step draws."""
    rng, shapes = np.random.default_rng(5), noise_shapes(step, members)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def first_batch(step, members):
    """The sample numbers of step 0."""
    return jax.jit(step.draw)(member_keys(0, "step", 0, members), jnp.uint32(0))[0]


def apply(step, weights, noise, arguments):
    """Weights after one step, members first."""
    state = jax.jit(step)(network_state(weights), noise, jnp.uint32(0), arguments)
    return [np.asarray(w) for w in member_weights(state)]


def descent_on_samples(weights, x, y, rate):
    """One step of SGD on the samples ``x (B, d_0)``, ``y (B, d_L)``, from the definition."""
    error = y - x @ np.linalg.multi_dot(weights[::-1]).T
    new = []
    for layer, w in enumerate(weights):
        ahead, behind = np.eye(len(y[0])), np.eye(len(x[0]))
        for other in reversed(weights[layer + 1 :]):
            ahead = ahead @ other
        for other in weights[:layer]:
            behind = other @ behind
        new.append(w + rate * (error @ ahead).T @ (x @ behind.T) / len(x))
    return new


@pytest.mark.parametrize("widths", NETWORKS)
@pytest.mark.parametrize("batch", [1, 3])
def test_one_step_of_online_sgd_is_descent_on_the_batch_it_drew(widths, batch):
    step, weights = OnlineSGD(widths[0], widths[-1], batch), start(widths)
    noise = some_noise(step, 3)
    new = apply(step, weights, noise, settings(widths))
    for member in range(3):
        x, z = (np.asarray(noise[name][..., member], np.float64).T for name in ("x", "z"))
        y = x @ teacher_of(widths)[1].T + SIGMA * z
        for ours, exact in zip(new, descent_on_samples([w[member] for w in weights], x, y, RATE), strict=True):
            np.testing.assert_allclose(ours[member], exact, rtol=1e-12, atol=1e-13)


def test_the_inputs_are_the_same_with_label_noise_and_without():
    keys, step = member_keys(0, "labels", 0, 3), partial(OnlineSGD, 3, 4, 2)
    noisy, silent = (jax.jit(step(noisy_labels=labels).draw)(keys, jnp.uint32(4)) for labels in (True, False))
    assert (set(noisy), set(silent)) == ({"x", "z"}, {"x"})
    np.testing.assert_array_equal(noisy["x"], silent["x"])


def test_inputs_and_label_noise_are_independent_standard_normals():
    drawn = jax.jit(OnlineSGD(3, 2, 2).draw)(member_keys(0, "draws", 0, 4000), jnp.uint32(1))
    rows = np.concatenate([np.asarray(a[:2], np.float64).reshape(-1, 4000) for a in (drawn["x"], drawn["z"])])
    gram = rows @ rows.T / np.sqrt(4000)
    assert_standard_normal(np.concatenate([rows.sum(1) / np.sqrt(4000), gram[np.triu_indices(len(rows), 1)]]))
    assert_standard_normal((np.diagonal(gram) - np.sqrt(4000)) / np.sqrt(2))


def test_no_label_noise_is_label_noise_of_size_zero():
    widths = (3, 2, 4)
    noise, weights = some_noise(OnlineSGD(3, 4, 2), 3), start(widths)
    silent = apply(OnlineSGD(3, 4, 2), weights, noise, settings(widths, label_noise=0.0))
    without = apply(OnlineSGD(3, 4, 2, noisy_labels=False), weights, {"x": noise["x"]}, settings(widths))
    for ours, exact in zip(without, silent, strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-14)


@pytest.mark.parametrize("widths", NETWORKS)
def test_gradient_descent_follows_the_gradient_of_the_population_loss(widths):
    weights = start(widths)
    new = apply(GradientDescent(), weights, (), settings(widths))
    for ours, w, g in zip(new, weights, mean_gradient(weights, teacher_of(widths)[1]), strict=True):
        np.testing.assert_allclose(ours, w - RATE * g, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("widths", NETWORKS)
def test_one_langevin_step_has_exactly_the_drift_and_the_full_covariance(widths):
    """The step is linear in its noise: its covariance is read off from the response to each unit of noise."""
    d_in, d_out = widths[0], widths[-1]
    kappa, dt = 0.03, 0.02
    units = np.eye(1 + d_in * d_in + d_out * d_in)[1:]  # the first member sees no noise at all
    noise = {
        "x": jnp.asarray(units[: d_in * d_in].reshape(d_in, d_in, -1), jnp.float32),
        "z": jnp.asarray(units[d_in * d_in :].reshape(d_out, d_in, -1), jnp.float32),
    }
    weights = [w[0] for w in start(widths)]
    step = Langevin(d_in, d_out)
    assert noise_shapes(step, 2) == {"x": (d_in, d_in, 2), "z": (d_out, d_in, 2)}
    state = network_state(weights, units.shape[1])
    arguments = settings(widths, noise_scale=kappa, step_size=dt)
    moved = [np.asarray(w) for w in member_weights(jax.jit(step)(state, noise, jnp.uint32(0), arguments))]
    teacher = teacher_of(widths)[1]
    for w, new, g in zip(weights, moved, mean_gradient(weights, teacher), strict=True):
        np.testing.assert_allclose(new[0], w - dt * g, rtol=1e-12, atol=1e-13)
    response = np.concatenate([(new[1:] - new[:1]).reshape(units.shape[1] - 1, -1) for new in moved], axis=1)
    exact = kappa * dt * full_covariance(weights, teacher, SIGMA)
    np.testing.assert_allclose(response.T @ response, exact, rtol=0, atol=1e-12 * np.abs(exact).max())


@pytest.mark.parametrize(("depth", "batch"), [(2, 1), (3, 4), (4, 1)])
def test_a_network_of_scalars_is_its_scalar_chain_exactly(depth, batch):
    root = np.array([0.3, 0.7, 1.1])
    state = network_state([root[:, None, None]] * depth) | {"roots": jnp.asarray(root)[None]}
    observer = NetworkObserver(("strength", "reduced_strength"), 1)
    keys, grid = member_keys(0, "chain", 0, 3), np.arange(0, 60, 5)
    records, _ = evolve(OnlineSGD(1, 1, batch), observer, state, keys, settings((1, 1)), grid)
    np.testing.assert_allclose(records["strength"], records["reduced_strength"], rtol=1e-12)
    assert np.ptp(records["strength"], axis=0).max() > 0.1


def test_one_sample_moves_the_balance_of_a_two_layer_network_at_second_order_only():
    widths = (3, 5, 4)
    step, weights = OnlineSGD(3, 4), start(widths)
    noise = some_noise(step, 3)
    new = apply(step, weights, noise, settings(widths))
    balance = lambda below, above: above.mT @ above - below @ below.mT  # noqa: E731
    x, z = (np.asarray(noise[name][:, 0], np.float64).T for name in ("x", "z"))
    h = np.einsum("nij,nj->ni", weights[0], x)
    error = x @ teacher_of(widths)[1].T + SIGMA * z - np.einsum("nij,nj->ni", weights[1], h)
    back = np.einsum("nij,ni->nj", weights[1], error)
    square = lambda v: v[:, :, None] * v[:, None, :]  # noqa: E731
    norm2 = lambda v: np.sum(v**2, axis=1)[:, None, None]  # noqa: E731
    exact = RATE**2 * (norm2(error) * square(h) - norm2(x) * square(back))
    np.testing.assert_allclose(balance(*new) - balance(*weights), exact, rtol=0, atol=1e-14)


def test_the_imbalance_of_two_scalars_shrinks_by_the_square_of_the_gradient():
    step, weights = OnlineSGD(1, 1), start((1, 1, 1), members=50)
    noise = some_noise(step, 50)
    a, b = (w.ravel() for w in weights)
    new_a, new_b = (w.ravel() for w in apply(step, weights, noise, settings((1, 1))))
    x, z = (np.asarray(noise[name], np.float64).ravel() for name in ("x", "z"))
    g = (1.0 - a * b) * x**2 + SIGMA * x * z
    np.testing.assert_allclose(new_a**2 - new_b**2, (a**2 - b**2) * (1 - RATE**2 * g**2), rtol=0, atol=1e-14)


def test_the_ensemble_of_networks_has_the_mean_and_spread_of_an_independent_simulation():
    """An independent program found w_1 = 1.650 +- 0.013 with standard deviation 0.418 at time 1, from 1000 members."""
    teacher, members = Teacher.diagonal((3.0, 2.0, 1.0)), 4000
    weights = aligned_balanced_weights(teacher, (3, 3, 3), 0.01)
    arguments = {"singular_values": teacher.singular_values, "learning_rate": 0.005, "label_noise": 0.5}
    observer = NetworkObserver(("strength",), 3)
    records, diverged = evolve(OnlineSGD(3, 3), observer, network_state(weights, members),
                               member_keys(0, "reference", 0, members), arguments, np.array([200]))  # fmt: skip
    strength = records["strength"][0, 0]
    assert np.all(diverged == -1)
    assert abs(strength.mean() - 1.650) < 4.9 * np.hypot(0.013, 0.418 / np.sqrt(members))
    assert abs(strength.std() - 0.418) < 4.9 * 0.418 / np.sqrt(2) * np.hypot(1 / np.sqrt(1000), 1 / np.sqrt(members))


def test_float32_and_float64_runs_differ_by_rounding_alone():
    teacher = Teacher.diagonal((2.0, 1.0))
    weights = aligned_balanced_weights(teacher, (2, 4, 2), 0.1)
    observer = NetworkObserver(("strength_matrix", "loss"), 2)
    runs = {}
    for dtype in ("float32", "float64"):
        # Values shared by the members are converted to the dtype of the weights.
        runs[dtype], _ = evolve(OnlineSGD(2, 2), observer, network_state(weights, 16, dtype),
                                member_keys(0, "dtypes", 0, 16), settings((2, 2)), np.array([0, 50, 100]))  # fmt: skip
        assert {a.dtype for a in runs[dtype].values()} == {np.dtype(dtype)}
    for name, exact in runs["float64"].items():
        np.testing.assert_allclose(runs["float32"][name], exact, rtol=0, atol=1e-4)


def test_weights_go_into_a_state_and_come_back():
    weights = start((2, 3, 4))
    for ours, original in zip(member_weights(network_state(weights)), weights, strict=True):
        np.testing.assert_array_equal(ours, original)
    shared = network_state([w[0] for w in weights], members=5, dtype="float32")["weights"]
    assert [(w.shape, w.dtype) for w in shared] == [((3, 2, 5), np.float32), ((4, 3, 5), np.float32)]


# --- fixed data sets ---


def dataset(samples, widths, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, widths[0])), rng.normal(size=(samples, widths[-1]))


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("widths", NETWORKS[:2])
def test_one_step_on_a_data_set_is_descent_on_the_samples_it_drew(widths, replacement):
    step, weights = DatasetSGD(9, 4, replacement), start(widths)
    x, y = dataset(9, widths)
    chosen = first_batch(step, 3)
    new = apply(step, weights, chosen, settings(widths, inputs=jnp.asarray(x), outputs=jnp.asarray(y)))
    for member in range(3):
        batch = np.asarray(chosen[:, member])
        exact = descent_on_samples([w[member] for w in weights], x[batch], y[batch], RATE)
        for ours, w in zip(new, exact, strict=True):
            np.testing.assert_allclose(ours[member], w, rtol=1e-12, atol=1e-13)


def test_the_batch_of_all_samples_is_gradient_descent_on_the_data_set():
    step, weights = DatasetSGD(5, 5, replacement=False), start((2, 3, 4))
    x, y = dataset(5, (2, 4))
    chosen = first_batch(step, 3)
    np.testing.assert_array_equal(np.sort(chosen, axis=0), np.arange(5)[:, None].repeat(3, 1))
    new = apply(step, weights, chosen, settings((2, 4), inputs=jnp.asarray(x), outputs=jnp.asarray(y)))
    for member in range(3):
        for ours, w in zip(new, descent_on_samples([w[member] for w in weights], x, y, RATE), strict=True):
            np.testing.assert_allclose(ours[member], w, rtol=1e-12, atol=1e-13)


def drawn_batches(step, members=3000, blocks=2):
    """Sample numbers ``(step, B, n)`` of consecutive steps."""
    draw = jax.jit(partial(step.draw, member_keys(0, f"batches {step}", 0, members)))
    return np.concatenate([draw(jnp.uint32(block)) for block in range(blocks)])


@pytest.mark.parametrize(("samples", "batch"), [(5, 1), (5, 2), (7, 3)])
def test_draws_with_replacement_are_uniform_and_independent(samples, batch):
    drawn = drawn_batches(DatasetSGD(samples, batch))
    codes = np.sum(drawn * samples ** np.arange(batch)[:, None], axis=1)
    assert_equally_likely(np.bincount(codes.ravel(), minlength=samples**batch))
    pairs = codes[:-1] * samples**batch + codes[1:]
    assert_equally_likely(np.bincount(pairs.ravel(), minlength=samples ** (2 * batch)))


@pytest.mark.parametrize(("samples", "batch"), [(5, 2), (6, 3), (4, 4)])
def test_draws_without_replacement_are_distinct_and_every_ordered_batch_is_equally_likely(samples, batch):
    drawn = drawn_batches(DatasetSGD(samples, batch, replacement=False))
    codes = np.sum(drawn * samples ** np.arange(batch)[:, None], axis=1)
    possible = sorted(sum(i * samples**k for k, i in enumerate(p)) for p in permutations(range(samples), batch))
    assert np.all(np.isin(codes, possible))
    index = np.searchsorted(possible, codes)
    assert_equally_likely(np.bincount(index.ravel(), minlength=len(possible)))
    # Consecutive steps are independent: the first sample of one and of the next.
    assert_equally_likely(np.bincount((drawn[:-1, 0] * samples + drawn[1:, 0]).ravel(), minlength=samples**2))


def test_large_data_sets_are_drawn_to_the_last_sample():
    samples = 2**24 - 1
    drawn = drawn_batches(DatasetSGD(samples, 16), members=20_000, blocks=1)
    assert 0 <= drawn.min() < 100
    assert samples - 100 < drawn.max() < samples
    assert_equally_likely(np.histogram(drawn, bins=64, range=(0, samples))[0])


@pytest.mark.parametrize("samples", [0, 2**24])
def test_data_sets_too_small_or_too_large_are_refused(samples):
    with pytest.raises(ValueError, match="samples must lie between 1"):
        DatasetSGD(samples)


def test_batches_larger_than_the_data_set_need_replacement():
    assert DatasetSGD(3, 4).batch_size == 4
    with pytest.raises(ValueError, match="at most the 3 samples"):
        DatasetSGD(3, 4, replacement=False)
