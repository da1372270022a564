"""Figures of what is measured at every checkpoint: a panel for each column, curves by block, distances of all pairs."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from separatrix.lab.probe.kind import Column

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray

    from separatrix.lab.probe.settings import ProbeSettings

Draw = Callable[[Any, Mapping[str, "xarray.Dataset"]], "matplotlib.figure.Figure"]

_DECADES = 1.3  # positive values that span more are drawn on a logarithmic axis
_MOST_CURVES = 6
_MOST_TICKS = 12


def panels(columns: Sequence[Column]) -> Draw:
    """A panel for each column that was measured at any checkpoint."""

    def draw(s: ProbeSettings, results: Mapping[str, xarray.Dataset]) -> matplotlib.figure.Figure:
        data = results["checkpoints"]
        shown = [column for column in columns if np.isfinite(data[column.name].values).any()]
        figure, rows = _row_of_panels(max(len(shown), 1))
        for axes, column in zip(rows, shown, strict=False):
            points(axes, data, column.variables, "k")
            if (level := column.level(s)) is not None:
                axes.axhline(level[0], color="0.5", lw=1, ls="--", label=level[1])
                scale(axes, np.append(data[column.name].values, level[0]))
            unit = f" [{column.unit}]" if column.unit else ""
            axes.set(
                xlabel="step of the checkpoint",
                ylabel=textwrap.fill(column.label + unit, 36 if len(shown) == 1 else 30),
            )
        _legend(figure)
        return figure

    return draw


def loss_curve(s: ProbeSettings, results: Mapping[str, xarray.Dataset]) -> matplotlib.figure.Figure:  # noqa: ARG001
    """The loss at every checkpoint."""
    data = results["checkpoints"]
    figure, (axes,) = _row_of_panels(1)
    known = np.isfinite(data["loss"].values)
    axes.plot(data["step"].values[known], data["loss"].values[known], "ko-", ms=4, lw=1)
    axes.set(xlabel="step of the checkpoint", ylabel="loss")
    scale(axes, data["loss"].values)
    return figure


def lines_by_block(panels: Mapping[str, Mapping[str, str]]) -> Draw:
    """Panels by their label, each with a curve for each block: its name and that of its column."""

    def draw(s: ProbeSettings, results: Mapping[str, xarray.Dataset]) -> matplotlib.figure.Figure:  # noqa: ARG001
        data = results["checkpoints"]
        figure, rows = _row_of_panels(len(panels))
        for axes, (label, names) in zip(rows, panels.items(), strict=True):
            for (block, name), colour in zip(names.items(), colours(len(names)), strict=True):
                error = f"{name}_residual" if f"{name}_residual" in data else f"{name}_error"
                points(axes, data, (name, error, f"{name}_converged"), colour, block)
            axes.set(xlabel="step of the checkpoint", ylabel=textwrap.fill(label, 30))
        _legend(figure)
        return figure

    return draw


def points(axes: Any, data: xarray.Dataset, variables: tuple[str, str, str], colour: Any, label: str = "") -> None:
    """Values with error bars against the step; open where they have not converged."""
    step = data["step"].values
    value, error, settled = (data[name].values for name in variables)
    known = np.isfinite(value)
    axes.plot(step[known], value[known], "-", color=colour, lw=1, label=label or None)
    for mask, face, words in ((settled, colour, None), (~settled, "white", "not converged")):
        chosen = known & mask
        if chosen.any():
            bars = np.where(np.isfinite(error[chosen]), error[chosen], 0.0)
            axes.errorbar(
                step[chosen], value[chosen], bars, fmt="o", ms=4, mfc=face, mec=colour, ecolor=colour, elinewidth=1,
                label=words,
            )  # fmt: skip
    scale(axes, value)


def scale(axes: Any, values: Float[np.ndarray, " n"]) -> None:
    """A logarithmic axis where positive values span decades."""
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and np.log10(values.max() / values.min()) > _DECADES:
        axes.set_yscale("log")


def heat_map(
    steps: Float[np.ndarray, " T"], matrix: Float[np.ndarray, "T T"], label: str, cut: int | None
) -> matplotlib.figure.Figure:
    """A matrix over pairs of checkpoints, with dashed lines before the checkpoint ``cut``."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
    shown = axes.imshow(matrix, cmap="viridis", vmin=0.0)
    figure.colorbar(shown, label=label)
    ticks = np.unique(np.linspace(0, max(len(steps) - 1, 0), min(max(len(steps), 1), _MOST_TICKS)).astype(int))
    names = [str(steps[tick]) if tick < len(steps) else "" for tick in ticks]
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.set(xlabel="step of the checkpoint", ylabel="step of the checkpoint")
    if cut is not None:
        axes.axhline(cut - 0.5, color="white", lw=1, ls="--")
        axes.axvline(cut - 0.5, color="white", lw=1, ls="--")
    return figure


def chosen_checkpoints(data: xarray.Dataset) -> list[int]:
    """A few checkpoints that did not diverge, evenly spaced, the first and the last among them."""
    alive = np.flatnonzero(data["diverged_at_step"].values < 0)
    places = np.unique(np.linspace(0, max(len(alive) - 1, 0), min(len(alive), _MOST_CURVES)).round().astype(int))
    return alive[places].tolist() if len(alive) else []


def colours(count: int) -> list[Any]:
    """From early (dark) to late (light)."""
    import matplotlib

    return [matplotlib.colormaps["viridis"](place) for place in np.linspace(0, 0.85, count)]


def _row_of_panels(count: int) -> tuple[matplotlib.figure.Figure, Sequence[Any]]:
    import matplotlib.pyplot as plt

    size = (6.0, 3.4) if count == 1 else (3.1 * count, 3.0)
    figure, axes = plt.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    return figure, list(axes[0])


def _legend(figure: matplotlib.figure.Figure) -> None:
    """One entry for each label in any panel, above them."""
    entries = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in entries}
    if entries:
        figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=5, frameon=False)
