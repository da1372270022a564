"""Figures of the study `chaos-and-cone`."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from separatrix.lab import Figure, Results
from separatrix.probes.cone import classical_scaling, cone, confinement, growing_windows
from separatrix.systems.training_phases.chaos.confinement import FEWEST, late_paths
from separatrix.systems.training_phases.chaos.kernel_cone import kernel_phases
from separatrix.systems.training_phases.chaos.settings import Settings, describe
from separatrix.systems.training_phases.chaos.stability import edges, growth_rates
from separatrix.systems.training_phases.chaos.transition import FORGOTTEN, kept, transition_steps

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def figures(settings: Settings) -> list[Figure]:
    """All figures, in the order of the argument."""
    return [
        Figure("amplification_map", "How far a perturbation at t0 has grown by t1",
               "Left: median over runs and random directions of log10 A(t0, t1), where A is the distance of copy and "
               "run over that at the moment of the perturbation. Middle: share of test predictions that differ. "
               "Right: test loss half-way between copy and run above the mean of theirs; no barrier is lower.",
               draw_map),
        Figure("amplification", "Chaos ends",
               "Amplification up to the end of training against the step of the perturbation. Dots: each run and "
               "random direction. Crosses: along the gradient. Line: median prediction of the tangent map, which knows "
               "no saturation. Dashed: amplification at which copies are as far apart as their parameters are long. "
               "Dotted: growth by ten; right of the grey band, the range of its crossing over runs, copies stay "
               "together.",
               draw_amplification),
        Figure("growth", "From tangent growth to saturation",
               "Relative distance of copies from their runs in time, one colour for each step of the perturbation, "
               "medians; dashed: the tangent map's prediction times the size of the perturbation.",
               draw_growth),
        Figure("stability", "Curvature and growth",
               "Top: largest eigenvalue of mini-batch Hessians (line: median over runs of the mean over the next "
               "mini-batches; band: central 80 % of all), curvature of mini-batches along their own gradients (batch "
               "sharpness), largest eigenvalue and negative of the smallest of all samples. Dashed: the edge of "
               "stability of a frozen Hessian, 2 (1 + mu) / eta; dotted: that of one which changes from batch to "
               "batch, 2 (1 - mu) / eta. Bottom: growth rate of the tangent spawned at the start, median and range "
               "over runs; grey: the end of chaos, range over runs.",
               draw_stability),
        Figure("kinks", "What the derivative does not see",
               "Amplification over its tangent prediction in the first steps after a perturbation, medians over runs "
               "with the central 80 %: the network of the settings, and one with ReLU.",
               draw_kinks),
        Figure("basins", "Predictions and barriers at the end",
               "Left: disagreement and loss barrier at T against the step of the perturbation, means over runs. Right: "
               "test loss on the way from a run to its first and to its last copy, one line for each run.",
               draw_basins),
        Figure("dissimilarity", "Cosine dissimilarity",
               "Left: 1 - cos between copies and their run, medians, one colour for each step of the perturbation. "
               "Right: 1 - cos between the parameters of the first run at two times.",
               draw_dissimilarity),
        Figure("kernel", "The tangent kernel of the same runs",
               "Left: kernel distance between two times, first run. Right: angular radius of the kernels from a step "
               "on, one line for each run; dots mark the kernel's transition, the vertical line the median end of "
               "chaos. " + describe(settings),
               draw_kernel),
        Figure("confinement", "Confined, or a random walk?",
               "From the end of chaos on, one colour for each run. Left: squared angular radius of the kernels in a "
               "window against its duration; dashed: a random walk that turns by the same angles; dotted: one of equal "
               "steps, a straight line. Right: kernel distance from the end of chaos, and the fit of a plateau and a "
               "drift (dashed).",
               draw_confinement),
        Figure("cone", "The cone, by classical scaling",
               "Kernels of the first run as points whose distances are those of the unit kernels as far as three "
               "dimensions allow (share of the variance on the axes); the cross is the kernel at the start, k0, the "
               "circle that at the end of chaos. " + describe(settings),
               draw_cone),
    ]  # fmt: skip


def _panels(count: int, width: float = 4.6, height: float = 3.4) -> tuple[Canvas, np.ndarray]:
    canvas = Canvas(figsize=(max(width * count, 4.5), height), layout="constrained")
    return canvas, canvas.subplots(1, count, squeeze=False)[0]


def _random(settings: Settings, data: xr.Dataset, name: str) -> np.ndarray:
    """Values of all runs and random directions, ``(n K, s, t)``."""
    values = data[name].values[:, : settings.directions]
    return values.reshape(-1, *values.shape[2:])


def _heat(axis: Axes, canvas: Canvas, values: np.ndarray, x: np.ndarray, y: np.ndarray, label: str) -> None:
    image = axis.imshow(values, origin="lower", aspect="auto", cmap="viridis", interpolation="none")
    every = max(1, len(x) // 6)
    axis.set_xticks(np.arange(len(x))[::every], [f"{value:g}" for value in x[::every]])
    down = max(1, len(y) // 8)
    axis.set_yticks(np.arange(len(y))[::down], [f"{value:g}" for value in y[::down]])
    canvas.colorbar(image, ax=axis, label=label)


def draw_map(settings: Settings, results: Results) -> Canvas:
    """Amplification, disagreement and excess loss over both times."""
    data = kept(results["copies"])
    canvas, axes = _panels(3, 4.2)
    spawns, steps = data["spawn"].values, data["step"].values
    later = steps > spawns[:, None]
    for axis, name, label in (
        (axes[0], "amplification", "log10 A"), (axes[1], "disagreement", "disagreement"),
        (axes[2], "halfway_excess", "excess loss half-way (nats)"),
    ):  # fmt: skip
        values = np.median(np.where(later, _random(settings, data, name), 1.0), axis=0)
        shown = np.log10(np.maximum(values, 1e-6)) if name == "amplification" else values
        _heat(axis, canvas, np.where(later, shown, np.nan), steps, spawns, label)
        axis.set(xlabel="t1 (steps)", ylabel="t0 (steps)")
    return canvas


def draw_amplification(settings: Settings, results: Results) -> Canvas:
    """Final amplification against the step of the perturbation."""
    data = kept(results["copies"])
    canvas, (axis,) = _panels(1, 6.0, 3.8)
    spawns = data["spawn"].values
    found = transition_steps(settings, data)
    axis.axvspan(found.min(), found.max(), color="0.9", label="end of chaos")
    for row in _random(settings, data, "amplification")[:, :, -1]:
        axis.plot(spawns, row, "o", color=COLOURS[0], ms=3.5, alpha=0.7)
    axis.plot([], [], "o", color=COLOURS[0], ms=3.5, label="random direction")
    for row in data["amplification"].values[:, -1, :, -1]:
        axis.plot(spawns, row, "x", color=COLOURS[1], ms=4)
    axis.plot([], [], "x", color=COLOURS[1], label="gradient direction")
    axis.plot(spawns, 10 ** np.median(data["log_tangent"].values[:, :, -1] / np.log(10), axis=0), color="black",
              lw=1, label="tangent map")  # fmt: skip
    axis.axhline(1 / settings.sigma, color="0.4", ls="--", lw=0.9)
    axis.axhline(FORGOTTEN, color="0.4", ls=":", lw=0.9)
    axis.set(xlabel="step of the perturbation t0", ylabel="amplification A(t0, T)", yscale="log")
    axis.legend(frameon=False, fontsize=8)
    return canvas


def draw_growth(settings: Settings, results: Results) -> Canvas:
    """Distance in time with its tangent prediction."""
    data = kept(results["copies"])
    canvas, (axis,) = _panels(1, 6.0, 3.8)
    steps, top = data["step"].values, 3.0
    for index, spawn in enumerate(data["spawn"].values):
        seen, colour = steps >= spawn, COLOURS[index % len(COLOURS)]
        axis.plot(steps[seen], np.median(_random(settings, data, "relative_distance")[:, index, seen], axis=0),
                  color=colour, label=f"t0 = {spawn}")  # fmt: skip
        predicted = np.log(settings.sigma) + np.median(data["log_tangent"].values[:, index, seen], axis=0)
        axis.plot(steps[seen], np.exp(np.minimum(predicted, np.log(top))), color=colour, ls="--", lw=0.8)
    axis.set(xlabel="step t1", ylabel="distance over norm", yscale="log")
    axis.set_ylim(top=top)
    axis.legend(frameon=False, fontsize=7, ncols=2)
    return canvas


def draw_stability(settings: Settings, results: Results) -> Canvas:
    """Curvature with both edges, and the local growth rate below it."""
    data = kept(results["copies"])
    canvas = Canvas(figsize=(6.4, 5.4), layout="constrained")
    top, bottom = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steps, small = data["step"].values, data["mini_batch_sharpness"].values
    top.fill_between(steps, *np.quantile(small, [0.1, 0.9], axis=(0, 2)), color=COLOURS[0], alpha=0.2, lw=0)
    for colour, label, values in (
        (COLOURS[0], "mini-batch sharpness", small.mean(axis=-1)),
        (COLOURS[1], "batch sharpness (along gradients)", data["batch_sharpness"].values),
        (COLOURS[2], "sharpness of all samples", data["sharpness"].values),
        (COLOURS[3], "most negative curvature of all samples", -data["lowest_curvature"].values),
    ):
        top.plot(steps, np.median(values, axis=0), color=colour, label=label)
    edge = edges(settings)
    top.axhline(edge.frozen, color="black", ls="--", lw=0.9)
    top.axhline(edge.fluctuating, color="black", ls=":", lw=0.9)
    top.set(ylabel="curvature", yscale="log")
    top.legend(frameon=False, fontsize=8, loc="lower left")
    rate = growth_rates(data)
    middle = (steps[1:] + steps[:-1]) / 2
    bottom.fill_between(middle, rate.min(axis=0), rate.max(axis=0), color=COLOURS[0], alpha=0.2, lw=0)
    bottom.plot(middle, np.median(rate, axis=0), color=COLOURS[0])
    bottom.axhline(0, color="0.4", lw=0.8)
    found = transition_steps(settings, data)
    for axis in (top, bottom):
        axis.axvspan(found.min(), found.max(), color="0.9", zorder=0)
    bottom.set(xlabel="step", ylabel="growth rate (1/step)")
    return canvas


def draw_kinks(settings: Settings, results: Results) -> Canvas:
    """Amplification over prediction after the first perturbation."""
    canvas, (axis,) = _panels(1, 5.4)
    for colour, name, label in (
        (COLOURS[0], "smooth", settings.activation), (COLOURS[1], "kinked", "relu"),
    ):  # fmt: skip
        data = kept(results[name])
        first = (data["step"].values > 0) & (data["step"].values <= 40)
        ratio = np.log10(data["amplification"].values[:, 0, 0]) - data["log_tangent"].values[:, 0] / np.log(10)
        low, middle, high = np.quantile(ratio[:, first], [0.1, 0.5, 0.9], axis=0)
        steps = data["step"].values[first]
        axis.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
        axis.plot(steps, middle, color=colour, label=label)
    axis.set(xlabel="steps after a perturbation at the start", ylabel="log10 (A / tangent prediction)")
    axis.legend(frameon=False)
    return canvas


def draw_basins(settings: Settings, results: Results) -> Canvas:
    """Disagreement, barrier, and losses on the way."""
    data = kept(results["copies"])
    canvas, axes = _panels(2)
    spawns = data["spawn"].values
    axes[0].plot(spawns, _random(settings, data, "disagreement")[:, :, -1].mean(axis=0), "o-", ms=4,
                 color=COLOURS[0], label="disagreement")  # fmt: skip
    axes[0].plot(spawns, data["barrier"].values.mean(axis=0), "s-", ms=4, color=COLOURS[1], label="barrier (nats)")
    axes[0].set(xlabel="step of the perturbation t0", ylabel="share of test predictions, or nats")
    axes[0].legend(frameon=False)
    for colour, place, label in ((COLOURS[0], 0, "first copy"), (COLOURS[1], -1, "last copy")):
        for index, row in enumerate(data["path_loss"].values[:, place]):
            axes[1].plot(data["share"].values, row, color=colour, lw=0.9, label=None if index else label)
    axes[1].set(xlabel="share of the way from the run to its copy", ylabel="test loss (nats)")
    axes[1].legend(frameon=False)
    return canvas


def draw_dissimilarity(settings: Settings, results: Results) -> Canvas:
    """Dissimilarity between copies and within a run."""
    data = kept(results["copies"])
    canvas, axes = _panels(2)
    steps = data["step"].values
    for index, spawn in enumerate(data["spawn"].values):
        seen = steps > spawn
        axes[0].plot(steps[seen], np.median(_random(settings, data, "dissimilarity")[:, index, seen], axis=0),
                     color=COLOURS[index % len(COLOURS)], label=f"t0 = {spawn}")  # fmt: skip
    axes[0].set(xlabel="step t1", ylabel="1 - cos", yscale="log")
    axes[0].legend(frameon=False, fontsize=7, ncols=2)
    _heat(axes[1], canvas, data["turning"].values[0], steps, steps, "1 - cos within the run")
    axes[1].set(xlabel="step", ylabel="step")
    return canvas


def draw_kernel(settings: Settings, results: Results) -> Canvas:
    """Kernel distances and the radius of the cone."""
    data = kept(results["copies"])
    canvas, axes = _panels(2)
    steps, matrices = data["step"].values, data["kernel_distance"].values
    phases = kernel_phases(settings, results)
    if phases is None:
        return canvas
    _heat(axes[0], canvas, matrices[0], steps, steps, "kernel distance")
    axes[0].set(xlabel="step", ylabel="step")
    for matrix, step in zip(matrices, phases.steps, strict=True):
        radius = np.degrees([cone(matrix[cut:, cut:]).radius for cut in range(len(steps) - 2)])
        axes[1].plot(steps[:-2], radius, color=COLOURS[0], lw=1)
        axes[1].plot(step, radius[steps[:-2] == step], "o", color=COLOURS[0], ms=4)
    axes[1].axvline(np.median(transition_steps(settings, data)), color="0.5", lw=1)
    axes[1].set(xlabel="first step of the window", ylabel="angular radius (degrees)", yscale="log")
    return canvas


def draw_confinement(settings: Settings, results: Results) -> Canvas:
    """Squared radius over growing windows, and the distance from the end of chaos with its fit."""
    data = kept(results["copies"])
    paths = late_paths(settings, data)
    canvas, axes = _panels(2)
    for index, path in enumerate(paths):
        colour, first = COLOURS[index % len(COLOURS)], index == 0
        for style, label, distance in (
            ("-", "kernel", path.distance), ("--", "random walk by the same angles", path.walked()),
            (":", "random walk of equal steps", path.walked(evenly=True)),
        ):  # fmt: skip
            counts, radii = growing_windows(distance, FEWEST)
            axes[0].plot(path.elapsed[counts - 1], np.degrees(radii) ** 2, style, color=colour, lw=1,
                         label=label if first else None)  # fmt: skip
        elapsed, curve = path.elapsed[1:], path.distance[0, 1:]
        axes[1].plot(elapsed, curve, "o", color=colour, ms=3)
        axes[1].plot(elapsed, confinement(elapsed, curve).at(elapsed), "--", color=colour, lw=0.9)
    axes[0].set(xlabel="duration of the window (steps)", ylabel="squared radius (degrees$^2$)")
    axes[1].set(xlabel="steps since the end of chaos", ylabel="kernel distance")
    if paths:
        lines = axes[0].get_legend_handles_labels()
        canvas.legend(*lines, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
        axes[1].set(yscale="log")
    return canvas


def draw_cone(settings: Settings, results: Results) -> Canvas:
    """Kernels of the first run in three dimensions."""
    data = kept(results["copies"])
    canvas = Canvas(figsize=(6.4, 4.8), layout="constrained")
    if kernel_phases(settings, results) is None:
        return canvas
    axis = canvas.add_subplot(projection="3d")
    points, share = classical_scaling(data["kernel_distance"].values[0], 3)
    axis.plot(*points.T, color="0.7", lw=0.8)
    drawn = axis.scatter(*points.T, c=data["step"].values, cmap="viridis", s=18, depthshade=False)
    axis.plot(*points[:1].T, "kx", ms=9, label="k0")
    end = np.flatnonzero(data["step"].values == transition_steps(settings, data)[0])
    axis.plot(*points[end].T, "o", mfc="none", mec="black", ms=9, label="end of chaos")
    canvas.colorbar(drawn, ax=axis, label="step", shrink=0.7, pad=0.12)
    axis.set(**{f"{name}label": f"axis {i + 1} ({share[i]:.0%})" for i, name in enumerate("xyz")})
    axis.legend(frameon=False, fontsize=8)
    return canvas
