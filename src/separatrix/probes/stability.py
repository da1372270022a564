"""How far training is from the edge of stability: largest curvature against what the step size can bear."""

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from separatrix.probes.eigenpairs import eigenpairs
from separatrix.probes.estimates import Estimate, mean_of
from separatrix.probes.matrices import SymmetricMatrix
from separatrix.probes.operators import Array, ModelOperators, ProbeError


def gradient_descent_threshold(learning_rate: float, momentum: float = 0.0) -> float:
    """Curvature above which gradient descent is unstable on a quadratic: ``2 (1 + momentum) / learning_rate``.

    Momentum is the heavy ball ``v <- momentum v + g, x <- x - learning_rate v`` (Polyak 1964; Cohen et al. 2021).

    Raises
    ------
    ProbeError
        If the learning rate is not positive, or the momentum not in [0, 1).
    """
    if not learning_rate > 0:
        raise ProbeError(f"learning_rate must be positive, got {learning_rate}")
    if not 0 <= momentum < 1:
        raise ProbeError(f"momentum must lie in [0, 1), got {momentum}")
    return 2 * (1 + momentum) / learning_rate


def fluctuating_threshold(learning_rate: float, momentum: float = 0.0) -> float:
    """Curvature below which SGD is stable however the curvature changes from batch to batch: ``2 (1 - momentum) / lr``.

    On a parabola whose curvature h is drawn anew at every step the mean square of the heavy ball decays if and only if
    ``(1 - momentum) / (1 + momentum) E[h] + Var[h] / E[h] < 2 (1 - momentum) / learning_rate``. A constant h gives
    :func:`gradient_descent_threshold`; the left side never exceeds ``E[h^2] / E[h]``, hence not the largest of the h,
    provided that none is negative, and reaches it for rare large ones. Derived; without momentum the condition is that
    of Wu, Ma and E (NeurIPS 2018).

    Raises
    ------
    ProbeError
        As of :func:`gradient_descent_threshold`.
    """
    return gradient_descent_threshold(learning_rate, momentum) * (1 - momentum) / (1 + momentum)


def adam_threshold(learning_rate: float, beta1: float = 0.9) -> float:
    """Preconditioned curvature above which Adam with a frozen preconditioner is unstable (Cohen et al. 2022).

    ``2 (1 + beta1) / ((1 - beta1) learning_rate)``, 38 / learning_rate for beta1 = 0.9: Adam averages gradients, so its
    step is the heavy ball's with the learning rate ``(1 - beta1) learning_rate``.

    Raises
    ------
    ProbeError
        If the learning rate is not positive, or beta1 not in [0, 1).
    """
    return gradient_descent_threshold(learning_rate, beta1) / (1 - beta1)


def adam_diagonal(second_moments: Array, step: int, beta2: float = 0.999, epsilon: float = 1e-8) -> Array:
    """Adam's preconditioner ``sqrt(v / (1 - beta2^step)) + epsilon``, for :func:`.matrices.preconditioned`.

    Parameters
    ----------
    second_moments
        Running mean of squared gradients, ``(P,)``: ``model.flatten`` of the optimizer's state.
    step
        Number of updates so far, at least 1.
    beta2, epsilon
        As given to the optimizer.

    Raises
    ------
    ProbeError
        If the step is less than 1.
    """
    if step < 1:
        raise ProbeError(f"step must be at least 1, got {step}")
    return (second_moments / (1 - beta2**step)) ** 0.5 + epsilon


@dataclass(frozen=True, eq=False)
class StabilityMargin:
    """Sharpness against the threshold of the optimizer.

    Attributes
    ----------
    sharpness
        Largest eigenvalue of the (preconditioned) Hessian.
    residual
        Its residual norm: an eigenvalue lies this close.
    threshold
        Largest stable curvature.
    direction
        Unit eigenvector, ``(P,)``; a good start for the next measurement.
    products
        Products with the matrix.
    converged
        Whether the residual is at most the tolerance, relative to the sharpness.
    """

    sharpness: float
    residual: float
    threshold: float
    direction: Array
    products: int
    converged: bool

    @property
    def distance(self) -> float:
        """Threshold less sharpness: negative beyond the edge."""
        return self.threshold - self.sharpness

    @property
    def ratio(self) -> float:
        """Sharpness over threshold: 1 at the edge."""
        return self.sharpness / self.threshold

    @property
    def ratio_error(self) -> float:
        """Residual over threshold: what the ratio may be off by."""
        return self.residual / self.threshold


def stability_margin(
    matrix: SymmetricMatrix,
    threshold: float,
    *,
    tolerance: float = 1e-3,
    start: Array | None = None,
    seed: int = 0,
) -> StabilityMargin:
    """Distance to the edge of stability.

    Parameters
    ----------
    matrix
        Hessian of the loss, or the preconditioned one.
    threshold
        Of :func:`gradient_descent_threshold` or :func:`adam_threshold`.
    tolerance, start, seed
        As of :func:`.eigenpairs.eigenpairs`.
    """
    pair = eigenpairs(matrix, 1, tolerance=tolerance, start=start, seed=seed)
    return StabilityMargin(
        float(pair.values[0]), float(pair.residuals[0]), threshold, pair.vectors[0], pair.products, pair.converged
    )


def batch_sharpness(
    model: ModelOperators, batch_size: int, batches: int = 50, *, tolerance: float = 0.05, seed: int = 0
) -> Estimate:
    """Curvature of mini-batch losses along their own gradients, ``E_B[g_B^T H_B g_B / g_B^T g_B]``.

    Stochastic gradient descent with that batch size settles where it is ``2 / learning_rate``, as full-batch descent
    does with the sharpness (Andreyev and Beneventano 2024). Mini-batches are drawn without replacement within, and
    independently of each other.

    Parameters
    ----------
    model
        The model.
    batch_size
        Examples of a mini-batch, at most N.
    batches
        Mini-batches, at least 2: a gradient and a Hessian product each.
    tolerance
        Relative standard error from which on the estimate counts as converged.
    seed
        Of the mini-batches.

    Raises
    ------
    ProbeError
        If the sizes cannot be used, the loss is not a mean over examples, or a mini-batch has no gradient.
    """
    if not 1 <= batch_size <= model.examples:
        raise ProbeError(f"batch_size must lie between 1 and the number of examples {model.examples}, got {batch_size}")
    if batches < 2:
        raise ProbeError(f"a standard error needs at least 2 batches, got {batches}")
    samples = []
    for number in range(batches):
        chosen = np.random.default_rng([seed, number]).choice(model.examples, batch_size, replace=False)
        part = model.subset(np.sort(chosen))
        gradient = part.gradient()
        xp = array_namespace(gradient)
        square = float(xp.sum(gradient * gradient))
        if not square > 0:
            raise ProbeError(f"mini-batch {number} has no gradient: the curvature along it is not defined")
        unit = gradient / square**0.5
        samples.append(float(xp.sum(unit * part.hvp(unit))))
    return mean_of(samples, 2 * batches, tolerance)
