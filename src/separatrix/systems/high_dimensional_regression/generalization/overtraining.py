"""Where overtraining is worst (B2) and where it is absent (B3): final minus best-stopped test error."""

from functools import partial

import numpy as np
from jaxtyping import Float

from separatrix.engines.intervals import bonferroni, bootstrap, mean_interval
from separatrix.lab import Measurement, Results
from separatrix.systems.high_dimensional_regression.generalization.settings import Settings
from separatrix.systems.high_dimensional_regression.generalization.trained import errors

#: Largest overtraining of a network much larger than the data, in units of the teacher's variance.
HARMLESS = 0.03


def course_overtraining(curves: Float[np.ndarray, "... t"]) -> Float[np.ndarray, "..."]:
    """Last error of each mean curve minus its smallest."""
    return curves[..., -1] - curves.min(axis=-1)


def linear_curves(settings: Settings, results: Results, name: str = "linear") -> Float[np.ndarray, "n a t"]:
    """Test errors of the linear students by ratio, start zero or the smallest, weakest noise."""
    return np.stack(
        [results[f"{name}_ratio{k}"]["test_error"].values[:, 0, 0] for k in range(len(settings.ratios))], axis=1
    )


def feature_curves(settings: Settings, results: Results, name: str = "features") -> Float[np.ndarray, "n h t"]:
    """Test errors of the random-feature students by number of features, the end of training as the last time."""
    stacked = []
    for width in settings.feature_widths:
        data = results[f"{name}_width{width}"]
        stacked.append(np.concatenate([data["test_error"].values, data["final_error"].values[:, None]], axis=1))
    return np.stack(stacked, axis=1)


def _place_of_largest(curves: Float[np.ndarray, "... n a t"], axis: int, average: object) -> np.ndarray:
    return np.argmax(course_overtraining(average(curves, axis=axis)), axis=-1)  # type: ignore[operator]


def place_of_largest(settings: Settings, results: Results, repeated: bool = False) -> list[Measurement]:
    """Steps on the grid between the largest overtraining and equal numbers of parameters and samples.

    Random features are averaged by the median: the mean over small data sets with ``N_h = P`` does not exist.
    """
    names = ("repeated", "repeated_features") if repeated else ("linear", "features")
    cases = (
        ("linear students", linear_curves(settings, results, names[0]), settings.ratios, 1.0, np.mean, "alpha"),
        ("random features", feature_curves(settings, results, names[1]), settings.feature_widths,
         settings.feature_samples, np.median, "N_h"),
    )  # fmt: skip
    measurements = []
    for words, curves, grid, equal, average, symbol in cases:
        # resampling whole curves is costly, and only two of their numbers matter
        estimate, interval = bootstrap(
            partial(_place_of_largest, average=average), curves, confidence=bonferroni(2), seed=settings.seed
        )  # fmt: skip
        centre = grid.index(equal)
        measurements.append(
            Measurement(
                f"{words}, place of the largest overtraining", estimate - centre,
                (interval[0] - centre, interval[1] - centre), (-1.0, 1.0), members=len(curves),
                unit="steps of the grid", note=f"at {symbol} = {grid[int(estimate)]:g}",
            )
        )  # fmt: skip
    return measurements


def large_networks_need_no_stopping(settings: Settings, results: Results, size: str = "largest") -> list[Measurement]:
    """Overtraining of the largest networks: itself in linear students, over its maximum in trained ones."""
    index = 0 if size == "largest" else settings.ratios.index(1.0)
    curves = linear_curves(settings, results)[:, index]
    # the best time of the mean curve, so that single students are not stopped at times of their own
    gap = curves[:, -1] - curves[:, curves.mean(axis=0).argmin()]
    estimate, interval = mean_interval(gap, confidence=bonferroni(2))
    measurements = [
        Measurement(f"linear students, overtraining at alpha {settings.ratios[index]:g}", estimate, interval,
                    (-np.inf, HARMLESS), members=gap.size)
    ]  # fmt: skip
    label, accepted = "trained students, overtraining over its maximum over widths", (-np.inf, 0.5)
    found = [errors(results, width) for width in settings.trained_widths]
    excluded = max(lost for _, _, lost in found)
    if excluded > 0:
        return [*measurements, Measurement.missing(label, accepted, "students diverged", excluded)]
    gaps = np.stack([final - best for best, final, _ in found], axis=1)
    place = -1 if size == "largest" else int(gaps.mean(axis=0).argmax())
    estimate, interval = bootstrap(
        lambda rows, axis: rows.mean(axis=axis)[..., place] / rows.mean(axis=axis).max(axis=-1), gaps,
        confidence=bonferroni(2), seed=settings.seed,
    )  # fmt: skip
    note = f"{settings.trained_widths[place]} hidden units"
    return [*measurements, Measurement(label, estimate, interval, accepted, members=len(gaps), note=note)]
