"""Balance of adjacent layers: one step exactly (C11) and the drift away from it for unequal widths (C12)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Array

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import Arguments, State, evolve
from separatrix.engines.intervals import bootstrap
from separatrix.lab import Experiment, Measurement, Results, diverged_fraction
from separatrix.systems.deep_linear.balance import balance_time_course
from separatrix.systems.deep_linear.network_observables import NetworkObserver
from separatrix.systems.deep_linear.network_simulation import OnlineSGD, network_state
from separatrix.systems.deep_linear.saddle_to_saddle.networks import network_experiment, random_starts, sgd
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, Task, task
from separatrix.systems.deep_linear.teacher import Teacher, aligned_balanced_weights, layer_widths

#: Drift away from balance: widths, singular values, learning rate, label noise, time.
UNBALANCED = {"hidden": 2, "outputs": 6, "singular_values": (2.0, 1.0), "rate": 0.01, "label_noise": 1.0, "time": 40.0}


def balance_experiments(settings: Settings) -> Iterator[Experiment]:
    """One step of random networks, and the slow drift of a network of unequal widths."""
    problem = task(settings)
    for depth in settings.depth:
        widths = layer_widths(problem.inputs, problem.outputs, depth, settings.hidden_width)
        yield Experiment(
            name=f"balance_depth{depth}",
            simulate=partial(_one_step_balance, settings=settings, widths=widths),
            members=64,
            bytes_per_member=200 * max(widths) ** 2 * 8,
            seconds=1.0,
        )
    for name, outputs in (("unbalanced", UNBALANCED["outputs"]), ("unbalanced_square", 2)):
        s = np.asarray(UNBALANCED["singular_values"])
        square = Task(s, s.size, s.size, outputs, np.full(s.size, UNBALANCED["label_noise"]), 1.0, None)
        local = Settings(
            seed=settings.seed, learning_rate=UNBALANCED["rate"], label_noise=UNBALANCED["label_noise"], batch_size=1
        )
        widths = layer_widths(s.size, outputs, 2, UNBALANCED["hidden"])
        weights = aligned_balanced_weights(Teacher.diagonal(s, s.size, outputs), widths, s)
        yield network_experiment(
            local, square, name, max(64, settings.aligned_runs // 4), widths, np.linspace(0, UNBALANCED["time"], 41),
            step=sgd(local, square), observer=NetworkObserver(("layer_norms", "loss"), s.size),
            weights=lambda _a, _b, w=weights: w, labels="noisy", control=outputs == 2,
        )  # fmt: skip


@dataclass(frozen=True)
class _RememberingSGD(OnlineSGD):
    """A step that keeps the sample it drew: drawn again by another program it may differ in its last bit."""

    def __call__(self, state: State, noise: dict[str, Array], t: Array, arguments: Arguments) -> State:
        return super().__call__(state, noise, t, arguments) | noise


def _everything(state: State, arguments: Arguments) -> State:
    del arguments
    return state


def _one_step_balance(start: int, stop: int, *, settings: Settings, widths: Sequence[int]) -> xr.Dataset:
    """Change of ``W_{l+1}^T W_{l+1} - W_l W_l^T`` in one single-sample step, simulated and by the identity."""
    d_in, d_out, depth = widths[0], widths[-1], len(widths) - 1
    weights = random_starts(settings.seed, widths, 1.0, start, stop)
    rate, sigma = 0.05, 0.5
    keys = member_keys(settings.seed, f"balance_depth{depth}", start, stop)
    s = np.linspace(2.0, 1.0, min(d_in, d_out))
    arguments = {"singular_values": s, "learning_rate": np.float64(rate), "label_noise": np.float64(sigma)}
    sample = {"x": np.zeros((d_in, 1, stop - start), np.float32), "z": np.zeros((d_out, 1, stop - start), np.float32)}
    records, _ = evolve(
        _RememberingSGD(d_in, d_out, 1), _everything, network_state(weights) | sample, keys, arguments, np.array([1])
    )
    # Members first and contiguous: NumPy sums in the order of memory, which must not depend on how many there are.
    member_first = lambda a: np.ascontiguousarray(np.moveaxis(np.asarray(a[0], np.float64), -1, 0))  # noqa: E731
    updated = [member_first(w) for w in records["weights"]]
    x, z = (member_first(records[name]) for name in ("x", "z"))  # (n, d, 1)
    hidden = [x]
    for w in weights:
        hidden.append(w @ hidden[-1])
    error = np.zeros_like(hidden[-1])
    error[:, : s.size] = s[:, None] * x[:, : s.size]
    errors: list[np.ndarray] = [error + sigma * z - hidden[-1]]
    for w in reversed(weights[1:]):
        errors.append(np.swapaxes(w, 1, 2) @ errors[-1])
    errors.reverse()  # errors[l] drives layer l + 1
    gram = lambda w: np.swapaxes(w, 1, 2) @ w  # noqa: E731
    outer = lambda v: v @ np.swapaxes(v, 1, 2)  # noqa: E731
    square = lambda v: np.sum(v**2, axis=(1, 2))[:, None, None]  # noqa: E731
    measured, identity, first_term = [], [], []
    for l in range(depth - 1):  # noqa: E741
        new, old = (gram(ws[l + 1]) - outer(ws[l]) for ws in (updated, weights))
        measured.append(new - old)
        gain = rate**2 * square(errors[l + 1]) * outer(hidden[l + 1])
        loss = rate**2 * square(hidden[l]) * outer(errors[l])
        identity.append(gain - loss)
        first_term.append(gain)
    norm = lambda terms: np.sqrt(sum(np.sum(t**2, axis=(1, 2)) for t in terms))  # noqa: E731
    gap = norm([a - b for a, b in zip(measured, identity, strict=True)])
    wrong = norm([a - b for a, b in zip(measured, first_term, strict=True)])
    # Rounding acts on the Gram matrices themselves, which are larger than their change by 1 / rate^2.
    scale = norm([gram(w) for w in weights])
    data = {"error": gap / scale, "error_without_second_term": wrong / scale}
    return xr.Dataset(
        {k: ("member", v) for k, v in data.items()}, {"member": np.arange(start, stop)}, {"learning_rate": rate}
    )


def balance_identity(settings: Settings, results: Results, variable: str = "error") -> list[Measurement]:
    """Largest error of the identity over runs, relative to the layers' Gram matrices."""
    measurements = []
    for depth in settings.depth:
        largest = float(np.max(results[f"balance_depth{depth}"][variable].values))  # NaN stays NaN
        measurements.append(
            Measurement(f"depth {depth}, largest relative error", largest, (largest, largest), (0.0, 1e-13))
        )
    return measurements


def balance_drift(settings: Settings, results: Results, experiment: str = "unbalanced") -> list[Measurement]:
    """Ratio tr W_2^T W_2 / tr W_1 W_1^T at the end, over its prediction for unequal widths."""
    data = results[experiment]
    norms = data["layer_norms"].values[:, -1]
    norms = norms[np.isfinite(norms).all(axis=1)]
    s = np.asarray(UNBALANCED["singular_values"])
    first, second = balance_time_course(
        UNBALANCED["time"], s, UNBALANCED["outputs"], s.size, UNBALANCED["rate"], UNBALANCED["label_noise"]
    )
    predicted = float(second / first)
    statistic = lambda rows, axis=0: rows[..., 1].mean(axis=axis) / rows[..., 0].mean(axis=axis)  # noqa: E731
    estimate, interval = bootstrap(statistic, norms, confidence=0.95, seed=settings.seed)
    return [
        Measurement(
            f"ratio of the layers' squared norms at time {UNBALANCED['time']:g} over theory", estimate / predicted,
            (interval[0] / predicted, interval[1] / predicted), (0.95, 1.05), members=len(norms),
            excluded=diverged_fraction(data), note=f"measured {estimate:.3f}, theory {predicted:.3f}",
        )
    ]  # fmt: skip
