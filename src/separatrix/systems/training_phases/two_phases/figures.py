"""Figures of the study `entk-two-phases`."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from separatrix.lab import Figure, Results
from separatrix.probes.cone import classical_scaling
from separatrix.systems.training_phases.two_phases.phases import kept_runs, transitions
from separatrix.systems.training_phases.two_phases.quantities import cones
from separatrix.systems.training_phases.two_phases.settings import Settings, describe, kernel_vectors

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STEP = "step of training"


def figures(settings: Settings) -> list[Figure]:
    """All figures, in the order of the argument."""
    kernel = f" {describe(settings)}"
    return [
        Figure("distances", "Kernel distances between all checkpoints",
               "Median over runs; dotted: median transition. Two phases are a small dark square at the start (if there "
               "is any room), and a large one of kernels close to each other; a lazy network (right, own scale) has no "
               "large distances at all." + kernel,
               draw_distances),
        Figure("from_references", "Distance from the kernel at several times",
               "Median and range over runs. With two phases the kernel goes far from the start and stays away, and it "
               "does not get far from where it is after the transition." + kernel,
               draw_from_references),
        Figure("motion", "Motion from checkpoint to checkpoint",
               "Left: distance between neighbouring checkpoints and between those two and four apart, medians over "
               "runs, the distance that rounding makes (dotted), and, if kernels are estimated, the standard error "
               "between neighbours (dashed). Right: accuracy on the training and the test set." + kernel,
               draw_motion),
        Figure("size", "Norm, effective rank and alignment with the labels",
               "Each run, and medians of the largest eigenvalues (right). The distance ignores the norm." + kernel,
               draw_size),
        Figure("cone", "The path of the kernel in three dimensions",
               "Unit kernels of the first run by classical scaling of their distances; the share of the variance that "
               "each axis carries is in its label. Cross: start; the second phase is in colour. The paper's projection "
               "is not stated; this one is." + kernel,
               draw_cone),
        Figure("angles", "How narrow is the cone?",
               "Over all kernels from a reference step on, each run: largest angle from their mean direction (solid), "
                "and "
               "angle of the kernel at the start from it (dashed). Dotted: median transition." + kernel,
               draw_angles),
        Figure("switching", "What the kernel's motion is worth",
               "Test accuracy and loss of training that goes on linearised after a switch: each run (grey) and means "
               "with their 95 % intervals. Dashed: ordinary training.",
               draw_switching),
    ]  # fmt: skip


def draw_distances(settings: Settings, results: Results) -> Canvas:  # noqa: ARG001
    """Heat maps."""
    names = [name for name in ("runs", "lazy") if name in results and len(kept_runs(results[name])["member"])]
    canvas = Canvas(figsize=(5 * max(len(names), 1), 4.2), layout="constrained")
    for axes, name in zip(canvas.subplots(1, max(len(names), 1), squeeze=False)[0], names, strict=False):
        data = kept_runs(results[name])
        step = data["step"].values
        image = axes.pcolormesh(step, step, np.median(data["distance"].values, axis=0), cmap="viridis_r", vmin=0)
        canvas.colorbar(image, ax=axes, label="kernel distance")
        time = float(np.median([one.time for one in transitions(data)]))
        axes.axvline(time, color="k", ls=":", lw=1)
        axes.axhline(time, color="k", ls=":", lw=1)
        title = "as asked" if name == "runs" else "lazy control"
        axes.set(xlabel=STEP, ylabel=STEP, title=title, aspect="equal")
    return canvas


def draw_from_references(settings: Settings, results: Results) -> Canvas:  # noqa: ARG001
    """Distances from a few kernels."""
    canvas = Canvas(figsize=(6, 3.8), layout="constrained")
    axes = canvas.subplots()
    data = kept_runs(results["runs"])
    step, distance = data["step"].values, data["distance"].values
    late = int(np.median([one.index for one in transitions(data)])) + 1
    chosen = sorted({0, late, (late + len(step)) // 3, len(step) // 2})
    for colour, index in zip(COLOURS, chosen, strict=False):
        curves = distance[:, :, index]
        axes.plot(step, np.median(curves, axis=0), color=colour, label=f"step {step[index]}")
        axes.fill_between(step, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.2, lw=0)
    axes.set(xlabel=STEP, ylabel="kernel distance", ylim=(0, None))
    axes.legend(title="distance from", frameon=False)
    return canvas


def draw_motion(settings: Settings, results: Results) -> Canvas:
    """Motion on a logarithmic axis, and the accuracies."""
    canvas = Canvas(figsize=(10, 3.8), layout="constrained")
    left, right = canvas.subplots(1, 2)
    data = kept_runs(results["runs"])
    step, distance = data["step"].values, data["distance"].values
    for colour, apart in zip(COLOURS, (1, 2, 4), strict=False):
        moved = np.median(np.stack([np.diagonal(one, apart) for one in distance]), axis=0)
        left.plot(step[:-apart], np.maximum(moved, 1e-16), color=colour, label=f"{step[apart]} steps apart")
    left.axhline(float(np.median(data["rounding"].values)), color="k", ls=":", lw=1)
    if kernel_vectors(settings):
        error = np.median(np.stack([np.diagonal(one, 1) for one in data["standard_error"].values]), axis=0)
        left.plot(step[:-1], np.maximum(error, 1e-16), color="k", ls="--", lw=1)
    left.set(xlabel=STEP, ylabel="kernel distance", yscale="log")
    left.legend(frameon=False)
    for colour, name in zip(COLOURS, ("training", "test"), strict=False):
        curves = data[f"{name}_accuracy"].values
        right.plot(step, np.median(curves, axis=0), color=colour, label=name)
        right.fill_between(step, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.2, lw=0)
    right.set(xlabel=STEP, ylabel="accuracy")
    right.legend(frameon=False)
    return canvas


def draw_size(settings: Settings, results: Results) -> Canvas:  # noqa: ARG001
    """Size of the kernel."""
    canvas = Canvas(figsize=(13, 3.4), layout="constrained")
    axes = canvas.subplots(1, 4)
    data = kept_runs(results["runs"])
    step = data["step"].values
    for axis, name, label in zip(
        axes,
        ("norm", "effective_rank", "alignment"),
        ("Frobenius norm |K|", "tr(K)² / |K|²", "alignment"),
        strict=False,
    ):
        axis.plot(step, data[name].values.T, color=COLOURS[0], lw=1, alpha=0.6)
        axis.set(xlabel=STEP, ylabel=label, ylim=(0, None))
    axes[3].plot(step, np.median(data["eigenvalues"].values, axis=0), color=COLOURS[1], lw=1)
    axes[3].set(xlabel=STEP, ylabel="largest eigenvalues", yscale="log")
    return canvas


def draw_cone(settings: Settings, results: Results) -> Canvas:  # noqa: ARG001
    """Classical scaling."""
    canvas = Canvas(figsize=(5.4, 4.8))
    axes = canvas.add_subplot(projection="3d")
    data = kept_runs(results["runs"])
    distance = data["distance"].values[0]
    cut = transitions(data)[0].index
    places, share = classical_scaling(distance, 3)
    axes.plot(*places[: cut + 1].T, color="0.5", lw=1)
    axes.scatter(*places[:1].T, marker="x", color="k", s=50)
    axes.scatter(*places[cut:].T, c=data["step"].values[cut:], cmap="viridis", s=12)
    axes.set(**{f"{axis}label": f"{name} ({value:.0%})" for axis, name, value in zip("xyz", "123", share, strict=True)})
    return canvas


def draw_angles(settings: Settings, results: Results) -> Canvas:  # noqa: ARG001
    """Angular radius and apex angle against the reference."""
    canvas = Canvas(figsize=(6, 3.8), layout="constrained")
    axes = canvas.subplots()
    data = kept_runs(results["runs"])
    steps, shapes = cones(data)
    axes.plot(steps, shapes[:, :, 0].T, color=COLOURS[0], lw=1)
    axes.plot(steps, shapes[:, :, 1].T, color=COLOURS[1], lw=1, ls="--")
    axes.axvline(float(np.median([one.time for one in transitions(data)])), color="k", ls=":", lw=1)
    axes.set(xlabel="reference step", ylabel="angle in degrees", ylim=(0, None))
    return canvas


def draw_switching(settings: Settings, results: Results) -> Canvas:  # noqa: ARG001
    """Accuracy and loss against the switch."""
    canvas = Canvas(figsize=(10, 3.8), layout="constrained")
    data = results["switching"]
    data = data.isel(member=np.flatnonzero(data["diverged_at_step"].values < 0))
    place = np.arange(len(data["switch"]))
    for axes, name in zip(canvas.subplots(1, 2), ("accuracy", "loss"), strict=True):
        values = data[name].values
        axes.plot(place, values.T, color="0.8", lw=1)
        error = 2 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        axes.errorbar(place, values.mean(axis=0), error, fmt="o-", color=COLOURS[0])
        axes.axhline(float(data[f"nonlinear_{name}"].mean()), color=COLOURS[1], ls="--", lw=1)
        axes.set(xlabel="step of the switch", ylabel=f"test {name}")
        axes.set_xticks(place, [str(step) for step in data["switch"].values])
    return canvas
