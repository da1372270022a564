"""Drawing the figures of a study into the run folder."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separatrix.lab import store
from separatrix.lab.study import Study

if TYPE_CHECKING:
    import xarray

_DPI = 160  # sharp on a phone and on paper


def draw(study: Study, settings: Any, results: Mapping[str, xarray.Dataset], folder: Path) -> list[dict[str, str]]:
    """Draw every figure to ``folder/figures/<name>.png``; returns name, title, caption and file of each.

    A figure that needs an experiment which this run leaves out is left out too.
    """
    import matplotlib

    matplotlib.use("Agg")  # a report is written to files, on machines that may have no display
    import matplotlib.pyplot as plt

    store.make_folder(folder / "figures")
    entries = []
    for figure in study.figures(settings):
        try:
            drawn = figure.draw(settings, results)
        except store.NotRunError:
            plt.close("all")
            continue
        stream = io.BytesIO()
        # without the software's version in it, equal figures are equal files
        drawn.savefig(stream, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
        plt.close(drawn)
        file = f"figures/{figure.name}.png"
        store.replace_file(folder / file, stream.getvalue())
        entries.append({"name": figure.name, "title": figure.title, "caption": figure.caption, "file": file})
    return entries
