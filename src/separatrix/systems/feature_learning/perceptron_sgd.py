"""The perceptron under SGD with the hinge loss: on fresh samples for ever, and on P samples until all are fitted.

``f = w . x / sqrt(d)``, loss ``(m - y f)_+`` per sample, ``w_0 = 0``. A step of temperature ``T = learning rate / batch size``
adds ``T y x / sqrt(d)`` for every unfitted sample of the batch; a batch without one changes nothing. Source: Sclocchi,
Geiger, Wyart 2023 (arXiv 2301.13703), the perceptron.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from separatrix.engines.counter_normals import Keys, normals
from separatrix.engines.ensemble import Arguments, State, noise_block
from separatrix.engines.minibatches import sample_numbers
from separatrix.engines.stopping_ensemble import Progress

_PERPENDICULAR, _DISTANCE = 0, 1  # streams of random numbers
_TEST_BLOCK = 128  # samples whose fit is tested at once


@dataclass(frozen=True)
class OnlinePerceptron:
    """SGD on fresh samples of the depleted-sign task (a :class:`separatrix.engines.ensemble.Step`).

    State ``{"signal": (n,), "perpendicular": (d - 1, n)}``; arguments ``temperature`` and ``margin``. Labels are folded
    into the inputs: ``y x`` has the first component ``|x_1|`` and Gaussian others.

    Attributes
    ----------
    dimension
        d, at least 2.
    batch_size
        B.
    chi
        Exponent of the depletion, an integer of at least 0: ``|x_1|`` is then the length of ``1 + chi`` Gaussian numbers.
    """

    dimension: int
    batch_size: int
    chi: int

    def __post_init__(self) -> None:
        if self.dimension < 2 or self.batch_size < 1 or self.chi < 0:
            raise ValueError(
                f"dimension must be at least 2, batch_size at least 1 and chi at least 0, got {self.dimension}, "
                f"{self.batch_size} and {self.chi}"
            )

    @property
    def block(self) -> int:
        """Steps drawn together."""
        return noise_block(self.batch_size * (self.dimension + self.chi))

    def draw(self, keys: Keys, block: Array) -> dict[str, Array]:
        """Perpendicular inputs ``(block, d - 1, B, n)`` and distances ``(block, B, n)``."""
        shape = (self.block, self.dimension - 1, self.batch_size, -1)
        across = normals(keys, block, int(np.prod(shape[:3])), stream=_PERPENDICULAR).reshape(shape)
        shape = (self.block, self.chi + 1, self.batch_size, -1)
        along = normals(keys, block, int(np.prod(shape[:3])), stream=_DISTANCE).reshape(shape)
        return {"perpendicular": across, "distance": jnp.sqrt(jnp.sum(along**2, axis=1))}

    def __call__(self, state: State, noise: dict[str, Array], t: Array, arguments: Arguments) -> State:
        """One step."""
        del t
        signal, across = state["signal"], state["perpendicular"]
        root = jnp.sqrt(jnp.asarray(self.dimension, signal.dtype))
        x, r = noise["perpendicular"].astype(signal.dtype), noise["distance"].astype(signal.dtype)
        output = (signal * r + jnp.sum(across[:, None] * x, axis=0)) / root
        kick = arguments["temperature"] / root * (output < arguments["margin"])
        return {
            "signal": signal + jnp.sum(kick * r, axis=0),
            "perpendicular": across + jnp.sum(kick * x, axis=1),
        }


def online_state(members: int, dimension: int, dtype: str = "float32") -> State:
    """All members at the start, ``w = 0``."""
    return {"signal": np.zeros(members, dtype), "perpendicular": np.zeros((dimension - 1, members), dtype)}


def observe_order_parameters(state: State, arguments: Arguments) -> dict[str, Array]:
    """Signal and noise of every member, ``(n,)`` each."""
    del arguments
    return {"signal": state["signal"], "noise": jnp.sqrt(jnp.sum(state["perpendicular"] ** 2, axis=0))}


@dataclass(frozen=True)
class StoppedPerceptron:
    """SGD on P samples until all are fitted (a :class:`separatrix.engines.stopping_ensemble.StoppedIteration`).

    State: weights ``(n, d)``. Shared argument ``samples``, ``(sets, P, d)`` float32: data sets as ``y x / sqrt(d)``. Own
    arguments: ``data_set`` (int32), ``temperature`` and ``margin`` (float32).

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
