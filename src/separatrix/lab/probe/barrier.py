"""The kind of probe that asks whether checkpoints lie in one basin: the loss on the segment between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from separatrix.lab.probe.figures import panels
from separatrix.lab.probe.kind import NOTHING, Checkpoint, Column, Kind, Measured, Value
from separatrix.lab.study import Figure
from separatrix.probes.connectivity import disagreement, interpolated, loss_barrier

if TYPE_CHECKING:
    from separatrix.lab.probe.settings import ProbeSettings

_TO = {"last": "the last checkpoint", "next": "the next checkpoint"}
_BARRIERS = tuple(Column(f"barrier_{to}", f"loss barrier to {words}") for to, words in _TO.items())
_DISAGREEMENTS = tuple(Column(f"disagreement_{to}", f"disagreement with {words}") for to, words in _TO.items())


def _columns(s: ProbeSettings) -> Sequence[Column]:
    # predictions are the largest output, which real targets do not have
    return _BARRIERS if s.loss == "mse" else (*_BARRIERS, *_DISAGREEMENTS)


def _measure(checkpoint: Checkpoint) -> Measured:
    last = len(checkpoint.course.steps) - 1
    others = {"last": last, "next": min(checkpoint.number + 1, last)}
    values = {}
    for to, number in others.items():
        there = None if number == checkpoint.number else checkpoint.load(number)
        barrier, apart = NOTHING, NOTHING
        if there is not None:
            barrier, apart = _between(checkpoint.model, checkpoint.parameters, there)
        values[f"barrier_{to}"], values[f"disagreement_{to}"] = barrier, apart
    return Measured({column.name: values[column.name] for column in _columns(checkpoint.settings)})


def _between(model: Any, first: Any, second: Any) -> tuple[Value, Value]:
    """Barrier, and disagreement of the predictions at the ends, with standard errors over the examples."""
    found = loss_barrier(lambda parameters: model.loss(model.outputs(parameters)), first, second)
    ends = [model.outputs(parameters) for parameters in (first, second)]
    # the excess of each example, at the place where their mean is largest
    top = model.example_losses(model.outputs(interpolated(first, second, found.place)))
    excess = top - (1 - found.place) * model.example_losses(ends[0]) - found.place * model.example_losses(ends[1])
    rounding = 4 * np.finfo(np.float32).eps * float(np.abs(found.losses[[0, -1]]).max())
    error = max(float(excess.std(ddof=1) / np.sqrt(excess.size)), rounding) if found.height > 0 else 0.0
    barrier = Value(found.height, error, bool(np.isfinite(found.height)))
    apart = float(disagreement(*(jnp.asarray(np.asarray(z)).reshape(-1, z.shape[-1]) for z in ends)))
    return barrier, _share(apart, excess.size)


def _share(share: float, examples: int) -> Value:
    """A share of examples with the standard deviation of what it may be, for a uniform prior; not 0 for none."""
    middle = (share * examples + 1) / (examples + 2)
    return Value(share, float(np.sqrt(middle * (1 - middle) / (examples + 3))), True)


def _figures(s: ProbeSettings) -> Sequence[Figure]:
    caption = (
        "Largest excess of the loss over the straight line between its values at two checkpoints, located by golden "
        "section. Error bars: standard errors over the examples."
    )
    made = [Figure("barrier", "Loss barriers between checkpoints", caption, panels(_BARRIERS))]
    if len(_columns(s)) > len(_BARRIERS):
        caption = "Share of examples whose largest output is another one. Error bars: its standard deviation."
        made.append(Figure("disagreement", "Disagreement between checkpoints", caption, panels(_DISAGREEMENTS)))
    return made


BARRIER = Kind(
    "barrier",
    _columns,
    _measure,
    figures=_figures,
    note=(
        "Barriers: where a PyTorch module has batch normalisation, the statistics of its units are taken anew from the "
        "data at every point of a segment, its ends included; with those of the checkpoints a barrier is an artefact."
    ),
    seconds=1.5,
)
