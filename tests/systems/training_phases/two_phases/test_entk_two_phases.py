"""The study of two phases from end to end at the smoke preset; statistics on kernels made up for the purpose."""

import json
import re

import numpy as np
import pytest
import xarray as xr

from separatrix.lab import SettingError, store
from separatrix.lab import run as lab_run
from separatrix.systems.training_phases.entk_two_phases import STUDY
from separatrix.systems.training_phases.two_phases.cone import narrow_cone, reach
from separatrix.systems.training_phases.two_phases.phases import frozen_kernel, still_moving, two_phases
from separatrix.systems.training_phases.two_phases.settings import check
from separatrix.systems.training_phases.two_phases.switching import later_is_better, moving_is_better

pytest.importorskip("sklearn")
SETTINGS = STUDY.resolve("smoke", {})


# -- statistics on made-up results ----------------------------------------------------------------------------------


def runs_of(paths, perfect=False):
    """Results whose unit kernels are the given vectors, ``(members, t, d)``."""
    units = paths / np.linalg.norm(paths, axis=2, keepdims=True)
    distance = np.array([np.sum((u[:, None] - u[None]) ** 2, axis=2) / 2 for u in units])
    steps = 10 * np.arange(paths.shape[1])
    accuracy = np.full(paths.shape[:2], 1.0 if perfect else 0.9)
    data = {
        "distance": (("member", "step", "other_step"), distance),
        "rounding": ("member", np.full(len(paths), 1e-14)),
        "training_accuracy": (("member", "step"), accuracy),
        "diverged_at_step": ("member", np.full(len(paths), -1)),
    }
    return {"runs": xr.Dataset(data, {"step": steps})}


def path(rng, early, late, members=6, times=25, cut=3, size=60):
    """A walk that jumps by ``early`` until the cut, and then keeps jumping about one place by ``late``."""
    place = np.zeros((members, size))
    place[:, 0] = 1
    course = []
    for time in range(times):
        if time < cut:
            place = place + early * rng.normal(size=(members, size)) / np.sqrt(size)
        course.append(place + late * rng.normal(size=(members, size)) / np.sqrt(size) * (time >= cut))
    return np.stack(course, axis=1)


def verdicts(measurements):
    return [str(one.verdict) for one in measurements]


def test_two_phases_hold_where_they_are_and_fail_for_steady_and_for_small_motion():
    rng = np.random.default_rng(0)
    assert verdicts(two_phases(SETTINGS, runs_of(path(rng, 1.0, 0.1)))) == ["holds", "holds"]
    assert verdicts(two_phases(SETTINGS, runs_of(path(rng, 0.02, 0.002))))[1] == "fails"
    assert verdicts(two_phases(SETTINGS, runs_of(path(rng, 1.0, 1.0))))[0] == "fails"


def test_motion_after_the_transition_is_seen_above_rounding_and_undecided_once_everything_is_learned():
    rng = np.random.default_rng(1)
    results = runs_of(path(rng, 1.0, 0.1))
    assert verdicts(still_moving(SETTINGS, results)) == ["holds"]
    assert verdicts(still_moving(SETTINGS, runs_of(path(rng, 1.0, 0.1), perfect=True))) == ["holds", "undecided"]
    assert verdicts(still_moving(SETTINGS, runs_of(path(rng, 1.0, 1e-9)))) == ["fails"]
    results["switching"] = xr.Dataset({"linearized_motion": ("member", np.zeros(4))})
    assert verdicts(frozen_kernel(SETTINGS, results)) == ["fails"]


def test_motion_that_estimates_do_not_resolve_is_undecided_and_never_denied():
    rng = np.random.default_rng(7)
    estimated = STUDY.resolve("smoke", {"kernel": "estimated", "kernel_vectors": 16})
    results = runs_of(path(rng, 1.0, 0.1))
    distance = results["runs"]["distance"]
    results["runs"]["standard_error"] = 0.05 * distance
    assert verdicts(still_moving(estimated, results)) == ["holds", "holds"]
    results["runs"]["standard_error"] = 0.5 * distance
    found = still_moving(estimated, results)
    assert verdicts(found) == ["holds", "undecided"]
    assert "4e+02 sign vectors" in found[1].note  # 16 (10 / 2)^2
    still = runs_of(path(rng, 1.0, 1e-9))
    still["runs"]["standard_error"] = 0.05 * still["runs"]["distance"]
    assert verdicts(still_moving(estimated, still))[0] == "fails"


def test_a_cone_is_narrow_where_late_kernels_stay_together_and_not_where_they_walk_away():
    rng = np.random.default_rng(2)
    assert verdicts(narrow_cone(SETTINGS, runs_of(path(rng, 1.0, 0.2)))) == ["holds", "holds"]
    walk = path(rng, 2.0, 0.0, members=24, cut=25)
    assert "fails" in verdicts(narrow_cone(SETTINGS, runs_of(walk)))


def test_width_and_growth_of_a_known_course():
    angles = np.array([0.0, 1.0, 1.0, 1.0, 1.2, 1.0, 1.2, 1.0, 1.2])
    distance = 1 - np.cos(angles[:, None] - angles)
    far, start = distance[4, 2], distance[0, 2]
    width, growth = reach(np.arange(9.0), distance)
    back = distance[5, 4] / (distance[5, 4] + distance[0, 4])
    assert width == pytest.approx(max(far / (far + start), back))
    slope = np.polyfit(np.arange(5.0, 9.0), distance[5:, 2], 1)[0]
    assert growth == pytest.approx(slope * 3 / start)


def switching(accuracy, nonlinear):
    members = len(accuracy)
    return {
        "switching": xr.Dataset(
            {
                "accuracy": (("member", "switch"), accuracy),
                "nonlinear_accuracy": ("member", nonlinear),
                "diverged_at_step": ("member", np.full(members, -1)),
            },
            {"switch": [0, 20, 50, 100]},
        )
    }


def test_switching_is_judged_by_order_and_by_gain():
    rng = np.random.default_rng(3)
    noise = 1e-3 * rng.normal(size=(6, 4))
    rising = switching(np.array([0.93, 0.95, 0.96, 0.97]) + noise, np.full(6, 0.97))
    assert verdicts(later_is_better(SETTINGS, rising)) == ["holds", "holds"]
    assert verdicts(moving_is_better(SETTINGS, rising)) == ["holds"]
    falling = switching(np.array([0.97, 0.96, 0.95, 0.93]) + noise, np.full(6, 0.97))
    assert verdicts(later_is_better(SETTINGS, falling)) == ["fails", "fails"]
    flat = switching(0.97 + noise, np.full(6, 0.97))
    assert verdicts(later_is_better(SETTINGS, flat))[0] == "fails"
    assert verdicts(moving_is_better(SETTINGS, flat)) == ["fails"]


def test_runs_that_diverged_leave_a_claim_undecided():
    results = runs_of(path(np.random.default_rng(4), 1.0, 0.1))
    results["runs"]["diverged_at_step"][0] = 20
    results["runs"]["distance"][0] = np.nan
    assert set(verdicts(two_phases(SETTINGS, results) + narrow_cone(SETTINGS, results))) == {"undecided"}


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "begins", "allowed"),
    [
        ({"switches": (20, 40, 60)}, "switches = (20, 40, 60)", "increasing from 0"),
        ({"switches": (0, 40, 40)}, "switches = (0, 40, 40)", "increasing from 0"),
        ({"switches": (0, 40, 400)}, "switches = (0, 40, 400)", "less than steps = 300"),
        ({"examples": 18}, "examples = 18", "multiple of 4"),
        ({"checkpoint_every": 100}, "checkpoint_every = 100", "at most 20"),
        ({"checkpoint_every": 1}, "checkpoint_every = 1 ", "at least 2"),
        ({"batch_size": 2000}, "batch_size = 2000", "at most 899"),
        ({"data": "imagenet"}, "data = 'imagenet'", "digits, fashion-mnist, plays, a FILE.npz"),
        ({"data": "nowhere.npz"}, "data = 'nowhere.npz'", "no file nowhere.npz"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_contradicts_itself_is_refused_in_one_sentence(changes, begins, allowed):
    with pytest.raises(SettingError) as error:
        check(STUDY.resolve("smoke", changes))
    text = str(error.value)
    assert text.startswith(begins)
    assert allowed in text
    assert re.fullmatch(r"[^\n]*\.", text)


def test_inputs_without_the_shape_of_an_image_are_refused_for_a_convolutional_network(tmp_path):
    rng = np.random.default_rng(5)
    np.savez(tmp_path / "flat.npz", x=rng.normal(size=(300, 5)), y=rng.integers(0, 3, 300))
    with pytest.raises(SettingError, match="no images"):
        check(STUDY.resolve("smoke", {"data": str(tmp_path / "flat.npz"), "network": "cnn"}))


# -- end to end -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return lab_run.run(STUDY, SETTINGS, out=tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
def test_claims_are_judged_as_stated_and_every_control_fails(finished):
    found = {one["id"]: (one["verdict"], one["control_verdict"]) for one in finished.document["claims"]}
    assert found == {
        "K1": ("holds", "fails"),
        "K2": ("undecided", "fails"),  # the digits are learned by heart, so that motion dies out
        "K3": ("holds", "fails"),
        "K4": ("holds", "fails"),
        "K5": ("holds", "fails"),
    }


@pytest.mark.slow
def test_files_and_quantities_of_the_run(finished):
    stored = {path.stem for path in (finished.folder / "data").iterdir()}
    assert stored == {experiment.name for experiment in STUDY.experiments(SETTINGS)}
    names = sorted(figure.name for figure in STUDY.figures(SETTINGS))
    assert sorted(path.stem for path in (finished.folder / "figures").iterdir()) == names
    document = json.loads((finished.folder / "claims.json").read_text())
    measured = {one["name"]: one for one in document["quantities"]}
    assert measured["gain"]["low"] < measured["gain"]["estimate"] < measured["gain"]["high"]
    assert len(measured["linearized_accuracy"]["estimate"]) == len(SETTINGS.switches)
    assert np.all(np.array(measured["cone_radius"]["estimate"]) < np.array(measured["apex_angle"]["estimate"]))


@pytest.mark.slow
def test_results_do_not_depend_on_the_parts(finished):
    experiment = next(one for one in STUDY.experiments(SETTINGS) if one.name == "lazy")
    whole = store.read_dataset(finished.folder / "data" / "lazy.zarr")
    part = experiment.simulate(3, 5)
    for variable in part.data_vars:
        if variable != "rounding":
            np.testing.assert_allclose(
                part[variable].values, whole[variable].values[3:5], rtol=1e-5, atol=1e-8, err_msg=variable
            )


@pytest.mark.slow
def test_a_run_with_estimated_kernels_checks_its_own_errors(tmp_path):
    changes = {"kernel": "estimated", "kernel_vectors": 8, "samples": 400, "hidden_widths": (12,), "steps": 90,
               "checkpoint_every": 5, "batch_size": 32, "switches": (0, 20, 40), "runs": 3}  # fmt: skip
    settings = STUDY.resolve("smoke", changes)
    names = ("final_distance_of_subsets", "estimate_check")
    done = lab_run.run(STUDY, settings, out=tmp_path, only=("K2", *names), controls=False)
    (claim,) = done.document["claims"]
    assert len(claim["measurements"]) >= 2  # against rounding, and against the standard error
    subsets, check = (next(one for one in done.document["quantities"] if one["name"] == name) for name in names)
    assert 0 < check["estimate"] < 10  # a squared normal number, mean of three
    assert 0 < subsets["low"] < subsets["estimate"] < subsets["high"] < 1
    report = (done.folder / "report.html").read_text()
    assert report.count("estimated from 8 sign vectors") > len(STUDY.figures(settings)) - 2  # captions and notes
