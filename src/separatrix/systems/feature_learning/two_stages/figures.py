"""Figures of the study `label-noise-two-stages`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from separatrix.lab import Figure, Results
from separatrix.optimizers.sample_selection import LOG_TWO
from separatrix.systems.feature_learning.two_stage_theory import Flips, reduced_course, reduced_test_error
from separatrix.systems.feature_learning.two_stages.image_training import fitted_images
from separatrix.systems.feature_learning.two_stages.networks import (
    Cell,
    clean_errors,
    grid_cells,
    kept_members,
    losses,
    main_cell,
    mean_among,
    nearest,
    strong_cell,
)
from separatrix.systems.feature_learning.two_stages.reduced import collapse_cells, theory_cell
from separatrix.systems.feature_learning.two_stages.selection import selection_accuracy
from separatrix.systems.feature_learning.two_stages.settings import Settings

TIME = "time theta"
BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.35"
COLOURS = (BLUE, RED, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def figures(settings: Settings) -> list[Figure]:
    """All figures, in the order of the argument; one more with images."""
    drawn = [
        Figure("losses", "Losses of clean and flipped samples",
               "Quantiles 10, 50 and 90 % over samples and networks. In Stage I clean samples (blue) fall below the "
               "line log 2 and flipped ones (red) rise above it; in Stage II (right of the dotted line, theory) "
               "flipped ones are memorised. Left: main network, right: more flipped labels.",
               draw_losses),
        Figure("growth", "Signal and memory against the reduced dynamics",
               "Means over networks (dots) and reduced dynamics of kappa and tau (lines), many dimensions per sample. "
               "Memory of flipped samples overtakes the signal.",
               draw_growth),
        Figure("errors", "What overfitting costs",
               "Error of fresh samples with respect to true labels (solid, central 80 % of networks) and to labels "
               "flipped like the training labels (dashed), and tau / 2 (thin line). Dotted: begin of Stage II in "
               "theory. Crosses: error of the reduced state at the end, neglecting products of different samples.",
               draw_errors),
        Figure("selection", "Selection by loss < log 2",
               "Share of samples kept and clean, or dropped and flipped, in time: means over networks of the grid, "
               "with kappa (1 - 2 tau) in the legend. Dashed: 1 - tau, where nothing is dropped.",
               draw_selection),
        Figure("phases", "Where two stages exist",
               "Best accuracy of the selection over that of keeping all samples, as the share of the possible gain, "
               "for the kinds of network of this run. Solid line: kappa (1 - 2 tau) = 1, dashed: 2. A sweep over kappa "
               "and label_noise fills the map.",
               draw_phases),
        Figure("histogram", "Losses in Stage I",
               "Losses of all samples at the time at which theory rejects flipped ones most clearly. Vertical line: "
               "log 2.",
               draw_histogram),
        Figure("collapse", "Equal kappa and tau, equal course",
               "Signal of networks that differ in everything but kappa and tau: against theta (left) and against "
               "learning_rate * step (right).",
               draw_collapse),
    ]  # fmt: skip
    if settings.data != "none":
        drawn.append(
            Figure("images", f"Real images: {settings.data}",
                   "Left: shares of right (blue) and wrong (red) labels that are fitted, medians and central 80 % of "
                   "the splits. Middle: test accuracy, plain (black) and trained again on the selection (green). "
                   "Right: share of the wrong labels among the samples with a loss of log 2 or more (precision) and "
                   "share of the wrong labels found (recall), in time.",
                   draw_images)
        )  # fmt: skip
    return drawn


def _panels(columns: int, width: float = 4.3, height: float = 3.4, **options) -> tuple[Canvas, np.ndarray]:
    canvas = Canvas(figsize=(width * columns, height), layout="constrained")
    return canvas, canvas.subplots(1, columns, squeeze=False, **options)[0]


def _band(axis: Axes, x: np.ndarray, rows: np.ndarray, colour: str, label: str | None = None) -> None:
    low, middle, high = np.quantile(rows, [0.1, 0.5, 0.9], axis=0)
    axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    axis.plot(x, middle, color=colour, label=label)


def _begin(axis: Axes, cell: Cell) -> None:
    if not np.isnan(cell.stage_two):
        axis.axvline(cell.stage_two, color=GREY, ls=":", lw=1)


def _both(settings: Settings) -> tuple[Cell, Cell]:
    return main_cell(settings), strong_cell(settings)


def _title(cell: Cell) -> str:
    return f"kappa {cell.kappa:g}, tau {cell.noise:g}"


def draw_losses(settings: Settings, results: Results) -> Canvas:
    """Quantile bands of the losses."""
    canvas, axes = _panels(2, sharey=True)
    for axis, cell in zip(axes, _both(settings), strict=True):
        data = kept_members(results[cell.name])
        theta, loss, flipped = data["theta"].values, losses(data), data["flipped"].values
        for chosen, colour, label in ((~flipped, BLUE, "clean"), (flipped, RED, "flipped")):
            if chosen.any():
                _band(axis, theta[1:], loss.transpose(0, 2, 1)[chosen][:, 1:], colour, label)
        axis.axhline(LOG_TWO, color=GREY, lw=0.8)
        _begin(axis, cell)
        axis.set(xscale="log", xlabel=TIME, title=_title(cell), ylim=(0, None))
    axes[0].set_ylabel("loss of a sample")
    axes[0].legend(frameon=False)
    return canvas


def draw_growth(settings: Settings, results: Results) -> Canvas:
    """Coefficients in time."""
    cell = theory_cell(settings)
    data = kept_members(results[cell.name])
    theta, flipped = data["theta"].values[1:], data["flipped"].values
    memory = data["memory"].values.astype(np.float64)
    course = reduced_course(theta, cell.kappa, cell.noise)
    canvas, (axis,) = _panels(1, width=5.4)
    for values, line, colour, label in (
        (data["signal"].values.mean(axis=2), course.signal, GREEN, "signal"),
        (mean_among(memory, ~flipped), course.clean, BLUE, "memory of clean samples"),
        (mean_among(memory, flipped), course.flipped, RED, "memory of flipped samples"),
    ):
        axis.plot(theta, line, color=colour, lw=1)
        axis.errorbar(theta[::4], values.mean(axis=0)[1::4], 2 * values.std(axis=0)[1::4] / np.sqrt(len(values)),
                      fmt="o", ms=3, lw=1, color=colour, label=label)  # fmt: skip
    _begin(axis, cell)
    axis.set(xscale="log", yscale="log", xlabel=TIME, ylabel="coefficient", title=_title(cell))
    axis.legend(frameon=False, fontsize=8)
    return canvas


def draw_errors(settings: Settings, results: Results) -> Canvas:
    """Errors of fresh samples."""
    canvas, axes = _panels(2)
    for axis, cell in zip(axes, _both(settings), strict=True):
        data = kept_members(results[cell.name])
        theta, error = data["theta"].values, clean_errors(data)
        _band(axis, theta[1:], error[:, 1:], BLUE, "true labels")
        by_class = data["test_error"].values.mean(axis=0)
        noisy = [rate + (1 - 2 * rate) * by_class[:, k] for k, rate in enumerate((cell.positive, cell.negative))]
        axis.plot(theta[1:], np.mean(noisy, axis=0)[1:], color=RED, ls="--", label="flipped labels")
        axis.axhline(cell.noise / 2, color=GREY, lw=0.6)
        ends = [reduced_course(theta[-1:], cell.kappa, rate) for rate in (cell.positive, cell.negative)]
        predicted = reduced_test_error(
            (ends[0].signal[0], ends[1].signal[0]), (ends[0].clean[0], ends[1].clean[0]),
            (ends[0].flipped[0], ends[1].flipped[0]),
            Flips(cell.samples, cell.dimension, cell.width, cell.positive, cell.negative),
            np.random.default_rng(settings.seed),
        )  # fmt: skip
        axis.plot(theta[-1], predicted, "x", color="black", label="reduced state")
        _begin(axis, cell)
        axis.set(xscale="log", xlabel=TIME, title=_title(cell), ylim=(0, 0.6))
    axes[0].set_ylabel("error of fresh samples")
    axes[0].legend(frameon=False, fontsize=8)
    return canvas


def draw_selection(settings: Settings, results: Results) -> Canvas:
    """Accuracy of the selection in time."""
    canvas, (axis,) = _panels(1, width=5.6)
    for k, cell in enumerate(grid_cells(settings)):
        colour = COLOURS[k % len(COLOURS)]
        data = kept_members(results[cell.name])
        accuracy = selection_accuracy(data).mean(axis=0)
        label = f"{cell.strength:.2g}: {_title(cell)}"
        axis.plot(data["theta"].values[1:], accuracy[1:], color=colour, label=label)
        axis.axhline(1 - cell.noise, color=colour, ls="--", lw=0.6)
    axis.set(xscale="log", xlabel=TIME, ylabel="accuracy of the selection")
    axis.legend(frameon=False, fontsize=7)
    return canvas


def draw_phases(settings: Settings, results: Results) -> Canvas:
    """Kinds of network in the plane of kappa and tau."""
    canvas, (axis,) = _panels(1, width=5.4)
    cells = [*_both(settings), *grid_cells(settings)]
    gains = []
    for cell in cells:
        best = selection_accuracy(kept_members(results[cell.name])).max(axis=1).mean()
        gains.append((best - (1 - cell.noise)) / cell.noise if cell.noise else np.nan)
    points = axis.scatter([cell.kappa for cell in cells], [cell.noise for cell in cells], c=gains, s=140, vmin=0,
                          vmax=1, cmap="viridis", edgecolors="black")  # fmt: skip
    tau = np.linspace(0, 0.48, 200)
    for border, style in ((1.0, "-"), (2.0, "--")):
        axis.plot(border / (1 - 2 * tau), tau, color="black", ls=style, lw=1)
    highest = 1.6 * max(cell.kappa for cell in cells)
    axis.set(xscale="log", xlim=(0.5, highest), ylim=(0, 0.5), xlabel="kappa = n SNR^2", ylabel="flipped labels tau")
    canvas.colorbar(points, ax=axis, label="share of flipped labels found, net")
    return canvas


def draw_histogram(settings: Settings, results: Results) -> Canvas:
    """Losses in Stage I."""
    canvas, axes = _panels(2)
    for axis, cell in zip(axes, _both(settings), strict=True):
        data = kept_members(results[cell.name])
        time = 1.0 if np.isnan(cell.selection) else cell.selection
        loss, flipped = losses(data)[:, nearest(data["theta"].values, time)], data["flipped"].values
        bins = np.linspace(loss.min(), loss.max(), 60)
        for chosen, colour, label in ((~flipped, BLUE, "clean"), (flipped, RED, "flipped")):
            axis.hist(loss[chosen], bins, color=colour, alpha=0.6, label=label)
        axis.axvline(LOG_TWO, color="black", lw=1)
        axis.set(xlabel=f"loss at theta = {time:.2g}", title=_title(cell))
    axes[0].set_ylabel("samples")
    axes[0].legend(frameon=False)
    return canvas


def draw_collapse(settings: Settings, results: Results) -> Canvas:
    """Signal against two clocks."""
    canvas, axes = _panels(2)
    base = theory_cell(settings)
    for colour, cell in zip(COLOURS, (base, *collapse_cells(settings)), strict=False):
        data = kept_members(results[cell.name])
        theta = data["theta"].values
        early = theta <= 5.5
        signal = data["signal"].values.mean(axis=(0, 2))[early]
        label = f"n {cell.samples}, m {cell.width}, d {cell.dimension}, sigma {cell.noise_scale:g}"
        axes[0].plot(theta[early], signal, color=colour, label=label)
        axes[1].plot(theta[early] / cell.time_step * cell.learning_rate, signal, color=colour)
    axes[0].set(xlabel=TIME, ylabel="signal")
    axes[1].set(xlabel="learning_rate * step", xscale="log")
    axes[0].legend(frameon=False, fontsize=7)
    return canvas


def draw_images(settings: Settings, results: Results) -> Canvas:
    """Accuracies and selection on images."""
    del settings
    data, again = results["images"], results["images_selected"]
    canvas, axes = _panels(3, width=3.7)
    steps = data["step"].values
    for which, colour in (("right", BLUE), ("wrong", RED)):
        if data[which].values.any(axis=1).all():
            _band(axes[0], steps[1:], fitted_images(data, which)[:, 1:], colour, f"{which} labels")
    axes[0].set(ylabel="share fitted")
    axes[0].legend(frameon=False, fontsize=8)
    _band(axes[1], steps[1:], data["test_accuracy"].values[:, 1:], "black", "plain")
    _band(axes[1], steps[1:], again["test_accuracy"].values[:, 1:], GREEN, "after selection")
    axes[1].set(ylabel="test accuracy")
    axes[1].legend(frameon=False, fontsize=8)
    known = (data["right"].values | data["wrong"].values)[:, None]
    dropped, wrong = (data["margin"].values <= 0) & known, data["wrong"].values[:, None]
    found = (dropped & wrong).sum(axis=(0, 2))
    with np.errstate(invalid="ignore"):
        axes[2].plot(steps[1:], (found / dropped.sum(axis=(0, 2)))[1:], color=BLUE, label="precision")
        axes[2].plot(steps[1:], (found / wrong.sum(axis=(0, 2)))[1:], color=RED, label="recall")
    axes[2].set(ylim=(0, 1.02))
    axes[2].legend(frameon=False, fontsize=8)
    for axis in axes:
        axis.set(xscale="log", xlabel="step")
    return canvas
