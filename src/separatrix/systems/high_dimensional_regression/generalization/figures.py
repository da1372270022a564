"""Figures of the study `high-dim-generalization`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, StrMethodFormatter

from separatrix.lab import Figure, Results
from separatrix.systems.high_dimensional_regression.generalization.dataset import (
    noise_task,
    spectra,
    theory_curves,
)
from separatrix.systems.high_dimensional_regression.generalization.deep import LONG_TIME, NOISE_VARIANCE
from separatrix.systems.high_dimensional_regression.generalization.linear import TIME
from separatrix.systems.high_dimensional_regression.generalization.settings import Settings
from separatrix.systems.high_dimensional_regression.generalization.trained import errors
from separatrix.systems.high_dimensional_regression.learning_curves import (
    effective_rank,
    final_generalization_error,
    generalization_error,
    growth_at_equality,
    slowest_time,
    squared_norm,
    training_error,
)
from separatrix.systems.high_dimensional_regression.ridge import best_ridge_error
from separatrix.systems.high_dimensional_regression.spectrum import density, edges, marchenko_pastur
from separatrix.systems.high_dimensional_regression.stopping import optimal_stopping
from separatrix.systems.high_dimensional_regression.task import LinearTask

FLOW = "gradient-flow time t"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
#: Curves drawn in one panel, at most.
CURVES = 5


def figures(settings: Settings) -> list[Figure]:
    """All figures, in the order of the argument; one more on a data set."""
    drawn = [
        Figure("curves", "Test and training error in time",
               "Linear students, weakest noise, smallest start. Dots: means over simulated data sets with two standard "
               "errors; lines: Marchenko-Pastur theory, for several alpha = P/N. At alpha = 1 the test error falls, "
               "and then rises without bound.",
               draw_curves),
        Figure("heat_map", "When to stop, for every number of samples",
               "Theory: test error against samples over parameters and time. White line: the best time to stop. "
               "Dashed: time of the slowest mode, after which nothing more happens. Overtraining is the dark ridge "
               "above the white line at alpha = 1, and there is none far from it.",
               draw_heat_map),
        Figure("remedies", "Early stopping, ridge, or more parameters",
               "Test error against parameters over samples. Lines: theory at the end of training, stopped at the best "
               "time and with the best ridge penalty, which are hardly told apart; dots: simulation.",
               draw_remedies),
        Figure("spectrum", "Why alpha = 1 is worst: eigenvalues of the data",
               "Histograms of the positive eigenvalues of X X^T over all simulated data sets, and the Marchenko-Pastur "
               "density (line). At alpha = 1 it reaches down to zero; on both sides a gap opens.",
               draw_spectrum),
        Figure("growth", "Growth without bound at alpha = 1",
               "Test error above the noise of the test labels, over that noise: simulation (dots), theory (line) and "
               "the square-root law (dotted). A finite network follows it until t is of order N squared.",
               draw_growth),
        Figure("start", "Large starts are never forgotten below alpha = 1",
               "Test error in time for several variances of the start. Left, fewer samples than parameters: what the "
               "start puts into frozen directions stays. Right, more samples: it is forgotten."
               " Lines: theory, dots: simulation.",
               draw_start),
        Figure("norm_and_rank", "Norm of the weights and effective rank",
               "Root mean square of a weight (left) and share of the directions that is fitted (right), in time. "
               "Lines: theory, dots: simulation. Beyond the best time (crosses) the norm grows most at alpha = 1.",
               draw_norm_and_rank),
        Figure("features", "Random features",
               "ReLU features of a fixed random layer, medians over data sets against their number. Top: test error at "
               "the end and at the best time; dotted line: as many features as samples. Middle: smallest positive "
               "eigenvalue, central 80 %. Bottom: frozen directions, as counted (dots) and N_h - P (line).",
               draw_features),
        Figure("trained", "Networks trained in both layers",
               "Left: test errors against the number of hidden units, means with two standard errors. Right: mean test "
               "error during training for every width.",
               draw_trained),
        Figure("deep", "Depth changes when, not whether",
               "Deep linear students at alpha = 1, medians over data sets with the central 80 %. A deeper student "
               "waits at the start, then learns fast and overfits earlier.",
               draw_deep),
    ]  # fmt: skip
    if settings.data != "gaussian":
        drawn.append(
            Figure("dataset", f"Real data: {settings.data}",
                   "Medians over random splits. Left: test error in time for the weakest added noise; dots: measured, "
                   "lines: theory for the measured spectra, dashed: Marchenko-Pastur. Triangles: predicted stopping "
                   "times. Right: error at the last time and the smallest error in time, against "
                   "samples over components; lines: theory.",
                   draw_dataset)
        )  # fmt: skip
    return drawn


def _panels(columns: int, rows: int = 1, width: float = 4.3, height: float = 3.4, **options):
    canvas = Canvas(figsize=(max(width * columns, 4.5), height * rows), layout="constrained")
    return canvas, canvas.subplots(rows, columns, squeeze=False, **options)


def _plain(axis: Axis, places: tuple[float, ...] | list[float]) -> None:
    """Ticks in plain numbers at these places only, for logarithmic axes."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _chosen(settings: Settings) -> list[int]:
    """Indices of a few ratios: smallest, largest, 1 and its neighbours at most."""
    count = len(settings.ratios)
    if count <= CURVES:
        return list(range(count))
    one = settings.ratios.index(1.0)
    return sorted({0, one // 2, one, (one + count) // 2, count - 1})


def _dots(axis: Axes, time: np.ndarray, values: np.ndarray, colour: str, every: int = 2) -> None:
    """Means over members with two standard errors."""
    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
    axis.errorbar(time[::every], mean[::every], 2 * error[::every], fmt="o", ms=3, color=colour, lw=1)


def draw_curves(settings: Settings, results: Results) -> Canvas:
    """Test and training errors."""
    canvas, axes = _panels(2)
    task = LinearTask(settings.noise_ratios[0], 1.0, settings.start_variances[0])
    fine = np.geomspace(TIME[0], TIME[-1], 300)
    highest = 0.0
    for colour, index in zip(COLOURS, _chosen(settings), strict=False):
        ratio, data = settings.ratios[index], results[f"linear_ratio{index}"]
        spectrum = marchenko_pastur(ratio)
        for axis, name, theory in (
            (axes[0, 0], "test_error", generalization_error),
            (axes[0, 1], "training_error", training_error),
        ):
            _dots(axis, TIME, data[name].values[:, 0, 0], colour)
            axis.plot(fine, theory(fine, spectrum, task), color=colour, label=f"{ratio:g}")
        highest = max(highest, float(generalization_error(TIME[-1], spectrum, task)))
    axes[0, 0].set(
        xscale="log",
        yscale="log",
        xlabel=FLOW,
        ylabel="test error E_g",
        ylim=(0.9 * task.noise_variance, 1.3 * highest),
    )
    _plain(
        axes[0, 0].yaxis,
        [v for v in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if task.noise_variance < 1.2 * v and v < 1.3 * highest],
    )
    axes[0, 1].set(xscale="log", xlabel=FLOW, ylabel="training error E_t", ylim=(0, None))
    axes[0, 1].legend(frameon=False, fontsize=8, title="alpha = P/N", title_fontsize=8)
    axes[0, 0].set_title(f"INR {task.noise_variance:g}, start {task.initial_variance:g}", fontsize=9)
    return canvas


def draw_heat_map(settings: Settings, results: Results) -> Canvas:
    """Test error over the plane of ratio and time."""
    del results
    canvas, axes = _panels(len(settings.noise_ratios[:2]), width=4.9, height=3.9, sharey=True)
    ratios = np.geomspace(settings.ratios[0], settings.ratios[-1], 161)
    time = np.geomspace(TIME[0], TIME[-1], 200)
    for axis, noise in zip(axes[0], settings.noise_ratios, strict=False):
        task = LinearTask(noise)
        error = np.stack([generalization_error(time, marchenko_pastur(float(ratio)), task) for ratio in ratios], axis=1)
        # errors beyond those of an untrained student are overtraining: one colour for the worst
        levels = np.geomspace(error.min(), 3 * (1 + noise), 41)
        filled = axis.contourf(ratios, time, np.minimum(error, levels[-1]), levels=levels, cmap="viridis_r", norm="log",
                               extend="max")  # fmt: skip
        axis.plot(
            ratios, [optimal_stopping(marchenko_pastur(float(r)), task).time for r in ratios], color="white", lw=2
        )
        slow = np.array([slowest_time(float(ratio)) for ratio in ratios])
        axis.plot(ratios, np.where(slow < time[-1], slow, np.nan), color="black", ls="--", lw=1)
        axis.set(xscale="log", yscale="log", xlabel="alpha = P/N", title=f"INR {noise:g}", ylim=(time[0], time[-1]))
        _plain(axis.xaxis, [r for r in (0.125, 0.25, 0.5, 1, 2, 4, 8) if ratios[0] <= r <= ratios[-1]])
        bar = canvas.colorbar(filled, ax=axis, label="test error E_g")
        inside = [v for v in (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10) if levels[0] <= v <= levels[-1]]
        bar.set_ticks(inside, labels=[f"{v:g}" for v in inside])
        bar.ax.yaxis.set_minor_locator(NullLocator())
    axes[0, 0].set_ylabel(FLOW)
    return canvas


def draw_remedies(settings: Settings, results: Results) -> Canvas:
    """End of training, early stopping and ridge against network size."""
    canvas, axes = _panels(len(settings.noise_ratios[:3]))
    sizes = 1 / np.asarray(settings.ratios)
    fine = np.geomspace(sizes.min(), sizes.max(), 300)
    fine = fine[np.abs(np.log(fine)) > 1e-3]
    for k, axis in enumerate(axes[0]):
        noise = settings.noise_ratios[k]
        task = LinearTask(noise)
        final = [final_generalization_error(1 / size, task) for size in fine]
        stopped = [optimal_stopping(marchenko_pastur(float(1 / size)), task).error for size in fine]
        ridge = [best_ridge_error(1 / size, task) for size in fine]
        axis.plot(fine, final, color=COLOURS[1], label="end of training")
        axis.plot(fine, stopped, color=COLOURS[0], label="stopped")
        axis.plot(fine, ridge, color=COLOURS[2], ls="--", label="ridge")
        data = [results[f"linear_ratio{index}"] for index in range(len(sizes))]
        # at alpha = 1 the mean at the end of training does not exist
        for place, one in zip(sizes, data, strict=True):
            shown = [("stopped_error", COLOURS[0], "o"), ("ridge_error", COLOURS[2], "x")]
            for name, colour, marker in shown:
                axis.plot(place, one[name].values[:, k].mean(), marker, color=colour, ms=4)
            if place != 1:
                axis.plot(place, one["spanned_final_error"].values[:, k, 0].mean(), "o", color=COLOURS[1], ms=4)
        axis.set(xscale="log", xlabel="parameters over samples N/P", title=f"INR {noise:g}")
        axis.set_ylim(0, 4 * max(stopped))
        _plain(axis.xaxis, [v for v in (0.125, 0.25, 0.5, 1, 2, 4, 8) if sizes.min() <= v <= sizes.max()])
    axes[0, 0].set_ylabel("test error E_g")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas


def draw_spectrum(settings: Settings, results: Results) -> Canvas:
    """Histograms of eigenvalues."""
    chosen = _chosen(settings)
    canvas, axes = _panels(len(chosen), width=2.7, height=2.8)
    for axis, index in zip(axes[0], chosen, strict=True):
        ratio = settings.ratios[index]
        values = results[f"linear_ratio{index}"]["eigenvalue"].values.ravel()
        low, high = edges(ratio)
        bins = np.linspace(0 if ratio == 1 else 0.85 * low, 1.05 * high, 50)
        rank = min(ratio, 1.0)
        axis.hist(values, bins, weights=np.full(values.size, rank / values.size / np.diff(bins)[0]), color="0.8")
        grid = np.linspace(low, high, 500)[1:-1]
        axis.plot(grid, density(grid, ratio), color=COLOURS[0])
        axis.set(xlabel="eigenvalue", title=f"alpha = {ratio:g}")
        axis.set_ylim(0, 1.2 * float(np.max(density(bins[1:], ratio))))
        if ratio < 1:
            axis.text(
                0.97, 0.95, f"frozen: {1 - ratio:.3g}", transform=axis.transAxes, ha="right", va="top", fontsize=8
            )
    axes[0, 0].set_ylabel("density, mass min(1, alpha)")
    return canvas


def draw_growth(settings: Settings, results: Results) -> Canvas:
    """Growth of the test error at equality."""
    canvas, axes = _panels(1, width=5.2)
    axis = axes[0, 0]
    data = results[f"linear_ratio{settings.ratios.index(1.0)}"]
    time = np.geomspace(1, 1e4, 300)
    for k, (colour, noise) in enumerate(zip(COLOURS, settings.noise_ratios, strict=False)):
        error = generalization_error(time, marchenko_pastur(1.0), LinearTask(noise))
        axis.plot(time, error / noise - 1, color=colour, label=f"INR {noise:g}")
        late = TIME >= 1
        _dots(axis, TIME[late], data["test_error"].values[:, k, 0][:, late] / noise - 1, colour)
    axis.plot(time, growth_at_equality(time, 1.0) - 1 + 0.5, color="black", ls=":", label="square-root law")
    axis.set(xscale="log", yscale="log", xlabel=FLOW, ylabel="(E_g - noise) / noise, alpha = 1", ylim=(0.5, None))
    axis.legend(frameon=False, fontsize=8)
    return canvas


def draw_start(settings: Settings, results: Results) -> Canvas:
    """Test errors for several starts."""
    below = max(range(len(settings.ratios)), key=lambda k: (settings.ratios[k] < 1, -abs(settings.ratios[k] - 0.5)))
    above = max(range(len(settings.ratios)), key=lambda k: (settings.ratios[k] > 1, -abs(settings.ratios[k] - 2.0)))
    canvas, axes = _panels(2)
    fine = np.geomspace(TIME[0], TIME[-1], 300)
    for axis, index in zip(axes[0], (below, above), strict=True):
        ratio = settings.ratios[index]
        for k, (colour, start) in enumerate(zip(COLOURS, settings.start_variances, strict=False)):
            task = LinearTask(settings.noise_ratios[0], 1.0, start)
            axis.plot(fine, generalization_error(fine, marchenko_pastur(ratio), task), color=colour, label=f"{start:g}")
            _dots(axis, TIME, results[f"linear_ratio{index}"]["test_error"].values[:, 0, k], colour, every=3)
        axis.set(
            xscale="log", xlabel=FLOW, title=f"alpha = {ratio:g}, INR {settings.noise_ratios[0]:g}", ylim=(0, None)
        )
    axes[0, 0].set_ylabel("test error E_g")
    axes[0, 1].legend(frameon=False, fontsize=8, title="variance of the start", title_fontsize=8)
    return canvas


def draw_norm_and_rank(settings: Settings, results: Results) -> Canvas:
    """Norm of the weights and effective rank."""
    canvas, axes = _panels(2)
    task = LinearTask(settings.noise_ratios[0], 1.0, settings.start_variances[0])
    fine = np.geomspace(TIME[0], TIME[-1], 300)
    for colour, index in zip(COLOURS, _chosen(settings), strict=False):
        ratio, data = settings.ratios[index], results[f"linear_ratio{index}"]
        spectrum = marchenko_pastur(ratio)
        best = optimal_stopping(spectrum, task).time
        measured = np.sqrt(data["squared_norm"].values[:, 0, 0]), data["effective_rank"].values
        predicted = [
            (np.sqrt(squared_norm(time, spectrum, task)), effective_rank(time, spectrum)) for time in (fine, best)
        ]  # fmt: skip
        for axis, line, mark, dots in zip(axes[0], *predicted, measured, strict=True):
            axis.plot(fine, line, color=colour, label=f"{ratio:g}")
            _dots(axis, TIME, dots, colour, every=3)
            axis.plot(best, mark, "x", color="black", ms=7, mew=1.5, zorder=5)
    axes[0, 0].set(xscale="log", xlabel=FLOW, ylabel="|w| / sqrt(N)", ylim=(0, None))
    axes[0, 1].set(xscale="log", xlabel=FLOW, ylabel="effective rank / N", ylim=(0, 1.05))
    axes[0, 0].legend(frameon=False, fontsize=8, title="alpha = P/N", title_fontsize=8)
    return canvas


def draw_features(settings: Settings, results: Results) -> Canvas:
    """Errors, smallest eigenvalue and frozen directions against the number of features."""
    canvas = Canvas(figsize=(5.6, 7.2), layout="constrained")
    top, middle, bottom = canvas.subplots(3, 1, sharex=True, height_ratios=(2, 1.2, 1))
    widths = np.asarray(settings.feature_widths)
    data = [results[f"features_width{width}"] for width in widths]
    final = np.array([np.median(one["final_error"].values) for one in data])
    best = np.array([np.median(one["test_error"].values, axis=0).min() for one in data])
    top.plot(widths, final, "o-", color=COLOURS[1], ms=4, label="end of training")
    top.plot(widths, best, "o-", color=COLOURS[0], ms=4, label="stopped at the best time")
    top.set(yscale="log", ylabel="test error, median")
    top.legend(frameon=False, fontsize=8)
    low, mid, high = np.array(
        [np.quantile(one["smallest_eigenvalue"].values, (0.1, 0.5, 0.9)) for one in data]
    ).T  # fmt: skip
    middle.fill_between(widths, low, high, color=COLOURS[2], alpha=0.2, lw=0)
    middle.plot(widths, mid, "o-", color=COLOURS[2], ms=4)
    middle.set(yscale="log", ylabel="smallest eigenvalue > 0")
    bottom.plot(widths, [np.median(one["frozen"].values) for one in data], "o", color=COLOURS[3], ms=4)
    fine = np.geomspace(widths[0], widths[-1], 200)
    bottom.plot(fine, np.maximum(fine - settings.feature_samples, 0), color="0.4", lw=1)
    bottom.set(xscale="log", xlabel="random features N_h", ylabel="frozen directions")
    for axis in (top, middle, bottom):
        axis.axvline(settings.feature_samples, color="0.5", ls=":", lw=1)
    _plain(bottom.xaxis, _sparse(settings.feature_widths))
    return canvas


def _sparse(values: tuple[int, ...]) -> list[float]:
    """Those of increasing numbers whose labels do not touch on a logarithmic axis."""
    kept = [float(values[0])]
    for value in values[1:]:
        if value > 1.5 * kept[-1]:
            kept.append(float(value))
    return kept


def draw_trained(settings: Settings, results: Results) -> Canvas:
    """Errors of the trained networks."""
    canvas, axes = _panels(2)
    widths = np.asarray(settings.trained_widths)
    found = [errors(results, width)[:2] for width in widths]
    for place, colour, label in ((1, COLOURS[1], "end of training"), (0, COLOURS[0], "stopped at the best time")):
        values = [one[place] for one in found]
        mean = [np.mean(one) if one.size else np.nan for one in values]
        reach = [2 * np.std(one) / np.sqrt(max(one.size, 1)) for one in values]
        axes[0, 0].errorbar(widths, mean, reach, fmt="o-", ms=4, color=colour, label=label)
    axes[0, 0].set(xscale="log", xlabel="hidden units", ylabel="test error, mean", ylim=(0, None))
    _plain(axes[0, 0].xaxis, _sparse(settings.trained_widths))
    axes[0, 0].legend(frameon=False, fontsize=8)
    for colour, width in zip(COLOURS, widths, strict=False):
        data = results[f"trained_width{width}"]
        steps = data["step"].values[1:]
        axes[0, 1].plot(steps, data["test_error"].values[:, 1:].mean(axis=0), color=colour, label=f"{width}")
    axes[0, 1].set(xscale="log", xlabel="steps", ylabel="test error, mean", ylim=(0, 1.2))
    axes[0, 1].legend(frameon=False, fontsize=8, title="hidden units", title_fontsize=8, ncols=2)
    return canvas


def draw_deep(settings: Settings, results: Results) -> Canvas:
    """Test error of deep linear students."""
    canvas, axes = _panels(1, width=5.2)
    axis = axes[0, 0]
    for colour, depth in zip(COLOURS, settings.depth, strict=False):
        low, middle, high = np.quantile(
            results[f"deep_course_depth{depth}"]["test_error"].values, (0.1, 0.5, 0.9), axis=0
        )
        axis.fill_between(LONG_TIME, low, high, color=colour, alpha=0.15, lw=0)
        axis.plot(LONG_TIME, middle, color=colour, label=f"depth {depth}")
    axis.set(
        xscale="log", yscale="log", xlabel=FLOW, ylabel="test error E_g", title=f"alpha = 1, INR {NOISE_VARIANCE:g}"
    )
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.legend(frameon=False, fontsize=8)
    return canvas


def draw_dataset(settings: Settings, results: Results) -> Canvas:
    """Measured and predicted test errors on the data set."""
    canvas, axes = _panels(2, width=4.8, height=3.8)
    noise = settings.noise_ratios[0]
    task = noise_task(settings, noise)
    left, right = axes[0]
    for colour, index in zip(COLOURS, _chosen(settings), strict=False):
        measured = np.median(results[f"dataset_ratio{index}"]["test_error"].values[:, 0], axis=0)
        theory = np.median(theory_curves(settings, results, index, noise), axis=0)
        ratio = settings.ratios[index]
        left.plot(TIME[::2], measured[::2], "o", ms=3, color=colour)
        left.plot(TIME, theory, color=colour, label=f"{ratio:g}")
        left.plot(TIME, generalization_error(TIME, marchenko_pastur(ratio), task), color=colour, ls="--", lw=0.8)
        best = float(np.median([optimal_stopping(one, task).time for one in spectra(settings, results, index)]))
        left.plot(best, np.interp(np.log(best), np.log(TIME), theory), "v", color="black", ms=5, zorder=5)
    left.set(xscale="log", yscale="log", xlabel=FLOW, ylabel=f"test error, added noise {noise:g}")
    left.yaxis.set_minor_formatter(NullFormatter())
    left.legend(frameon=False, fontsize=8, title="alpha = P/N", title_fontsize=8)
    every = range(len(settings.ratios))
    curves = [np.median(results[f"dataset_ratio{k}"]["test_error"].values[:, 0], axis=0) for k in every]
    predicted = [np.median(theory_curves(settings, results, k, noise), axis=0) for k in every]
    for colour, label, pick in ((COLOURS[1], "last time", lambda c: c[-1]), (COLOURS[0], "smallest", np.min)):
        right.plot(settings.ratios, [pick(c) for c in predicted], color=colour, lw=1)
        right.plot(settings.ratios, [pick(c) for c in curves], "o", ms=4, color=colour, label=label)
    right.set(xscale="log", yscale="log", xlabel="samples over components alpha = P/N", ylabel="test error")
    right.yaxis.set_minor_formatter(NullFormatter())
    _plain(right.xaxis, [v for v in (0.125, 0.25, 0.5, 1, 2, 4, 8) if settings.ratios[0] <= v <= settings.ratios[-1]])
    right.legend(frameon=False, fontsize=8)
    return canvas
