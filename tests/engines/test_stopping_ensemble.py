"""Members that stop on their own end as they would alone, whatever their neighbours, the chunks and the devices."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from separatrix.engines.counter_normals import member_keys, random_words
from separatrix.engines.stopping_ensemble import (
    CENSORED,
    DIVERGED,
    SETTLED,
    Progress,
    Stopped,
    StoppedLaunch,
    run_until_settled,
)


@dataclass(frozen=True)
class Descent:
    """A height falls by one with probability 1/2 at each step, until it is zero; a cliff makes it infinite."""

    stride: int = 1

    @property
    def lanes(self):
        return 16

    def start(self, keys, arguments):
        del keys
        return {"height": arguments["height"]}

    def __call__(self, state, keys, step, live, arguments):
        height = state["height"]
        moved = lost = jnp.zeros(live.shape, jnp.int32)
        for k in range(self.stride):
            words, _ = random_words(keys, step + jnp.uint32(k), 0, 1)
            falls = live & ((words[0] & jnp.uint32(1)) == 1) & (height > 0)
            new = jnp.where(falls & (height - 1 == arguments["cliff"]), jnp.inf, height - falls.astype(height.dtype))
            lost = jnp.where(live & (lost == 0) & ~jnp.isfinite(new), k + 1, lost)
            moved = jnp.where(falls, k + 1, moved)
            height = new
        return Progress({"height": height}, jnp.full(live.shape, self.stride, jnp.int32), moved, lost)

    def settled(self, state, arguments):
        del arguments
        return state["height"] == 0

    def observe(self, state, keys, arguments):
        del keys
        height = state["height"]
        return {"height": height, "pair": jnp.stack([height, arguments["height"]], axis=1)}


HEIGHTS = np.where(np.arange(70) % 7 == 0, 300, 1 + np.arange(70) % 50).astype(np.float32)


@jax.jit
def coin_flips(keys):
    """Bits of the first 900 steps, ``(900, n)``."""
    return jax.lax.map(lambda t: random_words(keys, t, 0, 1)[0][0] & jnp.uint32(1), jnp.arange(900, dtype=jnp.uint32))


FLIPS = np.cumsum(np.asarray(coin_flips(member_keys(3, "fall", 0, 70))).astype(int), axis=0)


def expected_steps(start, stop, heights):
    """The step of the last fall, from the bits themselves."""
    return np.argmax(FLIPS[:, start:stop] == heights[start:stop], axis=0) + 1


def run(start=0, stop=70, chunk=16, most=5000, stride=1, cliff=-1.0):
    n = stop - start
    own = {"height": HEIGHTS[start:stop], "cliff": np.full(n, cliff, np.float32)}
    return run_until_settled(Descent(stride), member_keys(3, "fall", start, stop), {}, own, most, chunk)


@pytest.fixture(scope="module")
def whole():
    return run()


def test_every_member_stops_at_the_step_of_its_last_move(whole):
    np.testing.assert_array_equal(whole.steps, expected_steps(0, 70, HEIGHTS))
    assert np.all(whole.outcome == SETTLED)
    assert np.all(whole.records["height"] == 0)
    np.testing.assert_array_equal(whole.records["pair"][:, 1], HEIGHTS)


def test_chunks_and_strides_change_nothing(whole):
    other = run(chunk=5, stride=4)
    np.testing.assert_array_equal(other.steps, whole.steps)
    np.testing.assert_array_equal(other.outcome, whole.outcome)


def test_neighbours_change_nothing(whole):
    for start, stop in ((0, 3), (3, 40)):
        np.testing.assert_array_equal(run(start, stop).steps, whole.steps[start:stop])


def test_a_member_past_its_cap_is_censored_and_never_a_number_of_its_own(whole):
    capped = run(most=40)
    late = whole.steps > 40
    assert late.any()
    assert not late.all()
    np.testing.assert_array_equal(capped.outcome == CENSORED, late)
    assert np.all(capped.steps[late] == 40)
    np.testing.assert_array_equal(capped.steps[~late], whole.steps[~late])


def test_caps_may_differ_from_member_to_member(whole):
    most = np.where(np.arange(70) % 2 == 0, 20, 5000)
    np.testing.assert_array_equal(run(most=most).outcome == CENSORED, whole.steps > most)


def test_what_stops_being_finite_is_recorded_with_its_step_and_harms_nobody():
    broken = run(cliff=20.0)
    high = HEIGHTS > 20
    np.testing.assert_array_equal(broken.outcome == DIVERGED, high)
    np.testing.assert_array_equal(broken.steps[high], expected_steps(0, 70, HEIGHTS - 20)[high])
    np.testing.assert_array_equal(broken.outcome == SETTLED, ~high)


@pytest.mark.slow
def test_one_program_serves_every_size():
    from separatrix.engines import stopping_ensemble

    run(0, 33)
    before = stopping_ensemble._advance._cache_size()
    run(0, 60)
    run(5, 70, most=100)
    assert stopping_ensemble._advance._cache_size() == before


@pytest.mark.parametrize(("most", "chunk"), [(0, 4), (2**31, 4), (10, 0)])
def test_caps_and_chunks_that_are_not_allowed_are_refused(most, chunk):
    with pytest.raises(ValueError, match="chunk at least 1 and most_steps"):
        run(most=most, chunk=chunk)


def finish(stopped: Stopped, start):
    return xr.Dataset({"steps": ("member", stopped.steps)}, {"member": np.arange(start, start + stopped.steps.size)})


def launch(height, table=1.0, chunk=16):
    def own(start, stop):
        n = stop - start
        return {"height": np.full(n, height, np.float32), "cliff": np.full(n, -1, np.float32)}

    return StoppedLaunch(
        Descent(),
        3,
        "fall",
        lambda: {"table": np.asarray([table])},
        own,
        lambda a, b: np.full(b - a, 5000),
        chunk,
        finish,
    )


def test_launches_together_get_what_they_get_alone():
    requests = [(launch(5), 0, 20), (launch(60), 4, 9)]
    assert len({one.group for one, _, _ in requests}) == 1
    for (one, start, stop), joint in zip(requests, StoppedLaunch.together(requests), strict=True):
        xr.testing.assert_identical(joint, one(start, stop))
        np.testing.assert_array_equal(
            joint.steps, expected_steps(start, stop, np.full(70, one.member_arguments(0, 1)["height"][0]))
        )


def test_other_data_or_another_chunk_is_another_group():
    assert launch(5).group != launch(5, table=2.0).group
    assert launch(5).group != launch(5, chunk=8).group


def test_all_devices_are_used():
    assert len(jax.devices()) == 2
