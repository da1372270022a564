"""The kind of probe that measures gradient noise."""

from separatrix.lab.probe.kind import Checkpoint, Column, Kind, Measured, always, of_estimate
from separatrix.probes.gradient_noise import gradient_noise


def _measure(checkpoint: Checkpoint) -> Measured:
    made = gradient_noise(checkpoint.operators)
    return Measured({"noise_trace": of_estimate(made.trace), "noise_scale": of_estimate(made.noise_scale)})


NOISE = Kind(
    "noise",
    always(
        Column("noise_trace", "variance of the gradient of an example"),
        Column("noise_scale", "noise scale", unit="examples"),
    ),
    _measure,
)
