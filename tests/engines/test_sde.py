"""Orders of convergence, stationary laws and Brownian paths of the schemes."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.linalg import expm
from significance import assert_equally_likely, assert_means, assert_standard_normal

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve
from separatrix.engines.sde import EulerMaruyama, Milstein

KEYS, PATHS = 5, 2000


def joined_keys(label):
    """Keys of KEYS independent experiments of PATHS members each."""
    parts = [member_keys(seed, label, 0, PATHS) for seed in range(KEYS)]
    return tuple(jnp.concatenate(words) for words in zip(*parts, strict=True))


def final(scheme, start, keys, step_size, steps, **arguments):
    """States after ``steps`` steps, ``(components, n)``."""
    state = jnp.broadcast_to(jnp.asarray(start, jnp.float64)[:, None], (len(start), keys[0].size))
    arguments = {"step_size": step_size, **arguments}
    records, diverged = evolve(scheme, _state, state, keys, arguments, np.array([steps]))
    assert np.all(diverged == -1)
    return records[0]


def _state(state, arguments):
    del arguments
    return state


def slope(step_sizes, errors):
    """Log-log slope of errors ``(step_size, ...)``."""
    x = np.log(step_sizes) - np.mean(np.log(step_sizes))
    return np.tensordot(x, np.log(errors), axes=1) / np.sum(x**2)


def assert_order(step_sizes, paths, exact, order):
    """Strong errors of ``paths`` ``(step_size, n)`` fall as ``step_size**order``, for every key."""
    errors = np.sqrt(np.mean((paths - exact).reshape(len(step_sizes), KEYS, PATHS) ** 2, axis=-1))
    slopes = slope(step_sizes, errors)
    half_width = stats.t.ppf(0.975, KEYS - 1) * stats.sem(slopes)
    assert np.all(np.abs(slopes - order) < 0.12), slopes
    assert abs(slopes.mean() - order) < half_width, f"{slopes.mean():.4f} +- {half_width:.4f}"


# --- strong order: component 0 multiplies its noise (geometric Brownian motion), component 1 adds it (double well) ---

TIME = 1 / 16
LEVELS = range(7, 13)
FINEST = 15


def mixed_drift(x, arguments):
    return jnp.stack([0.5 * x[0], x[1] - x[1] ** 3])


def mixed_noise(x, arguments):
    return jnp.stack([x[0], jnp.full_like(x[1], 0.7)])


def no_drift(x, arguments):
    return jnp.zeros_like(x)


def unit_noise(x, arguments):
    return jnp.ones_like(x)


class Heun(EulerMaruyama):
    """The trapezoidal drift: for additive noise, the best that can be made of the increments of a path."""

    def __call__(self, state, noise, t, arguments):
        predicted = super().__call__(state, noise, t, arguments)
        change = self.drift(predicted, arguments) - self.drift(state, arguments)
        return predicted + change * arguments["step_size"] / 2


def shared_path(scheme, keys, level, start):
    """Final states at step size ``2**-level`` on the Brownian paths of step size ``2**-FINEST``."""
    return final(scheme(refinement=2 ** (FINEST - level)), start, keys, 2.0**-level, round(TIME * 2**level))


@pytest.fixture(scope="module")
def mixed_paths():
    """Exact geometric Brownian motion and all but exact double well, and both schemes at each step size."""
    keys, start = joined_keys("strong"), (1.0, 1.0)
    scheme = {s: partial(s, mixed_drift, mixed_noise, 2) for s in (EulerMaruyama, Milstein)}
    brownian = shared_path(partial(EulerMaruyama, no_drift, unit_noise, 2), keys, LEVELS[0], (0.0, 0.0))
    geometric = np.exp((0.5 - 0.5) * TIME + brownian[0])
    well = shared_path(partial(Heun, mixed_drift, mixed_noise, 2), keys, FINEST, start)[1]
    paths = {s: np.stack([shared_path(scheme[s], keys, level, start) for level in LEVELS]) for s in scheme}
    return np.stack([geometric, well]), paths


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "component", "order"),
    [
        pytest.param(EulerMaruyama, 0, 0.5, id="Euler-multiplicative"),
        pytest.param(EulerMaruyama, 1, 1.0, id="Euler-additive"),
        pytest.param(Milstein, 0, 1.0, id="Milstein-multiplicative"),
        pytest.param(Milstein, 1, 1.0, id="Milstein-additive"),
    ],
)
def test_strong_order(scheme, component, order, mixed_paths):
    exact, paths = mixed_paths
    assert_order([2.0**-level for level in LEVELS], paths[scheme][:, component], exact[component], order)


ROTATE, STRETCH = np.array([[0.0, -1.0], [1.0, 0.0]]), np.array([[1.0, 0.3], [0.0, -0.5]])
PULL = np.array([[-0.5, 0.2], [0.0, -1.0]])


def pull(x, arguments):
    return jnp.tensordot(jnp.asarray(PULL), x, 1)


def rotate_and_stretch(x, arguments):
    return jnp.stack([jnp.tensordot(jnp.asarray(b), x, 1) for b in (ROTATE, STRETCH)], axis=1)


@pytest.mark.slow
def test_strong_order_for_noises_that_do_not_commute():
    assert np.any(ROTATE @ STRETCH != STRETCH @ ROTATE)
    keys, start = joined_keys("matrix"), np.array([1.0, 0.5])
    scheme = partial(EulerMaruyama, pull, rotate_and_stretch, 2, 2)
    reference = shared_path(scheme, keys, FINEST, start)
    paths = np.stack([shared_path(scheme, keys, level, start) for level in LEVELS])
    # The double integrals that Euler's scheme leaves out are orthogonal from level to level: their variances subtract.
    lengths = [2.0**-level - 2.0**-FINEST for level in LEVELS]
    assert_order(lengths, paths[:, 0], reference[0], EulerMaruyama.strong_order)
    # The limit is the right one: mean and second moments solve linear equations.
    second = sum(np.kron(b, b) for b in (ROTATE, STRETCH)) + np.kron(PULL, np.eye(2)) + np.kron(np.eye(2), PULL)
    moments = np.concatenate([expm(PULL * TIME) @ start, expm(second * TIME) @ np.kron(start, start)])
    assert_means(np.concatenate([reference, np.einsum("in,jn->ijn", reference, reference).reshape(4, -1)]), moments)


# --- Brownian paths ---


@pytest.mark.parametrize(("components", "motions"), [(1, 0), (3, 0), (1, 70)])
@pytest.mark.parametrize("refinement", [2, 100])
def test_every_refinement_sums_the_same_brownian_path(components, motions, refinement):
    make = partial(EulerMaruyama, no_drift, unit_noise, components, motions)
    fine, coarse, keys = make(), make(refinement=refinement), member_keys(0, "path", 0, 2)

    @partial(jax.jit, static_argnums=(0, 1))
    def draw(scheme, count):
        blocks = jax.lax.map(partial(scheme.draw, keys), jnp.arange(count, dtype=jnp.uint32))
        return blocks.reshape(-1, *blocks.shape[2:])

    large = draw(coarse, 2)
    count = large.shape[0] * refinement
    small = np.asarray(draw(fine, -(-count // fine.block)), np.float64)[:count]
    summed = small.reshape(large.shape[0], refinement, *large.shape[1:]).sum(1) / np.sqrt(refinement)
    np.testing.assert_allclose(large, summed, rtol=0, atol=1e-5)


def test_increments_are_standard_and_independent():
    keys = member_keys(1, "increments", 0, 4000)
    for options in ({}, {"refinement": 3}, {"increments": "two-point"}):
        scheme = EulerMaruyama(no_drift, unit_noise, 1, 2, **options)
        z = np.asarray(jax.jit(scheme.draw)(keys, jnp.uint32(3)), np.float64).reshape(-1, 4000)
        assert_standard_normal(z.sum(-1) / np.sqrt(4000))
        first, second = np.triu_indices(min(len(z), 16), 1)
        assert_standard_normal((z[first] * z[second]).sum(-1) / np.sqrt(4000))
        if "increments" in options:
            assert set(np.unique(z)) == {-1.0, 1.0}
            assert_equally_likely([np.sum(z > 0), np.sum(z < 0)])
        else:
            assert_means((z**2), 1.0)


def test_impossible_schemes_are_refused():
    for refinement in (0, -1):
        with pytest.raises(ValueError, match="refinement must be at least 1"):
            EulerMaruyama(no_drift, unit_noise, refinement=refinement)
    with pytest.raises(ValueError, match="refinement must be 1 with two-point increments"):
        EulerMaruyama(no_drift, unit_noise, increments="two-point", refinement=2)
    with pytest.raises(ValueError, match="diagonal noise"):
        Milstein(no_drift, unit_noise, 2, motions=2)


# --- weak order ---


def well_drift(x, arguments):
    return x - x**3


def well_noise(x, arguments):
    return jnp.full_like(x, 0.8)


def growth(x, arguments):
    return x


def growth_noise(x, arguments):
    return 0.3 * x


def all_sign_paths(drift, noise, start, time, steps):
    """Final states of the two-point scheme on each of the ``2**steps`` equally likely paths: its exact law."""
    signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=steps)), jnp.float32).T[:, None]
    step, arguments = EulerMaruyama(drift, noise, increments="two-point"), {"step_size": time / steps}
    advance = lambda x, z: (step(x, z, jnp.uint32(0), arguments), None)  # noqa: E731
    return np.asarray(jax.lax.scan(advance, jnp.full((1, 2**steps), start), signs)[0][0])


WEAK_TIME = 1 / 4
COUNTS = (2, 4, 8, 16)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_two_point_increments_have_weak_order_one_for_geometric_noise(power):
    exact = np.exp((power + power * (power - 1) / 2 * 0.3**2) * WEAK_TIME)
    errors = [exact - np.mean(all_sign_paths(growth, growth_noise, 1.0, WEAK_TIME, n) ** power) for n in COUNTS]
    assert slope([WEAK_TIME / n for n in COUNTS], errors) == pytest.approx(EulerMaruyama.weak_order, abs=0.2)


@pytest.fixture(scope="module")
def well_moments():
    """Second and fourth powers of the double well on shared paths, ``(step size, power, path)``; the last is finest."""
    keys = member_keys(3, "weak", 0, 100_000)
    powers = []
    for n in (*COUNTS, 64):
        scheme = EulerMaruyama(well_drift, well_noise, refinement=64 // n)
        x = final(scheme, (1.5,), keys, WEAK_TIME / n, n)[0]
        powers.append(np.stack([x**2, x**4]))
    return np.stack(powers)


def test_gaussian_increments_have_weak_order_one_in_the_double_well(well_moments):
    gaps = np.abs((well_moments[:-1] - well_moments[-1]).mean(-1))
    lengths = [WEAK_TIME * (1 / n - 1 / 64) for n in COUNTS]
    np.testing.assert_allclose(slope(lengths, gaps), EulerMaruyama.weak_order, rtol=0, atol=0.2)


def test_two_point_increments_have_weak_order_one_and_the_same_limit_in_the_double_well(well_moments):
    laws = [all_sign_paths(well_drift, well_noise, 1.5, WEAK_TIME, n) for n in COUNTS]
    means = np.array([[np.mean(x**2), np.mean(x**4)] for x in laws])
    gaps = np.abs(np.diff(means, axis=0))
    np.testing.assert_allclose(slope([1 / n for n in COUNTS[1:]], gaps), EulerMaruyama.weak_order, rtol=0, atol=0.2)
    extrapolated = 2 * well_moments[-1] - well_moments[-2]
    np.testing.assert_array_less(np.abs(2 * means[-1] - means[-2] - extrapolated.mean(-1)),
                                 5 * extrapolated.std(-1) / np.sqrt(100_000))  # fmt: skip


# --- stationary laws ---


def fall(x, arguments):
    return -x


@pytest.mark.parametrize("increments", ["gaussian", "two-point"])
def test_stationary_law_of_ornstein_uhlenbeck_is_the_discrete_one(increments):
    h, steps, n = 0.1, 200, 400_000
    x = final(EulerMaruyama(fall, unit_noise, increments=increments), (0.0,), member_keys(4, "ou", 0, n), h, steps)[0]
    variance = h / (1 - (1 - h) ** 2)
    excess = 0.0 if increments == "gaussian" else -2 * h**2 / (1 - (1 - h) ** 4)
    assert_means(np.stack([x, x**2, x**4]), [0.0, variance, 3 * variance**2 + excess])


def test_stationary_law_of_the_double_well_is_that_of_boltzmann():
    density = lambda x: np.exp(2 / 0.8**2 * (x**2 / 2 - x**4 / 4))  # noqa: E731
    weight = lambda p: quad(lambda x: x**p * density(x), -4, 4)[0]  # noqa: E731
    exact = [weight(p) / weight(0) for p in (1, 2, 4)]
    # Two step sizes on the same paths, extrapolated to zero.
    keys, h, time = member_keys(5, "well", 0, 100_000), 0.04, 8.0
    coarse = final(EulerMaruyama(well_drift, well_noise, refinement=2), (0.0,), keys, h, round(time / h))[0]
    fine = final(EulerMaruyama(well_drift, well_noise), (0.0,), keys, h / 2, round(2 * time / h))[0]
    assert_means(np.stack([2 * fine**p - coarse**p for p in (1, 2, 4)]), exact)
