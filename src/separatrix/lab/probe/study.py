"""Probes over a folder of checkpoints, as a run: one member for each checkpoint, resumable, reported, reused.

The model is named as ``module:function``. A function without arguments makes an ``nn.Module``, into which checkpoints
are loaded; a function ``(params, inputs) -> outputs`` is a JAX model whose parameters are what a checkpoint holds.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from separatrix.lab import execution, run, store
from separatrix.lab.probe.figures import loss_curve, panels
from separatrix.lab.probe.kind import NOTHING, Checkpoint, Column, Course, Kind, Measured
from separatrix.lab.probe.kinds import KINDS
from separatrix.lab.probe.model import as_refusals, evaluating, make_model, source_files
from separatrix.lab.probe.settings import ProbeSettings
from separatrix.lab.quantities import Quantity
from separatrix.lab.settings import SettingError
from separatrix.lab.study import Experiment, Figure, Study
from separatrix.probes.checkpoints import checkpoint_files, checkpoint_paths, read_tree, step_of

_one_at_a_time = threading.Lock()
_TOGETHER = 2**22  # bytes of the checkpoints in one part: what a kill can destroy takes longer for larger ones


def probe(settings: ProbeSettings, *, out: Path, fresh: bool, notify: execution.Notify) -> run.Run:
    """Measure all checkpoints and write the run folder, or reuse it.

    Raises
    ------
    UsageError
        If the checkpoints, the model or the data cannot be used.
    StoreError
        If writing fails on the way.
    """
    return run.run(STUDY, settings, out=out, fresh=fresh, notify=notify)


def measured(found: run.Run, settings: ProbeSettings) -> xr.Dataset:
    """What was measured at every checkpoint, with what follows from several of them."""
    return _complete(settings, store.read_dataset(found.folder / "data" / "checkpoints.zarr"))


def columns(s: ProbeSettings) -> list[Column]:
    """All columns of the kinds that the settings ask for."""
    return [column for kind in _kinds(s) for column in kind.columns(s)]


def _kinds(s: ProbeSettings) -> list[Kind]:
    return [kind for name, kind in KINDS.items() if name in s.probe]


def _complete(s: ProbeSettings, data: xr.Dataset) -> xr.Dataset:
    made: dict[str, Any] = {}
    for kind in _kinds(s):
        by_name = {column.name: column for column in kind.columns(s)}
        for name, value in kind.derive(s, data).items():
            made |= {variable: ("member", part) for variable, part in zip(by_name[name].variables, value, strict=True)}
    return data.assign(made)


# -- the checkpoints ----------------------------------------------------------------------------------------------


def _paths(s: ProbeSettings) -> list[Path]:
    if not s.checkpoints:
        raise SettingError("checkpoints needs a value: it must be a folder.")
    with as_refusals("checkpoints"):
        return checkpoint_paths(Path(s.checkpoints))


def _loader(s: ProbeSettings, model: Any, paths: Sequence[Path]) -> Callable[[int], Any]:
    """Parameters of a checkpoint by its number, or None if they or the loss there are not finite."""

    def load(number: int) -> Any:
        name = paths[number].name
        with as_refusals("checkpoints"):
            tree = read_tree(paths[number], s.subtree)
        with as_refusals(name):
            parameters = model.load(tree)
        with evaluating(name, s):
            return parameters if model.finite(parameters) else None

    return load


def _course(s: ProbeSettings) -> tuple[Course | None, Callable[[int], Any]]:
    """What is known of the run, None if every checkpoint diverged; and what loads a checkpoint."""
    paths = _paths(s)
    with as_refusals("model"):
        model = make_model(s)
    load = _loader(s, model, paths)
    steps = tuple(step_of(path, number) for number, path in enumerate(paths))
    for number, path in enumerate(paths):
        if (parameters := load(number)) is not None:
            course = Course(steps, model, parameters)
            with evaluating(path.name, s):
                course.operators  # noqa: B018  (made here, where what the user's function raises becomes a sentence)
            return course, load
    return None, load


def _measure(s: ProbeSettings, course: Course | None, number: int, load: Callable[[int], Any], name: str) -> Any:
    """Loss and, for each kind, what it measures at a checkpoint; a checkpoint that diverged has neither."""
    if course is None:
        return np.nan, {}
    checkpoint = Checkpoint(s, course, number, load)
    if checkpoint.parameters is None:
        return np.nan, {}
    with evaluating(name, s):
        loss = checkpoint.operators.loss()
    with as_refusals(name):
        return loss, {kind.name: kind.measure(checkpoint) for kind in _kinds(s)}


# -- the study ------------------------------------------------------------------------------------------------------


def _experiments(s: ProbeSettings) -> list[Experiment]:
    paths = _paths(s)
    course = functools.cache(lambda: _course(s))  # once for all parts

    def simulate(start: int, stop: int) -> xr.Dataset:
        # the model's framework uses all cores, and PyTorch's modes are the process's
        with _one_at_a_time:
            known, load = course()
            rows = [_measure(s, known, number, load, paths[number].name) for number in range(start, stop)]
        steps = np.array([step_of(path, number) for number, path in enumerate(paths)])[start:stop]
        loss = np.array([row[0] for row in rows])
        variables: dict[str, Any] = {
            "loss": ("member", loss),
            "step": ("member", steps),
            "diverged_at_step": ("member", np.where(np.isnan(loss), steps, -1)),
            "checkpoint": ("member", np.array([path.name for path in paths[start:stop]])),
        }
        for kind in _kinds(s):
            found = [row[1].get(kind.name, Measured({})) for row in rows]
            variables |= _variables(s, kind, known, found)
        return xr.Dataset(variables, {"member": np.arange(start, stop)})

    largest = max(sum(file.stat().st_size for file in checkpoint_files(path)) for path in paths)
    return [
        Experiment(
            "checkpoints",
            simulate,
            members=len(paths),
            bytes_per_member=largest * max(kind.copies(s) for kind in _kinds(s)),
            seconds=len(paths) * sum(kind.seconds for kind in _kinds(s)),
            most_together=max(1, _TOGETHER // largest),
        )
    ]


def _variables(s: ProbeSettings, kind: Kind, course: Course | None, found: Sequence[Measured]) -> dict[str, Any]:
    """Columns and arrays of one kind over the members of a part."""
    variables: dict[str, Any] = {}
    for column in kind.columns(s):
        values = [row.values.get(column.name, NOTHING) for row in found]
        for name, parts in zip(column.variables, zip(*values, strict=True), strict=True):
            variables[name] = "member", np.array(parts)
    for name, shape in (kind.arrays(s, course) if course else {}).items():
        known = [row.arrays[name] for row in found if name in row.arrays]
        nothing = np.full(tuple(shape.values()), np.nan, known[0].dtype if known else np.float64)
        variables[name] = ("member", *shape), np.stack([row.arrays.get(name, nothing) for row in found])
    return variables


def _figures(s: ProbeSettings) -> list[Figure]:
    loss = Figure("loss", "Loss", "Mean over the examples.", loss_curve)
    return [loss] + [_of_all(figure) for kind in _kinds(s) for figure in (kind.figures or _standard(kind))(s)]


def _standard(kind: Kind) -> Callable[[ProbeSettings], Sequence[Figure]]:
    def figures(s: ProbeSettings) -> Sequence[Figure]:
        shown = kind.columns(s)
        title = ", ".join(column.label for column in shown)
        bars = "residuals" if all(column.error == "residual" for column in shown) else "standard errors"
        caption = f"Error bars: {bars}. Open: not converged."
        return [Figure(kind.name.replace("-", "_"), title[0].upper() + title[1:], caption, panels(shown))]

    return figures


def _of_all(figure: Figure) -> Figure:
    """The figure, drawn from all columns."""

    def draw(s: ProbeSettings, results: Mapping[str, xr.Dataset]) -> Any:
        return figure.draw(s, {**results, "checkpoints": _complete(s, results["checkpoints"])})

    return replace(figure, draw=draw)


def _quantities(s: ProbeSettings) -> list[Quantity]:
    own = [quantity for kind in _kinds(s) for quantity in kind.quantities(s)]
    return [*own, *(_over_steps(column) for column in columns(s))]


def _over_steps(column: Column) -> Quantity:
    """A column as a curve over the steps, within its residual or a few standard errors."""

    def measure(s: ProbeSettings, results: Mapping[str, xr.Dataset]) -> xr.Dataset:
        data = _complete(s, results["checkpoints"])
        value, error = (data[name].values for name in column.variables[:2])
        error = error if column.error == "residual" else column.reach(s) * error
        curves = {"estimate": value, "low": value - error, "high": value + error}
        return xr.Dataset({name: ("step", curve) for name, curve in curves.items()}, {"step": data["step"].values})

    return Quantity(column.name, column.label, measure, column.unit, ("checkpoints",))


def _check(s: ProbeSettings) -> list[str]:
    """Refuse before anything is written: the first checkpoint is opened, the model made and its loss computed."""
    course, _ = _course(s)
    if course is None:
        return ["The loss is not finite at any checkpoint, so that nothing can be measured."]
    with as_refusals("probe"):
        for kind in _kinds(s):
            kind.check(s, course)
            stored = sum(math.prod(shape.values()) for shape in kind.arrays(s, course).values())
            if 8 * stored * len(course.steps) > _MOST_STORED:
                raise SettingError(
                    f"probe = {kind.name!r} is not allowed: it would keep {8 * stored * len(course.steps)} bytes, more "
                    f"than {_MOST_STORED}; take fewer checkpoints, vectors or steps."
                )
    return []


#: Bytes of recorded arrays, which figures read into memory together.
_MOST_STORED = 2**30


def _inputs(s: ProbeSettings) -> list[Path | str]:
    paths = _paths(s)
    names = [path.name for path in paths]  # they hold the steps
    return [*names, *(file for path in paths for file in checkpoint_files(path)), Path(s.data), *source_files(s)]


def _notes(s: ProbeSettings) -> str:
    return "\n\n".join(kind.note for kind in _kinds(s) if kind.note)


def _no_claims(s: ProbeSettings) -> list[Any]:  # noqa: ARG001
    return []


STUDY = Study(
    slug="probe",
    title="Probes over checkpoints",
    reference="Curvature, gradient noise, tangent kernel, chaos and connectivity of a model of your own.",
    question="What is this model doing along its checkpoints?",
    settings=ProbeSettings,
    experiments=_experiments,
    claims=_no_claims,
    figures=_figures,
    check=_check,
    notes=_notes,
    inputs=_inputs,
    quantities=_quantities,
)
