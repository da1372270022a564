"""Results of the study computed when a claim asks for them, and settings at which everything costs little."""

from separatrix.lab.claims import combine
from separatrix.systems.deep_linear.deep_linear_exact_solutions import STUDY

TINY = {
    "singular_values": (2.0, 1.0),
    "depth": (2, 3),
    "runs": 4,
    "scan_depth": (2, 4),
    "scan_runs": 4,
    "most_steps": 200,
    "exact_draws": 2,
    "matrix_size": 30,
    "factors": (1, 10),
    "matrix_draws": 6,
}


def tiny(**changes):
    return STUDY.resolve("default", {**TINY, **changes})


class LazyResults(dict):
    """Datasets by experiment, simulated on first use."""

    def __init__(self, settings):
        super().__init__()
        self.experiments = {one.name: one for one in STUDY.experiments(settings)}

    def __missing__(self, name):
        experiment = self.experiments[name]
        self[name] = experiment.simulate(0, experiment.members)
        return self[name]


def claim(identifier):
    return next(one for one in STUDY.claims(STUDY.settings()) if one.id == identifier)


def verdict(measurements, part=""):
    """Verdict over the conditions whose label contains ``part``."""
    chosen = [one for one in measurements if part in one.label]
    assert chosen, f"no condition is called {part!r}"
    return str(combine(chosen))
