"""Plots of a sweep: a phase diagram over two axes, or curves over one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from separatrix.lab.sweep import maps
from separatrix.lab.sweep.results import Sweep

if TYPE_CHECKING:
    import numpy as np
    import xarray
    from matplotlib.figure import Figure

#: Colours that the colour-blind can tell apart: fails, undecided, holds.
_VERDICTS = ("#D55E00", "#BBBBBB", "#0072B2")
_VERDICT_NAMES = ("fails", "undecided", "holds")
_LINES = ("-", "--", ":", "-.")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def phase_diagram(
    sweep: Sweep,
    name: str,
    x: str,
    y: str,
    *,
    select: Mapping[str, str] | None = None,
    contours: Sequence[tuple[str, float]] = (),
) -> Figure:
    """A quantity or a verdict in colours over two dimensions, with the contours of others on top.

    Parameters
    ----------
    name
        As of :func:`separatrix.lab.sweep.maps.pick`.
    x, y
        Dimensions.
    select
        Values of the other dimensions.
    contours
        Names and levels of what is drawn as lines.

    Raises
    ------
    UsageError
        If a name is not in the sweep.
    """
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.colors import BoundaryNorm, ListedColormap, TwoSlopeNorm

    picked = maps.pick(sweep, name, select or {}, (y, x))["estimate"]
    values = np.ma.masked_invalid(picked.values.astype(float))
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    axes.set_facecolor("0.92")
    (x_at, x_edges), (y_at, y_edges) = (_places(sweep, picked, dimension) for dimension in (x, y))
    if name.partition(":")[0] in ("verdict", "control_verdict"):
        values = np.ma.masked_less(values, -1)
        mesh = axes.pcolormesh(
            x_edges, y_edges, values, cmap=ListedColormap(_VERDICTS), norm=BoundaryNorm([-1.5, -0.5, 0.5, 1.5], 3)
        )
        bar = figure.colorbar(mesh, ax=axes, ticks=[-1, 0, 1])
        bar.ax.set_yticklabels(_VERDICT_NAMES)
    else:
        low, high = float(values.min()), float(values.max())
        signed = low < 0 < high
        mesh = axes.pcolormesh(
            x_edges, y_edges, values, cmap="RdBu_r" if signed else "viridis",
            norm=TwoSlopeNorm(0, low, high) if signed else None,
        )  # fmt: skip
        bar = figure.colorbar(mesh, ax=axes, ticks=_signed_ticks(low, high) if signed else None)
    bar.set_label(_words(label(sweep, name)))
    bar.outline.set_visible(False)
    for number, (other, level) in enumerate(contours):
        line = maps.pick(sweep, other, _known(sweep, other, select), (y, x))["estimate"].values
        style = _LINES[number % len(_LINES)]
        if min(line.shape) > 1:
            axes.contour(x_at, y_at, line, [level], colors="black", linestyles=style, linewidths=1.4)
            axes.plot([], [], color="black", linestyle=style, linewidth=1.4, label=f"{label(sweep, other)} = {level:g}")
    _dress(axes.xaxis, sweep, picked, x, x_at)
    _dress(axes.yaxis, sweep, picked, y, y_at)
    if contours:
        figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    axes.set_title(_title(sweep, select or {}), fontsize=9)
    return figure


def curves(sweep: Sweep, name: str, x: str, *, by: str = "", select: Mapping[str, str] | None = None) -> Figure:
    """A quantity with its intervals over one dimension, one curve for each value of another.

    Raises
    ------
    UsageError
        If a name is not in the sweep.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    picked = maps.pick(sweep, name, select or {}, (by, x) if by else (x,))
    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    at, _ = _places(sweep, picked["estimate"], x)
    rows = picked if by else picked.expand_dims("curve")
    for number in range(len(rows["estimate"])):
        row = rows.isel({rows["estimate"].dims[0]: number})
        colour = _COLOURS[number % len(_COLOURS)]
        estimate, low, high = (row[end].values.astype(float) for end in ("estimate", "low", "high"))
        text = f"{by.replace('_', ' ')} = {picked[by].values[number]}" if by else None
        axes.plot(at, estimate, "o-", color=colour, markersize=4, label=text)
        if np.any(high > low):
            axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
    _dress(axes.xaxis, sweep, picked["estimate"], x, at)
    axes.set_ylabel(_words(label(sweep, name)))
    if name.partition(":")[0] in ("verdict", "control_verdict"):
        axes.set_yticks([-1, 0, 1], _VERDICT_NAMES)
    if by:
        axes.legend(frameon=False, fontsize=8)
    axes.set_title(_title(sweep, select or {}), fontsize=9)
    return figure


def scatter(sweep: Sweep, name: str, against: str, *, by: str = "", select: Mapping[str, str] | None = None) -> Figure:
    """A quantity against another, one dot for each cell, with its intervals and the line of equality.

    Raises
    ------
    UsageError
        If a name is not in the sweep.
    """
    import matplotlib.pyplot as plt
    import numpy as np
    import xarray as xr

    keep = [dimension for dimension in maps.dimensions(sweep, name) if dimension not in (select or {})]
    picked = maps.pick(sweep, name, select or {}, keep)
    others = [dimension for dimension in maps.dimensions(sweep, against) if dimension in keep]
    x = maps.pick(sweep, against, _known(sweep, against, select), others)["estimate"]
    x, estimate, low, high = xr.broadcast(x, picked["estimate"], picked["low"], picked["high"])
    figure, axes = plt.subplots(figsize=(6.0, 4.6), layout="constrained")
    groups = enumerate(picked[by].values) if by else [(0, None)]
    for number, value in groups:
        at = {by: number} if by else {}
        flat = [a.isel(at).values.ravel().astype(float) for a in (x, estimate, low, high)]
        axes.errorbar(
            flat[0], flat[1], np.abs([flat[1] - flat[2], flat[3] - flat[1]]), fmt="o", markersize=4, elinewidth=1,
            color=_COLOURS[number % len(_COLOURS)], label=f"{by.replace('_', ' ')} = {value}" if by else None,
        )  # fmt: skip
    ends = np.array([float(x.min()), float(x.max())])
    axes.plot(ends, ends, color="0.4", linewidth=1, zorder=0, label="equality")
    if ends[0] > 0 and float(estimate.min()) > 0:
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel=_words(label(sweep, against)), ylabel=_words(label(sweep, name)))
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(_title(sweep, select or {}), fontsize=9)
    return figure


def _known(sweep: Sweep, name: str, select: Mapping[str, str] | None) -> dict[str, str]:
    """The values that are chosen of dimensions which this quantity has."""
    known = maps.dimensions(sweep, name)
    return {dimension: value for dimension, value in (select or {}).items() if dimension in known}


def _signed_ticks(low: float, high: float) -> list[float]:
    """Ticks on both sides of zero, where a colour scale has a different slope on each."""
    from matplotlib.ticker import MaxNLocator

    ticks = {*MaxNLocator(4).tick_values(low, 0), *MaxNLocator(4).tick_values(0, high)}
    return sorted(float(tick) for tick in ticks if low <= tick <= high)


def label(sweep: Sweep, name: str) -> str:
    """Words for a quantity or a part of a claim, with its unit."""
    for quantity in sweep.manifest["quantities"]:
        if quantity["name"] == name:
            return quantity["label"] + (f" [{quantity['unit']}]" if quantity["unit"] else "")
    part, _, claim = name.partition(":")
    return f"{part.replace('_', ' ')} of {claim}"


def _words(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 48))


def _title(sweep: Sweep, select: Mapping[str, str]) -> str:
    chosen = ", ".join(f"{name.replace('_', ' ')} = {value}" for name, value in select.items())
    return sweep.manifest["study"] + (f" ({chosen})" if chosen else "")


def _axis(sweep: Sweep, dimension: str) -> dict[str, Any]:
    return next((axis for axis in sweep.manifest["axes"] if axis["name"] == dimension), {})


def _places(sweep: Sweep, picked: xarray.DataArray, dimension: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of a dimension lie on an axis, and the edges of their cells; texts lie at 0, 1, 2, ..."""
    import numpy as np

    values = picked[dimension].values
    at = values.astype(float) if values.dtype.kind in "if" else np.arange(values.size, dtype=float)
    if at.size == 1:
        return at, np.array([at[0] - 0.5, at[0] + 0.5])
    log = _axis(sweep, dimension).get("log", False)
    inner = np.log(at) if log else at
    middle = (inner[1:] + inner[:-1]) / 2
    edges = np.concatenate([[2 * inner[0] - middle[0]], middle, [2 * inner[-1] - middle[-1]]])
    return at, np.exp(edges) if log else edges


def _dress(axis: Any, sweep: Sweep, picked: xarray.DataArray, dimension: str, at: np.ndarray) -> None:
    """Label, scale and ticks of an axis."""
    described = _axis(sweep, dimension)
    unit = f" [{described['unit']}]" if described.get("unit") else ""
    text = dimension.replace("_", " ") + unit
    (axis.axes.set_xlabel if axis.axis_name == "x" else axis.axes.set_ylabel)(text)
    values = picked[dimension].values
    if described.get("log"):
        (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    elif values.dtype.kind not in "if" or (values.dtype.kind == "i" and values.size <= 12):
        axis.set_ticks(at, [str(value) for value in values])
