"""The study from end to end at small sizes; on data whose answer is known every measurement gives that answer."""

import json

import numpy as np
import pytest
import xarray as xr

from separatrix.lab import run as lab_run
from separatrix.lab import store
from separatrix.lab.claims import combine
from separatrix.systems.feature_learning import perceptron_theory as theory
from separatrix.systems.feature_learning.noise_regimes import features, lazy, phase
from separatrix.systems.feature_learning.noise_regimes.perceptron import stopped_name
from separatrix.systems.feature_learning.noise_regimes.settings import densities, density_runs
from separatrix.systems.feature_learning.sgd_noise_regimes import STUDY

SETTINGS = STUDY.resolve("smoke", {})
RUN = STUDY.resolve("smoke", {"lazy_samples": (64, 128), "lazy_runs": 8})
ONLY = ("K1", "K2", "K5", "test_error", "fitted_fraction")


def claim(name):
    return next(one for one in STUDY.claims(SETTINGS) if one.id == name)


def verdict(name, results, settings=SETTINGS, control=False, part=""):
    one = claim(name)
    found = (one.control if control else one.measure)(settings, results)
    return str(combine([m for m in found if part in m.label]))


# -- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return lab_run.run(STUDY, RUN, out=tmp_path_factory.mktemp("runs"), only=ONLY)


@pytest.mark.slow
def test_claims_of_a_run_and_their_controls(finished):
    found = {one["id"]: one for one in finished.document["claims"]}
    assert {name: one["control_verdict"] for name, one in found.items()} == dict.fromkeys(found, "fails")
    assert [found[name]["verdict"] for name in ("K1", "K2", "K5")] == ["holds"] * 3
    for document in found.values():
        for one in [*document["measurements"], *document["control_measurements"]]:
            low, high = one["interval"]
            assert low <= one["estimate"] <= high, one["label"]


@pytest.mark.slow
def test_files_of_the_run(finished):
    report = (finished.folder / "report.html").read_text()
    drawn = {path.stem for path in (finished.folder / "figures").iterdir()}
    assert {"trajectories", "lazy"} <= drawn
    assert "Lazy networks leave their regime" in report
    document = json.loads((finished.folder / "claims.json").read_text())
    quantities = {one["name"]: one for one in document["quantities"]}
    assert 0 < quantities["test_error"]["estimate"] < 0.2
    assert quantities["fitted_fraction"]["estimate"] == 1


@pytest.mark.slow
def test_results_do_not_depend_on_the_parts(finished):
    whole = store.read_dataset(finished.folder / "data" / "lazy_P64.zarr")
    simulate = next(one for one in STUDY.experiments(RUN) if one.name == "lazy_P64").simulate
    xr.testing.assert_identical(simulate(10, 30).drop_attrs(), whole.isel(member=slice(10, 30)).load().drop_attrs())


# -- data whose answer is known ---------------------------------------------------------------------------------------


def ended(values, fitted=None, runs=None, **more):
    """Dataset of runs from ``(conditions, runs)`` arrays."""
    shape = np.broadcast_shapes(*(np.shape(v) for v in values.values()))
    fitted = np.ones(shape, bool) if fitted is None else np.broadcast_to(fitted, shape)
    flags = {"fitted": fitted, "diverged": ~fitted, "censored": np.zeros(shape, bool)} | more
    return xr.Dataset({k: ("member", np.broadcast_to(v, shape).ravel().copy()) for k, v in (values | flags).items()})


def noise(shape, size, seed=0):
    return np.exp(size * np.random.default_rng(seed).normal(size=shape))


def stopped(shift=0.0, cap=np.inf):
    results = {}
    for chi, sizes in densities(SETTINGS):
        powers = theory.exponents(chi)
        for k, P in enumerate(sizes):
            jitter = noise((1, density_runs(SETTINGS, chi)), 0.05, seed=k)
            time = P ** (powers.time + shift) * jitter
            late = time > cap * P**powers.time
            results[stopped_name(chi, P)] = ended(
                {"time": np.minimum(time, cap * P**powers.time), "signal": P ** (powers.weights + shift / 5) * jitter},
                ~late, diverged=np.zeros_like(late), censored=late,
            )  # fmt: skip
    return results


def test_the_exponents_of_theory_hold_and_others_do_not():
    assert verdict("K4", stopped()) == verdict("K10", stopped()) == "holds"
    assert verdict("K4", stopped(), control=True) == verdict("K10", stopped(), control=True) == "fails"
    assert verdict("K4", stopped(0.7)) == "fails"


def test_censored_runs_are_used_and_none_left_is_no_verdict():
    note = claim("K4").measure(SETTINGS, stopped(cap=1.03))[0]
    assert "censored 2" in note.note or "censored 3" in note.note
    assert note.verdict == "holds"
    assert verdict("K4", stopped(cap=0.1)) == "undecided"


def crossover(hot=1.0, cold=0.0, lost=False):
    T = np.asarray(SETTINGS.temperatures)
    time = np.where(T < 1, T**cold, T**hot)[:, None] * noise((T.size, SETTINGS.stopped_runs), 0.02)
    fitted = np.ones_like(time, bool)
    fitted[-1, 0] = not lost
    return {
        f"crossover_{name}": ended({"time": time[side], "signal": time[side]}, fitted[side])
        for name, side in (("cold", T < 1), ("hot", T >= 1))
    }


def test_the_two_sides_of_the_crossover():
    assert verdict("K3", crossover()) == "holds"
    assert verdict("K3", crossover(), control=True) == "fails"
    assert verdict("K3", crossover(hot=0.8)) == "fails"
    assert verdict("K3", crossover(cold=0.3)) == "fails"
    assert verdict("K3", crossover(lost=True)) == "undecided"


def lazy_runs(gamma=0.4, delta=1.0, steps=0.0):
    results = {}
    for k, P in enumerate(SETTINGS.lazy_samples):
        T = lazy.TEMPERATURES[:, None]
        jitter = noise((T.size, SETTINGS.lazy_runs), 0.02, seed=k)
        noisy = np.maximum(T, 1.0) ** delta * P**gamma * 1e-4 * jitter
        count = 100 * np.where(T < 1, 3 / T, T**steps) * jitter
        results[f"lazy_P{P}"] = ended({"weight_change": noisy, "steps": count, "time": count * T})
    return results


def test_lazy_weights_steps_and_the_critical_temperature():
    right = lazy_runs()
    for name in ("K5", "K11", "K6"):
        assert verdict(name, right) == "holds"
        assert verdict(name, right, control=True) == "fails"
    assert verdict("K5", lazy_runs(delta=0.8)) == "fails"
    assert verdict("K11", lazy_runs(steps=0.2)) == "fails"


def test_weights_that_never_change_as_a_whole_have_no_critical_temperature():
    assert verdict("K6", lazy_runs(gamma=-3.0)) == "undecided"


def feature_runs(k_error=0.0, growth=0.2, lost=True):
    shape = (len(SETTINGS.feature_alphas), features.RATIOS.size, SETTINGS.feature_runs)
    alpha = np.asarray(SETTINGS.feature_alphas)[:, None, None]
    x = features.RATIOS[None, :, None] * alpha**-k_error / 1e-4**-k_error
    norm = alpha**-0.5 * (1 + growth * x) * noise((1, 1, shape[2]), 0.1)
    fitted = np.broadcast_to(~((features.RATIOS[None, :, None] == 10) & lost), shape)
    return {f"feature_depth{D}": ended({"weight_norm": np.broadcast_to(norm, shape)}, fitted) for D in SETTINGS.depths}


def test_the_collapse_of_final_weights():
    assert verdict("K7", feature_runs()) == "holds"
    assert verdict("K7", feature_runs(), control=True) == "fails"
    assert verdict("K7", feature_runs(k_error=0.5, growth=0.6), part="spread") == "fails"
    assert verdict("K7", feature_runs(growth=0.6), part="growth") == "fails"
    assert verdict("K7", feature_runs(lost=False), part="lost") == "fails"


def phase_runs(lazy_slope, feature_slope, lost=False):
    T = np.log(phase.phase_axes(SETTINGS)[1])
    slopes = np.linspace(feature_slope, lazy_slope, SETTINGS.phase_alphas)
    error = 0.05 * (1 + slopes[:, None] * (T - T.mean()))[..., None] * noise((1, 1, SETTINGS.phase_runs), 0.1)
    fitted = np.ones(error.shape, bool)
    fitted[0] = not lost
    return {"phase": ended({"test_error": error}, fitted)}


def test_opposite_effects_of_noise():
    assert verdict("K8", phase_runs(0.05, -0.05)) == "holds"
    assert verdict("K8", phase_runs(0.05, -0.05), control=True) == "fails"
    assert verdict("K8", phase_runs(0.05, 0.05)) == "fails"
    assert verdict("K8", phase_runs(0.05, 0.05, lost=True)) == "undecided"
    assert "noise hurts" in claim("K8").measure(SETTINGS, phase_runs(0.05, -0.05))[0].note


def test_learning_rate_and_batch():
    def results(doubled):
        weights = ("signal", "weight_change", "weight_norm")
        arms = {"plain": 1.0, "doubled": doubled, "larger_batch": 0.5}
        return {
            f"{regime}_{arm}": ended({name: factor * noise((1, 50), 0.1, seed=7) for name in weights})
            for regime in ("perceptron", "lazy", "feature")
            for arm, factor in arms.items()
        }

    assert verdict("K9", results(1.02)) == "holds"
    assert verdict("K9", results(1.02), control=True) == "fails"
    assert verdict("K9", results(1.3)) == "fails"


def test_claims_name_the_experiments_they_read():
    names = {one.name for one in STUDY.experiments(SETTINGS)}
    for one in STUDY.claims(SETTINGS):
        chosen = STUDY.select(SETTINGS, [one.id], controls=True).experiments
        assert chosen
        assert {experiment.name for experiment in chosen} <= names
