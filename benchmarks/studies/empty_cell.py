"""A study with next to nothing to compute: what remains is the work of the lab."""

from dataclasses import dataclass

import xarray as xr

from separatrix.lab import Claim, Experiment, Measurement, Results, Study, setting
from separatrix.lab.claims import Measure


@dataclass(frozen=True)
class Settings:
    """One number."""

    number: int = setting(0, "a number", low=0)


def experiments(settings: Settings) -> list[Experiment]:
    """The number itself."""
    return [Experiment("one", lambda *_: xr.Dataset({"number": ((), float(settings.number))}))]


def measure(shift: float) -> Measure:
    """Compare the number with itself, or with another one."""

    def compare(settings: Settings, results: Results) -> list[Measurement]:
        found = float(results["one"]["number"]) + shift
        return [Measurement("number", found, (found, found), (settings.number, settings.number))]

    return compare


STUDY = Study(
    slug="empty-cell",
    title="Nothing to compute",
    reference="none",
    question="What does the lab cost?",
    settings=Settings,
    experiments=experiments,
    claims=lambda _: [Claim("C1", "The number is itself.", "made up", measure(0), measure(1), "another number")],
    figures=lambda _: [],
)
