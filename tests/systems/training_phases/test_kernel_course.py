"""Estimated courses of a kernel agree with exact ones within the errors they state, and these errors are right."""

import jax
import numpy as np
import pytest

from separatrix.networks.mlp import MLP
from separatrix.systems.training_phases.chaos_and_cone import STUDY as CHAOS
from separatrix.systems.training_phases.entk_two_phases import STUDY as TWO_PHASES
from separatrix.systems.training_phases.kernel_course import kernel_course, kernel_distances
from separatrix.systems.training_phases.kernel_route import kernel_cost, sign_vectors
from separatrix.systems.training_phases.task import load_task, make_network

NETWORK, SAMPLES, CLASSES = MLP((6, 12, 5), "tanh"), 16, 5
VECTORS = 24


def checkpoints():
    """A walk in the space of parameters, of steps that become shorter."""
    rng = np.random.default_rng(0)
    places = [NETWORK.init(rng)]
    for size in (0.5, 0.3, 0.15):
        places.append(jax.tree.map(lambda a, s=size: a + s * rng.normal(size=a.shape), places[-1]))
    return places


def examples():
    rng = np.random.default_rng(1)
    labels = np.eye(CLASSES)[rng.integers(0, CLASSES, SAMPLES)]
    return rng.normal(size=(SAMPLES, 6)), labels - labels.mean(axis=0)


@pytest.fixture(scope="module")
def exact():
    return kernel_course(NETWORK, checkpoints(), *examples())


@pytest.fixture(scope="module")
def estimated():
    return kernel_course(NETWORK, checkpoints(), *examples(), vectors=400, seed=(0, 3))


def test_an_estimated_course_agrees_with_the_exact_one(exact, estimated):
    upper = np.triu_indices(4, 1)
    away = (estimated.distance - exact.distance)[upper] / estimated.standard_error[upper]
    assert np.all(np.abs(away) < 4)
    assert np.all(estimated.standard_error[upper] < 0.1 * exact.distance[upper])
    np.testing.assert_allclose(estimated.subsets, exact.subsets, rtol=0.35)
    np.testing.assert_allclose(estimated.norm, exact.norm, rtol=0.1)
    np.testing.assert_allclose(estimated.effective_rank, exact.effective_rank, rtol=0.2)
    np.testing.assert_allclose(estimated.alignment, exact.alignment, rtol=0.1)
    np.testing.assert_allclose(estimated.eigenvalues, exact.eigenvalues, rtol=1e-2)
    assert max(estimated.rounding, exact.rounding) < 1e-28


def test_an_exact_course_has_no_error_and_an_estimated_one_no_contracted_kernels(exact, estimated):
    assert not exact.standard_error.any()
    assert exact.redrawn == exact.distance[-2, -1]
    assert np.isnan(estimated.class_trace).all()
    assert np.isnan(estimated.sum_of_logits).all()


def test_the_standard_error_is_the_spread_of_estimates_with_fresh_vectors(exact):
    first_and_last = checkpoints()[::3]
    found = [
        kernel_distances(NETWORK, first_and_last, examples()[0], CLASSES, VECTORS, (0, run))[0, 1] for run in range(150)
    ]
    stated = [
        kernel_course(NETWORK, first_and_last, *examples(), VECTORS, (0, run)).standard_error[0, 1] for run in range(10)
    ]
    spread = np.std(found)  # known to a part in sqrt(300)
    assert np.sqrt(np.mean(np.square(stated))) == pytest.approx(spread, rel=0.3)
    assert abs(np.mean(found) - exact.distance[0, 3]) < 4 * spread / np.sqrt(150) + 0.02 * exact.distance[0, 3]


def test_runs_have_vectors_of_their_own_and_the_same_whenever_they_are_computed():
    arguments = NETWORK, checkpoints()[:2], examples()[0], CLASSES, VECTORS
    first, again, other = (kernel_distances(*arguments, (0, run))[0, 1] for run in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("study", [TWO_PHASES, CHAOS], ids=lambda study: study.slug)
def test_kernels_are_exact_where_that_is_cheap_and_estimated_where_it_is_not(study):
    pytest.importorskip("sklearn")

    def vectors(**changes):
        settings = study.resolve("default", {"data": "digits", **changes})
        task = load_task(settings)
        return sign_vectors(settings, task, make_network(settings, task), checkpoints=40)

    assert vectors() == 0
    assert vectors(kernel="estimated", kernel_vectors=7) == 7
    large = {"network": "cnn", "examples": 512}
    assert vectors(**large) == 32
    assert vectors(kernel="exact", **large) == 0


def test_what_kernels_take_grows_with_the_square_of_the_examples_only_if_they_are_exact():
    pytest.importorskip("sklearn")

    def bytes_for(examples, vectors):
        settings = TWO_PHASES.resolve("default", {"network": "cnn", "examples": examples})
        task = load_task(settings)
        return kernel_cost(settings, task, make_network(settings, task), 40, vectors).bytes

    assert bytes_for(512, 0) > 3 * bytes_for(256, 0) > 0.5 * 256**2 * 100 * 4 * 40
    assert bytes_for(512, 32) < 2.1 * bytes_for(256, 32)
    assert bytes_for(512, 32) < 0.1 * bytes_for(512, 0)
