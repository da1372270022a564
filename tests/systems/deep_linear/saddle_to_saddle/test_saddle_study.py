"""The study from end to end at the smallest sizes: its outcome, its files, its parts, its programs."""

import dataclasses
import fnmatch
import json
import re
import warnings

import numpy as np
import pytest
import xarray as xr
from lazy_results import tiny

from separatrix.engines.ensemble import _evolve
from separatrix.lab import UsageError, store
from separatrix.lab import run as lab_run
from separatrix.systems.deep_linear.saddle_to_saddle_sgd import STUDY

pytestmark = pytest.mark.slow

CLAIMS = [f"C{k}" for k in range(1, 13)]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(out):
    return lab_run.run(STUDY, tiny(), out=out)


class TestOutcome:
    def test_every_claim_is_measured_and_controlled(self, finished):
        claims = finished.document["claims"]
        assert [claim["id"] for claim in claims] == CLAIMS
        for claim in claims:
            assert claim["measurements"]
            assert claim["control_measurements"]
            assert claim["verdict"] in ("holds", "fails", "undecided")
            assert claim["control_verdict"] in ("holds", "fails", "undecided")

    def test_no_claim_fails_and_no_control_holds(self, finished):
        claims = finished.document["claims"]
        assert [claim["id"] for claim in claims if claim["verdict"] == "fails"] == []
        assert [claim["id"] for claim in claims if claim["control_verdict"] == "holds"] == []
        # exact or far from their bounds, these are decided however few the runs
        decided = {
            claim["id"] for claim in claims if (claim["verdict"], claim["control_verdict"]) == ("holds", "fails")
        }
        assert decided >= {"C8", "C11", "C12"}

    def test_every_interval_holds_its_estimate(self, finished):
        for claim in finished.document["claims"]:
            for one in [*claim["measurements"], *claim["control_measurements"]]:
                if one["estimate"] is not None:
                    low, high = one["interval"]
                    assert low <= one["estimate"] <= high, one["label"]

    def test_data_of_every_experiment_and_nothing_diverged(self, finished):
        stored = {path.stem for path in (finished.folder / "data").iterdir()}
        declared = {experiment.name: experiment for experiment in STUDY.experiments(tiny())}
        assert stored == set(declared)
        for entry in finished.manifest["experiments"]:
            assert entry["members"] == declared[entry["name"]].members
            assert entry["diverged"] in (0, None)
            assert entry["dtypes"] == ["float64"]

    def test_every_figure_is_written_and_in_the_report(self, finished):
        names = [figure.name for figure in STUDY.figures(tiny())]
        assert sorted(path.stem for path in (finished.folder / "figures").iterdir()) == sorted(names)
        assert all(path.stat().st_size > 5000 for path in (finished.folder / "figures").iterdir())
        report = (finished.folder / "report.html").read_text()
        for text in [*(claim.statement for claim in STUDY.claims(tiny())), *(f.title for f in STUDY.figures(tiny()))]:
            assert text.split("'")[0] in report

    def test_the_same_run_is_reused(self, finished, out):
        again = lab_run.run(STUDY, tiny(), out=out)
        assert again.reused
        assert again.document == finished.document

    def test_the_document_is_plain_json(self, finished):
        text = (finished.folder / "claims.json").read_text()
        assert json.loads(text)["settings"]["chain_runs"] == 400
        assert not re.search(r"\b(NaN|Infinity)\b", text)


@pytest.fixture(scope="module")
def without(out):
    return lab_run.run(STUDY, tiny(), out=out, controls=False)


class TestWithoutControls:
    def test_control_experiments_are_not_run(self, without):
        stored = {path.stem for path in (without.folder / "data").iterdir()}
        assert stored == {one.name for one in STUDY.experiments(tiny()) if not one.control}
        assert all(claim["control_verdict"] is None for claim in without.document["claims"])
        assert all(claim["control_measurements"] is None for claim in without.document["claims"])

    def test_the_claims_are_measured_as_with_controls(self, finished, without):
        for one, other in zip(finished.document["claims"], without.document["claims"], strict=True):
            assert one["measurements"] == other["measurements"]


class Asked(dict):
    """Results that remember which were asked for."""

    def __init__(self, content):
        super().__init__(content)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


def test_every_experiment_is_of_use_and_only_controls_need_control_experiments(finished):
    settings = tiny()
    data = {path.stem: store.read_dataset(path) for path in (finished.folder / "data").iterdir()}
    claims, controls = Asked(data), Asked(data)
    for claim in STUDY.claims(settings):
        claim.measure(settings, claims)
        claim.control(settings, controls)
    for figure in STUDY.figures(settings):
        figure.draw(settings, claims)
    control = {one.name for one in STUDY.experiments(settings) if one.control}
    assert claims.names & control == set()
    assert claims.names == set(data) - control
    assert control <= controls.names


def matching(names, patterns):
    return {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}


def test_claims_and_quantities_need_what_they_say_and_nothing_else(finished):
    settings = tiny()
    data = {path.stem: store.read_dataset(path) for path in (finished.folder / "data").iterdir()}
    for claim in STUDY.claims(settings):
        for measure, needs in ((claim.measure, claim.needs), (claim.control, claim.control_needs)):
            asked = Asked(data)
            measure(settings, asked)
            # an experiment whose modes are all hidden by the label noise is not looked at
            assert asked.names <= matching(data, needs), claim.id
            assert all(asked.names & matching(data, [pattern]) for pattern in needs), claim.id
    for quantity in STUDY.quantities(settings):
        asked = Asked(data)
        quantity.measure(settings, asked)
        assert asked.names == matching(data, quantity.needs), quantity.name


def test_only_what_is_asked_for_is_simulated_and_drawn(out, finished):
    some = lab_run.run(STUDY, tiny(), out=out, only=("C9", "C11"))
    assert some.folder != finished.folder
    assert sorted(path.stem for path in (some.folder / "data").iterdir()) == [
        "balance_depth2", "passage_clean", "passage_noisy"
    ]  # fmt: skip
    whole = {claim["id"]: claim for claim in finished.document["claims"]}
    assert [claim["id"] for claim in some.document["claims"]] == ["C9", "C11"]
    assert all(claim == whole[claim["id"]] for claim in some.document["claims"])
    # figures without data of a run, and that of the passage
    drawn = {path.stem for path in (some.folder / "figures").iterdir()}
    assert "passage" in drawn
    assert "learning" not in drawn
    assert "--only C11 C9" in (some.folder / "manifest.json").read_text()
    with pytest.raises(UsageError, match="only = 'C13' is not allowed: saddle-to-saddle-sgd measures C1, C2"):
        lab_run.run(STUDY, tiny(), out=out, only=("C13",))


# -- parts ------------------------------------------------------------------------------------------------------------

KINDS = (
    "covariance_depth2",
    "aligned_depth2_noisy",
    "misaligned_depth2_single",
    "random_depth2_noisy",
    "stationary_depth2",
    "law_depth2_rate0",
    "law_depth2_sde",
    "passage_noisy",
    "collapse_rate0",
    "balance_depth2",
    "unbalanced",
)
#: Fewer members than the whole study has.
MEMBERS = {"aligned_runs": 6, "random_runs": 5, "samples": 1000, "chain_runs": 100}


def assert_parts_make_the_whole(experiment, cut, members):
    whole = experiment.simulate(0, members)
    parts = [experiment.simulate(0, cut), experiment.simulate(cut, members)]
    along = [name for name in whole.variables if "member" in whole[name].dims]
    assert along
    for name in along:
        joined = np.concatenate([part[name].values for part in parts], axis=whole[name].get_axis_num("member"))
        np.testing.assert_array_equal(joined, whole[name].values, err_msg=name, strict=True)
    for part in parts:
        xr.testing.assert_identical(part.drop_dims("member"), whole.drop_dims("member"))
        assert part.attrs == whole.attrs


@pytest.mark.parametrize("name", KINDS)
def test_results_do_not_depend_on_the_parts(name):
    experiment = next(one for one in STUDY.experiments(tiny(**MEMBERS)) if one.name == name)
    assert_parts_make_the_whole(experiment, 3, 6)


def test_another_seed_gives_other_data_in_every_experiment():
    first, second = (
        {one.name: one for one in STUDY.experiments(tiny(seed=seed, **MEMBERS))} for seed in (0, 1)
    )  # fmt: skip
    for name in KINDS:
        one, other = (table[name].simulate(0, 4) for table in (first, second))
        assert any(
            not np.array_equal(one[variable], other[variable]) for variable in one.data_vars
        ), name  # fmt: skip


# -- programs ---------------------------------------------------------------------------------------------------------


def compiled(experiments):
    """Number of programs that running these adds."""
    before = _evolve._cache_size()
    for experiment in experiments:
        experiment.simulate(0, experiment.members)
    return _evolve._cache_size() - before


def test_experiments_that_differ_in_values_share_a_program():
    table = {one.name: one for one in STUDY.experiments(tiny(**MEMBERS))}
    groups = [
        ("aligned_depth2_clean", "aligned_depth2_noisy", "loud_depth2", "lead_depth2"),
        ("rate_depth2_double", "rate_depth2_single", "rate_depth2_half", "misaligned_depth2_double"),
        ("law_depth2_rate0", "law_depth2_rate1", "law_depth2_rate3", "contraction_depth2"),
        ("passage_clean", "passage_noisy"),
        ("collapse_rate0", "collapse_quiet_rate3"),
        ("random_depth2_clean", "random_depth2_noisy", "lazy_depth2_clean"),
    ]
    # none where an earlier test has compiled it
    assert all(compiled(table[name] for name in group) <= 1 for group in groups)
    # neither do another seed, learning rate, label noise or teacher need another one
    others = {"seed": 3, "learning_rate": 0.02, "label_noise": 0.1, "singular_values": (3.0, 1.5)}
    other = {one.name: one for one in STUDY.experiments(tiny(**MEMBERS, **others))}
    assert [compiled(other[name] for name in group) for group in groups] == [0] * len(groups)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_run_in_which_everything_diverges_ends_with_a_report(out):
    # far above the stable learning rate, which check() warns of
    settings = tiny(learning_rate=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = []
        run = lab_run.run(STUDY, settings, out=out, notify=said.append)
    assert any("unstable" in sentence for sentence in said)
    diverged = {entry["name"]: entry["diverged"] for entry in run.manifest["experiments"]}
    assert diverged["aligned_depth2_clean"] == settings.aligned_runs
    verdicts = {claim["id"]: claim["verdict"] for claim in run.document["claims"]}
    assert [verdicts[name] for name in ("C5", "C7", "C10")] == ["undecided"] * 3
    assert "holds" not in (verdicts["C2"], verdicts["C3"], verdicts["C6"])


def test_a_study_of_one_mode_runs(out):
    settings = dataclasses.replace(tiny(), singular_values=(1.0,), hidden_width=1)
    run = lab_run.run(STUDY, settings, out=out)
    verdicts = {claim["id"]: claim["verdict"] for claim in run.document["claims"]}
    assert verdicts["C10"] == "undecided"
    assert verdicts["C11"] == "holds"
    assert "fails" not in verdicts.values()
