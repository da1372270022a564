"""A real data set as a regression problem of the theory: whitened inputs, its own least-squares map as the teacher.

Inputs are centred and their leading principal components whitened, so that over the whole data set they have variance
``1/N`` in every direction, as the theory's inputs have. A training set of P samples drawn from it has a spectrum of its
own, which need not be Marchenko and Pastur's: :func:`measured_spectrum` gives it to the learning curves, with the power
of the teacher in each of its modes. What the least-squares map does not explain acts as label noise beside the noise
that is added.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float

from separatrix.systems.high_dimensional_regression.sample_course import SampleCourse, sample_course
from separatrix.systems.high_dimensional_regression.spectrum import Spectrum

#: Principal components whose variance is at or below this share of the largest cannot be whitened.
FLAT = 1e-10


@dataclass(frozen=True, eq=False)
class DatasetProblem:
    """A data set in the units of the theory.

    Attributes
    ----------
    inputs
        ``(M, N)``, mean zero and covariance ``I / N`` over the M samples.
    outputs
        ``(M, k)``, mean zero, scaled so that the teacher has one unit of power for each parameter.
    teacher
        ``(N, k)``: least-squares map over all samples, ``|teacher|^2 = N``.
    residual_variance
        Mean over samples of the squared residual, summed over outputs.
    """

    inputs: Float[np.ndarray, "M N"]
    outputs: Float[np.ndarray, "M k"]
    teacher: Float[np.ndarray, "N k"]
    residual_variance: float


def dataset_problem(
    inputs: Float[np.ndarray, "M d"], outputs: Float[np.ndarray, "M k"], components: int
) -> DatasetProblem:
    """Whiten the leading ``components`` of the inputs and scale the outputs.

    Raises
    ------
    ValueError
        If the inputs have fewer components with variance, or outputs and components are not correlated: one sentence.
    """
    x, y = inputs - inputs.mean(axis=0), outputs - outputs.mean(axis=0)
    samples = x.shape[0]
    # the Gram matrix of the inputs, not the data: tens of thousands of samples have few inputs
    variances, directions = (array[..., ::-1] for array in np.linalg.eigh(x.T @ x))
    varying = int(np.sum(variances > FLAT * variances[0])) if variances[0] > 0 else 0
    if components > varying:
        raise ValueError(
            f"components must be at most {varying}, the principal components with variance, got {components}"
        )
    white = x @ directions[:, :components] * np.sqrt(samples / components / variances[:components])
    teacher = components / samples * white.T @ y
    power = np.sum(teacher**2) / components
    if power <= 1e-12 * np.mean(y**2):
        raise ValueError("the outputs are not correlated with these components, so that there is nothing to learn")
    y, teacher = y / np.sqrt(power), teacher / np.sqrt(power)
    return DatasetProblem(white, y, teacher, float(np.mean(np.sum((y - white @ teacher) ** 2, axis=1))))


@jax.jit
def dataset_courses(
    inputs: Float[Array, "n P N"],
    labels: Float[Array, "n P k"],
    test_inputs: Float[Array, "n T N"],
    test_labels: Float[Array, "n T k"],
    time: Float[Array, " t"],
) -> SampleCourse:
    """Exact courses on n training sets, started at zero weights, with the test error on other samples."""

    def one(member: tuple[Array, Array, Array, Array]) -> SampleCourse:
        x, y, test_x, test_y = member
        return sample_course(x, y, test_x, test_y, time)

    return jax.lax.map(one, (inputs, labels, test_inputs, test_labels))


def measured_spectrum(
    eigenvalues: Float[np.ndarray, " r"], power: Float[np.ndarray, " r"], parameters: int, samples: int
) -> Spectrum:
    """Spectrum of one training set.

    Parameters
    ----------
    eigenvalues
        ``(r,)``: of ``X X^T``, zeros at the end allowed.
    power
        ``(r,)``: power of the teacher along each direction, summed over outputs; over all N directions it sums to N.
    parameters, samples
        N and P.
    """
    kept = eigenvalues > 0
    rank = int(kept.sum())
    frozen_power = (parameters - power[kept].sum()) / (parameters - rank) if rank < parameters else 1.0
    return Spectrum(
        eigenvalues[kept], np.full(rank, 1 / parameters), 1 - rank / parameters, samples / parameters, power[kept],
        max(float(frozen_power), 0.0),
    )  # fmt: skip
