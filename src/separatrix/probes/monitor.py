"""What a training is doing while it runs: a few products every n steps, with their errors.

The tangent kernel is followed on a few examples by its products with random signs that all calls share: how far it has
turned since the last call and since the first, and how fast. With the optimiser's threshold, the sharpness comes too.
A call reads the parameters and leaves everything of the training as it is.

Sources: Zhou, Yang, Ren, Sugiyama, Yan 2025 (arXiv 2503.16316) for distance and velocity; Cohen et al. 2021 for the
edge of stability. The rule for the regime is derived.
"""

import time
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy import stats

from separatrix.probes import matrices
from separatrix.probes.eigenpairs import eigenpairs
from separatrix.probes.operators import ModelOperators, ProbeError
from separatrix.probes.tangent_kernel.distance import rotation_angle
from separatrix.probes.tangent_kernel.products import estimated_distance, kernel_products, kernel_size, sign_probes

Regime = Literal["still", "turning", "settled", "undecided", "diverged"]

#: Confidence of each verdict on the regime.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Reading:
    """One call; not a number for what there is nothing to compare with, or what was not asked for.

    Attributes
    ----------
    step
        As given.
    loss
        Over the monitor's own examples.
    kernel_norm, kernel_norm_error
        Frobenius norm of the tangent kernel.
    distance, distance_error
        Kernel distance ``1 - cos`` from the last call.
    angular_speed, angular_speed_error
        Angle from the last call, for each step, in radians.
    angle, angle_error
        Angle from the first call, in radians.
    sharpness, sharpness_error
        Largest eigenvalue of the Hessian over the monitor's examples, and its residual.
    sharpness_ratio
        Over the threshold: 1 at the edge of stability.
    sharpness_converged
        Whether the residual is as small as was asked for.
    regime
        ``still``: turned by less than ``least_angle`` since the first call. Otherwise ``turning`` or ``settled``: the
        angular speed is above or below ``settled_share`` of the largest so far. ``undecided`` where errors leave it
        open. ``diverged``: the kernel is not finite.
    seconds
        That the call took, waiting for the training's own work not counted.
    """

    step: float
    loss: float
    kernel_norm: float = np.nan
    kernel_norm_error: float = np.nan
    distance: float = np.nan
    distance_error: float = np.nan
    angular_speed: float = np.nan
    angular_speed_error: float = np.nan
    angle: float = np.nan
    angle_error: float = np.nan
    sharpness: float = np.nan
    sharpness_error: float = np.nan
    sharpness_ratio: float = np.nan
    sharpness_converged: bool = False
    regime: Regime = "undecided"
    seconds: float = np.nan


class Monitor:
    """Readings of a training, from calls inside its loop: ``reading = monitor(step, parameters)``.

    Calls should be equally spaced: noise turns a kernel by an angle that does not grow in proportion to the time, so
    that speeds over different times do not compare.

    Parameters
    ----------
    model
        The model at any parameters, with the examples to watch it on: 64 are enough for most. Modes are the model's:
        where a PyTorch module is trained with dropout or batch normalisation, make the model of a copy in evaluation
        mode, and give the calls the module that is trained.
    probes
        Random vectors m, at least 3: each costs a pass backward and one forward. Eight give distances with standard
        errors of 10 to 50 % and intervals that cover in about 90 % of cases where 95 % were asked for.
    settled_share
        Angular speed relative to the largest seen below which the kernel counts as settled.
    least_angle
        Angle from the first kernel, in radians, up to which it counts as still.
    tolerance, most_products
        Relative residual of the sharpness, and products after which the search for it stops.
    seed
        Of the random vectors.

    Attributes
    ----------
    readings
        All so far.

    Raises
    ------
    ProbeError
        If a setting cannot be used, the vectors do not fit the memory, the model gives no outputs, or the examples of a
        batch depend on each other (batch normalisation in training mode): one sentence.
    """

    def __init__(
        self,
        model: ModelOperators,
        *,
        probes: int = 8,
        settled_share: float = 0.05,
        least_angle: float = 0.1,
        tolerance: float = 0.02,
        most_products: int = 40,
        seed: int = 0,
    ) -> None:
        if probes < 3:
            raise ProbeError(f"probes must be at least 3, got {probes}")
        if not (0 < settled_share < 1 and least_angle > 0):
            raise ProbeError(
                f"settled_share must lie between 0 and 1, and least_angle be positive, got {settled_share} and "
                f"{least_angle}"
            )
        shape = tuple(model.outputs().shape)
        needed = probes * int(np.prod(shape)) * 8
        if needed > model.free_memory():
            raise ProbeError(
                f"{probes} vectors of the outputs' shape {shape} need {needed} bytes, and {model.free_memory()} are "
                "available: watch fewer examples or outputs"
            )
        model.subset([0])  # refuses a model whose outputs depend on the batch
        self._model, self._signs = model, sign_probes(shape, probes, seed)
        self._settings = {"settled_share": settled_share, "least_angle": least_angle}
        self._tolerance, self._most = tolerance, most_products
        self._quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, probes - 1))
        self._first = self._last = None
        self._direction = None
        self._begun = np.nan
        self.readings: list[Reading] = []

    def __call__(self, step: float, parameters: Any, threshold: float | None = None) -> Reading:
        """Read the model at its parameters of the moment.

        Parameters
        ----------
        step
            Number of the step, or any other time; larger than in the call before.
        parameters
            In JAX, the pytree; in PyTorch, the module.
        threshold
            Curvature that the optimiser can bear (:func:`.stability.gradient_descent_threshold`); without it there is
            no sharpness.

        Raises
        ------
        ProbeError
            If the step does not increase, or the parameters are not those of the model.
        """
        if self.readings and not step > self.readings[-1].step:
            raise ProbeError(f"step must increase from call to call, got {step} after {self.readings[-1].step}")
        model = self._model.at(parameters)
        float(model.parameters[0])  # waits for what the training has still to do
        started = time.perf_counter()
        found: dict[str, Any] = {"loss": model.loss()} | self._kernel(model, step)
        if threshold is not None and found.get("regime") != "diverged":
            found |= self._sharpness(model, threshold)
        reading = Reading(step, **found, seconds=time.perf_counter() - started)
        if not self.readings:
            self._begun = time.perf_counter()
        self.readings.append(reading)
        return reading

    @property
    def overhead(self) -> float:
        """Share of the time after the first call, which compiles, that the further calls took."""
        taken = sum(reading.seconds for reading in self.readings[1:])
        return taken / (time.perf_counter() - self._begun) if self.readings else np.nan

    def dataset(self) -> xr.Dataset:
        """All readings along ``step``; thresholds and the overhead are attributes."""
        columns = {
            one.name: ("step", [getattr(reading, one.name) for reading in self.readings]) for one in fields(Reading)
        }
        attributes = self._settings | {"probes": len(self._signs), "confidence": CONFIDENCE, "overhead": self.overhead}
        return xr.Dataset({name: column for name, column in columns.items() if name != "step"},
                          {"step": columns["step"]}, attributes)  # fmt: skip

    def _kernel(self, model: ModelOperators, step: float) -> dict[str, Any]:
        products = kernel_products(model, self._signs)
        if not np.all(np.isfinite(products)):
            return {"regime": "diverged"}
        size = kernel_size(products, self._signs)
        found: dict[str, Any] = {"kernel_norm": size.norm, "kernel_norm_error": size.norm_error}
        if self._first is None or self._last is None:
            self._first = products
        else:
            since, before = self._last
            distance, distance_error, turned, error = _turn(before, products)
            speed, speed_error = turned / (step - since), error / (step - since)
            *_, angle, angle_error = _turn(self._first, products)
            found |= {
                "distance": distance, "distance_error": distance_error, "angular_speed": speed,
                "angular_speed_error": speed_error, "angle": angle, "angle_error": angle_error,
                "regime": self._regime((angle, angle_error), (speed, speed_error)),
            }  # fmt: skip
        self._last = step, products
        return found

    def _regime(self, angle: tuple[float, float], speed: tuple[float, float]) -> Regime:
        """Verdict on an angle and a speed with their errors, if their intervals lie on one side of the thresholds."""
        away = angle[0] - self._settings["least_angle"]
        if away < -self._quantile * angle[1]:
            return "still"
        past = [(reading.angular_speed, reading.angular_speed_error) for reading in self.readings[1:]]
        fastest = max([speed, *past])
        share = self._settings["settled_share"]
        excess = speed[0] - share * fastest[0]
        reach = self._quantile * float(np.hypot(speed[1], share * fastest[1]))
        if away < self._quantile * angle[1] or abs(excess) <= reach:
            return "undecided"
        return "turning" if excess > 0 else "settled"

    def _sharpness(self, model: ModelOperators, threshold: float) -> dict[str, Any]:
        pair = eigenpairs(
            matrices.hessian(model), tolerance=self._tolerance, most_products=self._most, start=self._direction
        )
        self._direction = pair.vectors[0]
        value = float(pair.values[0])
        return {
            "sharpness": value,
            "sharpness_error": float(pair.residuals[0]),
            "sharpness_ratio": value / threshold,
            "sharpness_converged": pair.converged,
        }


def _turn(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float, float]:
    """Distance and angle between two kernels from their products, each followed by its standard error."""
    moved = estimated_distance(first, second)
    sine = np.sqrt(moved.distance * (2 - moved.distance))  # dS = sin(angle) d angle
    error = float(moved.standard_error / sine) if sine > 0 else 0.0
    return moved.distance, moved.standard_error, float(rotation_angle(moved.distance)), error
