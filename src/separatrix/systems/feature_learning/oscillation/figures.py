"""Figures of the study `benign-oscillation`."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from separatrix.engines.intervals import clopper_pearson, mean_interval
from separatrix.lab import Figure, Results
from separatrix.systems.feature_learning.oscillation import maps
from separatrix.systems.feature_learning.oscillation.accuracy import final_accuracy, kept, network
from separatrix.systems.feature_learning.oscillation.image_runs import SHOWN, image_steps
from separatrix.systems.feature_learning.oscillation.networks import EDGE
from separatrix.systems.feature_learning.oscillation.settings import Settings, images
from separatrix.systems.feature_learning.oscillation_map import (
    STABILITY_LIMIT,
    SURVIVAL_LIMIT,
    TWO_CYCLE_LIMIT,
    residual_bias,
    stable_weak_share,
    weak_growth,
)

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
STEP = "effective step of the strong feature"


def figures(settings: Settings) -> list[Figure]:
    """All figures, in the order of the argument."""
    found = [
        Figure("courses", "A small step and a large one",
               "Medians over networks with the central 80 %. Left: training loss of the smallest small, the largest "
               "small and the first large step. Middle and right: contributions A of the strong and B of the weak "
               "feature; dashed, where the theory says that B stops for the large step.",
               draw_courses),
        Figure("accuracy", "When is the weak feature learned?",
               "Accuracy on points that show the weak feature alone, mean over networks with its 95 % interval, "
               "against the step. Dotted: limit of stability of the strong feature. Crosses: the same with so little "
               "noise that plain points teach the weak feature at any step.",
               draw_accuracy),
        Figure("diagram", "The oscillation, and the growth it causes",
               "Top: contribution A of the strong feature alone at 64 consecutive visits. Bottom: growth of ln <w, u> "
               "in two visits of an infinitesimal weak feature (dots) and its exact value on the 2-cycle (line, dashed "
               "beyond the 2-cycle). Dotted: limit of stability, end of the 2-cycle, and the step from which an orbit "
               "can die.",
               draw_diagram),
        Figure("bias", "The residual has a positive mean",
               "Sum of the residuals against the sum of their squares, over visits to points with the strong feature, "
               "one line for each network at the first large step; dashed: slope of the 2-cycle, eta_v / (1 + eta_v). "
               "The start of a run, in which the strong feature is fitted, stands apart on the left.",
               draw_bias),
        Figure("phase_map", "How much does the weak feature take over?",
               "Contribution B at the end of the map, against the step and the feature ratio (logarithmic axis). "
               "Lines: contours of the theory, (eta_v - 1) / (eta_v - eta_u). At small ratios the weak feature has "
               "not arrived yet.",
               draw_phase_map),
        Figure("edge", "The upper end of the window",
               "Share of networks that diverge, with 95 % intervals, against the step. Dotted: the step from which the "
               "map without noise can turn its units over. Noise makes some runs diverge before it.",
               draw_edge),
    ]  # fmt: skip
    if images(settings) is not None:
        found.append(
            Figure("images", "Real images in the place of the noise",
                   "Test accuracy along training, means over networks: images with the weak feature of their class, "
                   "images alone, and images with the weak feature of the other class, where the share that follows "
                   "the feature is shown.",
                   draw_images)
        )  # fmt: skip
    return found


def _panels(count: int, width: float = 3.6, height: float = 3.0) -> tuple[Canvas, np.ndarray]:
    canvas = Canvas(figsize=(width * count, height), layout="constrained")
    return canvas, canvas.subplots(1, count, squeeze=False)[0]


def _band(axis: Axes, data: xr.Dataset, name: str, colour: str, label: str) -> None:
    """Median and central 80 % over members, against the share of the run."""
    if data.sizes["member"] == 0:
        return
    time = data["time"].values / data["time"].values[-1]
    low, middle, high = np.quantile(data[name].values, [0.1, 0.5, 0.9], axis=0)
    axis.fill_between(time, low, high, color=colour, alpha=0.2, lw=0)
    axis.plot(time, middle, color=colour, label=label)


def draw_courses(settings: Settings, results: Results) -> Canvas:
    """Loss, A and B along runs."""
    canvas, axes = _panels(3)
    shown = [*dict.fromkeys([*settings.small[:1], *settings.small[-1:], *settings.large[:1]])]
    shown = shown or list(settings.strong_steps[:1])
    for step, colour in zip(shown, COLOURS, strict=False):
        data = kept(network(settings, results, step))
        for axis, name in zip(axes, ("loss", "strong", "weak"), strict=True):
            _band(axis, data, name, colour, f"step {step:g}")
        share = float(stable_weak_share(step, settings.task.ratio))
        if share > 0:
            axes[2].axhline(share, color=colour, ls="--", lw=0.8)
    axes[0].set(yscale="log", ylabel="training loss", ylim=(1e-7, 1))
    axes[1].set(ylabel="strong feature A")
    axes[2].set(yscale="log", ylabel="weak feature B", ylim=(1e-5, 2))
    for axis in axes:
        axis.set_xlabel("share of the run")
    axes[0].legend(frameon=False, fontsize=8)
    return canvas


def draw_accuracy(settings: Settings, results: Results) -> Canvas:
    """Weak-only accuracy against the step."""
    canvas, (axis,) = _panels(1, 5.5, 3.4)
    for step in settings.strong_steps:
        values = final_accuracy(network(settings, results, step))
        values = values[np.isfinite(values)]
        if values.size > 1:
            mean, (low, high) = mean_interval(values)
            axis.errorbar(step, mean, [[mean - low], [high - mean]], fmt="o", ms=4, color=COLOURS[0])
    for index, step in enumerate(settings.strong_steps):
        if f"quiet_step{index}" in results:
            axis.plot(step, np.nanmean(final_accuracy(results[f"quiet_step{index}"])), "x", color="0.5")
    axis.axvline(STABILITY_LIMIT, color="black", ls=":", lw=1)
    axis.axhline(0.5, color="0.8", lw=0.8)
    axis.set(xlabel=STEP, ylabel="weak-only accuracy", ylim=(0.4, 1.03))
    return canvas


def draw_diagram(settings: Settings, results: Results) -> Canvas:
    """Bifurcation diagram, and the growth of the weak feature below it."""
    data = results["diagram"]
    good = maps.alive(data)
    steps, ratio = data["strong_step"].values[good], settings.task.ratio
    canvas = Canvas(figsize=(6.5, 5.2), layout="constrained")
    top, bottom = canvas.subplots(2, 1, sharex=True)
    values = data["strong"].values[good, 1:]
    top.plot(np.repeat(steps, values.shape[1]), values.ravel(), ",", color="black", rasterized=True)
    top.set_ylabel("strong feature A")
    bottom.plot(steps, np.log(maps.measured_growth(data)[good]), ".", ms=3, color=COLOURS[0])
    for style, part in (("-", steps <= TWO_CYCLE_LIMIT), ("--", steps >= TWO_CYCLE_LIMIT)):
        bottom.plot(steps[part], np.log(weak_growth(steps[part], ratio)), style, color=COLOURS[1])
    bottom.set(xlabel=STEP, ylabel=f"growth of ln <w, u>, k = {ratio:.3g}")
    for axis in (top, bottom):
        for limit in (STABILITY_LIMIT, TWO_CYCLE_LIMIT, SURVIVAL_LIMIT):
            axis.axvline(limit, color="0.5", ls=":", lw=1)
    return canvas


def draw_bias(settings: Settings, results: Results) -> Canvas:
    """Cumulative sums of residuals and of their squares."""
    canvas, (axis,) = _panels(1, 5.0, 3.4)
    for step in (settings.large or settings.strong_steps)[:1]:
        data = kept(network(settings, results, step))
        for member in range(min(data.sizes["member"], 12)):
            axis.plot(data["square_sum"].values[member], data["residual_sum"].values[member], color=COLOURS[0], lw=0.7)
        if data.sizes["member"]:
            end = float(data["square_sum"].values[:, -1].max())
            slope = float(residual_bias(step))
            axis.plot([0, end], [0, slope * end], "k--", lw=1, label=f"slope {slope:.3f}, step {step:g}")
            axis.legend(frameon=False)
    axis.set(xlabel="sum of squared residuals", ylabel="sum of residuals")
    return canvas


def draw_phase_map(settings: Settings, results: Results) -> Canvas:
    """End of the weak feature over steps and ratios."""
    data, points = results["phase"], settings.map_points
    steps = data["strong_step"].values.reshape(points, points)
    ratios = data["ratio"].values.reshape(points, points)
    canvas, (axis,) = _panels(1, 5.6, 3.8)
    axis.set(xlabel=STEP, ylabel="feature ratio k", yscale="log")  # before the labels, which lie along the lines
    image = axis.pcolormesh(steps, ratios, maps.weak_end(data).reshape(points, points), vmin=0, vmax=1, cmap="viridis")
    lines = axis.contour(steps, ratios, stable_weak_share(steps, ratios), (0.1, 0.2, 0.3, 0.4), colors="white",
                         linewidths=0.8)  # fmt: skip
    axis.clabel(lines, fontsize=7)
    canvas.colorbar(image, ax=axis, label="weak feature B at the end")
    return canvas


def draw_edge(settings: Settings, results: Results) -> Canvas:
    """Share of diverging runs."""
    canvas, (axis,) = _panels(1, 5.0, 3.2)
    runs = [(step, network(settings, results, step)) for step in settings.strong_steps]
    runs += [(step, results[f"edge_step{index}"]) for index, step in enumerate(EDGE)]
    for step, data in runs:
        lost, members = int((data["diverged_at_step"].values >= 0).sum()), data.sizes["member"]
        low, high = clopper_pearson(lost, members)
        axis.errorbar(step, lost / members, [[lost / members - low], [high - lost / members]], fmt="o", ms=4,
                      color=COLOURS[0])  # fmt: skip
    axis.axvline(SURVIVAL_LIMIT, color="black", ls=":", lw=1)
    axis.set(xlabel=STEP, ylabel="share that diverges")
    return canvas


def draw_images(settings: Settings, results: Results) -> Canvas:
    """Accuracies on images along training."""
    canvas, axes = _panels(len(SHOWN))
    for index, step in enumerate(image_steps(settings)):
        if f"images_step{index}" not in results:
            continue
        data = results[f"images_step{index}"]
        time = data["test_time"].values / data["test_time"].values[-1]
        for axis, shown in zip(axes, SHOWN, strict=True):
            values = kept(data)["image_accuracy"].sel(shown=shown).values
            axis.plot(time, values.mean(axis=0), color=COLOURS[index], label=f"step {step:g}")
    for axis, title in zip(
        axes, ("weak feature and image", "image alone", "follow a contradicting feature"), strict=True
    ):
        axis.set(xlabel="share of the run", title=title, ylim=(0, 1.03))
    axes[0].set_ylabel("share")
    if axes[0].lines:
        axes[0].legend(frameon=False, fontsize=8)
    return canvas
