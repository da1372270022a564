"""Near the saddle: collapse onto it by label noise (C8) and the time to leave it (C9)."""

import numpy as np

from separatrix.engines.intervals import bonferroni, mean_interval, spread_interval
from separatrix.lab import Measurement, Results, diverged_fraction
from separatrix.systems.deep_linear.collapse import critical_learning_rate
from separatrix.systems.deep_linear.learning_times import passage_moments
from separatrix.systems.deep_linear.saddle_to_saddle.chain import COLLAPSE, PASSAGE
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings


def collapse_threshold(_settings: Settings, results: Results, label: str = "collapse") -> list[Measurement]:
    """Growth exponent of ln w near zero on both sides of the critical learning rate, over its sign there."""
    critical = float(critical_learning_rate(COLLAPSE["singular_value"], COLLAPSE["label_noise"], 1))
    confidence = bonferroni(len(COLLAPSE["factors"]))
    measurements = []
    for k, factor in enumerate(COLLAPSE["factors"]):
        data = results[f"{label}_rate{k}"]
        growth = np.diff(2 * np.log(np.abs(data["root"].values)), axis=1)[:, 0] / COLLAPSE["time"]
        estimate, interval = mean_interval(growth, confidence=confidence)
        accepted = (0.0, np.inf) if factor < 1 else (-np.inf, 0.0)
        measurements.append(
            Measurement(
                f"growth of ln w at {factor:g} times the critical learning rate {critical:.4f}", estimate, interval,
                accepted,
                excluded=diverged_fraction(data), members=growth.size, unit="per unit time",
            )
        )  # fmt: skip
    return measurements


def first_passage(settings: Settings, results: Results, independent_layers: bool = False) -> list[Measurement]:
    """Mean and standard deviation of the escape time over theory."""
    rate = PASSAGE["rate"]
    measurements = []
    for arm, sigma in (("clean", 0.0), ("noisy", settings.scalar_label_noise)):
        data = results[f"passage_{arm}"]
        steps = data["passage_step"].values[:, -1]
        time = steps[steps >= 0] * rate
        mean, variance = passage_moments(PASSAGE["start"], PASSAGE["end"], 1.0, sigma, rate)
        # Independent layers would halve the noise that the two layers make together.
        variance = variance / 2 if independent_layers else variance
        shared = {"excluded": float(np.mean(steps < 0)), "members": time.size}
        tolerance = 0.03 + rate
        for name, measure, theory, accepted in (
            ("mean", mean_interval, float(mean), (1 - tolerance, 1 + tolerance)),
            ("standard deviation", spread_interval, float(np.sqrt(variance)), (0.94, 1.06)),
        ):
            label = f"{arm} labels, {name} of the escape time over theory"
            if np.unique(time).size < 2:
                measurements.append(Measurement.missing(label, accepted, "no run escaped", shared["excluded"]))
                continue
            estimate, interval = measure(time / theory, confidence=bonferroni(4))
            measurements.append(Measurement(label, estimate, interval, accepted, note=f"theory {theory:.4f}", **shared))
    return measurements
