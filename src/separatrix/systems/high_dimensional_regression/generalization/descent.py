"""Descent step by step: exact courses hold for every data set, and frozen directions stay where they were (B6)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.high_dimensional_regression.generalization.linear import TIME, gaussian_inputs
from separatrix.systems.high_dimensional_regression.generalization.settings import Settings, descent_ratio
from separatrix.systems.high_dimensional_regression.gradient_descent import descend
from separatrix.systems.high_dimensional_regression.mode_dynamics import Courses, decompose, descent_courses

#: Data sets on which descent runs step by step.
MEMBERS = 10
#: Latest gradient-flow time of these runs.
LAST = 200.0
#: Weight decay of the control, which moves all directions.
DECAY = 0.01


def recorded_steps(settings: Settings) -> np.ndarray:
    """Numbers of steps that come nearest to the recorded times."""
    return np.unique(np.maximum(np.round(TIME[TIME <= LAST] / settings.learning_rate), 1)).astype(int)


@jax.jit
def _exact(
    inputs: Array, teacher: Array, start: Array, noise: Array, steps: Array, learning_rate: Array
) -> Courses:  # fmt: skip
    def one(member: tuple[Array, ...]) -> Courses:
        X, *weights = member
        modes = decompose(X, *(one[None] for one in weights))
        return descent_courses(modes, steps, learning_rate, jnp.ones(()), jnp.ones(()))

    return jax.lax.map(one, (inputs, teacher, start, noise))


def _simulate(settings: Settings, decay: float, start: int, stop: int) -> xr.Dataset:
    ratio, N = descent_ratio(settings), settings.dimension
    P, steps = settings.samples(ratio), recorded_steps(settings)
    spread = np.sqrt(settings.start_variances[-1])
    drawn = []
    for member in range(start, stop):
        rng = np.random.default_rng([settings.seed, 5, member])
        noise = np.sqrt(settings.noise_ratios[0]) * rng.normal(size=P)
        drawn.append((gaussian_inputs(rng, N, P), rng.normal(size=N), spread * rng.normal(size=N), noise))
    X, teacher, first, noise = (np.stack(one) for one in zip(*drawn, strict=True))
    labels = np.einsum("nip,ni->np", X, teacher) + noise
    weights = np.asarray(
        descend(X, labels, first, np.float64(settings.learning_rate), np.float64(decay),
                tuple(int(count) for count in np.diff(steps, prepend=0)))
    )  # fmt: skip
    exact = _exact(X, teacher, first, noise, steps.astype(np.float64), np.float64(settings.learning_rate))
    distance = np.sum((weights - teacher[:, None]) ** 2, axis=2)
    residuals = labels[:, None] - np.einsum("nti,nip->ntp", weights, X)
    training = np.sum(residuals**2, axis=2)
    gap = np.abs(distance / np.asarray(exact.distance) - 1)
    training_gap = np.abs(training - np.asarray(exact.training)) / np.asarray(exact.training)[:, :1]
    # the null space of X^T from a factorisation that the courses do not use
    span = np.linalg.qr(X)[0]
    motion = weights - first[:, None]
    frozen_motion = motion - np.einsum("nik,njk,ntj->nti", span, span, motion, optimize=True)
    variables = {
        "test_gap": ("member", gap.max(axis=1)),
        "training_gap": ("member", training_gap.max(axis=1)),
        "frozen_motion": ("member", np.linalg.norm(frozen_motion, axis=2).max(axis=1)),
    }
    return xr.Dataset(variables, {"member": np.arange(start, stop)})


def descent_experiments(settings: Settings) -> list[Experiment]:
    """Descent at one ratio, and for the control with weight decay."""
    N, P = settings.dimension, settings.samples(descent_ratio(settings))
    steps = LAST / settings.learning_rate
    cost = {
        "members": MEMBERS,
        "bytes_per_member": 8 * (6 * N * P + 4 * TIME.size * N),
        "seconds": 1.5 + MEMBERS * steps * 2e-9 * N * P,
    }
    return [
        Experiment("descent", partial(_simulate, settings, 0.0), **cost),
        Experiment("descent_decayed", partial(_simulate, settings, DECAY), control=True, **cost),
    ]


def frozen_subspace(settings: Settings, results: Results, experiment: str = "descent") -> list[Measurement]:
    """Largest motion along frozen directions, largest error of the exact courses, and the count of frozen features.

    Exact statements: the interval runs over all members.
    """
    data = results[experiment]
    measurements = []
    for name, words, bound in (
        ("frozen_motion", "motion of the weights outside the span of the data", 1e-10),
        ("test_gap", "relative error of the exact course, test error", 1e-10),
        ("training_gap", "error of the exact course over the first training error", 1e-10),
    ):
        values = data[name].values
        measurements.append(
            Measurement(words, values.max(), (values.min(), values.max()), (0.0, bound), members=values.size)
        )
    for width in settings.feature_widths:
        frozen = results[f"features_width{width}"]["frozen"].values
        off = frozen - max(width - settings.feature_samples, 0)
        measurements.append(
            Measurement(f"{width} features, frozen directions minus expected", off[np.abs(off).argmax()],
                        (off.min(), off.max()), (0.0, 0.0), members=off.size)
        )  # fmt: skip
    return measurements
