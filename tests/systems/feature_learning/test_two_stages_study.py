"""The study from end to end at the smoke preset: verdicts, controls, files; wrong mathematics turns the verdicts."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr

from separatrix.lab import run as lab_run
from separatrix.lab import store
from separatrix.lab.claims import combine
from separatrix.systems.feature_learning.label_noise_two_stages import STUDY
from separatrix.systems.feature_learning.two_stage_theory import reduced_course
from separatrix.systems.feature_learning.two_stages import (
    image_training,
    networks,
    reduced,
    retraining,
    selection,
    stages,
    stopping,
)

CLAIMS = [f"L{k}" for k in range(1, 15)]
SETTINGS = STUDY.resolve("smoke", {})

# one run on one Python version is enough: its parts are tested everywhere
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("sklearn")
    return lab_run.run(STUDY, SETTINGS, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def results(finished):
    return {path.stem: store.read_dataset(path) for path in (finished.folder / "data").iterdir()}


def verdict(measurements, part=""):
    chosen = [one for one in measurements if part in one.label]
    assert chosen, f"no condition is called {part!r}"
    return str(combine(chosen))


@pytest.mark.parametrize("name", CLAIMS)
def test_the_claim_holds_and_its_control_fails(finished, name):
    document = {one["id"]: one for one in finished.document["claims"]}[name]
    assert (document["verdict"], document["control_verdict"]) == ("holds", "fails")


def test_every_interval_holds_its_estimate(finished):
    for document in finished.document["claims"]:
        for one in [*document["measurements"], *document["control_measurements"]]:
            low, high = one["interval"]
            assert low <= one["estimate"] <= high, one["label"]


def test_files_and_quantities_of_the_run(finished):
    stored = {path.stem for path in (finished.folder / "data").iterdir()}
    assert stored == {experiment.name for experiment in STUDY.experiments(SETTINGS)}
    names = sorted(figure.name for figure in STUDY.figures(SETTINGS))
    assert sorted(path.stem for path in (finished.folder / "figures").iterdir()) == names
    document = json.loads((finished.folder / "claims.json").read_text())
    measured = {one["name"]: one["estimate"] for one in document["quantities"]}
    assert measured["best_selection"] > 0.99
    assert measured["stage_one"] > 0.9
    assert measured["strength"] == pytest.approx(4.8)
    assert measured["stage_two_time"] == pytest.approx(4.429, abs=1e-3)
    assert 0 < measured["overfitting"] <= measured["final_error"] < 0.1


def test_only_controls_need_control_experiments(results):
    class Asked(dict):
        names = frozenset()

        def __getitem__(self, name):
            self.names = self.names | {name}
            return super().__getitem__(name)

    asked = Asked(results)
    for one in STUDY.claims(SETTINGS):
        one.measure(SETTINGS, asked)
    # the figures of the run were drawn; those that need a control's data would be left out without controls
    for figure in STUDY.figures(SETTINGS):
        if figure.name in ("collapse", "images"):
            figure.draw(SETTINGS, asked)
    assert asked.names == {one.name for one in STUDY.experiments(SETTINGS) if not one.control}


@pytest.mark.parametrize("name", ["images_selected"])
def test_results_do_not_depend_on_the_parts(results, name):
    simulate = next(one for one in STUDY.experiments(SETTINGS) if one.name == name).simulate
    part, whole = simulate(1, 3), results[name].isel(member=slice(1, 3))
    for variable in whole.data_vars:
        np.testing.assert_allclose(part[variable].values, whole[variable].values, rtol=1e-6, atol=1e-9,
                                   err_msg=variable)  # fmt: skip


# -- wrong mathematics ------------------------------------------------------------------------------------------------


def mutant_course(kappa_factor=1.0, tau_factor=1.0, time_factor=1.0):
    return lambda theta, kappa, tau: reduced_course(time_factor * theta, kappa_factor * kappa, tau_factor * tau)


@pytest.mark.parametrize("mutant", [{"kappa_factor": 1.3}, {"tau_factor": 0.6}, {"time_factor": 1.3}])
def test_a_wrong_reduced_theory_turns_the_verdict(results, mutant):
    assert verdict(reduced.follows_reduced_dynamics(SETTINGS, results, mutant_course())) == "holds"
    assert verdict(reduced.follows_reduced_dynamics(SETTINGS, results, mutant_course(**mutant))) == "fails"


def test_a_clock_ten_per_cent_off_turns_the_verdict(results):
    shifted = dict(results)
    for name in ("collapse_small", "collapse_narrow"):
        shifted[name] = results[name].assign_coords(theta=1.2 * results[name]["theta"])
    assert verdict(reduced.courses_collapse(SETTINGS, shifted)) == "fails"


def test_an_error_of_a_billionth_is_no_identity(results):
    off = {"identity": results["identity"] + 1e-9}
    assert verdict(reduced.decomposition_is_exact(SETTINGS, off)) == "fails"


def test_selection_by_a_wrong_threshold_turns_the_verdict(results, monkeypatch):
    monkeypatch.setattr(selection, "small_loss", lambda losses: losses < 1.0)
    assert verdict(selection.log_two_separates(SETTINGS, results)) == "fails"


def test_flipped_samples_that_stay_rejected_turn_stage_two(results):
    kept = dict(results)
    for cell in networks.grid_cells(SETTINGS):
        data = results[cell.name].copy(deep=True)
        data["margin"].values[:, -1] = np.where(data["flipped"].values, -0.1, data["margin"].values[:, -1])
        kept[cell.name] = data
    assert verdict(stages.stage_two(SETTINGS, kept), "flipped samples that are fitted") == "fails"


def test_a_rule_that_stops_too_late_is_found_out(results, monkeypatch):
    late = networks.Cell.stage_two.fget
    monkeypatch.setattr(networks.Cell, "stage_two", property(lambda cell: 30 * late(cell)))
    assert verdict(stopping.stopping_saves(SETTINGS, results), "theory") == "fails"


# -- measurements on data whose answer is known -----------------------------------------------------------------------


def test_networks_that_diverged_leave_no_verdict(results):
    broken = dict(results)
    for name in ("main", "strong", "images", "collapse_small", "grid_kappa0_noise0"):
        data = results[name].copy(deep=True)
        data["diverged_at_step"][0] = 100
        broken[name] = data
    for measure in (stages.stage_one, stages.stage_two, stopping.overfitting_costs, stopping.stopping_saves,
                    reduced.courses_collapse, retraining.selection_pays, image_training.images_have_two_stages,
                    image_training.images_selection_pays, selection.as_good_as_confident_learning):  # fmt: skip
        assert verdict(measure(SETTINGS, broken)) == "undecided", measure.__name__


def test_without_a_stage_one_nothing_is_selected_or_stopped_by_theory(results):
    weak = dataclasses.replace(SETTINGS, kappa=1.0)
    names = {one.name for one in STUDY.experiments(weak)}
    assert not any(name.startswith(("selected", "oracle", "random")) for name in names)
    assert verdict(retraining.selection_pays(weak, results)) == "undecided"
    assert verdict(stopping.stopping_saves(weak, results), "theory") == "undecided"
    assert verdict(selection.as_good_as_confident_learning(weak, results), "tau") == "undecided"


def test_unknown_wrong_labels_leave_the_lag_undecided(results):
    unknown = {"images": results["images"].assign(wrong=xr.zeros_like(results["images"]["wrong"]))}
    measured = image_training.images_have_two_stages(SETTINGS, unknown)
    assert verdict(measured, "lag") == "undecided"
    assert verdict(measured, "accuracy") == "holds"


def test_stage_one_needs_all_its_conditions():
    shape = {"member": 1, "theta": 2, "sample": 4}
    margin = np.array([[[1.0, 1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0]]])
    data = xr.Dataset(
        {
            "margin": (tuple(shape), margin),
            "flipped": (("member", "sample"), np.array([[False, False, True, True]])),
            "test_error": (("member", "theta", "output"), np.full((1, 2, 2), 0.01)),
        },
        {"theta": [1.0, 3.0]},
    )
    assert stages.has_stage_one(data).tolist() == [True]
    assert stages.has_stage_one(data.assign_coords(theta=[2.5, 3.0])).tolist() == [False]
    assert stages.has_stage_one(data.assign(test_error=data["test_error"] + 0.02)).tolist() == [False]
    assert stages.has_stage_one(data.assign(margin=-data["margin"])).tolist() == [False]


@pytest.mark.parametrize(
    ("strength", "noise", "accepted"),
    [(4.8, 0.2, (0.995, np.inf)), (2.4, 0.2, (0.97, np.inf)), (8 * (1 - 2 * 0.4), 0.4, (-np.inf, 0.92)),
     (4 * (1 - 2 * 0.4), 0.4, (-np.inf, 0.85)), (2.0, 0.2, None), (0.9, 0.05, None)],
)  # fmt: skip
def test_what_selection_should_reach(strength, noise, accepted):
    assert selection.accepted_accuracy(strength, noise) == accepted
