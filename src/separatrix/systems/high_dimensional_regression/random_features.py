"""Random ReLU features: a first layer that stays as it was drawn, and a second that is trained.

Training the second layer from zero is linear regression on the features: with more features than samples ``N_h - P``
directions are frozen, and the smallest positive eigenvalue of ``H^T H / P`` is smallest where the two numbers are
equal. Source: Advani, Saxe 2017 (arXiv 1710.03667). The task, a noisy two-layer ReLU teacher, also serves the student
of :mod:`.relu_student`, which trains both layers.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from separatrix.systems.high_dimensional_regression.sample_course import SampleCourse, sample_course


@dataclass(frozen=True)
class ReluTask:
    """Noisy samples of a random two-layer ReLU teacher, scaled so that clean labels have unit variance.

    Attributes
    ----------
    inputs, labels
        ``(P, N_i)`` standard normal inputs, and ``(P,)`` labels with noise.
    test_inputs, test_labels
        ``(T, N_i)`` and ``(T,)``, the labels without noise: test errors here leave the noise out.
    """

    inputs: Float[np.ndarray, "P N_i"]
    labels: Float[np.ndarray, " P"]
    test_inputs: Float[np.ndarray, "T N_i"]
    test_labels: Float[np.ndarray, " T"]


def relu_task(
    rng: np.random.Generator, inputs: int, teacher_width: int, samples: int, test_samples: int, label_noise: float
) -> ReluTask:
    """Draw teacher (first layer of variance ``1 / N_i``, second of variance 1), samples and label noise.

    ``label_noise`` is its standard deviation, in units of that of the clean labels.
    """
    first = rng.normal(size=(teacher_width, inputs)) / np.sqrt(inputs)
    second = rng.normal(size=teacher_width)
    x, test_x = rng.normal(size=(samples, inputs)), rng.normal(size=(test_samples, inputs))
    clean, test = (np.maximum(one @ first.T, 0) @ second for one in (x, test_x))
    scale = test.std()
    return ReluTask(x, clean / scale + label_noise * rng.normal(size=samples), test_x, test / scale)


def random_layer(rng: np.random.Generator, width: int, inputs: int) -> Float[np.ndarray, "N_h N_i"]:
    """Weights of the random first layer, of variance ``1 / N_i``."""
    return rng.normal(size=(width, inputs)) / np.sqrt(inputs)


def features(layer: Float[Array, "N_h N_i"], inputs: Float[Array, "P N_i"]) -> Float[Array, "P N_h"]:
    """``relu(X J^T) / sqrt(N_h)``."""
    return jnp.maximum(inputs @ layer.T, 0) / np.sqrt(layer.shape[0])


@jax.jit
def feature_courses(
    layer: Float[Array, "n N_h N_i"],
    inputs: Float[Array, "n P N_i"],
    labels: Float[Array, "n P"],
    test_inputs: Float[Array, "n T N_i"],
    test_labels: Float[Array, "n T"],
    time: Float[Array, " t"],
) -> SampleCourse:
    """Exact courses of the second layers of n students.

    ``time`` is gradient-flow time of half the *mean* of squared errors, as the paper's eigenvalues of ``H^T H / P``
    suggest; the eigenvalues that come back are of that matrix.
    """

    def one(member: tuple[Array, ...]) -> SampleCourse:
        J, x, y, test_x, test_y = member
        scale = 1 / np.sqrt(x.shape[0])
        course = sample_course(scale * features(J, x), scale * y[:, None], features(J, test_x), test_y[:, None], time)
        # squares that already carry 1/P were averaged over P
        return course._replace(training=course.training * x.shape[0])

    return jax.lax.map(one, (layer, inputs, labels, test_inputs, test_labels))
