"""The study from end to end at the smoke preset: verdicts, controls, files; wrong mathematics turns the verdicts."""

import dataclasses
import json

import numpy as np
import pytest
from lazy_generalization import LazyResults, claim, replace, small, verdict

from separatrix.lab import run as lab_run
from separatrix.lab import store
from separatrix.systems.high_dimensional_regression import deep_student, learning_curves, mode_dynamics, ridge
from separatrix.systems.high_dimensional_regression.generalization import linear, overtraining
from separatrix.systems.high_dimensional_regression.high_dim_generalization import STUDY

pytestmark = pytest.mark.slow

CLAIMS = [f"B{k}" for k in range(1, 10)]
SETTINGS = small()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return lab_run.run(STUDY, SETTINGS, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(finished):
    return {path.stem: store.read_dataset(path) for path in (finished.folder / "data").iterdir()}


@pytest.mark.parametrize("name", CLAIMS)
def test_the_claim_holds_and_its_control_fails(finished, name):
    document = {one["id"]: one for one in finished.document["claims"]}[name]
    assert (document["verdict"], document["control_verdict"]) == ("holds", "fails")


def test_every_interval_holds_its_estimate(finished):
    for document in finished.document["claims"]:
        for one in [*document["measurements"], *document["control_measurements"]]:
            low, high = one["interval"]
            assert low <= one["estimate"] <= high, one["label"]


def test_files_of_the_run(finished):
    stored = {path.stem for path in (finished.folder / "data").iterdir()}
    assert stored == {experiment.name for experiment in STUDY.experiments(SETTINGS)}
    names = sorted(figure.name for figure in STUDY.figures(SETTINGS))
    assert sorted(path.stem for path in (finished.folder / "figures").iterdir()) == names
    report = (finished.folder / "report.html").read_text()
    assert all(figure.title in report for figure in STUDY.figures(SETTINGS))
    assert json.loads((finished.folder / "claims.json").read_text())["settings"]["dimension"] == 100


def test_only_controls_need_control_experiments(results):
    class Asked(dict):
        names = frozenset()

        def __getitem__(self, name):
            self.names = self.names | {name}
            return super().__getitem__(name)

    asked = Asked(results)
    for one in STUDY.claims(SETTINGS):
        one.measure(SETTINGS, asked)
    for figure in STUDY.figures(SETTINGS):
        figure.draw(SETTINGS, asked)
    assert asked.names == {one.name for one in STUDY.experiments(SETTINGS) if not one.control}


@pytest.mark.parametrize("name", ["linear_ratio0", "features_width75", "trained_width3", "deep_depth2"])
def test_results_do_not_depend_on_the_parts(name):
    settings = small(trained_steps=200)
    simulate = next(one for one in STUDY.experiments(settings) if one.name == name).simulate
    whole, first, second = (simulate(*ends) for ends in ((0, 4), (0, 1), (1, 4)))
    for variable in whole.data_vars:
        joined = np.concatenate([first[variable].values, second[variable].values])
        np.testing.assert_allclose(joined, whole[variable].values, rtol=1e-9, atol=1e-14, err_msg=variable)


# -- mutants ----------------------------------------------------------------------------------------------------------


def judged(name, results, settings=SETTINGS, part=""):
    return verdict(claim(name).measure(settings, results), part)


def louder(time, spectrum, task):
    return TEST_ERROR(time, spectrum, dataclasses.replace(task, noise_variance=1.1 * task.noise_variance))


def frozen_overfit(time, spectrum, task):
    return TEST_ERROR(time, spectrum, task) + spectrum.frozen * task.noise_variance


def faster(time, spectrum, task):
    return TEST_ERROR(1.3 * np.asarray(time), spectrum, task)


def forgetful(time, spectrum, task):
    return TEST_ERROR(time, spectrum, task) - 0.2 * spectrum.frozen * task.signal_variance


TEST_ERROR = learning_curves.generalization_error
THEORY = [
    ("B1", "test error", TEST_ERROR, louder),
    ("B1", "test error", TEST_ERROR, frozen_overfit),
    ("B1", "test error", TEST_ERROR, faster),
    ("B1", "test error", TEST_ERROR, forgetful),
    ("B5", "theory", ridge.best_ridge_error, lambda ratio, task: 0.97 * RIDGE(ratio, task)),
    ("B5", "theory", ridge.best_ridge_error, lambda ratio, task: 1.01 * RIDGE(ratio, task)),
    ("B5", "theory", linear.stopping_time, lambda ratio, noise: 2.0 * STOP(ratio, noise)),
    ("B7", "measured", learning_curves.growth_at_equality, lambda t, noise: 1.2 * GROWTH(t, noise)),
    ("B7", "theory", TEST_ERROR, lambda t, spectrum, task: TEST_ERROR(t, spectrum, task) * np.asarray(t) ** 0.1),
]
RIDGE, STOP, GROWTH = ridge.best_ridge_error, linear.stopping_time, learning_curves.growth_at_equality


@pytest.mark.parametrize(("name", "part", "target", "mutant"), THEORY)
def test_a_wrong_theory_turns_the_verdict(results, monkeypatch, name, part, target, mutant):
    assert judged(name, results, part=part) == "holds"
    mutant.__name__ = target.__name__ if mutant.__name__ == "<lambda>" else mutant.__name__
    replace(monkeypatch, target, mutant)
    assert judged(name, results, part=part) == "fails"


FEW = {"draws": 150, "dimension": 60, "depth": (2,)}


@pytest.fixture
def mutate(monkeypatch):
    """Replace a function of a simulation; programs compiled before and during the test are forgotten."""
    compiled = (linear._measure, deep_student.product_path, deep_student.network_path)
    for program in compiled:
        program.clear_cache()
    yield lambda target, mutant: replace(monkeypatch, target, mutant)
    for program in compiled:
        program.clear_cache()


def test_label_noise_ten_per_cent_too_loud_turns_the_verdict(mutate):
    original = mode_dynamics.decompose
    mutate(original, lambda X, teacher, start, noise: original(X, teacher, start, np.sqrt(1.2) * noise))
    settings = small(ratios=(0.5, 2.0), **FEW)
    assert judged("B1", LazyResults(settings), settings) == "fails"


def test_a_start_that_is_not_frozen_turns_the_verdict(mutate):
    original = mode_dynamics.frozen_distance
    mutate(original, lambda modes, scale: original(modes, 0.8 * scale))
    settings = small(ratios=(0.5,), **FEW)
    assert judged("B4", LazyResults(settings), settings) == "fails"


def test_a_wrong_power_of_the_product_turns_the_verdict(mutate):
    def wrong(weights, eigenvalues, target, depth, alignment):
        return VELOCITY(weights, eigenvalues, target, 1.1 * depth, alignment)

    mutate(VELOCITY, wrong)
    settings = small(**FEW)
    assert judged("B9", LazyResults(settings), settings, "distance") == "fails"


VELOCITY = deep_student.product_velocity


# -- measurements on data whose answer is known -----------------------------------------------------------------------


def test_a_peak_elsewhere_fails(results):
    shifted = dict(results)
    for k in range(len(SETTINGS.ratios)):
        shifted[f"linear_ratio{k}"] = results[f"linear_ratio{min(k + 2, len(SETTINGS.ratios) - 1)}"]
    assert judged("B2", shifted, part="linear") == "fails"


def test_a_student_that_diverged_leaves_no_verdict(results):
    broken = dict(results)
    data = results["trained_width8"].copy(deep=True)
    data["diverged_at_step"][0] = 100
    data["test_error"][0, 3:] = np.nan
    broken["trained_width8"] = data
    assert judged("B8", broken) == "undecided"
    assert judged("B3", broken, part="trained") == "undecided"


def test_a_moved_frozen_direction_and_a_wrong_count_fail(results):
    moved = dict(results)
    moved["descent"] = results["descent"] + 1e-6
    assert judged("B6", moved, part="motion") == "fails"
    counted = dict(results)
    counted["features_width300"] = results["features_width300"].assign(
        frozen=results["features_width300"]["frozen"] - 1
    )
    assert judged("B6", counted, part="300 features") == "fails"


def test_overtraining_is_the_last_error_over_the_smallest():
    curves = np.array([[3.0, 1.0, 2.0], [3.0, 2.0, 1.0]])
    assert overtraining.course_overtraining(curves).tolist() == [1.0, 0.0]
