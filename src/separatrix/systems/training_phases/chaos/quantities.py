"""What the study measures beside its claims, for sweeps to map: transitions, growth, predictions."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from jaxtyping import Float

from separatrix.engines.intervals import mean_interval, median_interval
from separatrix.lab import Quantity, Results
from separatrix.systems.training_phases.chaos.kernel_cone import kernel_phases
from separatrix.systems.training_phases.chaos.settings import Settings
from separatrix.systems.training_phases.chaos.stability import edges, growth_rates, settling_index
from separatrix.systems.training_phases.chaos.transition import final_amplification, kept, transition_steps


def quantities(settings: Settings) -> list[Quantity]:  # noqa: ARG001
    """All quantities, with intervals over runs at 95 %."""
    copies = ("copies",)
    return [
        Quantity("transition_step", "end of chaos: first t0 from which A(t0, T) < 10, median", transition_step,
                 unit="steps", needs=copies),
        Quantity("log_amplification", "log10 of A(t0, T), mean over runs", log_amplification, needs=copies),
        Quantity("gradient_log_amplification", "log10 of A(t0, T) along the gradient, mean over runs",
                 gradient_log_amplification, needs=copies),
        Quantity("final_disagreement", "disagreement of copies at T, mean over runs", final_disagreement, needs=copies),
        Quantity("final_barrier", "loss barrier of copies at T, mean over runs", final_barrier, unit="nats",
                 needs=copies),
        Quantity("sharpness_settling_step", "mini-batch sharpness stays below 2 (1 - mu) / eta from here on, median",
                 sharpness_settling_step, unit="steps", needs=copies),
        Quantity("relative_sharpness", "mini-batch sharpness over 2 (1 - mu) / eta, mean over runs", relative_sharpness,
                 needs=copies),
        Quantity("growth_rate", "growth rate of the tangent, mean over runs", growth_rate, unit="1/steps",
                 needs=copies),
        Quantity("kernel_transition_step", "transition of the tangent kernel, median", kernel_transition_step,
                 unit="steps", needs=copies),
    ]  # fmt: skip


def _scalar(values: np.ndarray) -> xr.Dataset:
    if values.size < 2:
        return xr.Dataset(dict.fromkeys(("estimate", "low", "high"), np.nan))
    estimate, (low, high) = median_interval(values)
    return xr.Dataset({"estimate": estimate, "low": low, "high": high})


def _means(values: Float[np.ndarray, "n k"], name: str, places: np.ndarray) -> xr.Dataset:
    """Means over runs with intervals, along one coordinate."""
    if len(values) < 2:
        ends = np.full((3, places.size), np.nan)
    else:
        found = [mean_interval(column) for column in values.T]
        ends = np.array([[estimate, *interval] for estimate, interval in found]).T
    named = zip(("estimate", "low", "high"), ends, strict=True)
    return xr.Dataset({end: (name, values) for end, values in named}, {name: places})


def _over_spawns(results: Results, measure: Callable[[xr.Dataset], np.ndarray]) -> xr.Dataset:
    data = kept(results["copies"])
    return _means(measure(data), "spawn_step", data["spawn"].values)


def transition_step(settings: Settings, results: Results) -> xr.Dataset:
    """End of chaos; T in a run that has none."""
    return _scalar(transition_steps(settings, kept(results["copies"])))


def log_amplification(settings: Settings, results: Results) -> xr.Dataset:
    """Decades of growth up to T, over spawn steps."""
    return _over_spawns(results, lambda data: final_amplification(settings, data))


def gradient_log_amplification(settings: Settings, results: Results) -> xr.Dataset:  # noqa: ARG001
    """The same for perturbations along the gradient of the training loss."""
    return _over_spawns(results, lambda data: np.log10(data["amplification"].values[:, -1, :, -1]))


def final_disagreement(settings: Settings, results: Results) -> xr.Dataset:
    """Share of the test predictions in which copies and runs differ at T, over spawn steps."""
    return _over_spawns(
        results, lambda data: data["disagreement"].values[:, : settings.directions, :, -1].mean(axis=1)
    )  # fmt: skip


def final_barrier(settings: Settings, results: Results) -> xr.Dataset:  # noqa: ARG001
    """Barrier between copies and runs at T, over spawn steps."""
    return _over_spawns(results, lambda data: data["barrier"].values)


def sharpness_settling_step(settings: Settings, results: Results) -> xr.Dataset:
    """Step from which on mini-batches stay below the edge for fluctuating curvature; T in a run where they do not."""
    data = kept(results["copies"])
    steps = np.append(data["step"].values, settings.steps).astype(float)
    return _scalar(steps[settling_index(data, edges(settings).fluctuating)])


def relative_sharpness(settings: Settings, results: Results) -> xr.Dataset:
    """Mini-batch sharpness over the edge for fluctuating curvature, in time."""
    data = kept(results["copies"])
    values = data["mini_batch_sharpness"].values.mean(axis=-1) / edges(settings).fluctuating
    return _means(values, "step", data["step"].values)


def growth_rate(settings: Settings, results: Results) -> xr.Dataset:  # noqa: ARG001
    """Growth rate of the tangent spawned at the start, at the ends of the intervals over which it is taken."""
    data = kept(results["copies"])
    return _means(growth_rates(data), "step", data["step"].values[1:])


def kernel_transition_step(settings: Settings, results: Results) -> xr.Dataset:
    """Cut between the two phases of the tangent kernel."""
    phases = kernel_phases(settings, results)
    return _scalar(np.zeros(0) if phases is None else phases.steps)
