"""Training of a linear readout on given samples, measured on other samples: exact courses from one decomposition.

Where inputs are real data or random features the population is known only through test samples. The same modes as in
:mod:`.mode_dynamics`, here with predictions on the test samples in the place of distances in weight space.

Members are mapped one after the other, not batched: a batched decomposition spreads over the threads of the CPU client
and waits for them, and two programs that do so at the same time wait for each other for ever (jaxlib 0.10). Parts of a
run computed side by side fill the cores anyway.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

#: Singular values at or below this share of the largest are zeros that were rounded. It must be relative and far below
#: the smallest singular value of a square random matrix, or the peak where features and samples are equal in number is
#: silently removed.
ZERO = 1e-12


class SampleCourse(NamedTuple):
    """Course of one training from zero weights.

    Attributes
    ----------
    test, training
        ``(t,)``: squared errors summed over outputs, means over samples.
    final_test
        Test error at the end of training.
    eigenvalues
        ``(r,)``: of ``H H^T``, decreasing, ``r = min(P, N)``; zero beyond the rank.
    directions
        ``(r, N)``: unit vectors in feature space.
    rank
        Number of positive eigenvalues; N minus it is the number of frozen directions.
    """

    test: Float[Array, " t"]
    training: Float[Array, " t"]
    final_test: Float[Array, ""]
    eigenvalues: Float[Array, " r"]
    directions: Float[Array, "r N"]
    rank: Int[Array, ""]


def sample_course(
    features: Float[Array, "P N"],
    labels: Float[Array, "P k"],
    test_features: Float[Array, "T N"],
    test_labels: Float[Array, "T k"],
    time: Float[Array, " t"],
) -> SampleCourse:
    """Gradient flow of half the sum of squared errors, started at zero; members are added with ``jax.lax.map``."""
    left, singular, directions = jnp.linalg.svd(features, full_matrices=False)
    kept = singular > ZERO * singular[0]
    inverse = jnp.where(kept, 1 / jnp.where(kept, singular, 1.0), 0.0)
    eigenvalues = jnp.where(kept, singular**2, 0.0)
    along = left.T @ labels
    gained = -jnp.expm1(-time[:, None] * eigenvalues)
    # one matrix product for all times and outputs, and the end of training as the last time
    shares = jnp.concatenate([gained, jnp.ones_like(gained[:1])])
    weights = shares.T[:, :, None] * (inverse[:, None] * along)[:, None]
    predicted = (test_features @ directions.T) @ weights.reshape(len(singular), -1)
    gap = predicted.reshape(len(test_labels), len(shares), -1) - test_labels[:, None]
    errors = jnp.sum(gap**2, axis=(0, 2)) / len(test_labels)
    unfitted = jnp.maximum(jnp.sum(labels**2) - jnp.sum(along**2), 0.0)
    training = ((1 - gained) ** 2) @ jnp.sum(along**2, axis=1) + unfitted
    return SampleCourse(
        errors[:-1],
        training / labels.shape[0],
        errors[-1],
        eigenvalues,
        directions,
        jnp.sum(kept),
    )
