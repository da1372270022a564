"""A study: one paper made executable. Settings, experiments, claims and figures, declared in one module."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from separatrix.lab.claims import Claim, Results
from separatrix.lab.errors import UsageError
from separatrix.lab.quantities import Quantity
from separatrix.lab.settings import canonical, specs, unknown_setting

if TYPE_CHECKING:
    import matplotlib.figure
    import xarray


@runtime_checkable
class JointSimulation(Protocol):
    """A simulation that can share one launch with those of other settings, and then gives the same bits as alone."""

    @property
    def group(self) -> Hashable:
        """Simulations of equal groups can be launched together."""
        ...

    def __call__(self, start: int, stop: int) -> xarray.Dataset:
        """The members ``start .. stop - 1``, alone."""
        ...

    def together(self, requests: Sequence[tuple[Any, int, int]]) -> list[xarray.Dataset]:
        """Datasets of several ``(simulation, start, stop)`` of this group."""
        ...


@dataclass(frozen=True)
class Experiment:
    """A simulation or measurement made of independent members (runs, seeds, blocks of samples), numbered from 0.

    Parameters
    ----------
    name
        Identifier; the key of its dataset in the results.
    simulate
        ``(start, stop) -> dataset`` of the members ``start .. stop - 1``, with a ``member`` dimension and coordinate if
        there is more than one member. It must not depend on the split into parts: each member derives its own random
        key from its number. Two parts may be computed at the same time, in threads. A member that diverges is data:
        give the dataset a variable ``diverged_at_step`` along ``member``, non-negative where it diverged. If it is a
        :class:`JointSimulation`, the cells of a sweep share launches.
    members
        Number of members.
    bytes_per_member
        Peak memory of one member in bytes; decides how many members are simulated together.
    seconds
        Expected duration of all members on a machine with two cores, compilation included.
    control
        Whether only controls need it (then it is left out with ``--no-controls``).
    most_together
        Members of one part at most, where a duration cannot be told beforehand; None leaves it to the other numbers.
    """

    name: str
    simulate: Callable[[int, int], xarray.Dataset]
    members: int = 1
    bytes_per_member: int = 0
    seconds: float = 0.0
    control: bool = False
    most_together: int | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"The name of an experiment must be an identifier, not {self.name!r}.")
        if self.members < 1:
            raise ValueError(f"Experiment {self.name} needs at least one member.")


@dataclass(frozen=True)
class Figure:
    """A figure of the report; the caption says how to read it."""

    name: str
    title: str
    caption: str
    draw: Callable[[Any, Results], matplotlib.figure.Figure]


@dataclass(frozen=True)
class Selection:
    """The claims and quantities that a run measures, and the experiments they need."""

    claims: tuple[Claim, ...]
    quantities: tuple[Quantity, ...]
    experiments: tuple[Experiment, ...]


def _no_quantities(settings: Any) -> Sequence[Quantity]:  # noqa: ARG001
    return ()


def _no_inputs(settings: Any) -> Sequence[Path]:  # noqa: ARG001
    return ()


def _no_warnings(settings: Any) -> Sequence[str]:  # noqa: ARG001
    return ()


@dataclass(frozen=True)
class Study:
    """What one study module declares as ``STUDY``.

    Parameters
    ----------
    slug, title, reference, question, topics
        Name on the command line (the module's name with ``-`` for ``_``), title, the paper, a paragraph on what is
        asked, and key words.
    settings
        Frozen dataclass of `setting` fields.
    experiments, claims, figures
        Functions of the settings.
    presets
        Named overrides of the defaults, for example ``{"paper": {...}, "smoke": {...}}``; ``default`` is implicit.
    check
        Validation across fields: raises `SettingError`, returns warnings as sentences.
    notes
        What a reader of the report should know; a text or a function of the settings.
    inputs
        Files whose content determines the run, and texts that do.
    quantities
        What is measured beside the claims, for sweeps to map; a function of the settings.
    """

    slug: str
    title: str
    reference: str
    question: str
    settings: type
    experiments: Callable[[Any], Sequence[Experiment]]
    claims: Callable[[Any], Sequence[Claim]]
    figures: Callable[[Any], Sequence[Figure]]
    topics: tuple[str, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    check: Callable[[Any], Sequence[str]] = _no_warnings
    notes: str | Callable[[Any], str] = ""
    inputs: Callable[[Any], Sequence[Path | str]] = _no_inputs
    quantities: Callable[[Any], Sequence[Quantity]] = _no_quantities

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.slug):
            raise ValueError(f"A slug is lower-case words joined by hyphens, not {self.slug!r}.")
        if reserved := RESERVED & specs(self.settings).keys():
            raise ValueError(
                f"{self.slug}: {', '.join(sorted(reserved))} cannot be settings, `separatrix run` uses them."
            )
        for preset in self.presets:
            self.resolve(preset, {})

    def resolve(self, preset: str, overrides: Mapping[str, Any]) -> Any:
        """Settings of a preset with explicit values on top.

        Raises
        ------
        SettingError
            If a name is no setting or a value is not allowed.
        UsageError
            If the preset is not known.
        """
        if preset != "default" and preset not in self.presets:
            known = ", ".join(["default", *self.presets])
            raise UsageError(f"preset = {preset!r} is not allowed: the presets of {self.slug} are {known}.")
        table = specs(self.settings)
        values = {**self.presets.get(preset, {}), **overrides}
        for name in values:
            if name not in table:
                raise unknown_setting(name, table)
        return self.settings(**{name: canonical(table[name], value) for name, value in values.items()})

    def select(self, settings: Any, only: Sequence[str], controls: bool) -> Selection:
        """Claims and quantities named in ``only`` (all if empty), and the experiments that they need.

        Raises
        ------
        UsageError
            If a name is neither a claim nor a quantity of the study.
        """
        claims, quantities = tuple(self.claims(settings)), tuple(self.quantities(settings))
        names = [*(claim.id for claim in claims), *(quantity.name for quantity in quantities)]
        for name in only:
            if name not in names:
                raise UsageError(f"only = {name!r} is not allowed: {self.slug} measures {', '.join(names)}.")
        experiments = tuple(one for one in self.experiments(settings) if controls or not one.control)
        if not only:
            return Selection(claims, quantities, experiments)
        claims = tuple(claim for claim in claims if claim.id in only)
        quantities = tuple(quantity for quantity in quantities if quantity.name in only)
        patterns = {pattern for one in (*claims, *quantities) for pattern in one.needs}
        if controls:
            patterns |= {pattern for claim in claims for pattern in claim.control_needs}
        needed = tuple(one for one in experiments if any(fnmatchcase(one.name, pattern) for pattern in patterns))
        return Selection(claims, quantities, needed)

    def notes_for(self, settings: Any) -> str:
        """Notes for the reader of the report."""
        return self.notes(settings) if callable(self.notes) else self.notes


#: Names that the commands `run` and `sweep` and the dimensions of their data use themselves.
RESERVED = frozenset(
    {"preset", "controls", "only", "out", "fresh", "json", "help", "over", "seeds", "on", "workers", "address",
     "retry_failed", "member", "time", "claim"}
)  # fmt: skip
