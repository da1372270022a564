"""Results of the study computed when a claim asks for them, and settings at which one run costs seconds."""

import sys

from separatrix.lab.claims import combine
from separatrix.systems.high_dimensional_regression.high_dim_generalization import STUDY


def small(**changes):
    """The smoke preset: small sizes at which every claim is still decided."""
    return STUDY.resolve("smoke", changes)


class LazyResults(dict):
    """Datasets by experiment, simulated on first use."""

    def __init__(self, settings):
        super().__init__()
        self.experiments = {one.name: one for one in STUDY.experiments(settings)}

    def __missing__(self, name):
        experiment = self.experiments[name]
        self[name] = experiment.simulate(0, experiment.members)
        return self[name]


def claim(identifier, settings=None):
    return next(one for one in STUDY.claims(settings or STUDY.settings()) if one.id == identifier)


def verdict(measurements, part=""):
    """Verdict over the conditions whose label contains ``part``."""
    chosen = [one for one in measurements if part in one.label]
    assert chosen, f"no condition is called {part!r}"
    return str(combine(chosen))


def replace(monkeypatch, target, mutant):
    """Put ``mutant`` in the place of a function everywhere the package has imported it."""
    name = target.__name__
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("separatrix.") and vars(module).get(name) is target:
            monkeypatch.setattr(module, name, mutant)
