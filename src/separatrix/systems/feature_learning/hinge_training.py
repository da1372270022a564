"""Networks trained by SGD with the hinge loss until every training sample is fitted.

The function that learns is ``F = f(w, x) - f(w_0, x)``: the initial output is subtracted on training and test samples
alike. Loss per sample ``(1 / alpha - y F)_+``, so that a large alpha asks for a small change of the output (the lazy
regime) and a small one for features. A step of temperature ``T = learning rate / batch size`` adds ``T y grad f`` for
every unfitted sample of the batch. Source: Sclocchi, Geiger, Wyart 2023 (arXiv 2301.13703).
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from separatrix.engines.counter_normals import Keys
from separatrix.engines.ensemble import Arguments, State
from separatrix.engines.minibatches import sample_numbers
from separatrix.engines.stopping_ensemble import Progress, where_lanes
from separatrix.systems.feature_learning.hinge_networks import Answer, Network, squared_norm
from separatrix.systems.feature_learning.perceptron_sgd import check_batches

_BLOCK = 8  # steps whose batches are drawn together


@dataclass(frozen=True)
class HingeTraining:
    """SGD on P samples until all are fitted (a :class:`separatrix.engines.stopping_ensemble.StoppedIteration`).

    State: ``weights`` of the network and ``initial_output``, ``(n, P)``.

    Shared arguments: ``inputs`` ``(N, d)`` and ``labels`` ``(N,)`` of all samples there are, ``rows`` ``(sets, P)`` and
    ``test_rows`` ``(sets, Q)``, the numbers of the samples of each training and test set (int32). Own arguments:
    ``data_set`` (int32), ``start_key`` ``(n, 2)`` (uint32, of the initial weights), ``alpha`` and ``temperature``.

    Attributes
    ----------
    network
        The architecture.
    samples, batch_size
        P, below ``2**24``, and B.
    replacement
        Draw each batch with replacement, or as distinct samples.
    lanes
        Networks on one device.
    """

    network: Network
    samples: int
    batch_size: int
    replacement: bool = True
    lanes: int = 16

    def __post_init__(self) -> None:
        check_batches(self.samples, self.batch_size, self.replacement)

    def _initial_weights(self, arguments: Arguments) -> tuple[Array, ...]:
        first, second = arguments["start_key"].T
        return self.network.start((first, second), arguments["inputs"].shape[1])

    def _over(self, weights: tuple[Array, ...], arguments: Arguments, rows: Array, consume, total):
        """Fold ``consume(total, answer, labels, where)`` over samples, in blocks of one batch.

        With the very shapes of a training step a sample's output has the same bits here and there: whether it is fitted
        is decided once.
        """
        size = min(self.batch_size, rows.shape[1])

        def fold(i: Array, total):
            # The last block may overlap the one before.
            begin = jnp.minimum(i * size, rows.shape[1] - size)
            block = jax.lax.dynamic_slice_in_dim(rows, begin, size, axis=1)
            answer = self.network.outputs(weights, arguments["inputs"][block])
            return consume(total, answer, arguments["labels"][block], begin)

        return jax.lax.fori_loop(0, -(-rows.shape[1] // size), fold, total)

    def _collect(self, weights: tuple[Array, ...], arguments: Arguments, rows: Array) -> Float[Array, "n k"]:
        """Outputs for the samples in ``rows``, ``(n, k)``."""

        def put(total: Array, answer: Answer, _: Array, begin: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(total, answer.output, begin, axis=1)

        return self._over(weights, arguments, rows, put, jnp.zeros(rows.shape, arguments["inputs"].dtype))

    def start(self, keys: Keys, arguments: Arguments) -> State:
        """Random weights and their outputs for the training samples."""
        del keys
        weights = self._initial_weights(arguments)
        rows = arguments["rows"][arguments["data_set"]]
        return {"weights": weights, "initial_output": self._collect(weights, arguments, rows)}

    def __call__(
        self, state: State, keys: Keys, step: Array, live: Bool[Array, " n"], arguments: Arguments
    ) -> Progress:
        """Eight steps."""
        drawn = sample_numbers(
            keys, step // _BLOCK, _BLOCK, self.batch_size, self.samples, replacement=self.replacement
        )
        rows, margin = arguments["rows"], 1 / arguments["alpha"][:, None]
        initial = state["initial_output"]

        def one(k: Array, carry: tuple) -> tuple:
            weights, moved, lost = carry
            chosen = drawn[k].T
            block = rows[arguments["data_set"][:, None], chosen]
            y, before = arguments["labels"][block], jnp.take_along_axis(initial, chosen, axis=1)
            active = live & (lost == 0)

            def respond(output: Array) -> Array:
                unfitted = (y * (output - before) < margin) & active[:, None]
                return jnp.where(unfitted, arguments["temperature"][:, None] * y, 0)

            weights, answer = self.network.step(weights, arguments["inputs"][block], respond)
            moves = jnp.any((respond(answer.output) != 0) & answer.responsive, axis=1)
            finite = jnp.all(jnp.isfinite(answer.output), axis=1)
            moved = jnp.where(moves, k + 1, moved)
            return weights, moved, jnp.where(active & ~finite, k + 1, lost)

        nothing = jnp.zeros(live.shape, jnp.int32)
        weights, moved, lost = jax.lax.fori_loop(0, _BLOCK, one, (state["weights"], nothing, nothing))
        weights = where_lanes(live, weights, state["weights"])
        steps = jnp.full(live.shape, _BLOCK, jnp.int32)
        return Progress({"weights": weights, "initial_output": initial}, steps, moved, lost)

    def _fold_training_set(self, state: State, arguments: Arguments, combine, total):
        """Fold ``combine(total, fitted, answer)`` over the blocks of the training set."""
        data_set, margin = arguments["data_set"], 1 / arguments["alpha"][:, None]

        def judge(total, answer: Answer, labels: Array, begin: Array):
            before = jax.lax.dynamic_slice_in_dim(state["initial_output"], begin, labels.shape[1], axis=1)
            return combine(total, labels * (answer.output - before) >= margin, answer)

        return self._over(state["weights"], arguments, arguments["rows"][data_set], judge, total)

    def settled(self, state: State, arguments: Arguments) -> Bool[Array, " n"]:
        """Whether every training sample is fitted or, its units all inactive, has no gradient."""
        return self._fold_training_set(
            state,
            arguments,
            lambda total, fitted, answer: total & jnp.all(fitted | ~answer.responsive, axis=1),
            jnp.ones(arguments["data_set"].shape, bool),
        )

    def observe(self, state: State, keys: Keys, arguments: Arguments) -> dict[str, Array]:
        """Test error, relative change of the weights ``|w - w_0| / |w_0|``, their norm at the end and the start,
        whether all training samples are ``fitted``.
        """
        del keys
        weights, initial = state["weights"], self._initial_weights(arguments)
        rows = arguments["test_rows"][arguments["data_set"]]
        learned = self._collect(weights, arguments, rows) - self._collect(initial, arguments, rows)
        wrong = arguments["labels"][rows] * learned <= 0
        change = squared_norm(jax.tree.map(jnp.subtract, weights, initial))
        start = jnp.sqrt(squared_norm(initial))
        everyone = jnp.ones(rows.shape[:1], bool)
        fitted = self._fold_training_set(state, arguments, lambda all_, now, _: all_ & jnp.all(now, axis=1), everyone)
        return {
            "fitted": fitted,
            "test_error": jnp.mean(wrong.astype(learned.dtype), axis=1),
            "weight_change": jnp.sqrt(change) / start,
            "weight_norm": jnp.sqrt(squared_norm(weights)),
            "start_norm": start,
        }
