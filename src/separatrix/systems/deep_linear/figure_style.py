"""How the figures of this folder's studies look: colours, panels, bands and ticks."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

TIME = "time (learning rate x steps)"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def panels(count: int, rows: int = 1, width: float = 3.4, height: float = 2.9, **options) -> tuple[Canvas, np.ndarray]:
    """A figure of equal panels, ``(rows, count)``, sizes in inches."""
    canvas = Canvas(figsize=(max(width * count, 4.5), height * rows), layout="constrained")
    axes = canvas.subplots(rows, count, squeeze=False, **options)
    return canvas, axes


def plain_ticks(*axes: Axis) -> None:
    """Ticks at 1, 2 and 5 in plain numbers, for logarithmic axes over a decade or two."""
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())


def band(axis: Axes, x: np.ndarray, rows: np.ndarray, colour: str, label: str | None = None) -> None:
    """Median over members with the central 80 %; nothing where no member is left."""
    if len(rows) == 0:
        return
    low, middle, high = np.nanquantile(rows, [0.1, 0.5, 0.9], axis=0)
    axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    axis.plot(x, middle, color=colour, label=label)
