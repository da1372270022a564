"""Figures of the study `sgd-noise-regimes`."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from separatrix.engines.power_laws import geometric_means
from separatrix.lab import Figure, Results
from separatrix.systems.feature_learning import perceptron_theory as theory
from separatrix.systems.feature_learning.noise_regimes.features import RATIOS, growth
from separatrix.systems.feature_learning.noise_regimes.lazy import TEMPERATURES, critical_temperatures
from separatrix.systems.feature_learning.noise_regimes.perceptron import (
    crossover_table,
    online_conditions,
    online_path,
    size_law,
    stopped_name,
)
from separatrix.systems.feature_learning.noise_regimes.phase import phase_axes, phase_table
from separatrix.systems.feature_learning.noise_regimes.runs import by_condition
from separatrix.systems.feature_learning.noise_regimes.settings import Settings, densities

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def figures(settings: Settings) -> list[Figure]:
    """All figures, in the order of the argument."""
    return [
        Figure("trajectories", "Signal and noise of a perceptron on fresh samples",
               "Mean over runs (dots) and the equations of the order parameters (lines), on the left in time, on the "
               "right in the plane of the two. Dotted: the noise R_inf at which it should settle and the power 1/(chi "
               "+ 3) of time.", draw_trajectories),
        Figure("crossover", "Where the noise of SGD begins to matter",
               "Perceptron until all samples are fitted: training time, signal and noise against the temperature in "
               "units of 1/alpha, geometric means. Vertical line: theory's crossover. Dashed: proportional to T.",
               draw_crossover),
        Figure("sizes", "Training time and signal against the number of samples",
               "Perceptron far above the crossover, three densities of data at the boundary; dots are runs, lines "
               "the theory's powers through the largest P. Measured slopes lie below them, by a logarithm of P.",
               draw_sizes),
        Figure("margins", "Margins when all samples are fitted",
               "Distribution over training samples of the margin in units of R / sqrt(d), mean over runs, in the noisy "
               "regime. The fewer data at the boundary (large chi), the fewer small margins.", draw_margins),
        Figure("lazy", "Lazy networks leave their regime",
               "Left: change of the weights against T for several P; middle: training time over P^b; right: the "
               "change over P^gamma, with the perceptron's b and gamma. The dotted line marks a change of 30 %: T_c.",
               draw_lazy),
        Figure("collapse", "The feature regime feels the noise from alpha^k on",
               "Final norm of the weights over that without noise against T over alpha^k, one panel for each depth, "
               "medians over runs; grey band: the range in which curves of different alpha should agree. Points at "
               "which half of the runs were lost are left out.", draw_collapse),
        Figure("phase", "Phase diagram of the test error",
               f"Mean test error of fitted networks over alpha and T, data: {settings.data}. White: fewer than half "
               "of the runs fitted all samples, because they diverged, their units died, or the cap of steps came "
               "first. Lines: T = 1/alpha (solid), alpha^k (dashed).", draw_phase),
    ]  # fmt: skip


def _panels(count: int, width: float = 3.6, height: float = 3.0) -> tuple[Canvas, np.ndarray]:
    canvas = Canvas(figsize=(width * count, height), layout="constrained")
    return canvas, canvas.subplots(1, count, squeeze=False)[0]


def _logarithmic(axis: Axes, x: str, y: str) -> None:
    axis.set(xscale="log", yscale="log", xlabel=x, ylabel=y)


def draw_trajectories(settings: Settings, results: Results) -> Canvas:
    """Courses of (w_1, R)."""
    canvas, (left, right) = _panels(2, 4.2)
    for (name, temperature, dimension), colour in zip(online_conditions(settings), COLOURS, strict=False):
        data, label = results[name], f"d = {dimension}, T = {temperature:g}"
        signal, noise = (data[key].values.mean(axis=0) for key in ("signal", "noise"))
        path, time = online_path(settings, data, temperature, dimension), data["time"].values
        left.plot(time, signal, ".", color=colour, label=label)
        left.plot(time, path.signal, color=colour, lw=1)
        left.plot(time, noise, "x", ms=3, color=colour)
        left.plot(time, path.noise, color=colour, lw=1)
        left.plot(time, theory.late_signal(time, temperature, dimension, settings.chi), ":", color=colour, lw=1)
        right.plot(noise, signal, ".", color=colour)
        right.plot(path.noise, path.signal, color=colour, lw=1)
        right.axvline(theory.stationary_noise(temperature, dimension, settings.chi), color=colour, ls=":", lw=1)
    _logarithmic(left, "time", "signal w$_1$ (dots), noise R (crosses)")
    _logarithmic(right, "noise R", "signal w$_1$")
    left.legend(frameon=False, fontsize=8)
    return canvas


def draw_crossover(settings: Settings, results: Results) -> Canvas:
    """Time, signal and noise against T."""
    canvas, (left, right) = _panels(2, 4.2)
    crossover = theory.crossover_temperature(settings.crossover_dimension, settings.chi)
    for axis, variables in ((left, ("time",)), (right, ("signal", "noise"))):
        for variable, colour in zip(variables, COLOURS, strict=False):
            temperatures, values, fitted = crossover_table(settings, results, variable)
            kept = fitted.any(axis=1)
            mean = geometric_means(list(values[kept]), list(~fitted[kept]))
            axis.plot(temperatures[kept], mean, "o-", ms=4, color=colour, label=variable)
            hottest = mean[-1] * temperatures[kept] / temperatures[kept][-1]
            axis.plot(temperatures[kept], hottest, "--", color=colour, lw=1)
        axis.axvline(crossover, color="0.5", lw=1)
        axis.set_ylim(bottom=0.5 * min(line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "-"
                                       and len(line.get_ydata()) > 2))  # fmt: skip
    _logarithmic(left, "T in units of 1/alpha", "training time t*")
    _logarithmic(right, "T in units of 1/alpha", "weights at the end")
    right.legend(frameon=False)
    return canvas


def draw_sizes(settings: Settings, results: Results) -> Canvas:
    """Stopped perceptrons against P."""
    canvas, axes = _panels(2, 4.2)
    for (chi, sizes), colour in zip(densities(settings), COLOURS, strict=False):
        powers = theory.exponents(chi)
        for axis, variable, power in zip(axes, ("time", "signal"), (powers.time, powers.weights), strict=True):
            samples = [results[stopped_name(chi, one)] for one in sizes]
            for size, data in zip(sizes, samples, strict=True):
                axis.plot(np.full(data.sizes["member"], size), data[variable].values, ".", ms=2, color=colour)
            if not all(data["fitted"].values.any() for data in samples):
                continue
            mean = geometric_means([d[variable].values for d in samples], [~d["fitted"].values for d in samples])
            fit, _ = size_law(settings, results, chi, variable)
            axis.plot(sizes, mean, "o", color=colour, label=f"chi = {chi:g}: {fit.exponent:.2f} (theory {power:.3g})")
            axis.plot(sizes, mean[-1] * (np.asarray(sizes) / sizes[-1]) ** power, color=colour, lw=1)
    _logarithmic(axes[0], "samples P", "training time t*")
    _logarithmic(axes[1], "samples P", "signal w$_1$")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
    return canvas


def draw_margins(settings: Settings, results: Results) -> Canvas:
    """Cumulative distribution of final margins."""
    canvas, (axis,) = _panels(1, 5.0)
    for (chi, sizes), colour in zip(densities(settings), COLOURS, strict=False):
        data = results[stopped_name(chi, sizes[-1])]
        kept = data["fitted"].values
        if kept.any():
            margin = np.exp(np.log(np.maximum(data["margin_quantile"].values[kept], 1e-12)).mean(axis=0))
            axis.plot(
                margin[1:-1], data["quantile"].values[1:-1], ".-", color=colour, label=f"chi = {chi:g}, P = {sizes[-1]}"
            )
    _logarithmic(axis, "margin y f sqrt(d) / R", "fraction of samples below")
    axis.legend(frameon=False)
    return canvas


def draw_lazy(settings: Settings, results: Results) -> Canvas:
    """Change of the weights and training time of lazy networks."""
    canvas, axes = _panels(3)
    powers = theory.exponents(settings.chi)
    for samples, colour in zip(settings.lazy_samples, COLOURS, strict=False):
        data = results[f"lazy_P{samples}"]
        change, time = (
            np.exp(np.log(by_condition(data, name, settings.lazy_runs)).mean(axis=1))
            for name in ("weight_change", "time")
        )
        label = f"P = {samples}"
        axes[0].plot(TEMPERATURES, change, "o-", ms=3, color=colour, label=label)
        axes[1].plot(TEMPERATURES, time / samples**powers.time, "o-", ms=3, color=colour)
        axes[2].plot(TEMPERATURES, change / samples**powers.weights, "o-", ms=3, color=colour)
    at, _ = critical_temperatures(settings, results, 1)
    axes[0].axhline(0.3, color="0.5", ls=":")
    axes[0].plot(at, np.full(at.size, 0.3), "k|", ms=10)
    _logarithmic(axes[0], "T in units of 1/alpha", "|w - w$_0$| / |w$_0$|")
    _logarithmic(axes[1], "T in units of 1/alpha", f"t* / P^{powers.time:.3g}")
    _logarithmic(axes[2], "T in units of 1/alpha", f"change / P^{powers.weights:.3g}")
    axes[0].legend(frameon=False, fontsize=8)
    return canvas


def draw_collapse(settings: Settings, results: Results) -> Canvas:
    """Final norms against the rescaled temperature."""
    canvas, axes = _panels(len(settings.depths))
    for axis, depth in zip(axes, settings.depths, strict=True):
        grown = growth(settings, results, depth)
        for alpha, values, colour in zip(settings.feature_alphas, grown, COLOURS, strict=False):
            kept = np.isfinite(values).mean(axis=1) > 0.5
            axis.plot(
                RATIOS[kept], np.nanmedian(values[kept], axis=1), "o-", ms=4, color=colour, label=f"alpha = {alpha:g}"
            )
        axis.axvspan(0.03, 1.0, color="0.93")
        _logarithmic(axis, f"T / alpha^{theory.feature_exponent(depth):.3g}", "|w| over that without noise")
        axis.set_title(f"D = {depth}", fontsize=10)
        axis.legend(frameon=False, fontsize=8)
    return canvas


def draw_phase(settings: Settings, results: Results) -> Canvas:
    """Test error over alpha and T."""
    alphas, temperatures = phase_axes(settings)
    error, fitted = (phase_table(settings, results, name) for name in ("test_error", "fitted"))
    count = fitted.sum(axis=2)
    mean = np.where(
        2 * count >= settings.phase_runs, np.where(fitted, error, 0).sum(axis=2) / np.maximum(count, 1), np.nan
    )
    canvas, (axis,) = _panels(1, 5.6, 4.0)
    mesh = axis.pcolormesh(alphas, temperatures, mean.T, shading="nearest", cmap="viridis")
    canvas.colorbar(mesh, ax=axis, label="test error")
    line = np.geomspace(alphas[0], alphas[-1], 200)
    axis.plot(line, 1 / line, "w-", lw=1.5)
    axis.plot(line, 1 / line, "k-", lw=0.7)
    if settings.hidden_layers:
        axis.plot(line[line < 1], line[line < 1] ** theory.feature_exponent(settings.hidden_layers), "k--", lw=1)
    _logarithmic(axis, "output scale alpha", "temperature T")
    axis.set_ylim(temperatures[0], temperatures[-1])
    return canvas
