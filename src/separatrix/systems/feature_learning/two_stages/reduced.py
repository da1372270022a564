"""The mathematics behind the stages: exact decomposition (L1), reduced dynamics (L6), collapse of courses (L7)."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, bootstrap, mean_interval
from separatrix.lab import Experiment, Measurement, Results, diverged_fraction
from separatrix.systems.feature_learning import patch_network as network
from separatrix.systems.feature_learning.signal_noise_decomposition import (
    descend_in_coefficients,
    gram_task,
    reconstruct_weights,
    stack_tasks,
    without_cross_products,
)
from separatrix.systems.feature_learning.two_stage_theory import ReducedCourse, reduced_course
from separatrix.systems.feature_learning.two_stages.networks import (
    Cell,
    experiment,
    kept_members,
    mean_among,
    nearest,
)
from separatrix.systems.feature_learning.two_stages.settings import Settings

# -- the decomposition ------------------------------------------------------------------------------------------------

#: Sizes of the networks whose weights are also trained explicitly.
SMALL = {"samples": 40, "dimension": 200, "width": 10}
STEPS = np.array([0, 1, 3, 10, 30, 100, 300])
_RATE, _KAPPA, _NOISE, _START, _MEMBERS = 0.1, 4.0, 0.2, 1e-3, 8


def simulate_identity(settings: Settings, start: int, stop: int) -> xr.Dataset:
    """Largest difference between explicit weights and those of the decomposition, exact and without cross products."""
    between = tuple(np.diff(STEPS, prepend=0).tolist())
    drawn, explicit = [], []
    for member in range(start, stop):
        rng = np.random.default_rng([settings.seed, 3, member])
        data = network.draw_patch_data(rng, SMALL["samples"], SMALL["dimension"], _KAPPA, _NOISE, _NOISE)
        weights = network.initial_weights(rng, SMALL["width"], SMALL["dimension"], _START)
        drawn.append((data, weights, gram_task(data, weights, 4, 1.0, (_NOISE, _NOISE), rng)))
        arguments = (weights, data.signal, data.true_labels, data.noise, data.labels, np.float64(_RATE))
        explicit.append(np.asarray(network.descend(*arguments, between)))
    tasks = stack_tasks([task for _, _, task in drawn])
    variables: dict[str, Any] = {"diverged_at_step": ("member", np.full(stop - start, -1))}
    for name, chosen in (("difference", tasks), ("difference_without_cross_products", without_cross_products(tasks))):
        records = descend_in_coefficients(chosen, np.full(stop - start, _RATE), STEPS, 2, keep_coefficients=True)
        rebuilt = [
            reconstruct_weights(data, weights, coefficients)
            for (data, weights, _), coefficients in zip(drawn, records.coefficients, strict=True)
        ]
        gaps = [np.abs(own - other).max(axis=(1, 2)) for own, other in zip(rebuilt, explicit, strict=True)]
        variables[name] = (("member", "step"), np.stack(gaps))
    return xr.Dataset(variables, {"member": np.arange(start, stop), "step": STEPS})


def identity_experiment(settings: Settings) -> Experiment:
    """Small networks, trained explicitly and in coefficients."""
    memory = 8 * 20 * len(STEPS) * SMALL["width"] * SMALL["dimension"]
    return Experiment(
        "identity", partial(simulate_identity, settings), members=_MEMBERS, bytes_per_member=memory, seconds=2.0
    )


def decomposition_is_exact(settings: Settings, results: Results, name: str = "difference") -> list[Measurement]:
    """Largest difference over all steps, weights and networks; it is exact, so that the interval is the range."""
    del settings
    worst = results["identity"][name].values.max(axis=1)
    return [
        Measurement("largest difference of a weight", worst.max(), (worst.min(), worst.max()), (-np.inf, 1e-10),
                    members=worst.size)
    ]  # fmt: skip


# -- reduced dynamics -------------------------------------------------------------------------------------------------

#: Times of the comparison, and the relative deviation of signal and memory that is accepted there.
TIMES = {1.0: (0.05, 0.10), 3.0: (0.05, 0.10), 28.0: (0.10, 0.25)}
THEORY_NOISE = 0.2
COLLAPSE_TIMES = (1.0, 2.0, 5.0)
COLLAPSED = 0.05


def theory_cell(settings: Settings) -> Cell:
    """Many dimensions for each sample: where the reduced dynamics should hold.

    The start must be small against the signal, but not against the products of different noise vectors, of order
    ``sqrt(n/d)``: these would switch on filters that the theory takes for inactive.
    """
    # the theory is that of small steps
    step = min(settings.time_step, 0.04)
    return Cell("reduced", settings.theory_kappa, THEORY_NOISE, THEORY_NOISE, settings.samples,
                settings.theory_dimension, settings.theory_width, 1.0, settings.start_scale, step)  # fmt: skip


def collapse_cells(settings: Settings) -> list[Cell]:
    """The same kappa and tau with everything else changed: samples, dimension, filters, noise and step.

    The start is scaled so that the initial outputs are alike.
    """
    base = theory_cell(settings)
    # a multiple of ten, so that the share of flipped labels is exactly the same in each class
    fewer = 10 * max(round(0.06 * base.samples), 2)
    return [
        replace(base, name="collapse_small", samples=fewer, width=2 * base.width, noise_scale=2.0,
                start_scale=base.start_scale / 2,
                dimension=round(base.dimension * fewer / base.samples), time_step=base.time_step / 2),
        replace(base, name="collapse_narrow", width=max(base.width // 2, 1), noise_scale=0.5,
                start_scale=2 * base.start_scale,
                dimension=round(1.5 * base.dimension)),
    ]  # fmt: skip


def reduced_experiments(settings: Settings) -> list[Experiment]:
    """Networks to compare with the reduced dynamics, and those that should collapse on them."""
    last = 1.05 * max(TIMES)
    return [
        experiment(settings, theory_cell(settings), settings.theory_members, last),
        *(
            experiment(settings, cell, settings.theory_members, 1.1 * max(COLLAPSE_TIMES))
            for cell in collapse_cells(settings)
        ),
    ]


def unflipped_course(theta: Float[np.ndarray, " t"], kappa: float, tau: float) -> ReducedCourse:
    """A wrong theory, for a control: no label is flipped, so that nothing holds the signal back."""
    del tau
    return reduced_course(theta, kappa, 0.0)


def follows_reduced_dynamics(
    settings: Settings, results: Results, course: Callable[..., ReducedCourse] = reduced_course
) -> list[Measurement]:
    """Measured over predicted coefficient, minus 1, at several times."""
    cell = theory_cell(settings)
    data = kept_members(results[cell.name])
    flipped, memory = data["flipped"].values, data["memory"].values.astype(np.float64)
    measured = {
        "signal": data["signal"].values.mean(axis=2),
        "clean": mean_among(memory, ~flipped),
        "flipped": mean_among(memory, flipped),
    }
    words = {"signal": "signal", "clean": "memory of clean samples", "flipped": "memory of flipped samples"}
    confidence = bonferroni(len(TIMES) * len(measured))
    measurements = []
    for time, (of_signal, of_memory) in TIMES.items():
        at = nearest(data["theta"].values, time)
        theory = course(data["theta"].values[at : at + 1], cell.kappa, cell.noise)
        for name, values in measured.items():
            most = of_signal if name == "signal" else of_memory
            deviation = values[:, at] / getattr(theory, name)[0] - 1
            estimate, interval = mean_interval(deviation, confidence=confidence)
            measurements.append(
                Measurement(f"theta {time:g}: {words[name]} over theory - 1", estimate, interval, (-most, most),
                            diverged_fraction(results[cell.name]), members=deviation.size)
            )  # fmt: skip
    return measurements


def courses_collapse(settings: Settings, results: Results, rescaled: bool = True) -> list[Measurement]:
    """Signal of the changed networks over that of the reference, minus 1, at equal theta.

    As a control the time is ``learning_rate * step``, which does not know of n, m, d and sigma.
    """
    base = theory_cell(settings)
    reference = kept_members(results[base.name])
    cells = collapse_cells(settings)
    confidence = bonferroni(len(cells) * len(COLLAPSE_TIMES))
    measurements = []
    for cell in cells:
        data = kept_members(results[cell.name])
        excluded = diverged_fraction(results[base.name], results[cell.name])
        # the time theta of the reference that has the same learning_rate * step
        factor = 1.0 if rescaled else (base.time_step / base.learning_rate) / (cell.time_step / cell.learning_rate)
        for time in COLLAPSE_TIMES:
            label = f"n {cell.samples}, m {cell.width}, d {cell.dimension}, sigma {cell.noise_scale:g}, theta {time:g}"
            if min(data.sizes["member"], reference.sizes["member"]) < settings.theory_members:
                measurements.append(Measurement.missing(label, (-COLLAPSED, COLLAPSED), "networks diverged", excluded))
                continue
            # members of the two experiments are independent of each other: they are resampled in pairs for brevity
            pairs = np.stack([_signal_at(data, time), _signal_at(reference, factor * time)], axis=1)
            estimate, interval = bootstrap(
                lambda rows, axis: rows[..., 0].mean(axis=axis) / rows[..., 1].mean(axis=axis) - 1, pairs,
                confidence=confidence, seed=settings.seed,
            )  # fmt: skip
            measurements.append(
                Measurement(f"{label}: signal over reference - 1", estimate, interval, (-COLLAPSED, COLLAPSED),
                            excluded, members=len(pairs))
            )  # fmt: skip
    return measurements


def _signal_at(data: xr.Dataset, time: float) -> Float[np.ndarray, " n"]:
    theta, signal = data["theta"].values, data["signal"].values.mean(axis=2)
    return np.array([np.interp(time, theta, course) for course in signal])
