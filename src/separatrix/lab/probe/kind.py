"""What a kind of probe declares: its columns, how they are measured at a checkpoint, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import xarray

    from separatrix.lab.probe.model import Model
    from separatrix.lab.probe.settings import ProbeSettings
    from separatrix.lab.quantities import Quantity
    from separatrix.lab.study import Figure
    from separatrix.probes.operators import ModelOperators

#: Names and lengths of the dimensions of an array that is recorded at every checkpoint.
Shape = Mapping[str, int]


@dataclass(frozen=True)
class Column:
    """A number with its error at every checkpoint.

    Parameters
    ----------
    name, label, unit
        Name of its variable, words for an axis, and the unit.
    error
        What comes with it: an ``"error"`` (standard error) or a ``"residual"`` (of an eigenvalue).
    reach
        Errors from the value to the ends of its interval: a function of the settings.
    level
        Number that it should be compared with, and its name, or None: a function of the settings.
    """

    name: str
    label: str
    unit: str = ""
    error: str = "error"
    reach: Callable[[ProbeSettings], float] = lambda s: 2.0  # noqa: ARG005
    level: Callable[[ProbeSettings], tuple[float, str] | None] = lambda s: None  # noqa: ARG005

    @property
    def variables(self) -> tuple[str, str, str]:
        """Names of the variables that hold value, error and whether it has converged."""
        return self.name, f"{self.name}_{self.error}", f"{self.name}_converged"


class Value(NamedTuple):
    """What is measured for a column, at one checkpoint or (arrays) at all."""

    value: Any
    error: Any
    converged: Any


#: Where there is nothing to measure.
NOTHING = Value(np.nan, np.nan, False)


@dataclass(frozen=True, eq=False)
class Course:
    """What is known of a run before it is measured.

    Attributes
    ----------
    steps
        Of the checkpoints.
    model, parameters
        The model, and its parameters at the first checkpoint whose loss is finite.
    """

    steps: tuple[int, ...]
    model: Model
    parameters: Any

    @cached_property
    def operators(self) -> ModelOperators:
        """Of the model there."""
        return self.model.operators(self.parameters)

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """Shape of the outputs of all examples."""
        return tuple(self.operators.outputs().shape)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is given to measure at one checkpoint.

    Attributes
    ----------
    settings, course
        Of the run.
    number
        Of the checkpoint.
    load
        ``number -> parameters`` of a checkpoint, or None if they are not finite.
    """

    settings: ProbeSettings
    course: Course
    number: int
    load: Callable[[int], Any]

    @property
    def model(self) -> Model:
        """The model."""
        return self.course.model

    @cached_property
    def parameters(self) -> Any:
        """Its parameters here, or None if they are not finite."""
        return self.load(self.number)

    @cached_property
    def operators(self) -> ModelOperators:
        """Of the model here."""
        return self.model.operators(self.parameters)


@dataclass(frozen=True)
class Measured:
    """Values of columns, and arrays, by name."""

    values: Mapping[str, Value]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A kind of probe, as ``--probe`` names it.

    Parameters
    ----------
    name
        On the command line.
    columns
        What it gives.
    measure
        At one checkpoint with finite parameters.
    arrays
        ``(settings, course) -> {name: shape}`` of what is recorded beside the columns.
    check
        Raises `SettingError` if the settings do not do, or memory does not.
    derive
        ``(settings, dataset) -> {column: values (T,)}`` of columns that need several checkpoints.
    quantities
        Numbers that belong to the course as a whole.
    figures
        One with a panel for each column if there is none.
    note
        What a reader of the report must know.
    copies
        Of the parameters, in number, that measuring may hold.
    seconds
        Expected for each checkpoint.
    """

    name: str
    columns: Callable[[ProbeSettings], Sequence[Column]]
    measure: Callable[[Checkpoint], Measured]
    arrays: Callable[[ProbeSettings, Course], Mapping[str, Shape]] = lambda s, course: {}  # noqa: ARG005
    check: Callable[[ProbeSettings, Course], None] = lambda s, course: None  # noqa: ARG005
    derive: Callable[[ProbeSettings, xarray.Dataset], Mapping[str, Value]] = lambda s, data: {}  # noqa: ARG005
    quantities: Callable[[ProbeSettings], Sequence[Quantity]] = lambda s: ()  # noqa: ARG005
    figures: Callable[[ProbeSettings], Sequence[Figure]] | None = None
    note: str = ""
    copies: Callable[[ProbeSettings], int] = lambda s: 60  # noqa: ARG005
    seconds: float = 0.5


def always(*columns: Column) -> Callable[[ProbeSettings], Sequence[Column]]:
    """Columns that no setting changes."""
    return lambda s: columns  # noqa: ARG005


def of_estimate(estimate: Any) -> Value:
    """Value of an :class:`~separatrix.probes.estimates.Estimate`."""
    return Value(estimate.value, estimate.standard_error, estimate.converged)
