"""The study from end to end at the smoke preset: verdicts, controls, files; wrong mathematics turns the verdicts."""

import json

import numpy as np
import pytest

from separatrix.lab import run as lab_run
from separatrix.lab import store
from separatrix.lab.claims import combine
from separatrix.lab.study import JointSimulation
from separatrix.systems.feature_learning.benign_oscillation import STUDY
from separatrix.systems.feature_learning.oscillation import accuracy, maps, networks, residuals
from separatrix.systems.feature_learning.oscillation_map import residual_bias, stable_weak_share, weak_growth

pytestmark = pytest.mark.slow

CLAIMS = [f"L{k}" for k in range(1, 12)]
SETTINGS = STUDY.resolve("smoke", {})


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
    assert json.loads((finished.folder / "claims.json").read_text())["settings"]["runs"] == 16


def test_claims_and_quantities_need_what_they_say(results):
    class Asked(dict):
        names = frozenset()

        def __getitem__(self, name):
            self.names = self.names | {name}
            return super().__getitem__(name)

    for one in [*STUDY.claims(SETTINGS), *STUDY.quantities(SETTINGS)]:
        measures = [(one.measure, one.needs)]
        if hasattr(one, "control"):
            measures.append((one.control, one.control_needs))
        for measure, needs in measures:
            asked = Asked(results)
            measure(SETTINGS, asked)
            selected = {name for name in results if any(name.startswith(need.rstrip("*")) for need in needs)}
            assert asked.names <= selected


def test_only_controls_need_control_experiments(results):
    kept = {one.name: results[one.name] for one in STUDY.experiments(SETTINGS) if not one.control}
    for one in STUDY.claims(SETTINGS):
        assert one.measure(SETTINGS, kept)
    for figure in STUDY.figures(SETTINGS):
        assert figure.draw(SETTINGS, kept)


def test_quantities_lie_along_the_steps(results):
    for one in STUDY.quantities(SETTINGS):
        measured = one.measure(SETTINGS, results)
        assert measured["strong_steps"].values.tolist() == list(SETTINGS.strong_steps)
        assert np.isfinite(measured["estimate"].values).all()


def test_networks_of_all_steps_and_images_share_a_launch():
    groups = {
        one.name: one.simulate.group
        for one in STUDY.experiments(STUDY.resolve("smoke", {"strong_steps": (1.1, 1.2, 1.3)}))
        if isinstance(one.simulate, JointSimulation)
    }
    assert len({groups[f"network_step{k}"] for k in range(3)} | {groups["faint"], groups["quiet_step0"]}) == 1


def test_results_do_not_depend_on_the_parts():
    settings = STUDY.resolve("smoke", {"strong_steps": (0.8, 1.2)})
    for name in ("network_step1", "images_step1"):
        simulate = next(one for one in STUDY.experiments(settings) if one.name == name).simulate
        whole, first, second = (simulate(*ends) for ends in ((0, 3), (0, 1), (1, 3)))
        for variable in ("weak", "loss", "residual_sum"):
            joined = np.concatenate([first[variable].values, second[variable].values])
            np.testing.assert_array_equal(joined, whole[variable].values)


# -- mutants and data whose answer is known ---------------------------------------------------------------------------


def judged(measurements):
    return str(combine(measurements))


@pytest.mark.parametrize(
    ("growth", "share"),
    [
        (lambda s, k: weak_growth(s, k) ** 2, stable_weak_share),
        (lambda s, k: 1 + 1.1 * (weak_growth(s, k) - 1), stable_weak_share),
        (weak_growth, lambda s, k: 0.9 * stable_weak_share(s, k)),
        (weak_growth, lambda s, k: stable_weak_share(s, 2 * k)),
    ],
    ids=["squared", "ten percent", "smaller share", "double ratio"],
)
def test_a_wrong_growth_or_share_fails(results, growth, share):
    assert judged(maps.growth_on_the_cycle(SETTINGS, results, growth, share)) == "fails"


def test_a_wrong_bias_fails(results):
    assert judged(maps.bias_on_the_cycle(results, lambda s: 1.01 * residual_bias(s))) == "fails"


def test_a_forgotten_ratio_fails(results, monkeypatch):
    monkeypatch.setattr(maps, "small_step_weak_end", lambda strong, weak, ratio: weak / strong)
    assert judged(maps.small_steps_conserve(SETTINGS, results)) == "fails"


def with_diverged(results, name, members):
    data = results[name].copy(deep=True)
    data["diverged_at_step"][:members] = 100
    data["weak_only_accuracy"][:members, -1] = np.nan
    data["weak"][:members, -1] = np.nan
    return dict(results) | {name: data}


def test_members_that_diverge_leave_no_verdict(results):
    broken = with_diverged(results, f"network_step{SETTINGS.strong_steps.index(1.2)}", 2)
    assert judged(accuracy.large_steps_learn(SETTINGS, broken)) == "undecided"
    assert judged(residuals.weak_share_of_networks(SETTINGS, broken)) == "undecided"
    assert judged(residuals.residual_oscillates(SETTINGS, broken)) == "undecided"
    everything = with_diverged(results, f"network_step{SETTINGS.strong_steps.index(1.2)}", SETTINGS.runs)
    assert judged(accuracy.large_steps_learn(SETTINGS, everything)) == "undecided"


@pytest.mark.parametrize("steps", [(0.8,), (1.2,), (1.7,)])
def test_without_steps_to_compare_nothing_is_decided_by_networks(results, steps):
    settings = STUDY.resolve("smoke", {"strong_steps": steps})
    data = dict(results) | {"network_step0": results["network_step0"], "images_step0": results["images_step0"]}
    for one in STUDY.claims(settings):
        verdicts = {judged(one.measure(settings, data)), judged(one.control(settings, data))}
        if one.id in ("L1", "L8", "L9", "L10", "L11") and steps != (1.2,):
            assert judged(one.measure(settings, data)) == "undecided"
        assert verdicts <= {"holds", "fails", "undecided"}
    assert judged(accuracy.small_steps_do_not(settings, data, ())) == "undecided"
    for figure in STUDY.figures(settings):
        assert figure.draw(settings, data)


def test_the_switch_is_interpolated():
    steps = np.array([0.5, 1.0, 1.5])
    assert accuracy.crossing(np.array([[0.6, 0.6, 1.0]]), steps, 0) == pytest.approx(1.25)
    assert accuracy.crossing(np.array([[0.9, 0.6, 1.0]]), steps, 0) == 0.5
    assert np.isinf(accuracy.crossing(np.array([[0.6, 0.6, 0.7]]), steps, 0))


def test_the_accuracy_of_networks_without_a_weak_feature_is_chance(results):
    settings = SETTINGS
    data, start = networks.draw_member(settings, settings.task, 0)
    units = 2 * settings.width
    flat = networks.weak_only_accuracy(
        settings, settings.task, 0, np.zeros((1, units)), (start.background @ data.backgrounds.T)[None]
    )
    assert 0.35 < flat[0] < 0.65
    assert networks.weak_only_accuracy(
        settings, settings.task, 0, np.r_[np.full(settings.width, 9.0), np.full(settings.width, -9.0)][None],
        (start.background @ data.backgrounds.T)[None],
    ) == [1.0]  # fmt: skip
