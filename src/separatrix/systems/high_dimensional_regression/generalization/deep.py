"""Deep linear students: the equation of their product and what stays constant along it (B9)."""

from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.high_dimensional_regression.deep_student import balanced_layers, network_path, product_path
from separatrix.systems.high_dimensional_regression.generalization.linear import gaussian_inputs
from separatrix.systems.high_dimensional_regression.generalization.settings import Settings

#: Task of the full networks: fewer samples than inputs, so that directions are frozen.
INPUTS, SAMPLES, WIDTH = 30, 20, 8
#: Task of the long courses of the product alone, with as many samples as inputs.
EQUAL = 60
NOISE_VARIANCE = 0.5
START_NORM = 0.05
TIME = np.linspace(0.25, 6.0, 24)
LONG_TIME = np.geomspace(0.03, 30.0, 41)
#: Steps over the fastest relaxation time: errors below 1e-5 in the comparison, enough for a figure in the long courses.
SHARE, LONG_SHARE = 0.1, 0.5


def _draw(settings: Settings, stream: int, depth: int, member: int, inputs: int, samples: int):
    """Generator, data set, teacher, labels and start of a member; all but the generator's rest is shared by depths."""
    rng = np.random.default_rng([settings.seed, stream, member])
    X, teacher = gaussian_inputs(rng, inputs, samples), rng.normal(size=inputs)
    labels = teacher @ X + np.sqrt(NOISE_VARIANCE) * rng.normal(size=samples)
    start = rng.normal(size=inputs)
    units = np.random.default_rng([settings.seed, stream, member, depth])
    return units, X, teacher, labels, START_NORM * start / np.linalg.norm(start)


def _in_modes(X: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues of ``X X^T``, eigenvectors, and a solution of the least-squares problem in their coordinates."""
    eigenvalues, vectors = np.linalg.eigh(X @ X.T)
    kept = eigenvalues > 1e-12 * eigenvalues[-1]
    eigenvalues = np.where(kept, eigenvalues, 0.0)
    pull = vectors.T @ (X @ labels)
    return eigenvalues, vectors, np.where(kept, pull / np.where(kept, eigenvalues, 1.0), 0.0)


def _compare(settings: Settings, depth: int, start: int, stop: int) -> xr.Dataset:
    layers, inputs, targets, modes, starts = [], [], [], [], []
    for member in range(start, stop):
        rng, X, _, labels, first = _draw(settings, 6, depth, member, INPUTS, SAMPLES)
        layers.append(balanced_layers(rng, first, depth, WIDTH))
        inputs.append(X)
        targets.append(labels)
        modes.append(_in_modes(X, labels))
        starts.append(modes[-1][1].T @ first)
    eigenvalues, vectors, solutions = (np.stack(one) for one in zip(*modes, strict=True))
    stacked = [np.stack(one) for one in zip(*layers, strict=True)]
    network = np.asarray(
        network_path(stacked, np.stack(inputs), np.stack(targets), eigenvalues[:, -1], TIME, np.float64(SHARE))
    )
    network = np.einsum("nji,ntj->nti", vectors, network)
    gaps = {}
    for name, alignment in (("gap", depth - 1.0), ("gap_without_alignment", 0.0)):
        path = np.asarray(
            product_path(np.stack(starts), eigenvalues, solutions, np.float64(depth), np.float64(alignment), TIME,
                         np.float64(SHARE))
        )  # fmt: skip
        gaps[name] = np.linalg.norm(network - path, axis=2) / np.linalg.norm(network, axis=2)
    frozen = np.linalg.norm(np.where(eigenvalues[:, None] == 0, network, 0.0), axis=2)
    invariant = frozen / np.linalg.norm(network, axis=2) ** (1 - 1 / depth)
    variables = {
        **{name: (("member", "time"), gap) for name, gap in gaps.items()},
        "invariant_drift": ("member", invariant.max(axis=1) / invariant.min(axis=1) - 1),
        "frozen_growth": ("member", frozen[:, -1] / frozen[:, 0]),
    }
    return xr.Dataset(variables, {"member": np.arange(start, stop), "time": TIME})


def _long(settings: Settings, depth: int, start: int, stop: int) -> xr.Dataset:
    modes, starts, teachers = [], [], []
    for member in range(start, stop):
        _, X, teacher, labels, first = _draw(settings, 7, depth, member, EQUAL, EQUAL)
        modes.append(_in_modes(X, labels))
        starts.append(modes[-1][1].T @ first)
        teachers.append(modes[-1][1].T @ teacher)
    eigenvalues, _, solutions = (np.stack(one) for one in zip(*modes, strict=True))
    path = np.asarray(
        product_path(np.stack(starts), eigenvalues, solutions, np.float64(depth), np.float64(depth - 1), LONG_TIME,
                     np.float64(LONG_SHARE))
    )  # fmt: skip
    error = np.sum((path - np.stack(teachers)[:, None]) ** 2, axis=2) / EQUAL + NOISE_VARIANCE
    time = ("time", LONG_TIME, {"unit": "gradient-flow time"})
    return xr.Dataset({"test_error": (("member", "time"), error)}, {"member": np.arange(start, stop), "time": time})


def deep_experiments(settings: Settings) -> list[Experiment]:
    """Networks against their product's equation, and long courses of the product alone, at every depth."""
    experiments = []
    for depth in settings.depth:
        for name, simulate in (("deep", _compare), ("deep_course", _long)):
            experiments.append(
                Experiment(f"{name}_depth{depth}", partial(simulate, settings, depth), members=settings.deep_draws,
                           bytes_per_member=10**6, seconds=1.5 + 0.03 * settings.deep_draws * depth)
            )  # fmt: skip
    return experiments


def product_equation(settings: Settings, results: Results, gap: str = "gap") -> list[Measurement]:
    """Largest relative distance of network and equation, and drift of the invariant; intervals run over all members."""
    measurements = []
    for depth in settings.depth:
        data = results[f"deep_depth{depth}"]
        worst: Float[np.ndarray, " n"] = data[gap].values.max(axis=1)
        measurements.append(
            Measurement(f"depth {depth}, relative distance from the equation", worst.max(), (worst.min(), worst.max()),
                        (0.0, 1e-3), members=worst.size)
        )  # fmt: skip
        drift = data["invariant_drift"].values
        grown = np.median(data["frozen_growth"].values)
        measurements.append(
            Measurement(f"depth {depth}, relative drift of |w_frozen| / |w|^(1 - 1/D)", drift.max(),
                        (drift.min(), drift.max()), (0.0, 1e-5), members=drift.size,
                        note=f"|w_frozen| itself grew {grown:.3g} times")
        )  # fmt: skip
    return measurements
