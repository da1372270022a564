"""Step and batch matter only through the temperature: both are doubled, once in each regime (K9)."""

from functools import partial

import numpy as np

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.feature_learning.hinge_networks import DenseNetwork
from separatrix.systems.feature_learning.noise_regimes.data import perceptron_sets, sign_sets
from separatrix.systems.feature_learning.noise_regimes.runs import (
    Conditions,
    network_experiment,
    perceptron_experiment,
)
from separatrix.systems.feature_learning.noise_regimes.settings import Settings

REGIMES = ("perceptron", "lazy", "feature")
#: Arms: factor of the batch, factor of the temperature, whether only the control needs it.
ARMS = {"plain": (1, 1.0, False), "doubled": (2, 1.0, False), "larger_batch": (2, 0.5, True)}
#: Training samples of the perceptron and in the feature regime; the lazy networks have the largest of their sizes.
SAMPLES = 256
_RUNS = 4  # times as many as elsewhere: a small difference is measured
#: Temperature of the lazy runs in units of 1/alpha.
_LAZY = 100.0
#: What is compared, the size of the trained weights.
WEIGHTS = {"perceptron": "signal", "lazy": "weight_change", "feature": "weight_norm"}


def invariance_experiments(settings: Settings) -> list[Experiment]:
    """Each regime at (B, T), at (2 B, T), that is twice the learning rate, and at (2 B, T / 2)."""
    experiments = []
    for arm, (factor, cooler, control) in ARMS.items():
        runs = _RUNS * settings.stopped_runs
        hot = settings.temperature_over_margin * cooler
        experiments.append(
            perceptron_experiment(
                settings, f"perceptron_{arm}", Conditions.grid([1.0], [hot], runs),
                partial(perceptron_sets, settings.seed, 60, runs, SAMPLES, settings.dimension, settings.chi), SAMPLES,
                settings.dimension, batch=factor * settings.batch_size, lookahead=16, expected_steps=1500,
                control=control,
            )
        )  # fmt: skip
        runs = _RUNS * settings.lazy_runs
        networks = {
            "lazy": (DenseNetwork(1, settings.lazy_width), settings.lazy_alpha, _LAZY / settings.lazy_alpha,
                     settings.lazy_samples[-1]),
            "feature": (DenseNetwork(1, settings.feature_width), settings.feature_alphas[0], 1.0, SAMPLES),
        }  # fmt: skip
        experiments += [
            network_experiment(
                settings, f"{regime}_{arm}", Conditions.grid([alpha], [temperature * cooler], runs),
                partial(sign_sets, settings.seed, 61, runs, samples, 10, settings.network_dimension, settings.chi),
                network, samples, settings.network_dimension, batch=factor * settings.network_batch,
                expected_steps=60 * (samples / 128) ** 1.3, control=control,
            )
            for regime, (network, alpha, temperature, samples) in networks.items()
        ]  # fmt: skip
    return experiments


def invariance(settings: Settings, results: Results, arm: str = "doubled") -> list[Measurement]:
    """Geometric mean ratio of the trained weights' size to that of the plain runs on the same samples."""
    del settings
    measurements = []
    for regime in REGIMES:
        plain, other = results[f"{regime}_plain"], results[f"{regime}_{arm}"]
        both = plain["fitted"].values & other["fitted"].values
        label, accepted = f"{regime}: {WEIGHTS[regime].replace('_', ' ')} over that of the plain runs", (0.9, 1.1)
        excluded = float(1 - both.mean())
        if both.sum() < 2:
            measurements.append(Measurement.missing(label, accepted, "too few runs were fitted", excluded=excluded))
            continue
        logs = np.log(other[WEIGHTS[regime]].values[both] / plain[WEIGHTS[regime]].values[both])
        mean, (low, high) = mean_interval(logs, confidence=bonferroni(len(REGIMES)))
        measurements.append(
            Measurement(label, np.exp(mean), (np.exp(low), np.exp(high)), accepted, excluded=excluded,
                        members=int(both.sum()))
        )  # fmt: skip
    return measurements
