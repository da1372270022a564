from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.systems.deep_linear.dataset_noise import dataset_mode_diffusion, dataset_noise_traces, fourth_moments
from separatrix.systems.deep_linear.gradient_noise import layer_product, mean_gradient, noise_traces
from separatrix.systems.deep_linear.modewise import mode_moments
from separatrix.systems.deep_linear.network_observables import QUANTITIES, NetworkObserver
from separatrix.systems.deep_linear.network_simulation import network_state
from separatrix.systems.deep_linear.teacher import Teacher, aligned_balanced_weights

WIDTHS, MEMBERS, MODES, SIGMA = (4, 5, 3), 2, 2, 0.5
S = np.array([3.0, 2.0, 1.0])


def test_every_quantity_is_the_exact_function_of_each_members_weights():
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.6, (MEMBERS, after, before)) for before, after in pairwise(WIDTHS)]
    roots = rng.uniform(0.1, 1, (MODES, MEMBERS))
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    arguments = {"singular_values": S, "label_noise": SIGMA, "inputs": x, "outputs": y}
    arguments = jax.tree.map(jnp.asarray, arguments) | {"label_noise": SIGMA}
    state = network_state(weights) | {"roots": jnp.asarray(roots)}
    teacher, left, right = Teacher.diagonal(S, 4, 3).matrix, np.eye(3, MODES), np.eye(4, MODES)
    arguments["fourth_moments"] = jnp.asarray(fourth_moments(x, y, teacher).covariance)
    observed = jax.jit(NetworkObserver(tuple(QUANTITIES), MODES))(state, arguments)
    for n in range(MEMBERS):
        w1, w2 = alone = [w[n] for w in weights]
        product = layer_product(alone)
        kept, moments = product[:MODES, :MODES], mode_moments(alone, teacher, left, right, SIGMA)
        gap = np.linalg.norm(teacher - product)
        exact = {
            "strength": np.diagonal(kept),
            "reduced_strength": roots[:, n] ** 2,
            "strength_matrix": kept,
            "flow": np.diagonal(moments.flow),
            "variance_rate": np.diagonal(moments.variance_rate),
            "dataset_variance_rate": dataset_mode_diffusion(alone, x, y, left, right)[1],
            "noise_trace": noise_traces(alone, teacher, SIGMA),
            "dataset_noise_trace": dataset_noise_traces(alone, x, y),
            "gradient_norm": np.sqrt(sum(np.sum(g**2) for g in mean_gradient(alone, teacher))),
            "loss": gap**2 / 2,
            "distance": gap,
            "off_diagonal": np.sqrt((kept[0, 1] ** 2 + kept[1, 0] ** 2) / 2),
            "imbalance": np.linalg.norm(w2.T @ w2 - w1 @ w1.T),
            "layer_norms": [np.sum(w1**2), np.sum(w2**2)],
        }
        assert set(exact) <= set(observed)
        for name, value in exact.items():
            np.testing.assert_allclose(observed[name][..., n], value, rtol=1e-10, err_msg=name)


def test_an_aligned_balanced_start_has_no_off_diagonal_entry_and_no_imbalance():
    weights = aligned_balanced_weights(Teacher.diagonal(S), (3, 4, 4, 3), np.array([2.0, 1e-6, 0.3]))
    observer = NetworkObserver(("off_diagonal", "imbalance", "strength"), 3)
    observed = jax.jit(observer)(network_state(weights, 2), {"singular_values": jnp.asarray(S)})
    np.testing.assert_array_equal(observed["off_diagonal"], 0)
    np.testing.assert_allclose(observed["imbalance"], 0, atol=1e-15)
    np.testing.assert_allclose(observed["strength"][:, 0], [2.0, 1e-6, 0.3], rtol=1e-12)


def test_one_mode_has_no_off_diagonal_entry():
    observed = NetworkObserver(("off_diagonal",), 1)(
        network_state([np.ones((2, 2)), np.ones((2, 2))], 1), {"singular_values": jnp.asarray([2.0, 1.0])}
    )
    np.testing.assert_array_equal(observed["off_diagonal"], 0)


def test_unknown_quantities_are_refused_by_name():
    with pytest.raises(ValueError, match=r"names must be among .* got \['losss'\]"):
        NetworkObserver(("loss", "losss"), 1)
