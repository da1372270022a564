"""Figures of the study `deep-linear-exact-solutions`."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from separatrix.lab import Figure, Results
from separatrix.systems.deep_linear.exact_solutions.curves import half_times
from separatrix.systems.deep_linear.exact_solutions.depth import COLLAPSED, best_steps
from separatrix.systems.deep_linear.exact_solutions.experiments import (
    GAIN,
    LOSS_SHARE,
    PAIRS,
    SQUARE_DEPTH,
    SQUARE_WIDTH,
    STARTS,
    STEP_GRID,
    UNALIGNED_TIMES,
    unaligned_start,
)
from separatrix.systems.deep_linear.exact_solutions.settings import Settings, batch_task, mode_task, scan_task
from separatrix.systems.deep_linear.figure_style import COLOURS, TIME, panels, plain_ticks
from separatrix.systems.deep_linear.mode_solutions import half_time, mode_strength, scaled_time, unbalanced_amplitudes
from separatrix.systems.deep_linear.product_spectra import fraction_below
from separatrix.systems.deep_linear.response_observables import group_means, tied_groups
from separatrix.systems.deep_linear.zero_balanced_flow import zero_balanced_flow

#: Singular values below this share of the largest are rounding.
_ROUNDING = 1e-15


def figures(settings: Settings) -> list[Figure]:
    """All figures, in the order of the argument."""
    world = "items of the binary tree" if settings.synthetic else f"data set {settings.data}"
    return [
        Figure("modes", "Plateaus and drops, predicted",
               "Decoupled start, depth 2. Dots: mode strengths (left) and loss (right) of gradient descent at the "
               "smallest learning rate; lines: the exact solution. Each mode waits and rises in turn.",
               draw_modes),
        Figure("depths", "One curve for each depth",
               "Strength over singular value of the largest and the smallest mode that are followed, from a decoupled "
               "start. Dots: gradient descent; lines: the exact solution at that depth.",
               draw_depths),
        Figure("half_times", "The time to learn a mode is inverse to its singular value",
               "Left: decoupled start at depth 2, dots against the exact half time. Right: random small weights on the "
               f"{world}; half time of each mode, or of the subspace of equal modes, with the central 80 % of the "
               "runs. Line: the exact half time for the starting strength that fits the linear networks best.",
               draw_half_times),
        Figure("growth", "Linear and tanh networks on the same data",
               f"Random small weights on the {world}, one run of each kind from the same start: what is learned of "
               "each mode (equal modes together) over its singular value. Dotted: half learned.",
               draw_growth),
        Figure("flow_field", "The plane of one mode",
               "Gradient flow of input amplitude a and output amplitude b for s = 1. Arrows: direction; dashed: the "
               "hyperbola a b = s of solutions; grey: conserved a^2 - b^2. Lines: the exact solutions from the dots; a "
               "start with a b < 0 first crosses zero, and a = -b ends in the saddle.",
               draw_flow_field),
        Figure("pairs", "Unbalanced modes",
               "Strength a b of scalar pairs from unequal amplitudes. Dots: ODE solver; lines: closed form.",
               draw_pairs),
        Figure("unaligned", "All entries of W from an unaligned start",
               "One zero-balanced two-layer network (5-7-3) with random singular vectors. Lines: exact solution; dots: "
               "ODE solver.",
               draw_unaligned),
        Figure("steps", "Steps against depth",
               f"Steps to {100 * LOSS_SHARE:g} % of the initial loss at the best of {STEP_GRID.size} step sizes, "
               "median and range over runs; open symbols: some runs were given up, the median is at least this. "
               "Dotted: the exact solution at the step size 1 / (L s_1^(2-2/L)). Square: all widths "
               f"{SQUARE_WIDTH}, teacher of full rank; there orthogonal starts are not free of depth.",
               draw_steps),
        Figure("finite_delay", "A delay that stays finite",
               "Steps n(L) from 1 % to 99 % of a mode's strength at the step size of the inverse largest curvature. "
               "The dashed line is the limit of infinite depth.",
               draw_finite_delay),
        Figure("spectra", "Singular values of products of random matrices",
               "Histograms over all draws of the singular values of products of D Gaussian matrices (filled) and of "
               f"orthogonal matrices of gain {GAIN} (line); what is rounding of the largest is left out. Last "
               f"panel: share of singular values below {COLLAPSED:g}, mean over draws, and its limit at infinite "
               "size (line).",
               draw_spectra),
    ]  # fmt: skip


def draw_modes(settings: Settings, results: Results) -> Canvas:
    """Strengths and loss at depth 2."""
    data, task = results["modes_rate1"], mode_task(settings)
    time, s = data["time"].values, task.singular_values
    canvas, axes = panels(2, width=4.6, height=3.4)
    left, right = axes[0]
    exact = mode_strength(time[:, None], settings.initial_strength, s, 2)
    some = slice(None, None, max(1, time.size // 60))
    for mode, value in enumerate(s):
        colour = COLOURS[mode % len(COLOURS)]
        left.plot(time, exact[:, mode], color=colour, label=f"s = {value:.3g}")
        left.plot(time[some], data["strength"].values[0, some, mode], "o", ms=3, color=colour)
    left.set(xlabel=TIME, ylabel="mode strength u")
    left.legend(frameon=False, fontsize=8)
    # What the followed modes do not explain stays as it is.
    rest = data["loss"].values[0, 0] - 0.5 * np.sum((s - data["strength"].values[0, 0]) ** 2)
    right.plot(time, 0.5 * np.sum((s - exact) ** 2, axis=1) + rest, color="black", label="exact")
    right.plot(time[some], data["loss"].values[0, some], "o", ms=3, color=COLOURS[0], label="gradient descent")
    right.set(xlabel=TIME, ylabel="loss |M - W|^2 / 2", yscale="log")
    right.legend(frameon=False, fontsize=8)
    return canvas


def draw_depths(settings: Settings, results: Results) -> Canvas:
    """Largest and smallest mode at every depth."""
    canvas, axes = panels(2, width=4.6, height=3.4, sharey=True)
    s = mode_task(settings).singular_values
    for axis, mode in zip(axes[0], (0, s.size - 1), strict=True):
        for colour, depth in zip(COLOURS * 8, sorted(settings.depth), strict=False):
            data = results[f"modes_depth{depth}"]
            time = data["time"].values
            end = 1.1 * half_time(settings.depth_strength, s[mode], depth)
            exact = mode_strength(time, settings.depth_strength, s[mode], depth) / s[mode]
            axis.plot(time, exact, color=colour, label=f"L = {depth}")
            some = np.searchsorted(time, np.linspace(0, 2.5 * end, 25)).clip(max=time.size - 1)
            axis.plot(time[some], data["strength"].values[0, some, mode] / s[mode], "o", ms=3, color=colour)
        longest = max(float(half_time(settings.depth_strength, s[mode], depth)) for depth in settings.depth)
        axis.set(xlabel=TIME, title=f"s = {s[mode]:.3g}", xlim=(0, 2.2 * longest), ylim=(0, 1.05))
    axes[0, 0].set_ylabel("strength over singular value, u / s")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas


def draw_half_times(settings: Settings, results: Results) -> Canvas:
    """Half time against 1/s."""
    canvas, axes = panels(2, width=4.6, height=3.6)
    left, right = axes[0]
    times, s = half_times(results["modes_rate1"])
    grid = np.linspace(0.85 / s.max(), 1.1 / s.min(), 200)
    left.plot(grid, half_time(settings.initial_strength, 1 / grid, 2), color="black", label="exact")
    left.plot(1 / s, np.nanmedian(times, axis=0), "o", color=COLOURS[0], label="gradient descent")
    left.set(xlabel="1 / singular value", ylabel="half time (learning rate x steps)", title="decoupled start")
    left.legend(frameon=False, fontsize=8)
    variance = batch_task(settings).variance
    linear = None
    for name, colour, side in (("linear", COLOURS[0], -1), ("tanh", COLOURS[1], 1)):
        times, s = half_times(results[f"small_{name}"])
        seen = np.isfinite(times).any(axis=0)
        if not seen.any():
            continue
        low, middle, high = np.nanquantile(times[:, seen], [0.1, 0.5, 0.9], axis=0)
        at = (1 + 0.012 * side) / s[seen]
        right.errorbar(at, middle, (middle - low, high - middle), fmt="o", ms=4, color=colour, label=name)
        linear = (middle, s[seen]) if name == "linear" else linear
    if linear is not None:
        middle, s = linear
        strength = s / variance / (1 + np.exp(2 * s * middle))
        fitted = np.exp(np.mean(np.log(strength)))
        grid = np.linspace(0.85 / s.max(), 1.1 / s.min(), 200)
        grid = grid[variance * fitted * grid < 0.5]
        right.plot(grid, half_time(fitted, 1 / grid, 2, variance), color="black",
                   label=f"exact, from strength {fitted:.1e}")  # fmt: skip
    right.set(xlabel="1 / singular value", ylabel="half time (learning rate x steps)", title="random small start")
    right.legend(frameon=False, fontsize=8)
    return canvas


def draw_growth(settings: Settings, results: Results) -> Canvas:
    """Progress of the modes in a linear and a tanh network from one start."""
    del settings
    canvas, axes = panels(2, width=4.6, height=3.4, sharey=True)
    for axis, name in zip(axes[0], ("linear", "tanh"), strict=True):
        data = results[f"small_{name}"]
        s = data["singular_value"].values
        groups = tied_groups(s)
        level = group_means(s, groups)
        progress = group_means(data["strength"].values[0], groups) / level
        for k, value in enumerate(level):
            size = groups[k].stop - groups[k].start
            text = f"s = {value:.3g}" + (f" ({size} modes)" if size > 1 else "")
            axis.plot(data["time"].values, progress[:, k], color=COLOURS[k % len(COLOURS)], label=text)
        axis.axhline(0.5, color="0.7", lw=0.8, ls=":")
        axis.set(xlabel=TIME, title=f"{name} hidden layer")
    axes[0, 0].set_ylabel("learned share of the mode")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return canvas


def draw_flow_field(settings: Settings, results: Results) -> Canvas:
    """Flow of (a, b) with exact solutions."""
    del settings, results
    canvas, axes = panels(1, width=5.2, height=4.8)
    axis, end = axes[0, 0], 2.2
    a, b = np.meshgrid(np.linspace(-end, end, 23), np.linspace(-end, end, 23))
    u, v = b * (1 - a * b), a * (1 - a * b)
    size = np.hypot(u, v)
    with np.errstate(invalid="ignore", divide="ignore"):
        axis.quiver(a, b, u / size, v / size, color="0.75", scale=38, width=0.003)
    axis.contour(a, b, a**2 - b**2, levels=[-2, -1, -0.3, 0, 0.3, 1, 2], colors="0.85", linewidths=0.7,
                 linestyles="solid", zorder=0)  # fmt: skip
    branch = np.linspace(1 / end, end, 100)
    for sign in (-1, 1):
        axis.plot(sign * branch, sign / branch, "k--", lw=1.2, label="a b = s" if sign > 0 else None)
    time = np.linspace(0, 30, 6000)
    starts = ((0.05, 0.02), (0.9, 0.02), (0.02, 1.5), (-0.1, -0.6), (1.6, -1.2), (-1.0, 1.3), (2.0, 2.0), (-1.5, 1.5))
    for k, start in enumerate(starts):
        one, two = unbalanced_amplitudes(time, *start, 1.0)
        axis.plot(one, two, color=COLOURS[k % len(COLOURS)], lw=1.5)
        axis.plot(*start, "o", color=COLOURS[k % len(COLOURS)], ms=5)
    axis.plot(0, 0, "kx", ms=7, label="saddle")
    axis.set(xlabel="input amplitude a", ylabel="output amplitude b", xlim=(-end, end), ylim=(-end, end), aspect=1)
    axis.legend(frameon=True, framealpha=0.9, fontsize=8, loc="lower right")
    return canvas


def draw_pairs(settings: Settings, results: Results) -> Canvas:
    """Strength of unbalanced pairs."""
    del settings
    data = results["pairs"]
    canvas, axes = panels(1, width=5.4, height=3.6)
    axis, fine = axes[0, 0], np.linspace(0, 6, 400)
    for k, (s, a, b) in enumerate(PAIRS):
        one, two = unbalanced_amplitudes(fine, a, b, s)
        # a and b exchanged give the same strength: dashes show both lines
        axis.plot(
            fine, one * two, color=COLOURS[k], ls="--" if k == 1 else "-", label=f"s = {s:g}, a = {a:g}, b = {b:g}"
        )
        axis.plot(data["time"].values, data["numeric"].values[k].prod(axis=-1), "o", ms=3, color=COLOURS[k])
    axis.set(xlabel=TIME, ylabel="strength u = a b")
    axis.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.72))
    return canvas


def draw_unaligned(settings: Settings, results: Results) -> Canvas:
    """Entries of W from one unaligned start."""
    canvas, axes = panels(1, width=5.4, height=3.6)
    axis, fine = axes[0, 0], np.linspace(0, UNALIGNED_TIMES[4], 300)
    (first, second), teacher = unaligned_start(settings, 0, balanced=True)
    exact = zero_balanced_flow(first, second, teacher, fine).product.reshape(fine.size, -1)
    data = results["unaligned"].isel(member=0)
    numeric = data["numeric"].values.reshape(UNALIGNED_TIMES.size, -1)
    for k in range(exact.shape[1]):
        colour = COLOURS[k % len(COLOURS)]
        axis.plot(fine, exact[:, k], color=colour, lw=1, label="exact" if k == 0 else None)
        shown = fine[-1] >= UNALIGNED_TIMES
        axis.plot(UNALIGNED_TIMES[shown], numeric[shown, k], "o", ms=3, color=colour,
                  label="ODE solver" if k == 0 else None)  # fmt: skip
    axis.set(xlabel=TIME, ylabel="entries of W")
    axis.legend(frameon=False, fontsize=8)
    return canvas


def predicted_steps(settings: Settings, depth: int) -> float:
    """Steps at the inverse of the largest curvature until gradient flow has the loss at 1 % (decoupled start)."""
    s = scan_task(settings).singular_values
    start, curvature = settings.scan_strength, s[0] ** (2 - 2 / depth) * depth

    def share(steps: float) -> float:
        strength = mode_strength(steps / curvature, start, s, depth)
        return float(np.sum((s - strength) ** 2) / np.sum((s - start) ** 2))

    low, high = 0.0, 1.0
    while share(high) > LOSS_SHARE:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) > LOSS_SHARE else (low, middle)
    return high


def draw_steps(settings: Settings, results: Results) -> Canvas:
    """Steps to a small loss against depth."""
    canvas, axes = panels(1, width=7.2, height=4.0)
    axis = axes[0, 0]
    for colour, kind in zip(COLOURS, (*STARTS, "square"), strict=False):
        depths = [d for d in settings.scan_depth if kind != "square" or d <= SQUARE_DEPTH]
        found = [best_steps(results[f"scan_{kind}_depth{d}"], settings.most_steps) for d in depths]
        if not found:
            continue
        middle = np.array([np.median(steps) for steps, _ in found])
        low, high = (np.array([end(steps) for steps, _ in found]) for end in (np.min, np.max))
        name = {"decoupled": "decoupled", "orthogonal": "orthogonal, wide", "gaussian": "Gaussian",
                "square": "orthogonal, square"}[kind]  # fmt: skip
        axis.errorbar(depths, middle, (middle - low, high - middle), color=colour, lw=1, capsize=2, label=name)
        for depth, value, (_, censored) in zip(depths, middle, found, strict=True):
            axis.plot(depth, value, "o", ms=5, color=colour, mfc="white" if censored else colour)
    fine = np.unique(np.rint(np.geomspace(settings.scan_depth[0], settings.scan_depth[-1], 30)))
    axis.plot(fine, [predicted_steps(settings, int(depth)) for depth in fine], "k:", label="exact solution, decoupled")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="depth L (layers)",
        ylabel=f"steps to {100 * LOSS_SHARE:g} % of the initial loss",
    )
    axis.set_xticks(settings.scan_depth, [str(d) for d in settings.scan_depth])
    axis.minorticks_off()
    plain_ticks(axis.yaxis)
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return canvas


def draw_finite_delay(settings: Settings, results: Results) -> Canvas:
    """n(L)."""
    del settings, results
    canvas, axes = panels(1, width=5.2, height=3.6)
    axis, depths = axes[0, 0], np.unique(np.rint(np.geomspace(1, 1000, 60)))
    axis.plot(depths, [float(scaled_time(0.01, 0.99, depth)) for depth in depths], "o-", ms=3, color=COLOURS[0])
    axis.axhline(float(scaled_time(0.01, 0.99, np.inf)), color="black", ls="--", lw=1)
    axis.set(xscale="log", xlabel="depth L (layers)", ylabel="steps from 1 % to 99 %", ylim=(0, None))
    plain_ticks(axis.xaxis)
    return canvas


def draw_spectra(settings: Settings, results: Results) -> Canvas:
    """Histograms of log singular values, and the collapsed share."""
    chosen = np.unique(np.linspace(0, len(settings.factors) - 1, min(3, len(settings.factors))).astype(int))
    canvas, axes = panels(len(chosen) + 1, width=3.2, height=3.2)
    gaussian, orthogonal = (results[f"spectra_{kind}"]["value"].values for kind in ("gaussian", "orthogonal"))
    for axis, k in zip(axes[0], chosen, strict=False):
        values = gaussian[:, k].ravel()
        values = np.log10(values[values > _ROUNDING * values.max()])
        axis.hist(values, 50, weights=np.full(values.size, 1 / gaussian[:, k].size), color=COLOURS[0],
                  alpha=0.6, label="Gaussian")  # fmt: skip
        axis.axvline(np.log10(np.median(orthogonal[:, k])), color=COLOURS[1], lw=2, label="orthogonal")
        axis.axvline(np.log10(COLLAPSED), color="0.5", lw=0.8, ls=":")
        axis.set(
            xlabel="log10 of the singular value",
            title=f"{settings.factors[k]} factor{'s' if settings.factors[k] > 1 else ''}",
        )
    axes[0, 0].set_ylabel("share of singular values")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="upper left")
    last = axes[0, -1]
    last.plot(settings.factors, (gaussian < COLLAPSED).mean(axis=(0, 2)), "o", color=COLOURS[0], label="Gaussian")
    last.plot(settings.factors, (orthogonal < COLLAPSED).mean(axis=(0, 2)), "s", color=COLOURS[1], label="orthogonal")
    grid = np.unique(np.rint(np.linspace(1, settings.factors[-1], 40)))
    last.plot(grid, [fraction_below(COLLAPSED, int(d)) for d in grid], color="black", label="infinite size")
    last.set(xlabel="number of factors D", ylabel=f"share below {COLLAPSED:g}", ylim=(-0.03, 1))
    last.legend(frameon=False, fontsize=8)
    return canvas
