"""Curvature along runs against dense Hessians, and the claims on stability and confinement against known paths."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax.flatten_util import ravel_pytree

from separatrix.lab.claims import combine
from separatrix.networks.mlp import MLP
from separatrix.probes.cone import random_walk
from separatrix.systems.training_phases.chaos.confinement import confined
from separatrix.systems.training_phases.chaos.sharpness import BATCHES, curvature_course, lanczos
from separatrix.systems.training_phases.chaos.stability import edges, growth_beyond
from separatrix.systems.training_phases.chaos_and_cone import STUDY
from separatrix.systems.training_phases.training import MomentumStep, fresh_states, training_arguments

SMALL = dataclasses.replace(STUDY.resolve("smoke", {}), momentum=0.5, directions=1)
STEPS = np.arange(0, 481, 40)


def verdict(measurements):
    return str(combine(measurements))


def test_lanczos_values_lie_within_their_residuals_of_eigenvalues_and_are_exact_in_the_end():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(12, 12))
    matrix = jnp.asarray(matrix + matrix.T)
    exact, start = np.linalg.eigvalsh(matrix), jnp.asarray(rng.normal(size=12))
    through = jax.jit(lambda steps: lanczos(lambda v: matrix @ v, start, steps), static_argnums=0)
    for steps in (5, 12):
        values, residuals, rayleigh = through(steps)
        gaps = np.abs(np.asarray(values)[:, None] - exact).min(axis=1)
        assert np.all(gaps <= np.asarray(residuals) + 1e-12)
        assert rayleigh == pytest.approx(float(start @ matrix @ start / (start @ start)), rel=1e-12)
    np.testing.assert_allclose(values, exact, atol=1e-12)
    assert np.max(residuals) < 1e-10


def test_curvature_of_runs_is_that_of_dense_hessians():
    step, rng, samples = MomentumStep(MLP((4, 5, 3), "gelu")), np.random.default_rng(1), 21
    data = training_arguments(rng.normal(size=(samples, 4)), rng.integers(0, 3, samples), 0.1, 0.9, 0.0)
    data = jax.tree.map(jnp.asarray, data)
    states = [fresh_states(step.network, seed, "start", range(2))[0] for seed in (0, 1)]
    batches = [rng.integers(0, samples, (2, BATCHES, 8)).astype(np.int32) for _ in states]
    # chunks of 5 leave a rest, of the batches of 8 and of all 21 samples
    found = curvature_course(step.loss, states, batches, samples, data, chunk=5)
    at = lambda name, run, time: found[name][1][run, time]  # noqa: E731
    for run, time in ((0, 0), (1, 1)):
        flat, unravel = ravel_pytree(jax.tree.map(lambda leaf, row=run: jnp.asarray(leaf[row]), states[time]))
        loss = jax.jit(lambda p, rows, u=unravel: step.loss(u(p), rows, data))
        hessian, gradient = jax.jit(jax.hessian(loss)), jax.jit(jax.grad(loss))
        rows = batches[time][run]
        exact = np.array([np.linalg.eigvalsh(hessian(flat, each)) for each in rows])
        sharp = at("mini_batch_sharpness", run, time)
        np.testing.assert_allclose(sharp, exact[:, -1], rtol=0.02)
        gaps = np.abs(sharp[:, None] - exact).min(axis=1)
        assert np.all(gaps <= at("sharpness_residual", run, time) * sharp + 1e-9)
        slopes = np.array([gradient(flat, each) for each in rows])
        along = [g @ hessian(flat, each) @ g / (g @ g) for g, each in zip(slopes, rows, strict=True)]
        assert at("batch_sharpness", run, time) == pytest.approx(np.mean(along), rel=1e-9)
        whole = np.linalg.eigvalsh(hessian(flat, np.arange(samples)))
        assert at("sharpness", run, time) == pytest.approx(whole[-1], rel=1e-2)
        assert whole[0] <= at("lowest_curvature", run, time) < 0.5 * whole[0]


def runs(sharpness, rates):
    """Four runs with this mini-batch sharpness at every record and these growth rates between records."""
    scatter = np.random.default_rng(0).uniform(0.9, 1.1, (4, 1))
    grown = np.concatenate([np.zeros((4, 1)), np.cumsum(scatter * np.asarray(rates) * 40, axis=1)], axis=1)
    variables = {
        "mini_batch_sharpness": (("member", "step", "batch"), np.tile(np.asarray(sharpness)[None, :, None], (4, 1, 2))),
        "log_tangent": (("member", "spawn", "step"), grown[:, None]),
        "diverged_at_step": ("member", np.full(4, -1)),
    }
    return {"copies": xr.Dataset(variables, {"step": STEPS})}


def test_growth_that_ends_when_sharpness_stays_below_the_edge_is_told_from_growth_that_does_not():
    edge = edges(SMALL).fluctuating
    assert edge == pytest.approx(2 * 0.5 / SMALL.learning_rate - SMALL.weight_decay)
    # sharpness dips below the edge once and stays there from the fifth of thirteen records on
    sharp = edge * np.array([2, 2, 0.5, 2] + [0.5] * 9)
    ends = runs(sharp, [0.05] * 4 + [0.0] * 8)
    assert verdict(growth_beyond(SMALL, ends, edge)) == "holds"
    assert verdict(growth_beyond(SMALL, ends, edge, evenly=True)) == "fails"
    assert verdict(growth_beyond(SMALL, runs(sharp, [0.05] * 12), edge)) == "fails"
    assert verdict(growth_beyond(SMALL, runs(sharp, [0.0] * 12), edge)) == "fails"
    # above the edge to the end: nothing is known of what comes after
    assert verdict(growth_beyond(SMALL, runs(np.full(13, 2 * edge), [0.05] * 12), edge)) == "undecided"


def kernels(distances):
    """Four runs whose chaos has ended at step 80, with these distances between their kernels."""
    amplification = np.full((4, 1, 3, 1), 1.0)
    amplification[:, :, :2] = 1e5
    variables = {
        "kernel_distance": (("member", "step", "other_step"), np.stack(distances)),
        "amplification": (("member", "direction", "spawn", "end"), amplification),
        "diverged_at_step": ("member", np.full(4, -1)),
    }
    return {"copies": xr.Dataset(variables, {"step": STEPS, "spawn": [0, 40, 80]})}


def test_directions_that_jitter_about_an_axis_are_confined_and_a_random_walk_is_not():
    rng = np.random.default_rng(2)
    jitter = []
    for _ in range(4):
        unit = rng.normal(size=(STEPS.size, 3000)) * 1e-3
        unit[:, 0] += 1
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        jitter.append(np.array([np.sum((unit - one) ** 2, axis=1) / 2 for one in unit]))
    assert verdict(confined(SMALL, kernels(jitter))) == "holds"
    assert verdict(confined(SMALL, kernels(jitter), walk=True)) == "fails"
    assert verdict(confined(SMALL, kernels([random_walk(np.full(12, 1e-3))] * 4))) == "fails"
    assert verdict(confined(SMALL, kernels([np.full((13, 13), np.nan)] * 4))) == "undecided"
