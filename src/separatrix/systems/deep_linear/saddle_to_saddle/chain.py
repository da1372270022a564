"""Scalar chain of the study: its stationary law, contraction, escape from the saddle and collapse."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np
import xarray as xr

from separatrix.engines.ensemble import State, Step
from separatrix.engines.launch import Launch
from separatrix.lab import Experiment
from separatrix.systems.deep_linear.collapse import critical_learning_rate
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings
from separatrix.systems.deep_linear.scalar_simulation import ScalarChain, scalar_sde

#: First passage: strengths over the singular value, learning rate times singular value (depth 2).
PASSAGE = {"start": 1e-4, "end": 0.02, "rate": 0.02}
#: Collapse: singular value and label noise, learning rates over the critical one, time, initial strength (depth 2).
COLLAPSE = {"singular_value": 0.2, "label_noise": 3.0, "factors": (0.5, 0.75, 1.25, 1.5), "time": 60.0, "start": 1e-40}
#: Contraction onto the solution without label noise: learning rate, initial distance and time over the singular value;
#: near enough to be linear, far enough from rounding after the 12 e-foldings of this time at depth 2.
CONTRACTION = {"rate": 0.02, "missing": 1e-5, "time": 6.0}


def _observe_chain(state: dict, arguments: dict) -> dict:
    del arguments
    return {name: values[0] for name, values in state.items()}


def _observe_sde(state: jax.Array, arguments: dict) -> dict:
    del arguments
    return {"root": state[0]}


def _chain_dataset(
    records: dict, diverged: np.ndarray, start: int, *, times: np.ndarray, depth: int, step_size: float
) -> xr.Dataset:
    """Records ``(t, n)`` as a dataset with dimensions member and time."""
    data: dict[str, tuple] = {name: (("member", "time"), values.T) for name, values in records.items()}
    data["diverged_at_step"] = (("member",), diverged)
    coordinates = {
        "member": np.arange(start, start + diverged.size),
        "time": ("time", times, {"units": "learning_rate x steps"}),
    }
    return xr.Dataset(data, coordinates, {"depth": depth, "step_size": step_size})


def _chain_experiment(
    settings: Settings, name: str, members: int, depth: int, *, singular_value: float, label_noise: float, rate: float,
    batch_size: int, strength: float, times: np.ndarray, passage: float | None = None, sde: bool = False,
    control: bool = False,
) -> Experiment:  # fmt: skip
    arguments = {"singular_value": singular_value, "label_noise": label_noise, "learning_rate": rate}
    step: Step = ScalarChain(depth, batch_size, passage is not None)
    step_size = rate
    if passage is not None:
        arguments["passage_strength"] = passage
    if sde:
        step, step_size = scalar_sde(depth), rate / 2
        arguments |= {"noise_scale": rate / batch_size, "step_size": step_size}

    def state(start: int, stop: int) -> State:
        root = np.full((1, stop - start), strength ** (1 / depth))
        if sde:
            return root
        return {"root": root} | ({} if passage is None else {"passage_step": np.full(root.shape, -1, np.int32)})

    return Experiment(
        name=name,
        simulate=Launch(
            step, _observe_sde if sde else _observe_chain, state, settings.seed, name,
            lambda: {key: np.float64(value) for key, value in arguments.items()},
            np.rint(times / step_size).astype(np.int64),
            partial(_chain_dataset, times=times, depth=depth, step_size=step_size),
        ),
        members=members,
        bytes_per_member=64 * times.size + 2048,
        seconds=1.5 + members * (times[-1] / step_size) * 8e-9 * batch_size,
        control=control,
    )  # fmt: skip


def scalar_rates(settings: Settings, depth: int) -> np.ndarray:
    """Learning rates of the stationary runs of the scalar chain at ``s = 1``: the settings' values over ``L / 2``."""
    return 2 * np.asarray(settings.scalar_rates) / depth


def chain_experiments(settings: Settings) -> Iterator[Experiment]:
    """Stationary, contracting, escaping and collapsing runs of one mode."""
    n = settings.chain_runs
    for depth in settings.depth:
        # Equilibrate for 8 relaxation times, then 20 snapshots 2 relaxation times apart. The learning rate is given
        # relative to the relaxation rate, so that all depths are equally far from the continuum.
        relaxation = 1 / depth
        times = np.arange(8, 48, 2) * relaxation
        law = {"singular_value": 1.0, "label_noise": settings.scalar_label_noise, "batch_size": 1, "strength": 1.0}
        rates = scalar_rates(settings, depth)
        for k, rate in enumerate(rates):
            yield _chain_experiment(settings, f"law_depth{depth}_rate{k}", n, depth, rate=rate, times=times, **law)
        yield _chain_experiment(
            settings, f"law_depth{depth}_sde", max(100, n // 4), depth, rate=rates[-1], times=times, sde=True, **law
        )
        yield _chain_experiment(
            settings, f"contraction_depth{depth}", n, depth, singular_value=1.0, label_noise=0.0,
            rate=CONTRACTION["rate"], batch_size=settings.batch_size, strength=1 - CONTRACTION["missing"],
            times=np.linspace(0, CONTRACTION["time"] * 2 / depth, times.size),
        )  # fmt: skip
    passage = {
        "depth": 2,
        "singular_value": 1.0,
        "batch_size": 1,
        "rate": PASSAGE["rate"],
        "strength": PASSAGE["start"],
        "passage": PASSAGE["end"],
        "times": np.array([12.0]),
    }
    yield _chain_experiment(settings, "passage_clean", n, label_noise=0.0, **passage)
    yield _chain_experiment(settings, "passage_noisy", n, label_noise=settings.scalar_label_noise, **passage)
    s, sigma = COLLAPSE["singular_value"], COLLAPSE["label_noise"]
    critical = float(critical_learning_rate(s, sigma, 1))
    for k, factor in enumerate(COLLAPSE["factors"]):
        common = {
            "depth": 2,
            "singular_value": s,
            "rate": factor * critical,
            "batch_size": 1,
            "strength": COLLAPSE["start"],
            "times": np.array([0.0, COLLAPSE["time"]]),
        }
        members = max(100, n // 10)
        yield _chain_experiment(settings, f"collapse_rate{k}", members, label_noise=sigma, **common)
        yield _chain_experiment(settings, f"collapse_quiet_rate{k}", members, label_noise=0.0, control=True, **common)
