"""Results of the study computed when a claim asks for them, and settings at which one run costs seconds."""

from separatrix.lab.claims import combine
from separatrix.systems.deep_linear.saddle_to_saddle_sgd import STUDY

#: Two modes, depth 2: every experiment takes well under a second once it is compiled.
TINY = {
    "depth": (2,),
    "singular_values": (2.0, 1.0),
    "hidden_width": 4,
    "learning_rate": 0.01,
    "aligned_runs": 16,
    "random_runs": 8,
    "chain_runs": 400,
    "samples": 4000,
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
