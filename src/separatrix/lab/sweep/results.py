"""What a sweep finds, as one labelled dataset over its axes, and the folder that keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separatrix.lab import store
from separatrix.lab.claims import Verdict
from separatrix.lab.errors import UsageError
from separatrix.lab.quantities import ENDS, as_dataset
from separatrix.lab.sweep.cells import Row
from separatrix.lab.sweep.grid import Grid

if TYPE_CHECKING:
    import xarray

MANIFEST = "sweep.json"
RESULTS = "results.zarr"
FAILURES = "failures.json"

#: Codes of ``status``, ``verdict`` and ``control_verdict`` in the dataset.
LEFT, DONE, FAILED = 0, 1, 2
CODES = {str(Verdict.HOLDS): 1, str(Verdict.UNDECIDED): 0, str(Verdict.FAILS): -1, None: -2}
_NUMBERS = ("estimate", "low", "high")


@dataclass(frozen=True)
class Sweep:
    """A sweep on disk."""

    folder: Path
    manifest: dict[str, Any]
    dataset: xarray.Dataset
    reused: bool = False


class Table:
    """Numbers of the cells as they come in: arrays of fixed size, nothing else is kept of a run.

    Parameters
    ----------
    grid
        Its cells are the entries of the arrays.
    """

    def __init__(self, grid: Grid) -> None:
        import numpy as np

        self.grid = grid
        self.status = np.zeros(grid.size, np.int8)
        self.run = np.full(grid.size, "", "<U16")
        self.reasons: dict[int, str] = {}
        self._claims: dict[str, dict[str, Any]] = {}
        self._statements: dict[str, str] = {}
        self._quantities: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.left_out: dict[str, str] = {}

    def add(self, row: Row) -> None:
        """Enter the numbers of a cell."""
        self.status[row.cell] = FAILED if row.reason else DONE
        if row.reason:
            self.reasons[row.cell] = row.reason
            return
        self.run[row.cell] = row.run
        for claim in row.claims:
            self._add_claim(row.cell, claim)
        for quantity in row.quantities:
            self._add_quantity(row.cell, quantity)

    def _add_claim(self, cell: int, claim: dict[str, Any]) -> None:
        import numpy as np

        size = self.grid.size
        arrays = self._claims.setdefault(
            claim["id"],
            {name: np.full(size, np.nan) for name in _NUMBERS}
            | {name: np.full(size, CODES[None], np.int8) for name in ("verdict", "control_verdict")},
        )
        self._statements.setdefault(claim["id"], claim["statement"])
        low, high = claim["interval"] or (None, None)
        for name, value in zip(_NUMBERS, (claim["estimate"], low, high), strict=True):
            arrays[name][cell] = np.nan if value is None else value
        for name in ("verdict", "control_verdict"):
            arrays[name][cell] = CODES[claim[name]]

    def _add_quantity(self, cell: int, quantity: dict[str, Any]) -> None:
        import numpy as np

        name = quantity["name"]
        measured = as_dataset(quantity)
        # A dimension that is an axis of the sweep has one entry, the cell's own.
        for dimension in set(measured.dims) & {axis.name for axis in self.grid.axes}:
            if measured.sizes[dimension] == 1:
                measured = measured.isel({dimension: 0}, drop=True)
        coordinates = {str(key): measured[key].values.tolist() for key in measured["estimate"].dims}
        if name not in self._quantities:
            shape = (self.grid.size, *measured["estimate"].shape)
            head = {key: quantity[key] for key in ("name", "label", "unit")} | {"coordinates": coordinates}
            self._quantities[name] = head, {end: np.full(shape, np.nan) for end in ENDS}
        head, arrays = self._quantities[name]
        if head["coordinates"] != coordinates:
            self.left_out[name] = f"{name} is left out where its coordinates are not those of the first cell."
            return
        for end in ENDS:
            arrays[end][cell] = measured[end].values

    def counts(self) -> dict[str, int]:
        """Number of cells that are done, failed and left."""
        return {
            "done": int((self.status == DONE).sum()),
            "failed": int((self.status == FAILED).sum()),
            "left": int((self.status == LEFT).sum()),
            "total": self.grid.size,
        }

    def described(self) -> dict[str, Any]:
        """Claims and quantities, as the manifest lists them."""
        quantities = [{key: head[key] for key in ("name", "label", "unit")} for head, _ in self._quantities.values()]
        return {
            "claims": [{"id": name, "statement": text} for name, text in self._statements.items()],
            "quantities": quantities,
        }

    def dataset(self) -> xarray.Dataset:
        """All numbers over the axes of the sweep."""
        import numpy as np
        import xarray as xr

        grid, names = self.grid, [axis.name for axis in self.grid.axes]
        whole = lambda array: array.reshape(*grid.shape, *array.shape[1:])  # noqa: E731
        reason = np.array([self.reasons.get(cell, "") for cell in range(grid.size)])
        codes = {"flag_values": [LEFT, DONE, FAILED], "flag_meanings": "left done failed"}
        data: dict[str, Any] = {
            "status": (names, whole(self.status), codes),
            "run": (names, whole(self.run)),
            "reason": (names, whole(reason)),
        }
        for name in (*_NUMBERS, "verdict", "control_verdict") if self._claims else ():
            arrays = np.stack([whole(arrays[name]) for arrays in self._claims.values()])
            attributes = {} if name in _NUMBERS else {
                "flag_values": list(CODES.values()), "flag_meanings": "holds undecided fails not_available"
            }  # fmt: skip
            data[name] = (("claim", *names), arrays, attributes)
        coordinates: dict[str, Any] = {axis.name: list(axis.values) for axis in grid.axes}
        if self._claims:
            coordinates["claim"] = list(self._claims)
        for name, (head, arrays) in self._quantities.items():
            dimensions = (*names, *head["coordinates"])
            coordinates |= head["coordinates"]
            for end, suffix in zip(ENDS, ("", "_low", "_high"), strict=True):
                attributes = {"long_name": head["label"], "units": head["unit"]}
                data[name + suffix] = (dimensions, whole(arrays[end]), attributes)
        return xr.Dataset(data, coordinates)


def read_failures(grid: Grid) -> dict[str, str]:
    """Reasons of the cells that failed before, by number; none where there are none."""
    for folder in (grid.partial, grid.folder):
        if (folder / FAILURES).exists():
            return store.read_json(folder / FAILURES)
    return {}


def open_sweep(folder: Path) -> Sweep:
    """Read a finished sweep.

    Raises
    ------
    UsageError
        If the folder does not hold one of a schema that this version reads.
    """
    if not (folder / MANIFEST).exists():
        raise UsageError(f"The folder {str(folder)!r} does not hold a finished sweep.")
    manifest = store.read_json(folder / MANIFEST)
    if manifest.get("schema") != store.SCHEMA:
        raise UsageError(
            f"{folder / MANIFEST} has schema {manifest.get('schema')!r}, and this version reads {store.SCHEMA}."
        )
    return Sweep(folder, manifest, store.read_dataset(folder / RESULTS))


def locate_sweep(text: str, out: Path) -> Path:
    """Folder of a sweep given as a path, or as its hash or the beginning of it, looked up under ``out``.

    Raises
    ------
    UsageError
        If there is no such sweep, more than one, or one that is not finished.
    """
    if Path(text).is_dir():
        return Path(text)
    digits = text.removeprefix("sweep-")
    folders = [match.parent for match in sorted(out.glob(f"*/sweep-{digits}*/{MANIFEST}"))] if digits.isalnum() else []
    folders = [folder for folder in folders if not folder.suffix]
    if len(folders) == 1:
        return folders[0]
    if folders:
        raise UsageError(f"{text!r} is the beginning of {len(folders)} sweeps under {out}: give more digits.")
    if digits.isalnum() and any(out.glob(f"*/sweep-{digits}*.partial")):
        raise UsageError(f"The sweep {text!r} is not finished: give its command again and it goes on where it stopped.")
    raise UsageError(f"There is no sweep {text!r}: give its folder, or the beginning of its hash under {str(out)!r}.")
