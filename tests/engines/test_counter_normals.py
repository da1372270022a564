from functools import partial

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from significance import FALSE_ALARM, assert_equally_likely, assert_standard_normal

from separatrix.engines import counter_normals
from separatrix.engines.counter_normals import member_keys, normals, random_words, signs, threefry_2x32

MEMBERS, STEPS, ROWS = 2048, 16, 64


@pytest.fixture(scope="module")
def sample():
    """Standard normal numbers ``(stream, step, row, member)``: 4 million."""
    keys = member_keys(2024, "moments", 0, MEMBERS)
    steps = jnp.arange(STEPS, dtype=jnp.uint32)
    draw = jax.jit(jax.vmap(lambda t: jnp.stack([normals(keys, t, ROWS, stream=s) for s in (0, 1)]), out_axes=1))
    return np.asarray(draw(steps), np.float64)


@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_known_answers(key, counter, words):
    key, counter = (tuple(jnp.asarray([v], jnp.uint32) for v in pair) for pair in (key, counter))
    assert tuple(int(word[0]) for word in threefry_2x32(key, *counter)) == words


def test_threefry_is_bit_equal_to_that_of_jax():
    rng = np.random.default_rng(0)
    x0, x1 = jnp.asarray(rng.integers(0, 2**32, (2, 257), dtype=np.uint32))
    for key in rng.integers(0, 2**32, (3, 2), dtype=np.uint32):
        ours = threefry_2x32((jnp.asarray(key[:1]), jnp.asarray(key[1:])), x0, x1)
        theirs = jax.extend.random.threefry_2x32(jnp.asarray(key), jnp.concatenate([x0, x1]))
        np.testing.assert_array_equal(np.concatenate(ours), theirs)


def test_keys_and_counters_broadcast():
    keys = member_keys(0, "broadcast", 0, 3)
    words = threefry_2x32(keys, jnp.arange(4, dtype=jnp.uint32)[:, None], jnp.zeros((), jnp.uint32))
    alone = threefry_2x32((keys[0][2:], keys[1][2:]), jnp.asarray([3], jnp.uint32), jnp.asarray([0], jnp.uint32))
    assert words[0].shape == words[1].shape == (4, 3)
    assert [int(w[3, 2]) for w in words] == [int(w[0]) for w in alone]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), start=st.integers(0, 2**31))
def test_a_members_key_does_not_depend_on_the_chunk_it_is_asked_for_in(seed, start):
    chunk = lambda a, b: np.stack(member_keys(seed, "run", start + a, start + b))  # noqa: E731
    np.testing.assert_array_equal(np.concatenate([chunk(0, 3), chunk(3, 8)], axis=1), chunk(0, 8))


def test_seeds_labels_and_members_have_different_keys():
    keys = [np.stack(member_keys(seed, label, 0, 1000), 1) for seed in (0, 1) for label in ("a", "b")]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 4000


def test_compiled_numbers_of_a_member_are_the_same_bits_whatever_its_neighbours():
    keys = [np.asarray(k) for k in member_keys(7, "chunks", 0, 37)]
    compiled = jax.jit(partial(normals, rows=5, stream=3))
    whole = compiled(tuple(keys), jnp.uint32(11))
    for part in (slice(0, 1), slice(1, 20), slice(20, 37)):
        np.testing.assert_array_equal(compiled(tuple(k[part] for k in keys), jnp.uint32(11)), whole[:, part])


def test_numbers_are_float32_with_one_row_for_each_number_and_odd_rows_drop_the_last():
    keys = member_keys(7, "rows", 0, 4)
    draw = jax.jit(lambda t: (normals(keys, t, 5), normals(keys, t, 6), signs(keys, t, 33), signs(keys, t, 64)))
    drawn = draw(jnp.uint32(3))
    assert [a.shape for a in drawn] == [(5, 4), (6, 4), (33, 4), (64, 4)]
    assert all(a.dtype == jnp.float32 for a in drawn)
    np.testing.assert_array_equal(drawn[0], drawn[1][:5])
    np.testing.assert_array_equal(drawn[2], drawn[3][:33])


@pytest.mark.parametrize(("step", "stream"), [(2**32 - 1, 0), (0, 255)])
def test_the_largest_step_and_stream_are_numbers_like_any_other(step, stream):
    draw = jax.jit(partial(normals, rows=2, stream=stream))
    x = np.asarray(draw(member_keys(7, "edges", 0, 2000), jnp.asarray(step, jnp.uint32)))
    assert stats.kstest(x.ravel(), "norm").pvalue > FALSE_ALARM


def test_streams_that_would_overlap_are_refused():
    keys = member_keys(7, "edges", 0, 1)
    for stream, rows in ((256, 1), (-1, 1), (0, 2**24 + 1)):
        with pytest.raises(ValueError, match="stream must lie in"):
            random_words(keys, jnp.uint32(0), stream, rows)


def test_first_six_moments_are_gaussian(sample):
    gaussian = {k: stats.norm.moment(k) for k in range(13)}
    z = [(np.mean(sample**k) - gaussian[k]) / np.sqrt((gaussian[2 * k] - gaussian[k] ** 2) / sample.size)
         for k in range(1, 7)]  # fmt: skip
    assert_standard_normal(z)


def test_distribution_is_gaussian_to_the_tails(sample):
    assert stats.kstest(sample[0].ravel()[::4], "norm").pvalue > FALSE_ALARM
    for bound in (3, 4, 4.5):
        expected = 2 * stats.norm.sf(bound) * sample.size
        observed = np.sum(np.abs(sample) > bound)
        assert FALSE_ALARM < stats.poisson.cdf(observed, expected) < 1 - FALSE_ALARM


def test_the_rarest_random_words_give_finite_numbers(monkeypatch):
    words = np.array([[0, 1, 2, 2**31, 2**32 - 2, 2**32 - 1]], np.uint32)
    monkeypatch.setattr(counter_normals, "random_words", lambda *_: (jnp.asarray(words), jnp.zeros_like(words)))
    extremes = np.asarray(normals(None, 0, 2))
    assert np.all(np.isfinite(extremes))
    assert 6.66 < np.max(np.abs(extremes)) < 6.67


@pytest.mark.parametrize(
    "pair",
    {
        "members": lambda x: (x[..., :-1], x[..., 1:]),
        "steps": lambda x: (x[:, :-1], x[:, 1:]),
        "streams": lambda x: (x[0], x[1]),
        "rows": lambda x: (x[:, :, :-1], x[:, :, 1:]),
        "halves": lambda x: (x[:, :, : ROWS // 2], x[:, :, ROWS // 2 :]),  # sine and cosine of one angle and radius
    }.items(),
    ids=lambda item: item[0],
)
def test_numbers_are_uncorrelated_and_so_are_their_squares_between(pair, sample):
    x, y = pair[1](sample)
    linear = x * y  # variance 1
    squares = (x**2 - 1) * (y**2 - 1) / 2
    mixed = x * (y**2 - 1) / np.sqrt(2)
    assert_standard_normal([np.mean(p) * np.sqrt(p.size) for p in (linear, squares, mixed)])


def test_sine_and_cosine_are_those_of_the_angle_to_float32():
    rng = np.random.default_rng(1)
    edges = np.array([q * 2**30 + k for q in range(4) for k in (0, 1, 2**29 - 1, 2**29, 2**29 + 1, 2**30 - 1)])
    word = np.concatenate([edges, rng.integers(0, 2**32, 1 << 20)]).astype(np.uint32)
    within = (word << np.uint32(2)).view(np.int32) / 2.0**32  # the quadrant's angle lies in [-1/2, 1/2) quarter turns
    angle = ((word >> np.uint32(30)) + within) * (np.pi / 2)
    sine, cosine = jax.jit(counter_normals._sine_cosine)(jnp.asarray(word))
    np.testing.assert_allclose(sine, np.sin(angle), rtol=0, atol=3e-7)
    np.testing.assert_allclose(cosine, np.cos(angle), rtol=0, atol=3e-7)


def test_signs_are_fair_independent_coins():
    keys = member_keys(3, "signs", 0, 20000)
    x = np.asarray(jax.jit(partial(signs, rows=40))(keys, jnp.uint32(5)), np.int64)
    assert set(np.unique(x)) == {-1, 1}
    correlations = (x @ x.T)[np.triu_indices(40, 1)] / np.sqrt(x.shape[1])
    assert_standard_normal(np.concatenate([x.sum(axis=1) / np.sqrt(x.shape[1]), correlations]))
    assert_equally_likely(np.bincount((x[:8] > 0).T @ (1 << np.arange(8)), minlength=256))
