"""Summary curves of a run: medians and quartiles over its members against time, few enough to travel with a page."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from separatrix.lab import store
from separatrix.lab.errors import UsageError
from separatrix.lab.gallery.collect import RunEntry
from separatrix.lab.gallery.sweeps import rounded

if TYPE_CHECKING:
    import xarray

POINTS = 100  # sharp enough for the few hundred pixels of a plot
LINES = 4  # entries of a further dimension, for example the first modes
PANELS = 200
NUMBERS = 100_000  # about 700 kB of text
_DIGITS = 4
_LEAST_POINTS = 5


def summary_curves(run: RunEntry, notify: Callable[[str], None]) -> list[dict[str, Any]]:
    """Curves of a run, one panel for each recorded quantity of an experiment.

    Taken are the floating-point variables with the dimension ``time`` and, at most, ``member`` and one more. Values
    that are not finite (members that diverged) are left out of the quartiles.

    Returns
    -------
    list of dict
        ``experiment``, ``quantity``, ``unit``, ``time``, ``time_unit``, ``members`` and ``lines``, each with ``label``,
        ``median``, ``low`` and ``high`` (lists over ``time``, None where there is no value). Experiments take turns
        until the bounds on number and size are reached, so that each is represented.
    """
    sources = []
    for experiment in sorted(run.experiments, key=lambda one: bool(one["control"])):
        name = str(experiment["name"])
        try:
            dataset = store.read_dataset(run.folder / "data" / f"{name}.zarr")
        except UsageError:
            notify(f"The data of the experiment {name} in {str(run.folder)!r} cannot be read: its curves are left out.")
            continue
        panels = list(itertools.islice(_panels(name, dataset), PANELS))
        if panels:
            sources.append(panels)
    return _fitting(sources)


def _fitting(sources: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """As many panels as the bounds allow, taken from the experiments in turns; in the order of the experiments."""
    chosen: list[list[dict[str, Any]]] = [[] for _ in sources]
    count = numbers = 0
    for row in itertools.zip_longest(*sources):
        for place, panel in zip(chosen, row, strict=True):
            if panel is None:
                continue
            size = len(panel["time"]) * (1 + 3 * len(panel["lines"]))
            if count < PANELS and numbers + size <= NUMBERS:
                place.append(panel)
                count, numbers = count + 1, numbers + size
    return [panel for panels in chosen for panel in panels]


def _panels(experiment: str, dataset: xarray.Dataset) -> Iterator[dict[str, Any]]:
    if "time" not in dataset.coords or dataset.sizes["time"] < _LEAST_POINTS:
        return
    time = dataset.coords["time"]
    if time.dims != ("time",) or time.dtype.kind not in "fiu":
        return
    chosen = np.unique(np.linspace(0, time.size - 1, min(time.size, POINTS)).round().astype(int))
    common = {
        "experiment": experiment,
        "members": int(dataset.sizes.get("member", 1)),
        "time": rounded(time.values[chosen]),
        "time_unit": str(time.attrs.get("units", "")),
    }
    for name, variable in dataset.data_vars.items():
        others = [dim for dim in variable.dims if dim not in ("member", "time")]
        if variable.dtype.kind != "f" or "time" not in variable.dims or len(others) > 1:
            continue
        values = variable.isel({"time": chosen, **{dim: slice(LINES) for dim in others}})
        members = ["member"] if "member" in variable.dims else []
        array = values.transpose(*members, *others, "time").values.astype(float)
        lines = _quartiles(array if members else array[None])  # (3, other, time)
        labels = [f"{others[0]} {number + 1}" for number in range(lines.shape[1])] if others else [""]
        yield {
            **common,
            "quantity": str(name),
            "unit": str(variable.attrs.get("units", "")),
            "lines": [
                {
                    "label": label,
                    **{key: rounded(curve, _DIGITS) for key, curve in zip(_KEYS, lines[:, line], strict=True)},
                }
                for line, label in enumerate(labels)
            ],
        }


_KEYS = ("low", "median", "high")


def _quartiles(array: np.ndarray) -> np.ndarray:
    """Quartiles over the first axis, shape (3, other, time), for an array (member, time) or (member, other, time)."""
    finite = np.isfinite(array)
    quantile = np.quantile if finite.all() else np.nanquantile  # the latter is slow
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN", category=RuntimeWarning)  # there is no value to show
        quartiles = quantile(np.where(finite, array, np.nan), [0.25, 0.5, 0.75], axis=0)
    return quartiles.reshape(3, -1, array.shape[-1])
