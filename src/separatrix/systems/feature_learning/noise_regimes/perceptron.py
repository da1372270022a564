"""The perceptron: online against its equations (K1, K2), the crossover in temperature (K3), the exponents in P (K4)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from separatrix.engines.intervals import bonferroni, mean_interval
from separatrix.engines.launch import Launch
from separatrix.engines.power_laws import PowerLaw, power_law
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.feature_learning import perceptron_theory as theory
from separatrix.systems.feature_learning.noise_regimes.data import perceptron_sets
from separatrix.systems.feature_learning.noise_regimes.runs import (
    Conditions,
    by_condition,
    perceptron_experiment,
)
from separatrix.systems.feature_learning.noise_regimes.settings import Settings, densities, density_runs
from separatrix.systems.feature_learning.perceptron_sgd import (
    OnlinePerceptron,
    online_state,
    online_tables,
    order_parameters_of,
)

RECORDS = 48
FIRST_RECORD = 20  # steps
#: Dimension from which finite-d fluctuations are allowed 5 % of the noise instead of 12 %.
LARGE = 128
#: Accepted distance of measured exponents from their asymptotic values.
TIME_TOLERANCE, SIGNAL_TOLERANCE = 0.35, 0.08
#: Temperatures in units of the margin above which noise rules, and below which it does not matter.
HOT, COLD = 10.0, 0.1


def online_conditions(settings: Settings) -> list[tuple[str, float, int]]:
    """Name, temperature and dimension of the perceptrons on fresh samples; the first is in the noisy regime."""
    hot, d = settings.temperature_over_margin, settings.dimension
    return [
        ("online_hot", hot, d),
        ("online_warm", hot / 10, d),
        ("online_large", hot, settings.large_dimension),
    ]


def _finish(records: Any, diverged: np.ndarray, start: int, time: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {
            **{name: (("member", "time"), values.T) for name, values in records.items()},
            "diverged_at_step": ("member", diverged),
        },
        {
            "member": np.arange(start, start + diverged.size),
            "time": ("time", time, {"unit": "learning rate times steps"}),
        },
    )


def online_experiments(settings: Settings) -> list[Experiment]:
    """Perceptrons on fresh samples."""
    steps = np.unique(np.rint(np.geomspace(FIRST_RECORD, settings.online_steps, RECORDS)).astype(np.int64))
    experiments = []
    for name, temperature, dimension in online_conditions(settings):

        def arguments(temperature: float = temperature, dimension: int = dimension) -> dict[str, np.ndarray]:
            tables = online_tables(dimension, settings.chi)
            return {
                "temperature": np.asarray(temperature, np.float32),
                "margin": np.asarray(1.0, np.float32),
                **{key: table.astype(np.float32) for key, table in tables.items()},
            }

        launch = Launch(
            OnlinePerceptron(dimension, settings.batch_size), order_parameters_of,
            lambda start, stop: online_state(stop - start), settings.seed, name, arguments, steps,
            partial(_finish, time=steps * temperature * settings.batch_size),
        )  # fmt: skip
        tiles = -(-settings.online_runs // 1024)
        seconds = 1.5 + 2.2e-5 * settings.online_steps * tiles * (2 * settings.batch_size + 1) / 9
        experiments.append(
            Experiment(name, launch, members=settings.online_runs, bytes_per_member=32 * RECORDS + 500, seconds=seconds)
        )
    return experiments


def stopped_experiments(settings: Settings) -> list[Experiment]:
    """Perceptrons until all samples are fitted, for several densities and numbers of samples."""
    experiments = []
    for stream, (chi, sizes) in enumerate(densities(settings)):
        runs = density_runs(settings, chi)
        for samples in sizes:
            sets = partial(perceptron_sets, settings.seed, 10 + stream, runs, samples,
                           settings.dimension, chi)  # fmt: skip
            hot = settings.temperature_over_margin
            steps = theory.stopping_time(samples, hot, settings.dimension, chi, 8.0) / (hot * settings.batch_size)
            experiments.append(
                perceptron_experiment(
                    settings, stopped_name(chi, samples), Conditions.grid([1.0], [hot], runs), sets,
                    samples, settings.dimension, batch=settings.batch_size, lookahead=32,
                    expected_steps=min(1.5 * steps, settings.most_steps),
                )
            )  # fmt: skip
    return experiments


def stopped_name(chi: float, samples: int) -> str:
    """Name of an experiment of stopped perceptrons."""
    return f"stopped_chi{chi:g}_P{samples}".replace(".", "p").replace("-", "m")


def crossover_experiments(settings: Settings) -> list[Experiment]:
    """Perceptrons over the whole range of temperatures; cold ones move at nearly every step and need no lookahead."""
    sets = partial(perceptron_sets, settings.seed, 20, settings.stopped_runs, settings.crossover_samples,
                   settings.crossover_dimension, settings.chi)  # fmt: skip
    experiments = []
    for name, chosen, lookahead in (("cold", cold_side(settings), 1), ("hot", hot_side(settings), 16)):
        if chosen.size == 0:
            continue
        # The time of gradient flow at low temperature, and what it takes to fit all samples at high temperature.
        flow = 14 * settings.crossover_dimension**0.5 * settings.crossover_samples**0.55
        late = theory.stopping_time(settings.crossover_samples, 1.0, settings.crossover_dimension, settings.chi, 6.0)
        expected = np.mean((flow / chosen + late) / settings.batch_size)
        experiments.append(
            perceptron_experiment(
                settings, f"crossover_{name}", Conditions.grid([1.0], chosen, settings.stopped_runs), sets,
                settings.crossover_samples, settings.crossover_dimension, batch=settings.batch_size,
                lookahead=lookahead, expected_steps=float(min(expected, settings.most_steps)),
            )
        )  # fmt: skip
    return experiments


def cold_side(settings: Settings) -> np.ndarray:
    """Temperatures below the margin."""
    return np.array([t for t in settings.temperatures if t < 1])


def hot_side(settings: Settings) -> np.ndarray:
    """Temperatures from the margin on."""
    return np.array([t for t in settings.temperatures if t >= 1])


def _last_decade(time: np.ndarray) -> np.ndarray:
    return time >= time[-1] / 10


def settled_noise(settings: Settings, results: Results, chi: float | None = None) -> list[Measurement]:
    """Mean noise R over the last decade of time over ``R_inf`` (of another density for the control)."""
    chi = settings.chi if chi is None else chi
    measured = [one for one in online_conditions(settings) if one[1] == settings.temperature_over_margin]
    measurements = []
    for name, temperature, dimension in measured:
        data = results[name]
        last = data["noise"].values[:, _last_decade(data["time"].values)].mean(axis=1)
        predicted = theory.stationary_noise(temperature, dimension, chi)
        estimate, interval = mean_interval(last / predicted, confidence=bonferroni(len(measured)))
        tolerance = 0.05 if dimension >= LARGE else 0.12
        measurements.append(
            Measurement(
                f"d = {dimension}, T = {temperature:g}: R over R_inf", estimate, interval,
                (1 - tolerance, 1 + tolerance), excluded=_diverged(data), members=last.size,
                note=f"R_inf = {predicted:.4g}",
            )
        )  # fmt: skip
    return measurements


def _diverged(data: xr.Dataset) -> float:
    return float((data["diverged_at_step"].values >= 0).mean())


def online_path(settings: Settings, data: xr.Dataset, temperature: float, dimension: int, factor: float = 1.0):
    """Course of the equations from the first recorded mean, at ``factor`` times the temperature."""
    start = float(data["signal"].values[:, 0].mean()), float(data["noise"].values[:, 0].mean())
    return theory.order_parameters(
        data["time"].values.astype(float), factor * temperature, dimension, settings.chi, start=start
    )


def signal_growth(settings: Settings, results: Results, factor: float = 1.0) -> list[Measurement]:
    """Signal over that of the equations at the worst time, and its power of time over the last decade."""
    conditions = online_conditions(settings)
    confidence, predicted = bonferroni(2 * len(conditions)), 1 / (settings.chi + 3)
    measurements = []
    for name, temperature, dimension in conditions:
        data, label = results[name], f"d = {dimension}, T = {temperature:g}"
        signal, time = data["signal"].values, data["time"].values
        ratio = signal / online_path(settings, data, temperature, dimension, factor).signal
        worst = int(np.argmax(np.abs(ratio.mean(axis=0) - 1)))
        estimate, interval = mean_interval(ratio[:, worst], confidence=confidence)
        measurements.append(
            Measurement(f"{label}: signal over the equation's", estimate, interval, (0.92, 1.08),
                        excluded=_diverged(data), members=len(signal), note=f"worst at t = {time[worst]:.3g}")
        )  # fmt: skip
        last = _last_decade(time)
        log_time = np.log(time[last]) - np.log(time[last]).mean()
        slopes = np.log(signal[:, last]) @ log_time / np.sum(log_time**2)
        estimate, interval = mean_interval(slopes - predicted, confidence=confidence)
        measurements.append(
            Measurement(f"{label}: power of time minus 1/(chi + 3)", estimate, interval, (-0.02, 0.02),
                        excluded=_diverged(data), members=len(signal), note=f"theory {predicted:.4g}")
        )  # fmt: skip
    return measurements


def size_law(
    settings: Settings, results: Results, chi: float, variable: str, confidence: float = 0.95
) -> tuple[PowerLaw, float]:
    """Power of P in a variable of the stopped perceptrons, and the share of runs that the fit takes as censored.

    The time of a run that was given up is a lower bound, and so is its signal, which only grows.
    """
    sizes = dict(densities(settings))[chi]
    data = [results[stopped_name(chi, samples)] for samples in sizes]
    fit = power_law(
        np.asarray(sizes, float),
        [one[variable].values for one in data],
        [~one["fitted"].values for one in data],
        confidence=confidence,
        seed=settings.seed,
    )
    return fit, fit.censored


def size_exponents(
    settings: Settings, results: Results, chis: tuple[float, ...], wrong: bool = False
) -> list[Measurement]:
    """Powers of P in training time and final signal minus those of theory (for the control, of another density)."""
    measurements = []
    for chi in chis:
        expected = theory.exponents(other_density(chi) if wrong else chi)
        for variable, power, tolerance, symbol in (
            ("time", expected.time, TIME_TOLERANCE, "b"),
            ("signal", expected.weights, SIGNAL_TOLERANCE, "gamma"),
        ):
            label = f"chi = {chi:g}: {symbol} minus theory"
            accepted = (-tolerance, tolerance)
            if any(not results[stopped_name(chi, P)]["fitted"].values.any() for P in dict(densities(settings))[chi]):
                measurements.append(Measurement.missing(label, accepted, "no run was fitted in time at some P"))
                continue
            fit, censored = size_law(settings, results, chi, variable, bonferroni(2 * len(chis)))
            ends = fit.interval[0] - power, fit.interval[1] - power
            # Up to half of the runs may be censored: the fit knows them. Beyond that it rests on its law alone.
            measurements.append(
                Measurement(
                    label, fit.exponent - power, ends, accepted, excluded=censored if censored > 0.5 else 0.0,
                    members=density_runs(settings, chi),
                    note=f"measured {fit.exponent:.3f}, theory {power:.3g}; local {_list(fit.local_exponents)}; "
                    f"straight line p = {fit.p_value:.2g}; censored {censored:.0%}",
                )
            )  # fmt: skip
    return measurements


def other_density(chi: float) -> float:
    """A density with clearly different exponents: Gaussian data, or for those depleted ones."""
    return 0.0 if chi > 0.5 else 3.0


def _list(values: np.ndarray) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def crossover_table(settings: Settings, results: Results, variable: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Temperatures ``(c,)``, values and whether fitted ``(c, runs)`` of the sweep in temperature."""
    names = [name for name, chosen in (("cold", cold_side(settings)), ("hot", hot_side(settings))) if chosen.size]
    tables = [results[f"crossover_{name}"] for name in names]
    runs = settings.stopped_runs
    joined: Callable[[str], np.ndarray] = lambda v: np.concatenate([by_condition(one, v, runs) for one in tables])  # noqa: E731
    return np.asarray(settings.temperatures), joined(variable), joined("fitted")


def temperature_law(
    settings: Settings, results: Results, variable: str, hot: bool, confidence: float = 0.95
) -> PowerLaw | None:
    """Power of T in a variable above or below the crossover; None with fewer than two temperatures there."""
    temperatures, values, fitted = crossover_table(settings, results, variable)
    chosen = temperatures >= HOT if hot else temperatures <= COLD
    if chosen.sum() < 2 or not fitted[chosen].any(axis=1).all():
        return None
    return power_law(
        temperatures[chosen], list(values[chosen]), list(~fitted[chosen]), confidence=confidence, seed=settings.seed,
        paired=True,
    )  # fmt: skip


def time_against_temperature(settings: Settings, results: Results, exchanged: bool = False) -> list[Measurement]:
    """Power of T in the training time above and below the crossover (for the control, the two exchanged)."""
    measurements = []
    for hot, label, accepted in (
        (True, f"T >= {HOT:g}/alpha: power of T in t*", (0.9, 1.1)),
        (False, f"T <= {COLD:g}/alpha: power of T in t*", (-0.15, 0.15)),
    ):
        fit = temperature_law(settings, results, "time", hot != exchanged, bonferroni(2))
        if fit is None:
            measurements.append(Measurement.missing(label, accepted, "needs two temperatures there with fitted runs"))
            continue
        measurements.append(
            Measurement(
                label, fit.exponent, fit.interval, accepted, excluded=fit.censored, members=settings.stopped_runs,
                note=f"local {_list(fit.local_exponents)}; straight line p = {fit.p_value:.2g}",
            )
        )  # fmt: skip
    return measurements
