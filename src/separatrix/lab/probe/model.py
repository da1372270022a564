"""What the probes ask of a model of either framework, and the files that make one: functions, data, checkpoints."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float, Int

from separatrix.lab.errors import UsageError
from separatrix.lab.settings import SettingError
from separatrix.probes.operators import ModelOperators, ProbeError

if TYPE_CHECKING:
    from separatrix.lab.probe.settings import ProbeSettings
    from separatrix.probes.chaos.measure import Chaos

#: Losses by name; every framework has its own.
LOSSES = ("cross-entropy", "mse")


class Model(Protocol):
    """A function of parameters with data and a loss, in either framework; one object for all checkpoints of a run."""

    def load(self, tree: Any) -> Any:
        """Parameters from what a checkpoint holds.

        Raises
        ------
        ProbeError
            If they do not fit the model.
        """
        ...

    def finite(self, parameters: Any) -> bool:
        """Whether all parameters and the loss are finite."""
        ...

    def operators(self, parameters: Any, examples: int | None = None) -> ModelOperators:
        """Derivatives at these parameters, on the first examples or all."""
        ...

    def outputs(self, parameters: Any) -> Any:
        """Outputs of all examples, with batch statistics those of the data at these very parameters."""
        ...

    def loss(self, outputs: Any) -> float:
        """Loss of the outputs of all examples."""
        ...

    def example_losses(self, outputs: Any) -> Float[np.ndarray, " N"]:
        """Loss of each example."""
        ...

    @property
    def targets(self) -> np.ndarray:
        """Of all examples."""
        ...

    def tangent_kernel(
        self, parameters: Any, examples: int, contraction: Any, memory_bytes: int
    ) -> Callable[[], Float[np.ndarray, "n n"]]:
        """What computes the exact tangent kernel of the first examples.

        Raises
        ------
        TooLargeError
            If it does not fit.
        """
        ...

    def chaos(self, parameters: Any, batches: Int[np.ndarray, "T B"], records: int, s: ProbeSettings) -> Chaos:
        """Perturbed copies trained from here with plain SGD, momentum at rest, on batches of these examples."""
        ...


def make_model(s: ProbeSettings) -> Model:
    """The model that the settings name, on their data.

    Raises
    ------
    SettingError
        If the model, its loss or the data cannot be used.
    """
    function, data = named_function("model", s.model), read_data(s)
    loss = s.loss if s.loss in LOSSES else named_function("loss", s.loss)
    if makes_module(s):
        try:
            from separatrix.lab.probe.torch_probed import TorchProbed
        except ImportError:
            raise SettingError(f"model = {s.model!r} needs PyTorch: pip install separatrix[torch].") from None
        return TorchProbed(function, s.model, data, loss)
    from separatrix.lab.probe.jax_probed import JaxProbed

    return JaxProbed(function, data, loss)


def source_files(s: ProbeSettings) -> list[Path]:
    """Files of the user's own functions."""
    named = [("model", s.model)] + ([("loss", s.loss)] if s.loss not in LOSSES else [])
    sources = [inspect.getsourcefile(named_function(setting, name)) for setting, name in named]
    return [Path(source) for source in sources if source]


@functools.cache
def named_function(setting: str, name: str) -> Callable[..., Any]:
    """Function that a setting names as ``module:function``; modules are also looked for in the working directory.

    Raises
    ------
    SettingError
        If there is none.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        named = f"{', '.join(LOSSES)} or " if setting == "loss" else ""
        raise SettingError(f"{setting} = {name!r} is not allowed: it must be {named}module:function.")
    here = os.getcwd()
    sys.path.insert(0, here)  # as `python -m` does
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # the user's module may raise anything
        reason = " ".join(str(error).split())
        raise SettingError(f"{setting} = {name!r} is not allowed: {reason}.") from None
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise SettingError(f"{setting} = {name!r} is not allowed: it is no function.")
    return found


def makes_module(s: ProbeSettings) -> bool:
    """Whether the function of the model makes an ``nn.Module``: it needs no arguments."""
    parameters = inspect.signature(named_function("model", s.model)).parameters.values()
    return not [parameter for parameter in parameters if parameter.default is parameter.empty]


def read_data(s: ProbeSettings) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of the examples asked for.

    Raises
    ------
    SettingError
        If the file does not hold them, or too few.
    """
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


@contextmanager
def as_refusals(name: str) -> Iterator[None]:
    """Turn what a probe refuses into what the command line refuses."""
    try:
        yield
    except ProbeError as error:
        raise UsageError(f"{name}: {error}.") from None


@contextmanager
def evaluating(name: str, s: ProbeSettings) -> Iterator[None]:
    """The same where the user's own function is called, which may raise anything."""
    try:
        with as_refusals(name):
            yield
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(str(error).partition("\n")[0].split())
        raise UsageError(
            f"{name}: {s.model} cannot be evaluated with these parameters on these data "
            f"({type(error).__name__}: {reason})."
        ) from None
