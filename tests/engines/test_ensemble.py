import os
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.engines.counter_normals import member_keys, normals
from separatrix.engines.ensemble import evolve, noise_block, tile_lanes

TRACES = []


@dataclass(frozen=True)
class Map:
    """``x <- x + rate (sin(x) + z . drive)``; member 2 becomes infinite at step ``argument["ill"]``."""

    block: int = 4

    def draw(self, keys, block):
        return normals(keys, block, self.block * 3).reshape(self.block, 3, -1)

    def __call__(self, state, noise, t, arguments):
        TRACES.append(1)
        x = state["x"]
        force = jnp.sin(x) + jnp.sum(arguments["drive"][:, None] * noise.astype(x.dtype), axis=0, keepdims=True)
        x = x + arguments["rate"] * force
        lost = (state["name"] == 2) & (t == arguments["ill"])
        return {"x": jnp.where(lost, jnp.inf, x), "name": state["name"]}


def observe(state, arguments):
    del arguments
    return {"x": state["x"], "square": state["x"][0] ** 2}


def run(start=0, stop=6, grid=(0, 9, 20), rate=0.1, ill=10**6, drive=(1.0, -1.0, 0.5), dtype=jnp.float64, step=Map()):
    members = jnp.arange(start, stop)
    state = {"x": 0.3 * jnp.sin(members.astype(dtype))[None].repeat(2, 0), "name": members}
    arguments = {"rate": rate, "ill": jnp.uint32(ill), "drive": jnp.asarray(drive, dtype)}
    return evolve(step, observe, state, member_keys(5, "ensemble", start, stop), arguments, np.asarray(grid))


def test_the_state_after_k_steps_is_the_step_applied_k_times():
    step, keys = Map(), member_keys(5, "ensemble", 0, 6)
    draw = jax.jit(step.draw)
    x = 0.3 * np.sin(np.arange(6.0))[None].repeat(2, 0)
    visited = [x]
    for t in range(20):
        z = np.asarray(draw(keys, jnp.uint32(t // step.block)), np.float64)[t % step.block]
        x = x + 0.1 * (np.sin(x) + np.array([1.0, -1.0, 0.5]) @ z)
        visited.append(x)
    records, diverged = run(grid=(0, 1, 9, 20))
    np.testing.assert_allclose(records["x"], np.stack(visited)[[0, 1, 9, 20]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(records["square"], records["x"][:, 0] ** 2, rtol=1e-15)
    np.testing.assert_array_equal(diverged, -1)
    assert all(isinstance(a, np.ndarray) for a in (records["x"], records["square"], diverged))


def test_records_do_not_depend_on_the_grid():
    every, _ = run(grid=range(31))
    for grid in ((0, 3, 3, 4, 8, 30), (29,)):
        some, _ = run(grid=grid)
        np.testing.assert_array_equal(some["x"], every["x"][list(grid)])


def test_members_do_not_depend_on_the_chunk_they_run_in():
    parts = [run(a, b)[0]["x"] for a, b in ((0, 1), (1, 6), (6, 11))]
    np.testing.assert_array_equal(np.concatenate(parts, -1), run(0, 11)[0]["x"])


def test_an_ensemble_that_does_not_divide_by_the_devices_is_padded_without_a_trace():
    assert len(jax.devices()) == 2
    even, odd = run(0, 6), run(0, 5)
    np.testing.assert_array_equal(odd[0]["x"], even[0]["x"][..., :5])
    assert odd[0]["square"].shape == (3, 5)
    assert odd[1].shape == (5,)


def test_one_device_and_two_give_the_same_bits():
    program = (
        "import sys, jax, numpy as np; jax.config.update('jax_enable_x64', True); assert len(jax.devices()) == 1;"
        "from test_ensemble import run; np.save(sys.argv[1], run(0, 7)[0]['x'])"
    )
    here = os.path.dirname(__file__)
    target = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"one_device_{os.getpid()}.npy")
    environment = {**os.environ, "PYTHONPATH": here, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    try:
        subprocess.run([sys.executable, "-c", program, target], check=True, env=environment, timeout=300)
        alone = np.load(target)
    finally:
        if os.path.exists(target):
            os.remove(target)
    np.testing.assert_array_equal(alone, run(0, 7)[0]["x"])


def test_another_learning_rate_grid_or_data_of_the_same_shape_compiles_nothing():
    run(grid=(0, 9, 20))
    traced = len(TRACES)
    run(grid=(1, 2, 40), rate=0.2, drive=(0.0, 2.0, 0.0))
    assert len(TRACES) == traced
    run(step=Map(block=8))
    assert len(TRACES) > traced


def test_results_have_the_dtype_of_the_state_and_see_the_same_noise():
    double, single = run(grid=(0, 5, 25)), run(grid=(0, 5, 25), dtype=jnp.float32)
    assert double[0]["x"].dtype == np.float64
    assert single[0]["x"].dtype == np.float32
    np.testing.assert_allclose(single[0]["x"], double[0]["x"], atol=1e-5)


def test_a_member_that_diverges_is_named_with_its_step_and_the_others_do_not_notice():
    healthy, _ = run(grid=(0, 6, 7, 12, 30))
    ill, diverged = run(grid=(0, 6, 7, 12, 30), ill=6)
    np.testing.assert_array_equal(diverged, [-1, -1, 7, -1, -1, -1])
    np.testing.assert_array_equal(np.delete(ill["x"], 2, -1), np.delete(healthy["x"], 2, -1))
    np.testing.assert_array_equal(ill["x"][:2], healthy["x"][:2])
    assert not np.any(np.isfinite(ill["x"][2:, :, 2]))


def test_divergence_between_two_records_is_dated_by_the_later_one():
    np.testing.assert_array_equal(run(grid=(0, 5, 12), ill=6)[1], [-1, -1, 12, -1, -1, -1])


def test_a_start_that_is_not_finite_diverges_at_step_zero():
    keys = member_keys(0, "start", 0, 2)
    state = {"x": jnp.asarray([[0.0, jnp.nan]] * 2), "name": jnp.arange(2)}
    arguments = {"rate": 0.1, "ill": jnp.uint32(10**6), "drive": jnp.ones(3)}
    _, diverged = evolve(Map(), observe, state, keys, arguments, np.array([0, 3]))
    np.testing.assert_array_equal(diverged, [-1, 0])


@pytest.mark.parametrize("grid", [[], [-1, 2], [3, 2], [[0, 1]], [0.0, 1.0], [0, 2**31]])
def test_recording_grids_that_make_no_sense_are_refused(grid):
    with pytest.raises(ValueError, match="record_steps must be"):
        run(grid=grid)


def test_noise_of_small_systems_is_drawn_in_blocks_of_sixty_four_numbers():
    assert [noise_block(rows) for rows in (0, 1, 3, 64, 65, 1000)] == [64, 64, 21, 1, 1, 1]


def test_members_with_arguments_of_their_own_run_as_they_would_alone():
    rates = np.array([0.1, 0.2, 0.05, 0.1, 0.3, 0.25])
    members = jnp.arange(6)
    state = {"x": 0.3 * jnp.sin(members.astype(float))[None].repeat(2, 0), "name": members}
    shared = {"ill": jnp.uint32(10**6), "drive": jnp.asarray((1.0, -1.0, 0.5))}
    together, _ = evolve(
        Map(), observe, state, member_keys(5, "ensemble", 0, 6), shared, np.array([0, 9, 20]), {"rate": rates}
    )
    for member, rate in enumerate(rates):
        alone = run(rate=np.full(1, rate))[0]["x"][..., member]
        np.testing.assert_allclose(together["x"][..., member], alone, rtol=1e-13)


def test_a_tile_depends_on_the_size_of_a_member_alone():
    small, large = ({"w": jnp.zeros((rows, 2))} for rows in (1, 100_000))
    assert tile_lanes(small) == tile_lanes({"w": jnp.zeros((1, 5000))}) == 1024
    assert tile_lanes(large) == 16
    assert tile_lanes({"w": jnp.zeros((64, 2), jnp.float64)}) == 256
