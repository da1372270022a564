"""The kind of probe that asks whether training from here on forgets or amplifies a small perturbation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from separatrix.lab.probe.curvature import check_batch_size
from separatrix.lab.probe.figures import chosen_checkpoints, colours, panels, scale
from separatrix.lab.probe.kind import NOTHING, Checkpoint, Column, Course, Kind, Measured, Shape, Value, always
from separatrix.lab.probe.model import makes_module
from separatrix.lab.settings import SettingError
from separatrix.lab.study import Figure
from separatrix.probes.chaos.copies import copies_held
from separatrix.probes.chaos.measure import BlownUpError, record_steps

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray

    from separatrix.lab.probe.settings import ProbeSettings

#: Steps at which copies are compared.
RECORDS = 10
_SETTLED = 0.25  # standard error of log A that counts as converged


def _reach(s: ProbeSettings) -> float:
    """Half of Student's 95 % interval over so few directions, in standard errors."""
    return float(stats.t.ppf(0.975, s.directions - 1))


def _unchanged(s: ProbeSettings) -> tuple[float, str]:  # noqa: ARG001
    return 1.0, "neither grows nor shrinks"


_COLUMNS = (
    Column("amplification", "amplification of the perturbation", reach=_reach, level=_unchanged),
    Column("exponent", "growth rate of the copies' distance", "1/step", reach=_reach),
    Column("tangent_exponent", "growth rate of the tangent map", "1/step", reach=_reach),
)


def batches(examples: int, size: int, steps: int, seed: int) -> Int[np.ndarray, "T B"]:
    """Examples of ``steps`` mini-batches: every epoch is a permutation, what is left over at its end is not used."""
    rng = np.random.default_rng([seed, 0xC4A05])
    each = examples // size
    epochs = [rng.permutation(examples)[: each * size].reshape(each, size) for _ in range(-(-steps // each))]
    return np.concatenate(epochs)[:steps]


def _copies(s: ProbeSettings) -> int:
    return 3 * (s.directions + 2) if makes_module(s) else copies_held(s.directions)


def _check(s: ProbeSettings, course: Course) -> None:
    if s.learning_rate is None:
        raise SettingError("learning_rate needs a value for the probe chaos: it must be the step size of the training.")
    check_batch_size(s, course)


def _arrays(s: ProbeSettings, course: Course) -> Mapping[str, Shape]:  # noqa: ARG001
    return {
        "amplification_after": {
            "chaos_direction": s.directions,
            "chaos_record": len(record_steps(s.chaos_steps, RECORDS)),
        }
    }


def _measure(checkpoint: Checkpoint) -> Measured:
    s = checkpoint.settings
    order = batches(checkpoint.operators.examples, s.batch_size, s.chaos_steps, s.seed)
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # copies that blow up have no rate
            chaos = checkpoint.model.chaos(checkpoint.parameters, order, RECORDS, s)
            grown = np.log(chaos.amplification[:, -1])
    except BlownUpError:  # from here on training diverges at this step size: a result, and the only one
        shape = s.directions, len(record_steps(s.chaos_steps, RECORDS))
        nothing = {column.name: NOTHING for column in _COLUMNS}
        return Measured(nothing, {"amplification_after": np.full(shape, np.nan)})
    assert chaos.growth is not None
    mean, error, converged = _mean(grown)
    rate = Value(mean / s.chaos_steps, error / s.chaos_steps, converged)
    with np.errstate(over="ignore", invalid="ignore"):
        size = Value(float(np.exp(mean)), float(np.exp(mean) * error), converged)
    tangent = _mean(chaos.growth[:, -1])
    values = {
        "amplification": size,
        "exponent": rate,
        "tangent_exponent": Value(tangent.value / s.chaos_steps, tangent.error / s.chaos_steps, tangent.converged),
    }
    return Measured(values, {"amplification_after": chaos.amplification})


def _mean(logarithms: Float[np.ndarray, " K"]) -> Value:
    if not np.all(np.isfinite(logarithms)):
        return NOTHING
    error = float(logarithms.std(ddof=1) / np.sqrt(len(logarithms)))
    return Value(float(logarithms.mean()), error, error <= _SETTLED)


def _figures(s: ProbeSettings) -> Sequence[Figure]:
    caption = (
        f"Distance between a copy perturbed by {s.sigma:g} of the parameters' norm and its unperturbed twin, over the "
        "distance at the start, while both train on the same mini-batches. Lines: geometric mean over "
        f"{s.directions} random directions, bands: its standard error."
    )
    summary = (
        f"After {s.chaos_steps} steps: the amplification A, and the growth rate log(A) / steps. Error bars: standard "
        "errors over the directions."
    )
    return [
        Figure("chaos", "Growth of a perturbation from each checkpoint", caption, _draw),
        Figure("chaos_summary", "Amplification and growth rates", summary, panels(_COLUMNS)),
    ]


def _draw(s: ProbeSettings, results: Mapping[str, xarray.Dataset]) -> matplotlib.figure.Figure:
    import matplotlib.pyplot as plt

    data = results["checkpoints"]
    figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
    shown, grid = chosen_checkpoints(data), record_steps(s.chaos_steps, RECORDS)
    for member, colour in zip(shown, colours(len(shown)), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):  # copies that blew up have no curve
            logs = np.log(data["amplification_after"].values[member])
            error = logs.std(axis=0, ddof=1) / np.sqrt(len(logs))
            mean = logs.mean(axis=0)
        axes.plot(grid, np.exp(mean), "o-", ms=3, lw=1.2, color=colour, label=f"step {data['step'].values[member]}")
        axes.fill_between(grid, np.exp(mean - error), np.exp(mean + error), color=colour, alpha=0.15, lw=0)
    axes.axhline(1.0, color="0.6", lw=0.8, ls="--")
    scale(axes, np.concatenate([np.asarray(curve.get_ydata()) for curve in axes.get_lines()]))
    axes.set(xlabel="steps after the perturbation", ylabel="amplification")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


CHAOS = Kind(
    "chaos",
    always(*_COLUMNS),
    _measure,
    arrays=_arrays,
    check=_check,
    figures=_figures,
    copies=_copies,
    note=(
        "Chaos: from each checkpoint, copies train on with plain SGD at the step size and momentum of the settings, "
        "with the momentum buffer at rest: a run that arrives with momentum is another experiment. An unperturbed copy "
        "must keep the bits of its twin, or nothing is reported."
    ),
    seconds=4.0,
)
