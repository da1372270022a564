"""The perceptron under SGD with the hinge loss: on fresh samples for ever, and on P samples until all are fitted.

``f = w . x / sqrt(d)``, loss ``(m - y f)_+`` per sample, ``w_0 = 0``. A step of temperature ``T = learning rate /
batch size`` adds ``T y x / sqrt(d)`` for every unfitted sample of the batch; a batch without one changes nothing.
Source: Sclocchi, Geiger, Wyart 2023 (arXiv 2301.13703), the perceptron.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import special

from separatrix.engines.counter_normals import Keys, normals
from separatrix.engines.ensemble import Arguments, State, noise_block
from separatrix.engines.minibatches import sample_numbers
from separatrix.engines.stopping_ensemble import Progress
from separatrix.systems.feature_learning.perceptron_theory import boundary_quantile

_TABLE_END, _TABLE_SIZE = 7.0, 4096  # normal numbers covered by a table of quantiles, and its entries
_TEST_BLOCK = 128  # samples whose fit is tested at once


def quantile_table(law: Callable[[np.ndarray], np.ndarray]) -> Float[np.ndarray, " k"]:
    """Table that turns standard normal numbers into those of another positive law; see :func:`look_up`.

    ``law`` gives the quantile of a probability. Logarithms are stored, at equidistant normal numbers: they are smooth
    in both tails, where a table of quantiles over probabilities is not.
    """
    z = np.linspace(-_TABLE_END, _TABLE_END, _TABLE_SIZE)
    return np.log(law(special.ndtr(z)))


def look_up(table: Float[Array, " k"], z: Array) -> Array:
    """Numbers of the law of a table from standard normal ones; relative error below 1e-5 and that of the dtype."""
    place = (z + _TABLE_END) * ((_TABLE_SIZE - 1) / (2 * _TABLE_END))
    left = jnp.clip(place.astype(jnp.int32), 0, _TABLE_SIZE - 2)
    share = place - left.astype(z.dtype)
    return jnp.exp((1 - share) * table[left] + share * table[left + 1])


@dataclass(frozen=True)
class OnlinePerceptron:
    """SGD on fresh samples of the depleted-sign task (a :class:`separatrix.engines.ensemble.Step`).

    State ``{"signal": (n,), "noise": (n,)}``, that is ``w_1`` and ``R = |w_perp|``: since the other inputs are
    Gaussian, these two are a Markov chain of their own. A sample has the component z along ``w_perp`` and a Gaussian
    vector across it, in ``d - 2`` dimensions; of several unfitted samples the latter add up to a length of a known
    law. This is SGD itself, not an approximation, at a cost that does not depend on d.

    Arguments: ``temperature``, ``margin`` and the tables of :func:`online_tables`.

    Attributes
    ----------
    dimension
        d, at least 3.
    batch_size
        B.
    """

    dimension: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.dimension < 3 or self.batch_size < 1:
            raise ValueError(
                f"dimension must be at least 3 and batch_size at least 1, got {self.dimension} and {self.batch_size}"
            )

    @property
    def block(self) -> int:
        """Steps drawn together."""
        return noise_block(2 * self.batch_size + 1)

    def draw(self, keys: Keys, block: Array) -> Array:
        """For each sample its distance and its component along the noise, and a length across: ``(block, 2 B + 1,
        n)``.
        """
        rows = 2 * self.batch_size + 1
        return normals(keys, block, self.block * rows).reshape(self.block, rows, -1)

    def __call__(self, state: State, noise: Array, t: Array, arguments: Arguments) -> State:
        """One step."""
        del t
        signal, length, B = state["signal"], state["noise"], self.batch_size
        cast = lambda value: jnp.asarray(value, signal.dtype)  # noqa: E731
        drawn = noise.astype(signal.dtype)
        r, z = look_up(cast(arguments["distance_table"]), drawn[:B]), drawn[B : 2 * B]
        across = look_up(cast(arguments["length_table"]), drawn[2 * B])
        root = cast(self.dimension**0.5)
        unfitted = ((signal * r + length * z) / root < cast(arguments["margin"])).astype(signal.dtype)
        kick = cast(arguments["temperature"]) / root
        along = length + kick * jnp.sum(unfitted * z, axis=0)
        return {
            "signal": signal + kick * jnp.sum(unfitted * r, axis=0),
            "noise": jnp.sqrt(along**2 + (kick * across) ** 2 * jnp.sum(unfitted, axis=0)),
        }


def online_tables(dimension: int, chi: float) -> dict[str, Float[np.ndarray, " k"]]:
    """Tables of the distance ``|x_1|`` and of the length of a Gaussian vector in ``d - 2`` dimensions.

    Raises
    ------
    ValueError
        If chi is not above -1.
    """
    return {
        "distance_table": quantile_table(lambda u: boundary_quantile(u, chi)),
        "length_table": quantile_table(lambda u: np.sqrt(2 * special.gammaincinv((dimension - 2) / 2, u))),
    }


def online_state(members: int, dtype: str = "float32") -> State:
    """All members at the start, ``w = 0``."""
    return {"signal": np.zeros(members, dtype), "noise": np.zeros(members, dtype)}


def order_parameters_of(state: State, arguments: Arguments) -> dict[str, Array]:
    """Signal and noise of every member, ``(n,)`` each."""
    del arguments
    return {"signal": state["signal"], "noise": state["noise"]}


@dataclass(frozen=True)
class StoppedPerceptron:
    """SGD on P samples until all are fitted (a :class:`separatrix.engines.stopping_ensemble.StoppedIteration`).

    State: weights ``(n, d)``. Shared argument ``samples``, ``(sets, P, d)`` float32: data sets as ``y x / sqrt(d)``.
    Own arguments: ``data_set`` (int32), ``temperature`` and ``margin`` (float32).

    Late in training almost every batch is fitted and changes nothing. An iteration therefore looks at the batches of
    ``lookahead`` steps together, takes the step of the first that holds an unfitted sample and forgets the rest, which
    are drawn again, the same ones, at the next iteration.

    Attributes
    ----------
    samples, batch_size
        P, below ``2**24``, and B.
    lookahead
        Steps looked at together; changes no result.
    replacement
        Draw each batch with replacement, or as distinct samples.
    """

    samples: int
    batch_size: int
    lookahead: int = 1
    replacement: bool = True

    def __post_init__(self) -> None:
        check_batches(self.samples, self.batch_size, self.replacement)

    @property
    def lanes(self) -> int:
        """Members on one device."""
        return 16

    def start(self, keys: Keys, arguments: Arguments) -> State:
        """``w = 0``."""
        samples = arguments["samples"]
        return jnp.zeros((keys[0].shape[0], samples.shape[-1]), samples.dtype)

    def __call__(
        self, state: State, keys: Keys, step: Array, live: Bool[Array, " n"], arguments: Arguments
    ) -> Progress:
        """Go on to the next step that changes something, at most ``lookahead`` steps."""
        drawn = jax.vmap(
            lambda offset: sample_numbers(
                keys, step + offset, 1, self.batch_size, self.samples, replacement=self.replacement
            )[0]
        )(jnp.arange(self.lookahead, dtype=jnp.uint32))
        samples, data_set = arguments["samples"], arguments["data_set"]
        unfitted = margins(state, samples[data_set, drawn]) < arguments["margin"]
        moves = jnp.any(unfitted, axis=1)
        first = jnp.argmax(moves, axis=0)
        moved = jnp.any(moves, axis=0)
        one = lambda a: jnp.take_along_axis(a, first[None, None], axis=0)[0]  # noqa: E731
        kick = jnp.where(one(unfitted) & live, arguments["temperature"], jnp.zeros((), state.dtype))
        state = state + jnp.sum(kick[..., None] * samples[data_set, one(drawn)], axis=0)
        done = jnp.where(moved, first.astype(jnp.int32) + 1, jnp.int32(self.lookahead))
        finite = jnp.all(jnp.isfinite(state), axis=1)
        return Progress(state, done, jnp.where(moved, done, 0), jnp.where(finite, 0, done))

    def settled(self, state: State, arguments: Arguments) -> Bool[Array, " n"]:
        """Whether every sample is fitted."""
        samples, data_set = arguments["samples"], arguments["data_set"]
        block = min(_TEST_BLOCK, self.samples)

        def test(i: Array, fitted: Array) -> Array:
            # The last block may overlap the one before.
            begin = jnp.minimum(i * block, self.samples - block)
            rows = samples[data_set, (begin + jnp.arange(block))[:, None]]
            return fitted & jnp.all(margins(state, rows) >= arguments["margin"], axis=0)

        everyone = jnp.ones(data_set.shape, bool)
        return jax.lax.fori_loop(0, -(-self.samples // block), test, everyone)

    def observe(self, state: State, keys: Keys, arguments: Arguments) -> dict[str, Array]:
        """Signal, noise and the smallest margin over the noise, and quantiles of the margins over the noise."""
        del keys
        samples, data_set = arguments["samples"], arguments["data_set"]
        noise = jnp.sqrt(jnp.sum(state[:, 1:] ** 2, axis=1))
        # One lane after the other: all samples of all lanes would be many.
        margin = jax.lax.map(lambda lane: jnp.sort(samples[lane[0]] @ lane[1]), (data_set, state))
        at = np.round(MARGIN_QUANTILES * (self.samples - 1)).astype(int)
        root = jnp.sqrt(jnp.asarray(samples.shape[-1], state.dtype))
        return {"signal": state[:, 0], "noise": noise, "margin_quantile": margin[:, at] * root / noise[:, None]}


#: Fractions at which the distribution of the final margins is recorded.
MARGIN_QUANTILES = np.concatenate([[0.0], np.geomspace(1e-3, 0.5, 24), [0.75, 1.0]])


def margins(weights: Float[Array, "n d"], samples: Float[Array, "... n d"]) -> Float[Array, "... n"]:
    """``y f`` of samples given as ``y x / sqrt(d)``."""
    return jnp.einsum("...nd,nd->...n", samples, weights)


def check_batches(samples: int, batch_size: int, replacement: bool) -> None:
    """Refuse batches that cannot be drawn.

    Raises
    ------
    ValueError
        If there are fewer than two samples or too many, or too few for a batch without replacement.
    """
    if not 2 <= samples < 2**24:
        raise ValueError(f"samples must lie between 2 and 2**24 - 1, got {samples}")
    if batch_size < 1 or (not replacement and batch_size > samples):
        raise ValueError(
            f"batch_size must be at least 1 and, without replacement, at most the {samples} samples, got {batch_size}"
        )
