"""The kind of probe that measures the distribution of the Hessian's eigenvalues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.lab.probe.figures import chosen_checkpoints, colours
from separatrix.lab.probe.kind import Checkpoint, Column, Course, Kind, Measured, Shape, Value, always, of_estimate
from separatrix.lab.study import Figure
from separatrix.probes import matrices
from separatrix.probes.spectral_density import SpectralDensity, spectral_density

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray

    from separatrix.lab.probe.settings import ProbeSettings

_POINTS = 400
_WIDTH = 0.01  # of the Gaussians on the linear axis, of its length
_DECADES = 0.12  # of those on the logarithmic axis
_LOWEST = 1e-6  # left end of the logarithmic axis, relative to the largest eigenvalue


def _arrays(s: ProbeSettings, course: Course) -> Mapping[str, Shape]:
    shape = {"lanczos_vector": s.lanczos_vectors, "lanczos_step": min(s.lanczos_steps, course.operators.size)}
    return {"density_nodes": shape, "density_weights": shape}


def _measure(checkpoint: Checkpoint) -> Measured:
    s = checkpoint.settings
    made = spectral_density(matrices.hessian(checkpoint.operators), s.lanczos_vectors, s.lanczos_steps, seed=s.seed)
    values = {
        "mean_eigenvalue": of_estimate(made.moment(1)),
        "mean_square_eigenvalue": of_estimate(made.moment(2)),
        "density_uncertainty": Value(made.truncation + made.standard_error, 0.0, made.converged),
    }
    return Measured(values, {"density_nodes": made.nodes, "density_weights": made.weights})


def _figures(s: ProbeSettings) -> Sequence[Figure]:  # noqa: ARG001
    caption = (
        "Stochastic Lanczos quadrature of the Hessian, each eigenvalue widened to a Gaussian. Left: logarithm of the "
        f"density against the eigenvalue (widened by {_WIDTH:.0%} of the axis). Right: density over decades of its "
        f"modulus, solid for positive and dashed for negative eigenvalues (widened by {_DECADES} decades); eigenvalues "
        "below the left end are zero as far as rounding lets one see. Bands: standard errors over the random vectors."
    )
    return [Figure("density", "Density of the eigenvalues of the Hessian", caption, _draw)]


def _draw(s: ProbeSettings, results: Mapping[str, xarray.Dataset]) -> matplotlib.figure.Figure:  # noqa: ARG001
    import matplotlib.pyplot as plt

    data = results["checkpoints"]
    figure, (linear, logarithmic) = plt.subplots(1, 2, figsize=(9.3, 3.6), layout="constrained")
    shown = chosen_checkpoints(data)
    densities = [_density(data, member) for member in shown]
    ends = [(one.nodes[one.weights > 0].min(), one.nodes[one.weights > 0].max()) for one in densities]
    low, high = (min(end[0] for end in ends), max(end[1] for end in ends)) if ends else (0.0, 1.0)
    margin = 4 * _WIDTH * (high - low) or 1.0
    axis = np.linspace(low - margin, high + margin, _POINTS)
    top = np.log10(max(abs(low), abs(high)) or 1.0)
    decades = np.linspace(top + np.log10(_LOWEST), top + 3 * _DECADES, _POINTS)
    for member, one, colour in zip(shown, densities, colours(len(shown)), strict=True):
        _curve(linear, axis, one.density(axis, margin / 4), colour, "-", f"step {data['step'].values[member]}")
        _curve(logarithmic, 10**decades, one.log_density(decades, _DECADES), colour, "-")
        _curve(logarithmic, 10**decades, one.log_density(decades, _DECADES, -1), colour, "--")
    least = 0.1 / (axis[-1] - axis[0]) / _POINTS
    most = max((curve.get_ydata().max() for curve in linear.get_lines()), default=1.0)
    linear.set(xlabel="eigenvalue", ylabel="density", yscale="log", ylim=(least, 3 * most))
    logarithmic.set(xlabel="modulus of the eigenvalue", ylabel="density for each decade", xscale="log", ylim=(0, None))
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def _density(data: xarray.Dataset, member: int) -> SpectralDensity:
    nodes, weights = data["density_nodes"].values[member], data["density_weights"].values[member]
    return SpectralDensity(nodes, weights, nodes.size, nodes.shape[1], 0.0, 0.0, nodes.size, True)


def _curve(
    axes: Any, points: np.ndarray, made: tuple[np.ndarray, np.ndarray], colour: Any, style: str, label: str = ""
) -> None:
    mean, error = made
    axes.plot(points, mean, style, color=colour, lw=1.2, label=label or None)
    axes.fill_between(points, np.maximum(mean - error, 1e-300), mean + error, color=colour, alpha=0.15, lw=0)


DENSITY = Kind(
    "density",
    always(
        Column("mean_eigenvalue", "mean eigenvalue of the Hessian"),
        Column("mean_square_eigenvalue", "mean square eigenvalue of the Hessian"),
        Column("density_uncertainty", "uncertainty of the density, of its radius"),
    ),
    _measure,
    arrays=_arrays,
    figures=_figures,
    seconds=2.0,
)
