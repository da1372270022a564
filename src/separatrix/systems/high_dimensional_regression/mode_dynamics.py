"""Training of linear students on given data sets, exact at all times from one eigendecomposition for each.

In the eigenvectors of ``X X^T`` gradient flow decouples: the distance of the student from the teacher along mode i is
``(p - z_0) e^{-l t} - (e / sqrt(l)) (1 - e^{-l t})``, p and z_0 the components of teacher and start, e that of the
noise along the mode's left vector. Descent with a finite step has ``(1 - step l)^k`` in the place of ``e^{-l t}``. All
errors are sums over modes of quadratic forms in the two factors; the weights themselves are never formed. Source:
Advani, Saxe 2017 (arXiv 1710.03667).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class Modes(NamedTuple):
    """What training does to a data set, in the eigenvectors of ``X X^T`` with positive eigenvalues.

    Attributes
    ----------
    eigenvalues
        ``(r,)``, positive; r = min(N, P).
    teacher, start
        ``(R, r)``: components of R teachers and R starts.
    noise
        ``(R, r)``: what fitting R label noises would add to the weights, ``e / sqrt(l)``.
    frozen_teacher, frozen_start, frozen_overlap
        ``(R,)``: squared norms of teacher and start outside the span of the data, and their inner product there.
    unfitted
        ``(R,)``: squared norm of the label noise that no weights can fit.
    """

    eigenvalues: Float[Array, " r"]
    teacher: Float[Array, "R r"]
    start: Float[Array, "R r"]
    noise: Float[Array, "R r"]
    frozen_teacher: Float[Array, " R"]
    frozen_start: Float[Array, " R"]
    frozen_overlap: Float[Array, " R"]
    unfitted: Float[Array, " R"]


def decompose(
    inputs: Float[Array, "N P"], teacher: Float[Array, "R N"], start: Float[Array, "R N"], noise: Float[Array, "R P"]
) -> Modes:
    """Modes of one data set; members are added with ``jax.lax.map``.

    The data must have full rank ``min(N, P)``, as Gaussian data have. Eigenvalues come from the smaller of the two Gram
    matrices and carry an error of 1e-16 times the largest.
    """
    N, P = inputs.shape
    if P <= N:
        eigenvalues, left = jnp.linalg.eigh(inputs.T @ inputs)
        root = jnp.sqrt(eigenvalues)
        along = lambda weights: (weights @ inputs) @ left / root  # noqa: E731
        fitted = noise @ left / root
    else:
        eigenvalues, right = jnp.linalg.eigh(inputs @ inputs.T)
        along = lambda weights: weights @ right  # noqa: E731
        fitted = (noise @ inputs.T) @ right / eigenvalues
    p, z = along(teacher), along(start)
    outside = lambda first, second, modes: jnp.sum(first * second, -1) - jnp.sum(modes, -1)  # noqa: E731
    return Modes(
        eigenvalues,
        p,
        z,
        fitted,
        jnp.maximum(outside(teacher, teacher, p * p), 0.0),
        jnp.maximum(outside(start, start, z * z), 0.0),
        outside(teacher, start, p * z),
        jnp.maximum(outside(noise, noise, eigenvalues * fitted * fitted), 0.0),
    )


class Courses(NamedTuple):
    """Mean over the R draws of teacher, start and noise.

    Attributes
    ----------
    distance
        ``|w* - w|^2``; over N, plus the noise variance, this is the test error.
    training
        Sum over samples of squared training errors.
    norm
        ``|w|^2``.
    """

    distance: Float[Array, "..."]
    training: Float[Array, "..."]
    norm: Float[Array, "..."]


def courses(
    modes: Modes,
    remaining: Float[Array, "... r"],
    gained: Float[Array, "... r"],
    noise_scale: Float[Array, "..."],
    start_scale: Float[Array, "..."],
) -> Courses:
    """Errors and norms when each mode still has the share ``remaining`` of its start and has learned ``gained``.

    Parameters
    ----------
    modes
        The data set.
    remaining, gained
        ``(..., r)``, adding to 1; the second apart because near the start ``1 - remaining`` has lost its digits.
    noise_scale, start_scale
        Factors of label noise and start, broadcast against the leading axes of ``remaining``.
    """
    a, b = start_scale, noise_scale
    mean = lambda first, second: jnp.mean(first * second, axis=0)  # noqa: E731
    p, z, e = modes.teacher, modes.start, modes.noise
    E2, EG, G2 = remaining * remaining, remaining * gained, gained * gained
    start_start, start_teacher, start_noise = E2 @ mean(z, z), E2 @ mean(p, z), EG @ mean(z, e)
    distance = (
        E2 @ mean(p, p) - 2 * a * start_teacher + a**2 * start_start
        - 2 * b * (EG @ mean(p, e) - a * start_noise) + b**2 * (G2 @ mean(e, e))
        + frozen_distance(modes, a)
    )  # fmt: skip
    # along a left vector the residual is sqrt(l) times what is left of the distance to the interpolating weights
    L2 = E2 * modes.eigenvalues
    training = (
        L2 @ mean(p, p) + a**2 * (L2 @ mean(z, z)) + b**2 * (L2 @ mean(e, e))
        + 2 * (b * (L2 @ mean(p, e)) - a * (L2 @ mean(p, z)) - a * b * (L2 @ mean(z, e)))
        + b**2 * jnp.mean(modes.unfitted)
    )  # fmt: skip
    norm = (
        G2 @ mean(p, p) + 2 * b * (G2 @ mean(p, e)) + b**2 * (G2 @ mean(e, e)) + a**2 * start_start
        + 2 * a * (EG @ mean(p, z) + b * start_noise) + a**2 * jnp.mean(modes.frozen_start)
    )  # fmt: skip
    return Courses(distance, training, norm)


def frozen_distance(modes: Modes, start_scale: Float[Array, "..."]) -> Float[Array, "..."]:
    """Squared distance from the teacher in the directions that training never changes."""
    return (
        jnp.mean(modes.frozen_teacher)
        - 2 * start_scale * jnp.mean(modes.frozen_overlap)
        + start_scale**2 * jnp.mean(modes.frozen_start)
    )


def flow_courses(
    modes: Modes, time: Float[Array, "..."], noise_scale: Float[Array, "..."], start_scale: Float[Array, "..."]
) -> Courses:
    """Courses of gradient flow at these times; scales broadcast against ``time``."""
    # beyond this squares are denormal numbers, with which a processor is a hundred times slower, and nothing is left
    exponent = time[..., None] * modes.eigenvalues
    remaining = jnp.where(exponent < 300, jnp.exp(-exponent), 0.0)
    return courses(modes, remaining, -jnp.expm1(-exponent), noise_scale, start_scale)


def descent_courses(
    modes: Modes,
    steps: Float[Array, "..."],
    learning_rate: Float[Array, ""],
    noise_scale: Float[Array, "..."],
    start_scale: Float[Array, "..."],
) -> Courses:
    """Courses of gradient descent after these numbers of steps; ``learning_rate`` times the eigenvalues is below 2."""
    factor = 1 - learning_rate * modes.eigenvalues
    # beyond 1 / eigenvalue the mode changes its sign at each step
    sign = jnp.where((factor < 0) & (steps[..., None] % 2 == 1), -1.0, 1.0)
    exponent = steps[..., None] * jnp.log(jnp.abs(factor))
    remaining = jnp.where(exponent > -300, sign * jnp.exp(exponent), 0.0)
    gained = jnp.where(sign > 0, -jnp.expm1(exponent), 1 - remaining)
    return courses(modes, remaining, gained, noise_scale, start_scale)


def ridge_distance(modes: Modes, penalty: Float[Array, "..."], noise_scale: Float[Array, "..."]) -> Float[Array, "..."]:
    """Squared distance of the ridge solution from the teacher, for each penalty."""
    share = modes.eigenvalues / (modes.eigenvalues + penalty[..., None])
    gap = (1 - share)[..., None, :] * modes.teacher - noise_scale[..., None, None] * share[..., None, :] * modes.noise
    return jnp.mean(jnp.sum(gap**2, -1), -1) + jnp.mean(modes.frozen_teacher)
