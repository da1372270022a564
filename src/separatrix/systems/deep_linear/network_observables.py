"""What is recorded of a simulated network: exact functions of its weights, evaluated inside the compiled run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
from jaxtyping import Array

from separatrix.engines.ensemble import Arguments, State
from separatrix.systems.deep_linear.dataset_noise import (
    FourthMoments,
    dataset_noise_traces,
    mode_diffusion_from_moments,
)
from separatrix.systems.deep_linear.gradient_noise import layer_product, mean_gradient, noise_traces
from separatrix.systems.deep_linear.modewise import ModeMoments, mode_moments
from separatrix.systems.deep_linear.network_simulation import member_weights


@dataclass(frozen=True)
class NetworkObserver:
    """Records the named quantities; ``observer(state, arguments)`` -> ``{name: (..., n)}``.

    Attributes
    ----------
    names
        Any of :data:`QUANTITIES`.
    modes
        Number of leading modes to follow.
    """

    names: tuple[str, ...]
    modes: int

    def __post_init__(self) -> None:
        unknown = sorted(set(self.names) - set(QUANTITIES))
        if unknown:
            raise ValueError(f"names must be among {sorted(QUANTITIES)}, got {unknown}")

    def __call__(self, state: State, arguments: Arguments) -> dict[str, Array]:
        """The recorded quantities, members last."""
        view = _View(state, arguments, self.modes)
        return {name: jnp.moveaxis(QUANTITIES[name](view), 0, -1) for name in self.names}


class _View:
    """Weights of all members with the teacher beside them, in the teacher's frame."""

    def __init__(self, state: State, arguments: Arguments, modes: int):
        self.state, self.arguments, self.modes = state, arguments, modes
        self.weights = member_weights(state)
        dtype = self.weights[0].dtype
        d_out, d_in = self.weights[-1].shape[-2], self.weights[0].shape[-1]
        s = arguments["singular_values"]
        self.teacher = jnp.zeros((d_out, d_in), dtype).at[jnp.arange(s.size), jnp.arange(s.size)].set(s.astype(dtype))
        self.left, self.right = jnp.eye(d_out, modes, dtype=dtype), jnp.eye(d_in, modes, dtype=dtype)
        self.product = layer_product(self.weights)
        self.label_noise = arguments.get("label_noise", 0.0)
        self.leading = self.product[:, :modes, :modes]

    def diagonal(self, matrices: Array) -> Array:
        return jnp.diagonal(matrices, axis1=-2, axis2=-1)

    @cached_property
    def moments(self) -> ModeMoments:
        return mode_moments(self.weights, self.teacher, self.left, self.right, self.label_noise)

    def data(self):
        dtype = self.weights[0].dtype
        return self.arguments["inputs"].astype(dtype), self.arguments["outputs"].astype(dtype)


def _off_diagonal(view: _View) -> Array:
    crossed = view.leading * (1 - jnp.eye(view.modes, dtype=view.leading.dtype))
    return jnp.sqrt(jnp.sum(crossed**2, axis=(-2, -1)) / max(view.modes * (view.modes - 1), 1))


def _imbalance(view: _View) -> Array:
    gaps = [
        jnp.sqrt(jnp.sum((after.mT @ after - before @ before.mT) ** 2, axis=(-2, -1)))
        for before, after in zip(view.weights[:-1], view.weights[1:], strict=True)
    ]
    return jnp.max(jnp.stack(gaps), axis=0)


def _norm(matrices: Array) -> Array:
    return jnp.sqrt(jnp.sum(matrices**2, axis=(-2, -1)))


QUANTITIES: dict[str, Callable[[_View], Array]] = {
    # mode strengths w_aa, (r,)
    "strength": lambda v: v.diagonal(v.leading),
    # strengths of the scalar chains on the same samples, (r,)
    "reduced_strength": lambda v: v.state["roots"].T ** len(v.weights),
    # w_ab, (r, r)
    "strength_matrix": lambda v: v.leading,
    # gradient-flow speed and variance rate S_aa of w_aa, Gaussian inputs, (r,)
    "flow": lambda v: v.diagonal(v.moments.flow),
    "variance_rate": lambda v: v.diagonal(v.moments.variance_rate),
    # the same over the fixed data set, (r,)
    "dataset_variance_rate": lambda v: mode_diffusion_from_moments(
        v.weights, v.teacher, FourthMoments(v.arguments["fourth_moments"]), v.left, v.right
    ),
    # trace of the one-sample gradient covariance, (L,)
    "noise_trace": lambda v: noise_traces(v.weights, v.teacher, v.label_noise),
    "dataset_noise_trace": lambda v: dataset_noise_traces(v.weights, *v.data()),
    # |grad L|, ()
    "gradient_norm": lambda v: jnp.sqrt(sum(_norm(g) ** 2 for g in mean_gradient(v.weights, v.teacher))),
    # |M - W|^2 / 2, ()
    "loss": lambda v: 0.5 * _norm(v.teacher - v.product) ** 2,
    # |M - W|, ()
    "distance": lambda v: _norm(v.teacher - v.product),
    # root mean square of w_ab, a != b, ()
    "off_diagonal": _off_diagonal,
    # max over l of |W_{l+1}^T W_{l+1} - W_l W_l^T|, ()
    "imbalance": _imbalance,
    # tr W_l W_l^T, (L,)
    "layer_norms": lambda v: jnp.stack([_norm(w) ** 2 for w in v.weights], axis=-1),
}
