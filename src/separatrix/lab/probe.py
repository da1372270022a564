"""Probes over a folder of checkpoints, as a run: one member for each checkpoint, resumable, reported, reused.

The model is named as ``module:function``. A function without arguments makes an ``nn.Module``, into which checkpoints
are loaded; a function ``(params, inputs) -> outputs`` is a JAX model whose parameters are the arrays of a checkpoint by
name.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from separatrix.lab import execution, run, store
from separatrix.lab.errors import UsageError
from separatrix.lab.settings import SettingError, setting
from separatrix.lab.study import Experiment, Figure, Study

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class ProbeSettings:
    """What to measure, of which model, on which data."""

    checkpoints: str = setting("", "folder of the checkpoints: .npz, .safetensors, .pt or .pth")
    model: str = setting("", "module:function that makes the nn.Module, or is the JAX function (params, inputs)")
    data: str = setting("", ".npz file with the arrays inputs and targets")
    loss: Literal["cross-entropy", "mse"] = setting("cross-entropy", "loss of the outputs, mean over the examples")
    probe: tuple[str, ...] = setting(
        ("sharpness", "trace", "noise"),
        "what to measure",
        choices=("sharpness", "negative", "trace", "noise", "gauss-newton", "batch-sharpness"),
    )
    tolerance: float = setting(1e-3, "residual of an eigenvalue, relative to it", low=0, low_open=True)
    vectors: int = setting(32, "random vectors of the trace, or mini-batches of batch-sharpness", low=2, high=100_000)
    batch_size: int = setting(32, "examples of a mini-batch of batch-sharpness", low=1)
    examples: int | None = setting(None, "number of examples used, the first ones; all if none", low=3)
    learning_rate: float | None = setting(None, "step size of gradient descent, for the edge of stability", low=0, low_open=True)  # fmt: skip  # noqa: E501
    momentum: float = setting(0.0, "its momentum", low=0, high=1, high_open=True)
    seed: int = setting(0, "seed of all random numbers", low=0)


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


def rows(found: run.Run) -> list[dict[str, Any]]:
    """What was measured, one row for each checkpoint."""
    data = store.read_dataset(found.folder / "data" / "checkpoints.zarr")
    return [
        {"checkpoint": str(data["checkpoint"].values[i])}
        | {str(name): data[name].values[i].item() for name in sorted(data.data_vars, key=str) if name != "checkpoint"}
        for i in range(data.sizes["member"])
    ]


def table(measured: Sequence[dict[str, Any]]) -> str:
    """The rows as text: value ± error, and a question mark where it has not converged."""
    shown = [quantity for quantity in _ERRORS if quantity in measured[0]]
    lines = [["checkpoint", "loss", *shown]]
    for row in measured:
        cells = [f"{row[name]:.4g} ± {row[_ERRORS[name]]:.1g}" + ("" if row[f"{name}_converged"] else " ?") for name in shown]  # fmt: skip  # noqa: E501
        lines.append([row["checkpoint"], f"{row['loss']:.4g}", *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


#: Quantities, and the variable that holds the error of each.
_ERRORS = {
    "sharpness": "sharpness_residual",
    "most_negative": "most_negative_residual",
    "gauss_newton_sharpness": "gauss_newton_sharpness_residual",
    "trace": "trace_error",
    "batch_sharpness": "batch_sharpness_error",
    "noise_trace": "noise_trace_error",
    "noise_scale": "noise_scale_error",
}


# -- the model and its data ----------------------------------------------------------------------------------------


def _files(s: ProbeSettings) -> list[Path]:
    from separatrix.probes.checkpoints import checkpoint_files

    if not s.checkpoints:
        raise SettingError("checkpoints needs a value: it must be a folder.")
    with _as_refusals("checkpoints"):
        return checkpoint_files(Path(s.checkpoints))


@functools.cache
def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    if not module or not function:
        raise SettingError(f"model = {name!r} is not allowed: it must be module:function.")
    here = os.getcwd()
    sys.path.insert(0, here)  # as `python -m` does
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SettingError(f"model = {name!r} is not allowed: {error}.") from None
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise SettingError(f"model = {name!r} is not allowed: it is no function.")
    return found


def _is_factory(function: Callable[..., Any]) -> bool:
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return not needed


def _data(s: ProbeSettings) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(s.data, allow_pickle=False) as stored:
            inputs, targets = stored["inputs"], stored["targets"]
    except (OSError, ValueError, KeyError) as error:
        raise SettingError(
            f"data = {s.data!r} is not allowed: it must be an .npz file with inputs and targets ({error})."
        ) from None
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise SettingError(
            f"data = {s.data!r} is not allowed: inputs and targets must have the same number of examples, got "
            f"{inputs.shape} and {targets.shape}."
        )
    if s.examples is not None and s.examples > len(inputs):
        raise SettingError(f"examples = {s.examples} is not allowed: the data have {len(inputs)} examples.")
    return inputs[: s.examples], targets[: s.examples]


def _model(s: ProbeSettings, path: Path) -> Any:
    """The operators of the model at a checkpoint."""
    from separatrix.probes.checkpoints import read_checkpoint

    function, (inputs, targets), state = _function(s.model), _data(s), read_checkpoint(path)
    if not _is_factory(function):
        from separatrix.probes.jax_model import JaxModel

        arrays = {name: np.asarray(value) for name, value in state.items()}
        wide = any(a.dtype == np.float64 for a in arrays.values())
        inputs = inputs.astype(np.float64 if wide else np.float32) if inputs.dtype.kind == "f" else inputs
        return JaxModel(function, arrays, (inputs, targets), _jax_losses()[s.loss])
    import torch

    from separatrix.probes.operators import ProbeError
    from separatrix.probes.torch_model import TorchModel

    module = function()
    if not isinstance(module, torch.nn.Module):
        raise ProbeError(f"{s.model} must make an nn.Module, got {type(module).__name__}")
    tensors = {name: value if isinstance(value, torch.Tensor) else torch.tensor(value) for name, value in state.items()}
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ProbeError(f"{path.name} does not fit the module: {' '.join(str(error).split())}") from None
    losses = {"cross-entropy": torch.nn.functional.cross_entropy, "mse": torch.nn.functional.mse_loss}
    dtype = next(module.parameters()).dtype
    return TorchModel(module.eval(), (_like(inputs, dtype), _like(targets, dtype)), losses[s.loss])


def _like(values: np.ndarray, dtype: Any) -> Any:
    import torch

    tensor = torch.tensor(values)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@functools.cache
def _jax_losses() -> dict[str, Callable[..., Any]]:
    import jax
    import jax.numpy as jnp

    def cross_entropy(outputs: Any, targets: Any) -> Any:
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[..., None], axis=-1))

    def mse(outputs: Any, targets: Any) -> Any:
        return jnp.mean((outputs - targets) ** 2)

    return {"cross-entropy": cross_entropy, "mse": mse}


@contextmanager
def _as_refusals(name: str) -> Any:
    """Turn what a probe refuses into what the command line refuses."""
    from separatrix.probes.operators import ProbeError

    try:
        yield
    except ProbeError as error:
        raise UsageError(f"{name}: {error}.") from None


# -- the study ------------------------------------------------------------------------------------------------------


def _measure(s: ProbeSettings, path: Path) -> dict[str, float | bool]:
    """All quantities asked for at one checkpoint; a model whose loss is not finite has none."""
    from separatrix.probes import gradient_noise, matrices, stability, trace
    from separatrix.probes.checkpoints import read_checkpoint
    from separatrix.probes.eigenpairs import eigenpairs

    found: dict[str, float | bool] = {"loss": np.nan}
    for quantity in _quantities(s):
        found |= {quantity: np.nan, _ERRORS[quantity]: np.nan, f"{quantity}_converged": False}
    if not all(np.all(np.isfinite(np.asarray(a, np.float64))) for a in read_checkpoint(path).values()):
        return found
    model = _model(s, path)
    found["loss"] = model.loss()
    hessian = matrices.hessian(model)

    def pair(name: str, matrix: matrices.SymmetricMatrix, which: Literal["largest", "smallest"] = "largest") -> None:
        made = eigenpairs(matrix, 1, which=which, tolerance=s.tolerance, seed=s.seed)
        put(name, float(made.values[0]), float(made.residuals[0]), made.converged)

    def put(name: str, value: float, error: float, converged: bool) -> None:
        found.update({name: value, _ERRORS[name]: error, f"{name}_converged": converged})

    if "sharpness" in s.probe:
        pair("sharpness", hessian)
    if "negative" in s.probe:
        pair("most_negative", hessian, "smallest")
    if "gauss-newton" in s.probe:
        pair("gauss_newton_sharpness", matrices.gauss_newton(model))
    if "trace" in s.probe:
        made = trace.trace(hessian, s.vectors, seed=s.seed)
        put("trace", made.value, made.standard_error, made.converged)
    if "batch-sharpness" in s.probe:
        made = stability.batch_sharpness(model, s.batch_size, s.vectors, seed=s.seed)
        put("batch_sharpness", made.value, made.standard_error, made.converged)
    if "noise" in s.probe:
        noise = gradient_noise.gradient_noise(model)
        put("noise_trace", noise.trace.value, noise.trace.standard_error, noise.trace.converged)
        put("noise_scale", noise.noise_scale.value, noise.noise_scale.standard_error, noise.noise_scale.converged)
    return found


def _quantities(s: ProbeSettings) -> list[str]:
    names = {
        "sharpness": ["sharpness"],
        "negative": ["most_negative"],
        "gauss-newton": ["gauss_newton_sharpness"],
        "trace": ["trace"],
        "batch-sharpness": ["batch_sharpness"],
        "noise": ["noise_trace", "noise_scale"],
    }
    return [name for probe in names for name in names[probe] if probe in s.probe]


def _experiments(s: ProbeSettings) -> list[Experiment]:
    files = _files(s)

    def simulate(start: int, stop: int) -> xarray.Dataset:
        import xarray as xr

        # the model's framework uses all cores, and PyTorch's modes are the process's
        with _one_at_a_time:
            measured = []
            for path in files[start:stop]:
                with _as_refusals(path.name):
                    measured.append(_measure(s, path))
        columns: dict[str, Any] = {
            name: ("member", np.array([row[name] for row in measured])) for name in (measured[0] if measured else ())
        }
        steps = [step_of(path, number) for number, path in enumerate(files)][start:stop]
        columns["diverged_at_step"] = "member", np.where(np.isnan(columns["loss"][1]), steps, -1)
        columns["checkpoint"] = "member", np.array([path.name for path in files[start:stop]])
        columns["step"] = "member", np.array(steps)
        return xr.Dataset(columns, {"member": np.arange(start, stop)})

    from separatrix.probes.checkpoints import step_of

    largest = max(path.stat().st_size for path in files)
    return [
        Experiment(
            "checkpoints",
            simulate,
            members=len(files),
            bytes_per_member=60 * largest,
            seconds=2.0 * len(files),
        )
    ]


def _figures(s: ProbeSettings) -> list[Figure]:
    def draw(name: str) -> Callable[[Any, Any], matplotlib.figure.Figure]:
        def drawn(s: ProbeSettings, results: Any) -> matplotlib.figure.Figure:
            import matplotlib.pyplot as plt

            data = results["checkpoints"]
            figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
            settled = data[f"{name}_converged"].values
            for mask, style in ((settled, "ko-"), (~settled, "o")):
                if mask.any():
                    axes.errorbar(data["step"].values[mask], data[name].values[mask], data[_ERRORS[name]].values[mask],
                                  fmt=style, ms=4, lw=1, mfc=None if style == "ko-" else "white", mec="k", ecolor="k",
                                  label="converged" if style == "ko-" else "not converged")  # fmt: skip
            if name == "sharpness" and s.learning_rate is not None:
                from separatrix.probes.stability import gradient_descent_threshold

                axes.axhline(gradient_descent_threshold(s.learning_rate, s.momentum), color="0.5", ls="--",
                             label="edge of stability")  # fmt: skip
            axes.set(xlabel="step of the checkpoint", ylabel=name.replace("_", " "))
            figure.legend(loc="outside upper center", ncols=3, frameon=False)
            return figure

        return drawn

    caption = "Error bars: residual norms of eigenvalues, standard errors of estimates. Open: not converged."
    return [Figure(name, name.replace("_", " ").capitalize(), caption, draw(name)) for name in _quantities(s)]


def _check(s: ProbeSettings) -> list[str]:
    """Refuse before anything is written: the first checkpoint is opened, the model made and its loss computed."""
    from separatrix.probes.checkpoints import read_checkpoint
    from separatrix.probes.operators import ProbeError

    files = _files(s)
    with _as_refusals(files[0].name):
        finite = all(np.all(np.isfinite(np.asarray(a, np.float64))) for a in read_checkpoint(files[0]).values())
    _function(s.model)
    inputs, _ = _data(s)
    if "batch-sharpness" in s.probe and s.batch_size > len(inputs):
        raise SettingError(f"batch_size = {s.batch_size} is not allowed: the data have {len(inputs)} examples.")
    if finite:
        try:
            _model(s, files[0])
        except ProbeError as error:
            raise UsageError(f"{files[0].name}: {error}.") from None
        except Exception as error:  # the user's own function may raise anything
            reason = " ".join(str(error).partition("\n")[0].split())
            raise UsageError(
                f"{files[0].name}: {s.model} cannot be evaluated with these parameters on these data "
                f"({type(error).__name__}: {reason})."
            ) from None
    return []


def _inputs(s: ProbeSettings) -> list[Path]:
    source = inspect.getsourcefile(_function(s.model))
    return [*_files(s), Path(s.data), *([Path(source)] if source else [])]


def _no_claims(s: ProbeSettings) -> list[Any]:  # noqa: ARG001
    return []


STUDY = Study(
    slug="probe",
    title="Probes over checkpoints",
    reference="Curvature and gradient noise of a model of your own.",
    question="How do curvature and gradient noise of this model change along its checkpoints?",
    settings=ProbeSettings,
    experiments=_experiments,
    claims=_no_claims,
    figures=_figures,
    check=_check,
    inputs=_inputs,
)
