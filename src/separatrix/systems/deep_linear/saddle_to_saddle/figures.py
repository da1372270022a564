"""Figures of the study `saddle-to-saddle-sgd`."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as Canvas
from scipy import stats

from separatrix.lab import Figure, Results
from separatrix.systems.deep_linear.diffusion_peak import (
    critical_label_noise,
    dominant_label_noise,
    peak_progress,
)
from separatrix.systems.deep_linear.figure_style import COLOURS, TIME, band, panels, plain_ticks
from separatrix.systems.deep_linear.learning_times import passage_density
from separatrix.systems.deep_linear.saddle_to_saddle.chain import PASSAGE, scalar_rates
from separatrix.systems.deep_linear.saddle_to_saddle.endpoints import law_distances
from separatrix.systems.deep_linear.saddle_to_saddle.noise_peak import measured_diffusion, run_rises
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, task
from separatrix.systems.deep_linear.saddle_to_saddle.survival import reduction_gaps
from separatrix.systems.deep_linear.scalar_mode import strength_diffusion
from separatrix.systems.deep_linear.stationary import boltzmann_temperature, stationary_law


def figures(settings: Settings) -> list[Figure]:
    """All figures, in the order of the argument."""
    source = "Gaussian online data" if settings.online else f"data set {settings.data}"
    gaussian = "" if settings.online else " Dashed: the closed form for Gaussian inputs at the same weights."
    return [
        Figure("learning", "From saddle to saddle",
               f"Random small start, {source}. Left: excess loss of SGD runs (thin) and of gradient descent from the "
               "same start (thick, one run); dashed lines are the losses of the saddles, where the first k modes are "
               "learned. Right: mode strengths of the same runs; each mode waits near zero and rises in turn. Clean "
               "labels.",
               draw_learning),
        Figure("noise_peak", "The noise of a mode peaks before the mode is learned",
               "Aligned start, noisy labels, one column for each depth. Top: strength of each mode over its singular "
               "value, median over runs with the central 80 %. Bottom: variance rate S_aa over its largest median. "
               "Dotted line: median time of the noise peak; solid line: median time at which the mode is learned "
               f"(95 %).{gaussian}",
               draw_noise_peak),
        Figure("diffusion_curves", "Why there is a peak: diffusion of one mode along its rise",
               "Diffusion D(w) of the scalar theory, in units of its value at w = s / 2 without label noise, for "
               "several label noises. Dots mark the local maximum, where there is one; it disappears at the critical "
               "label noise.",
               draw_diffusion_curves),
        Figure("peak_position", "Where the noise peaks, measured and predicted",
               "Median progress w/s at the largest diffusion, one dot for each mode with its 95 % interval; theory as "
               "a line (clean labels) or as crosses (noisy labels, one for each mode). Dots of a depth are spread "
               "sideways.",
               draw_peak_position),
        Figure("phase_map", "Where a peak can be seen at all",
               "Theory: label noise over singular value against depth. Below the lower line the peak is the largest "
               "diffusion of the whole rise; between the lines it is a local maximum; above there is none. Dots are "
               "this run's modes.",
               draw_phase_map),
        Figure("stationary", "With label noise: the law of a learned mode",
               "Stationary histogram of the scalar chain at the largest learning rate (grey), the exact law of the "
               "scalar equation (line) and its Boltzmann approximation (dashed). Logarithmic density.",
               draw_stationary),
        Figure("law_distance", "The laws are reached as the learning rate falls",
               "Kolmogorov-Smirnov distance between the scalar chain and the two laws, with 95 % intervals. Theory: "
               "slope 1 for the exact law, 1/2 for Boltzmann (dotted guide lines).",
               draw_law_distance),
        Figure("temperature", "One temperature for each mode",
               "Variance of the modes of the full network at the end against the predicted temperature "
               "kappa sigma^2 L s^(2-2/L) / 2; the line is equality. Intervals are smaller than the dots.",
               draw_temperature),
        Figure("ratio", "Drift over noise along the rise",
               "Gradient-flow speed over the noise amplitude of each mode against its progress (aligned start): flat "
               "with clean labels, where noise vanishes with the error; falling to zero with noisy ones. Lines: scalar "
               "theory.",
               draw_ratio),
        Figure("alignment", "What the reduction leaves out",
               "Root mean square of the off-diagonal strengths (left) and distance from balance (right) along the "
               "aligned runs, medians with the central 80 %, noisy labels.",
               draw_alignment),
        Figure("reduction", "The reduction's error vanishes with the learning rate",
               "Largest mean gap between the full network and its scalar chains on the same samples, relative to the "
               "singular value, against the learning rate; the dotted line has slope 1.",
               draw_reduction),
        Figure("passage", "Escape from the saddle",
               "Histogram of the escape time of the scalar chain at depth 2 and the inverse-Gaussian density (line); "
               "the dashed line is the time of gradient flow.",
               draw_passage),
    ]  # fmt: skip


def _middle(depths: Sequence[int]) -> int:
    return sorted(depths)[len(depths) // 2]


def _finite(data: xr.Dataset) -> xr.Dataset:
    return data.isel(member=data["diverged_at_step"].values < 0)


def draw_learning(settings: Settings, results: Results) -> Canvas:
    """Loss and strengths of SGD runs over gradient descent."""
    depth = _middle(settings.depth)
    sgd, descent = _finite(results[f"random_depth{depth}_clean"]), results[f"random_depth{depth}_descent"]
    s = sgd["singular_value"].values
    rest = np.asarray(task(settings).singular_values)
    canvas, axes = panels(2, width=4.6, height=3.4)
    loss, strength = axes[0]
    time = sgd["time"].values
    late = run_rises(descent).learned_time[0]
    end = min(time[-1], 1.4 * np.nanmax(late)) if np.isfinite(late).any() else time[-1]
    for run in range(min(8, sgd.sizes["member"])):
        loss.plot(time, sgd["loss"].values[run], color="0.6", lw=0.7, label="SGD runs" if run == 0 else None)
    loss.plot(time, descent["loss"].values[0], color="black", lw=1.8, label="gradient descent")
    for k in range(s.size):
        saddle = 0.5 * np.sum(rest[k:] ** 2)
        loss.axhline(saddle, color=COLOURS[0], lw=0.8, ls="--", label="saddles" if k == 0 else None)
    loss.set(xlabel=TIME, ylabel="excess loss |M - W|^2 / 2", xlim=(0, end), title=f"depth {depth}")
    loss.set_yscale("log")
    loss.set_ylim(bottom=max(1e-4, 0.02 * 0.5 * s[-1] ** 2))
    loss.legend(frameon=False, fontsize=8)
    for mode, value in enumerate(s):
        colour = COLOURS[mode % len(COLOURS)]
        for run in range(min(8, sgd.sizes["member"])):
            strength.plot(time, sgd["strength"].values[run, :, mode], color=colour, lw=0.6, alpha=0.6)
        strength.plot(time, descent["strength"].values[0, :, mode], color=colour, lw=1.8, label=f"s = {value:.3g}")
    strength.set(xlabel=TIME, ylabel="mode strength w", xlim=(0, end), title="thick: descent, thin: SGD")
    strength.legend(frameon=False, fontsize=8)
    return canvas


def draw_noise_peak(settings: Settings, results: Results) -> Canvas:
    """Progress and variance rate along the rise."""
    canvas, axes = panels(len(settings.depth), rows=2, sharex="col")
    for column, depth in enumerate(settings.depth):
        data = _finite(results[f"aligned_depth{depth}_noisy"])
        rise, time = run_rises(data), data["time"].values
        rate = measured_diffusion(data)
        s = data["singular_value"].values
        for mode, value in enumerate(s):
            colour = COLOURS[mode % len(COLOURS)]
            band(axes[0, column], time, data["strength"].values[:, :, mode] / value, colour, f"s = {value:.3g}")
            unit = np.nanmedian(rate[:, :, mode], axis=0).max()
            band(axes[1, column], time, rate[:, :, mode] / unit, colour)
            if not settings.online:
                gaussian = np.nanmedian(data["variance_rate"].values[:, :, mode], axis=0)
                axes[1, column].plot(time, gaussian / unit, color=colour, ls="--", lw=0.9)
            for row in (0, 1):
                if rise.learned[:, mode].any():
                    axes[row, column].axvline(np.nanmedian(rise.peak_time[:, mode]), color=colour, ls=":", lw=1)
                    axes[row, column].axvline(np.nanmedian(rise.learned_time[:, mode]), color=colour, ls="-", lw=0.7)
        learned = rise.learned_time[np.isfinite(rise.learned_time)]
        axes[0, column].set(
            title=f"depth {depth}", xlim=(0, 1.15 * np.quantile(learned, 0.95) if learned.size else time[-1])
        )
        axes[0, column].set_ylim(0, 1.3)
        axes[1, column].set(xlabel=TIME, ylim=(0, 1.8))
    axes[0, 0].set_ylabel("progress w / s")
    axes[1, 0].set_ylabel("variance rate, relative")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas


def draw_diffusion_curves(settings: Settings, results: Results) -> Canvas:
    """D(w) for several label noises."""
    del results
    canvas, axes = panels(len(settings.depth), sharey=True)
    progress = np.linspace(1e-3, 1.15, 400)
    for axis, depth in zip(axes[0], settings.depth, strict=True):
        critical, dominant = float(critical_label_noise(depth)), float(dominant_label_noise(depth))
        unit = strength_diffusion(0.5, 1.0, depth, 1.0, 0.0)
        for colour, (name, noise) in zip(
            COLOURS,
            (("0", 0.0), ("peak = plateau", dominant), ("critical", critical), ("1.5 x critical", 1.5 * critical)),
            strict=False,
        ):  # fmt: skip
            curve = strength_diffusion(progress, 1.0, depth, 1.0, noise) / unit
            text = name if noise == 0 else f"{noise:.3f} ({name})"
            axis.plot(progress, curve, color=colour, label=f"sigma/s = {text}")
            top = float(peak_progress(depth, noise))
            if np.isfinite(top):
                axis.plot(top, strength_diffusion(top, 1.0, depth, 1.0, noise) / unit, "o", color=colour, ms=4)
        axis.set(xlabel="progress w / s", title=f"depth {depth}", ylim=(0, 4))
        axis.legend(frameon=False, fontsize=6.5, loc="upper left")
    axes[0, 0].set_ylabel("diffusion D(w), relative")
    return canvas


def draw_peak_position(settings: Settings, results: Results) -> Canvas:
    """Measured against predicted position of the peak."""
    problem = task(settings)
    canvas, axes = panels(2, width=4.4, height=3.4, sharey=True)
    lines = np.linspace(max(2, min(settings.depth) - 0.4), max(settings.depth) + 0.4, 50)
    for axis, arm in zip(axes[0], ("clean", "noisy"), strict=True):
        if arm == "clean":
            axis.plot(lines, [float(peak_progress(x, 0.0)) for x in lines], color="black", label="theory")
        for start, marker, colour, side in (("aligned", "o", COLOURS[0], -1), ("random", "s", COLOURS[1], 1)):
            first = True
            for depth in settings.depth:
                rise = run_rises(results[f"{start}_depth{depth}_{arm}"])
                for mode in range(problem.modes):
                    values = rise.peak_progress[rise.learned[:, mode], mode]
                    if values.size < 3:
                        continue
                    x = depth + side * (0.06 + 0.22 * (mode + 0.5) / problem.modes)
                    middle = np.median(values)
                    reach = 1.253 * 1.96 * values.std() / np.sqrt(values.size)
                    axis.errorbar(
                        x, middle, reach, fmt=marker, ms=4, color=colour, label=f"{start} start" if first else None
                    )
                    first = False
                    if arm == "noisy":
                        noise = problem.mode_label_noise[mode] / problem.followed[mode]
                        axis.plot(x, float(peak_progress(depth, noise)), "kx", ms=5)
        if arm == "noisy":
            axis.plot([], [], "kx", label="theory")
        axis.set(xlabel="depth L", title=f"{arm} labels", xticks=list(settings.depth), ylim=(0.3, 1.0))
        axis.legend(frameon=False, fontsize=8)
    axes[0, 0].set_ylabel("progress w / s at the noise peak")
    return canvas


def draw_phase_map(settings: Settings, results: Results) -> Canvas:
    """Regions of the (label noise, depth) plane."""
    del results
    problem = task(settings)
    canvas, axes = panels(1, width=5.2, height=3.6)
    axis = axes[0, 0]
    depths = np.linspace(2, max(8, max(settings.depth) + 1), 80)
    critical = np.array([float(critical_label_noise(x)) for x in depths])
    dominant = np.array([float(dominant_label_noise(x)) for x in depths])
    noise = problem.mode_label_noise / problem.followed
    top = max(0.7, 1.15 * noise.max())
    axis.fill_between(depths, 0, dominant, color=COLOURS[0], alpha=0.25, lw=0, label="peak")
    axis.fill_between(depths, dominant, critical, color=COLOURS[4], alpha=0.3, lw=0, label="local peak")
    axis.fill_between(depths, critical, top, color="0.9", lw=0, label="none")
    for depth in settings.depth:
        axis.plot(np.full(noise.size, depth), noise, "k.", ms=5)
    axis.set(xlabel="depth L", ylabel="label noise sigma / s", ylim=(0, top), xlim=(depths[0] - 0.15, depths[-1]))
    axis.legend(frameon=True, fontsize=8, loc="upper right")
    return canvas


def draw_stationary(settings: Settings, results: Results) -> Canvas:
    """Histogram against the exact law and Boltzmann."""
    canvas, axes = panels(len(settings.depth))
    sigma = settings.scalar_label_noise
    for axis, depth in zip(axes[0], settings.depth, strict=True):
        rate = float(scalar_rates(settings, depth)[0])
        strength = results[f"law_depth{depth}_rate0"]["root"].values.ravel() ** depth
        strength = strength[np.isfinite(strength)]
        law = stationary_law(depth, 1.0, sigma, rate)
        low, high = np.quantile(strength, [0.0005, 0.9995])
        grid = np.linspace(max(low, 1e-6), high, 400)
        axis.hist(strength, 80, range=(low, high), density=True, color="0.8", label="SGD chain")
        axis.plot(grid, law.pdf(grid), color=COLOURS[0], label="exact law")
        spread = np.sqrt(float(boltzmann_temperature(depth, 1.0, sigma, rate)))
        axis.plot(grid, stats.norm.pdf(grid, 1, spread), color=COLOURS[1], ls="--", label="Boltzmann")
        axis.set(xlabel="strength w / s", title=f"depth {depth}, rate {rate:.3g}", yscale="log")
        axis.set_ylim(bottom=1e-3)
    axes[0, 0].set_ylabel("probability density")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas


def draw_law_distance(settings: Settings, results: Results) -> Canvas:
    """KS distance against the learning rate."""
    canvas, axes = panels(len(settings.depth), sharey=True)
    for axis, depth in zip(axes[0], settings.depth, strict=True):
        rates = scalar_rates(settings, depth)
        exact, boltzmann = law_distances(settings, results, depth)
        for distances, marker, colour, label, power in (
            (exact, "o", COLOURS[0], "exact law", 1.0),
            (boltzmann, "s", COLOURS[1], "Boltzmann", 0.5),
        ):
            axis.errorbar(rates, distances[:, 0], 1.96 * distances[:, 1], fmt=marker, ms=4, color=colour, label=label)
            axis.plot(rates, distances[0, 0] * (rates / rates[0]) ** power, color=colour, lw=0.8, ls=":")
        axis.set(xscale="log", yscale="log", xlabel="learning rate", title=f"depth {depth}")
        plain_ticks(axis.xaxis, axis.yaxis)
    axes[0, 0].set_ylabel("Kolmogorov-Smirnov distance")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas


def draw_temperature(settings: Settings, results: Results) -> Canvas:
    """Variances of the full network's modes against their temperatures."""
    problem = task(settings)
    kappa = settings.learning_rate * problem.noise_scale_factor
    canvas, axes = panels(1, width=4.6, height=3.8)
    axis, seen = axes[0, 0], []
    for colour, depth in zip(COLOURS, settings.depth, strict=False):
        strength = _finite(results[f"stationary_depth{depth}"])["strength_matrix"].values
        variance = np.array([strength[:, :, a, a].var() for a in range(problem.modes)])
        predicted = boltzmann_temperature(depth, problem.followed, problem.mode_label_noise, kappa)
        axis.plot(predicted, variance, "o", color=colour, label=f"depth {depth}")
        seen.extend([*predicted, *variance])
    ends = np.array([min(seen) * 0.7, max(seen) * 1.4]) if min(seen) > 0 else np.array([0.0, 1.0])
    axis.plot(ends, ends, color="0.5", lw=0.8)
    if min(seen) > 0:
        axis.set(xscale="log", yscale="log")
        plain_ticks(axis.xaxis, axis.yaxis)
    axis.set(xlabel="predicted temperature T", ylabel="measured variance of w", xlim=ends, ylim=ends)
    axis.legend(frameon=False, fontsize=8)
    return canvas


def draw_ratio(settings: Settings, results: Results) -> Canvas:
    """Drift over noise amplitude against progress."""
    problem = task(settings)
    kappa = settings.learning_rate * problem.noise_scale_factor
    canvas, axes = panels(2, width=4.2, height=3.2, sharey=True)
    depth = _middle(settings.depth)
    grid = np.linspace(0.02, 1.1, 200)
    for axis, arm in zip(axes[0], ("clean", "noisy"), strict=True):
        data = _finite(results[f"aligned_depth{depth}_{arm}"]).isel(member=slice(0, 40))
        rate = measured_diffusion(data)
        for mode, s in enumerate(problem.followed):
            colour = COLOURS[mode % len(COLOURS)]
            progress = data["strength"].values[:, :, mode].ravel() / s
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = (data["flow"].values[:, :, mode] / np.sqrt(kappa * rate[:, :, mode])).ravel()
            axis.plot(progress[::7], ratio[::7], ".", ms=1.2, color=colour, alpha=0.3)
            noise = problem.mode_label_noise[mode] if arm == "noisy" else 0.0
            error = s * (1 - grid)
            with np.errstate(divide="ignore", invalid="ignore"):
                theory = error / np.sqrt(kappa * (2 * error**2 + noise**2))
            axis.plot(grid, theory, color=colour, lw=1.3, label=f"s = {s:.3g}")
        height = 1 / np.sqrt(2 * kappa)
        axis.set(
            xlabel="progress w / s",
            title=f"depth {depth}, {arm} labels",
            xlim=(0, 1.1),
            ylim=(-1.3 * height, 1.3 * height),
        )
    axes[0, 0].set_ylabel("drift / noise amplitude  (per sqrt time)")
    axes[0, 1].legend(frameon=False, fontsize=8)
    return canvas


def draw_alignment(settings: Settings, results: Results) -> Canvas:
    """Off-diagonal strengths and imbalance."""
    canvas, axes = panels(2, width=4.2, height=3.0)
    for colour, depth in zip(COLOURS, settings.depth, strict=False):
        data = _finite(results[f"aligned_depth{depth}_noisy"])
        for axis, name in zip(axes[0], ("off_diagonal", "imbalance"), strict=True):
            band(axis, data["time"].values, data[name].values, colour, f"depth {depth}")
    axes[0, 0].set(xlabel=TIME, ylabel="rms of w_ab, a != b")
    axes[0, 1].set(xlabel=TIME, ylabel="|W'W (next) - W W'|, largest over layers")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas


def draw_reduction(settings: Settings, results: Results) -> Canvas:
    """Gap between network and reduction against the learning rate."""
    canvas, axes = panels(1, width=4.6, height=3.4)
    axis = axes[0, 0]
    for colour, depth in zip(COLOURS, settings.depth, strict=False):
        rates, gaps, _ = reduction_gaps(settings, results, depth)
        middle = np.array([abs(g.mean()) for g in gaps])
        reach = np.array([1.96 * g.std() / np.sqrt(g.size) for g in gaps])
        axis.errorbar(
            rates, middle, np.minimum(reach, 0.9 * middle), fmt="o-", ms=4, color=colour, label=f"depth {depth}"
        )
        axis.plot(rates, middle[1] * rates / rates[1], color=colour, lw=0.6, ls=":")
    axis.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="largest mean gap / s")
    plain_ticks(axis.xaxis, axis.yaxis)
    axis.legend(frameon=False, fontsize=8)
    return canvas


def draw_passage(settings: Settings, results: Results) -> Canvas:
    """Histogram of the escape time against the inverse Gaussian."""
    canvas, axes = panels(2, width=4.2, height=3.0)
    rate = PASSAGE["rate"]
    for axis, (arm, sigma) in zip(axes[0], (("clean", 0.0), ("noisy", settings.scalar_label_noise)), strict=True):
        steps = results[f"passage_{arm}"]["passage_step"].values[:, -1]
        time = steps[steps >= 0] * rate
        axis.hist(time, 80, density=True, color="0.8", label="SGD chain")
        grid = np.linspace(0.5 * time.min(), 1.1 * time.max(), 300)
        axis.plot(grid, passage_density(grid, PASSAGE["start"], PASSAGE["end"], 1.0, sigma, rate), color=COLOURS[0],
                  label="inverse Gaussian")  # fmt: skip
        axis.axvline(
            np.log(PASSAGE["end"] / PASSAGE["start"]) / 2, color="black", ls="--", lw=0.8, label="gradient flow"
        )
        axis.set(xlabel=TIME, title=f"{arm} labels", xlim=(np.quantile(time, 0.0005) * 0.9, np.quantile(time, 0.9995)))
    axes[0, 0].set_ylabel("probability density")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas
