"""Claims and verdicts: a sentence, the interval that was measured, the region in which the sentence is true."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray

#: Results of a run: one dataset per experiment, by the experiment's name.
Results = Mapping[str, "xarray.Dataset"]

#: More than this fraction of members left out and no verdict is given.
MAX_EXCLUDED = 0.01


def diverged_fraction(*datasets: xarray.Dataset) -> float:
    """Share of all members whose state stopped being finite (``diverged_at_step`` not negative)."""
    flags = [dataset["diverged_at_step"].values >= 0 for dataset in datasets if "diverged_at_step" in dataset]
    return float(sum(flag.sum() for flag in flags) / sum(flag.size for flag in flags)) if flags else 0.0


class Verdict(StrEnum):
    """Outcome of a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Measurement:
    """One condition under which a claim is tested.

    Parameters
    ----------
    label
        The condition, for example ``"depth 3, mode 2"``.
    estimate, interval
        The statistic and its confidence interval ``(lower, upper)``, in ``unit``.
    accepted
        Region in which the claim holds, ends included; either end may be infinite.
    excluded
        Fraction of members left out (diverged, never reached the event, ...), between 0 and 1.
    members
        Number of members behind the interval, for the power estimate.
    unit, note
        Unit of the estimate; a reason, where a sentence helps the reader.
    """

    label: str
    estimate: float
    interval: tuple[float, float]
    accepted: tuple[float, float]
    excluded: float = 0.0
    members: int | None = None
    unit: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        # numpy scalars arrive here all the time; the documents written from a measurement need plain numbers
        object.__setattr__(self, "estimate", float(self.estimate))
        object.__setattr__(self, "interval", tuple(float(end) for end in self.interval))
        object.__setattr__(self, "accepted", tuple(float(end) for end in self.accepted))
        object.__setattr__(self, "excluded", float(self.excluded))
        object.__setattr__(self, "members", None if self.members is None else int(self.members))
        for name, (low, high) in (("interval", self.interval), ("accepted", self.accepted)):
            if low > high:
                raise ValueError(f"{self.label}: the {name} ({low}, {high}) has its ends in the wrong order.")
        if any(math.isnan(end) for end in self.accepted):
            raise ValueError(f"{self.label}: the accepted region has an end that is not a number.")
        if not 0.0 <= self.excluded <= 1.0:
            raise ValueError(f"{self.label}: excluded is a fraction, not {self.excluded}.")

    @classmethod
    def missing(cls, label: str, accepted: tuple[float, float], note: str, excluded: float = 0.0) -> Measurement:
        """A condition that could not be measured: undecided, for the reason in ``note``."""
        return cls(label, math.nan, (math.nan, math.nan), accepted, excluded=excluded, note=note)

    @property
    def verdict(self) -> Verdict:
        """Holds if the interval lies in the accepted region, fails if it lies outside, otherwise undecided."""
        low, high = self.interval
        if any(math.isnan(number) for number in (self.estimate, low, high)) or self.excluded > MAX_EXCLUDED:
            return Verdict.UNDECIDED
        if self.accepted[0] <= low and high <= self.accepted[1]:
            return Verdict.HOLDS
        if high < self.accepted[0] or low > self.accepted[1]:
            return Verdict.FAILS
        return Verdict.UNDECIDED

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.interval[1] - self.interval[0]) / 2

    @property
    def slack(self) -> float:
        """Signed room between interval and accepted region in half-widths; negative where the interval sticks out."""
        below = math.inf if math.isinf(self.accepted[0]) else self.interval[0] - self.accepted[0]
        above = math.inf if math.isinf(self.accepted[1]) else self.accepted[1] - self.interval[1]
        room = min(below, above)
        if math.isnan(room):
            return -math.inf
        if math.isinf(room):
            return room
        return room / self.half_width if self.half_width > 0 else math.copysign(math.inf, room)

    @property
    def members_needed(self) -> int | None:
        """Members that would decide an undecided claim, if the estimate stays: the interval shrinks as 1/sqrt(members).

        None when there is a verdict, when the number of members is not known, or when more of them would not help
        (too many excluded, not a number, estimate on the bound).
        """
        if self.verdict is not Verdict.UNDECIDED or self.members is None or self.excluded > MAX_EXCLUDED:
            return None
        distance = min(abs(self.estimate - end) for end in self.accepted)
        ratio = self.half_width / distance if distance > 0 else math.inf
        needed = self.members * ratio * ratio
        return math.ceil(needed) if math.isfinite(needed) else None

    def as_dict(self) -> dict[str, Any]:
        """All numbers of the measurement with its verdict, ready for JSON (an infinite bound is None)."""
        return {
            "label": self.label,
            "estimate": self.estimate,
            "interval": list(self.interval),
            "threshold": [end if math.isfinite(end) else None for end in self.accepted],
            "verdict": str(self.verdict),
            "excluded": self.excluded,
            "members": self.members,
            "members_needed": self.members_needed,
            "unit": self.unit,
            "note": self.note,
        }


Measure = Callable[[Any, Results], Sequence[Measurement]]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that can come out false.

    Parameters
    ----------
    id, statement, source
        ``"C2"``, one sentence, and where it stands (``"paper, abstract"``, ``"derived, T6"``).
    measure
        ``(settings, results) -> measurements``, one for each condition.
    control
        The same statistic with the mechanism switched off or the theory replaced by a wrong one: it must come out
        as *fails*, otherwise the claim could not have failed either.
    control_statement
        What was changed in the control.
    needs, control_needs
        Names of the experiments that ``measure`` and ``control`` read, as shell-style patterns; all by default. They
        tell what to simulate when only some of the claims are asked for.
    """

    id: str
    statement: str
    source: str
    measure: Measure
    control: Measure
    control_statement: str
    needs: tuple[str, ...] = ("*",)
    control_needs: tuple[str, ...] = ("*",)


def combine(measurements: Sequence[Measurement]) -> Verdict:
    """Verdict over all conditions: one failure fails, all must hold, and no measurement decides nothing."""
    verdicts = [measurement.verdict for measurement in measurements]
    if Verdict.FAILS in verdicts:
        return Verdict.FAILS
    if verdicts and all(verdict is Verdict.HOLDS for verdict in verdicts):
        return Verdict.HOLDS
    return Verdict.UNDECIDED


@dataclass(frozen=True)
class ClaimResult:
    """A claim with what was measured for it and, unless controls were left out, for its control."""

    claim: Claim
    measurements: tuple[Measurement, ...]
    control_measurements: tuple[Measurement, ...] | None

    @property
    def verdict(self) -> Verdict:
        """Verdict over all conditions."""
        return combine(self.measurements)

    @property
    def control_verdict(self) -> Verdict | None:
        """Verdict of the control; None when controls were left out."""
        return None if self.control_measurements is None else combine(self.control_measurements)

    @property
    def decisive(self) -> Measurement | None:
        """The measurement that decides: of those with the claim's verdict, the worst relative to its region."""
        same = [measurement for measurement in self.measurements if measurement.verdict is self.verdict]
        return min(same, key=lambda measurement: measurement.slack, default=None)

    @property
    def members_needed(self) -> int | None:
        """Members that would decide every undecided condition of an undecided claim, as far as that can be said."""
        if self.verdict is not Verdict.UNDECIDED:
            return None
        return max((one.members_needed for one in self.measurements if one.members_needed is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """The claim as one object of the JSON document; estimate, interval and threshold are the decisive ones."""
        decisive = None if self.decisive is None else self.decisive.as_dict()
        control = self.control_measurements
        return {
            "id": self.claim.id,
            "statement": self.claim.statement,
            "source": self.claim.source,
            "estimate": decisive and decisive["estimate"],
            "interval": decisive and decisive["interval"],
            "threshold": decisive and decisive["threshold"],
            "unit": decisive and decisive["unit"],
            "condition": decisive and decisive["label"],
            "members_needed": self.members_needed,
            "verdict": str(self.verdict),
            "control_verdict": None if self.control_verdict is None else str(self.control_verdict),
            "control_statement": self.claim.control_statement,
            "measurements": [measurement.as_dict() for measurement in self.measurements],
            "control_measurements": None if control is None else [measurement.as_dict() for measurement in control],
        }


def judge(claim: Claim, settings: Any, results: Results, controls: bool) -> ClaimResult:
    """Measure a claim and, with ``controls``, its control; a claim that raises is a mistake of the study and raises."""
    return ClaimResult(
        claim,
        tuple(claim.measure(settings, results)),
        tuple(claim.control(settings, results)) if controls else None,
    )
