"""A run is found again by what determines it, goes on where it stopped, and its data do not depend on how it went."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal

import pytest
import xarray as xr

from separatrix.lab import SettingError, UsageError, budget, identity, interrupts, machine, outcome, store
from separatrix.lab import run as lab_run
from separatrix.lab.errors import StoreError


@pytest.fixture
def settings(study):
    return study.settings()


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "log"
    monkeypatch.setenv("WALK_LOG", str(path))
    path.touch()
    return lambda: path.read_text().splitlines()


@pytest.fixture
def go(study, tmp_path):
    def run(settings, **options):
        return lab_run.run(study, settings, out=tmp_path / "runs", **options)

    return run


def data(run):
    return {path.name: store.read_dataset(path) for path in sorted((run.folder / "data").iterdir())}


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_finished_folder_holds_everything_and_nothing_else(go, settings):
    run = go(dataclasses.replace(settings, figures=True))
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "claims.json",
        "data",
        "figures",
        "manifest.json",
        "report.html",
    ]
    assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name]
    assert sorted(data(run)) == ["exact.zarr", "pushed.zarr", "walk.zarr"]
    assert [path.name for path in (run.folder / "figures").iterdir()] == ["paths.png"]


def test_the_manifest_tells_how_the_run_went(go, settings):
    run = go(dataclasses.replace(settings, diverging=2, members=8))
    manifest = run.manifest
    assert manifest["schema"] == store.SCHEMA
    assert manifest["study"] == "logged-walk"
    assert manifest["settings"]["diverging"] == 2
    assert manifest["seed"] == 0
    assert manifest["hash"] == run.folder.name
    assert manifest["command"] == "separatrix run logged-walk --diverging 2"
    assert manifest["versions"].keys() >= {"python", "separatrix", "numpy", "xarray", "zarr"}
    assert manifest["peak_memory"] > 10**7
    assert manifest["expected_seconds"] == 120.0
    walk = manifest["experiments"][0]
    assert (walk["members"], walk["diverged"], walk["dtypes"], walk["control"]) == (8, 2, ["float64"], False)
    assert manifest["experiments"][2]["diverged"] is None
    # two of eight members were left out, so there is no verdict
    assert run.document["claims"][0]["verdict"] == "undecided"
    assert run.document["claims"][0]["measurements"][0]["excluded"] == 0.25


def test_the_same_run_is_reused_and_another_is_not(go, settings, log):
    first = go(settings)
    calls = log()
    again = go(settings)
    assert again.reused
    assert again.document == first.document
    assert log() == calls
    other = go(dataclasses.replace(settings, seed=1))
    assert other.folder != first.folder
    assert len(log()) == 2 * len(calls)


def test_without_controls_they_are_neither_run_nor_judged(go, settings, log):
    run = go(settings, controls=False)
    assert not any(line.startswith("pushed") for line in log())
    assert run.document["claims"][0]["control_verdict"] is None
    assert run.manifest["command"].endswith("--no-controls")
    assert run.folder != go(settings).folder


def test_fresh_computes_again_and_keeps_the_old_run_until_it_is_replaced(go, settings, log, monkeypatch):
    first = go(settings)
    before = len(log())
    judge = outcome.judge

    def while_judging(*arguments):
        assert first.folder.exists()
        return judge(*arguments)

    monkeypatch.setattr(outcome, "judge", while_judging)
    second = go(settings, fresh=True)
    assert not second.reused
    assert len(log()) == 2 * before
    assert second.document == first.document
    assert [path.name for path in first.folder.parent.iterdir()] == [first.folder.name]


def test_a_fresh_run_that_died_while_replacing_loses_nothing(go, settings, log):
    first = go(settings)
    before = log()
    first.folder.rename(first.folder.with_name(f"{first.folder.name}.replaced"))
    again = go(settings)
    assert again.reused
    assert again.document == first.document
    assert log() == before


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_data_do_not_depend_on_the_split_into_parts(go, study, settings, monkeypatch, parts):
    whole = data(go(settings))
    monkeypatch.setattr(budget, "part_size", lambda experiment, available: -(-experiment.members // parts))
    split = data(go(settings, fresh=True))
    for name in whole:
        xr.testing.assert_identical(whole[name], split[name])
        assert store.json_text(whole[name].to_dict()) == store.json_text(split[name].to_dict())


def test_a_run_resumes_with_the_parts_it_began_with(go, settings, log, monkeypatch):
    write, count = store.write_dataset, []

    def dies_at_the_third(path, dataset):
        count.append(path)
        if len(count) == 3:
            raise KeyboardInterrupt
        write(path, dataset)

    monkeypatch.setattr(store, "write_dataset", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        go(dataclasses.replace(settings, parts=4))
    begun = log()  # two parts are under way at a time: the fourth may have been, and was then finished
    assert sorted(begun) in (sorted(["walk 0-2", "walk 2-4", "walk 4-6", *more]) for more in ([], ["walk 6-8"]))
    monkeypatch.setattr(store, "write_dataset", write)
    monkeypatch.setattr(budget, "part_size", lambda experiment, available: 1)  # another memory budget by now
    said = []
    run = go(dataclasses.replace(settings, parts=4), notify=said.append)
    walks = [part for part in log()[len(begun) :] if part.startswith("walk")]
    assert sorted(walks) == (["walk 4-6", "walk 6-8"] if len(begun) == 3 else [walks[0]])
    assert f"{len(begun) - 1} of 9 parts are done already" in said[-1]
    assert data(run)["walk.zarr"].sizes["member"] == 8


def test_an_interrupt_that_a_callback_swallowed_still_stops_the_run(study, settings, tmp_path, log):
    settings = dataclasses.replace(settings, parts=8)
    walk = study.experiments(settings)[0]

    def swallowing(start, stop):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return walk.simulate(start, stop)

    patched = dataclasses.replace(study, experiments=lambda s: [dataclasses.replace(walk, simulate=swallowing)])
    with interrupts.remembered(), pytest.raises(KeyboardInterrupt):
        lab_run.run(patched, settings, out=tmp_path / "runs")
    assert set(log()) <= {"walk 0-1", "walk 1-2"}  # two parts are under way at a time
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("nth", [1, 2, 20, 60])
def test_a_full_disk_is_one_sentence_and_keeps_finished_parts(go, settings, log, monkeypatch, nth):
    sync, count = os.fsync, []

    def full(descriptor):
        count.append(descriptor)
        if len(count) >= nth:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match=r"^Cannot write .*\(No space left on device\): finished parts are kept"
    ) as error:
        go(settings)
    assert len(str(error.value).splitlines()) == 1
    monkeypatch.setattr(os, "fsync", sync)
    done = len(log())
    resumed = go(settings)
    # at most the two parts that could not be written are computed twice
    assert len(log()) <= 4 + min(done, 2)
    xr.testing.assert_identical(data(resumed)["walk.zarr"], data(go(settings, fresh=True))["walk.zarr"])


def test_a_damaged_journal_starts_the_run_again(go, study, settings, tmp_path):
    planned = lab_run.plan(study, settings, out=tmp_path / "runs")
    planned.partial.mkdir(parents=True)
    (planned.partial / "journal.json").write_text("{")
    assert go(settings).document["claims"][0]["verdict"] == "holds"


def test_a_member_that_cannot_fit_is_refused_before_anything_is_written(go, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 10**9)
    with pytest.raises(UsageError, match="2000000000 bytes"):
        go(dataclasses.replace(settings, bytes_per_member=2 * 10**9))
    assert not (tmp_path / "runs").exists()


def test_settings_are_checked_before_anything_is_written(go, settings, tmp_path):
    with pytest.raises(SettingError, match="bias"):
        go(dataclasses.replace(settings, bias=3.0))
    with pytest.raises(SettingError, match="diverging = 9"):
        go(dataclasses.replace(settings, diverging=9))
    assert not (tmp_path / "runs").exists()


def test_warnings_of_the_study_are_said_and_kept(go, settings):
    said = []
    run = go(dataclasses.replace(settings, members=1), notify=said.append)
    assert said[0] == "Warning: One walk is not much."
    assert run.manifest["warnings"] == ["One walk is not much."]


def test_time_and_memory_are_announced(go, settings, monkeypatch):
    said = []
    monkeypatch.setattr(machine, "peak_memory", lambda: 10**8)
    go(dataclasses.replace(settings, bytes_per_member=10**8), notify=said.append)
    assert said == ["Expected: 1 min 24 s, 900 MB of memory."]


def test_a_study_that_returns_other_members_is_a_mistake(study, settings, tmp_path):
    broken = dataclasses.replace(
        study,
        experiments=lambda s: [
            dataclasses.replace(study.experiments(s)[0], simulate=lambda a, b: xr.Dataset(coords={"member": [7]}))
        ],
    )
    with pytest.raises(ValueError, match=r"asked for the members 0 to 3 .* member coordinate is \[7\]"):
        lab_run.run(broken, settings, out=tmp_path)


class TestIdentity:
    def test_everything_that_determines_the_result_changes_it(self, study, settings, tmp_path, monkeypatch):
        file = tmp_path / "x.npz"
        file.write_bytes(b"1")
        with_input = dataclasses.replace(study, inputs=lambda s: [file])
        hashes = {
            identity.run_hash(study, settings, True),
            identity.run_hash(study, settings, False),
            identity.run_hash(study, settings, True, ("C1",)),
            identity.run_hash(study, dataclasses.replace(settings, seed=1), True),
            identity.run_hash(dataclasses.replace(study, slug="other"), settings, True),
            identity.run_hash(with_input, settings, True),
        }
        file.write_bytes(b"2")
        hashes.add(identity.run_hash(with_input, settings, True))
        monkeypatch.setattr(identity, "source_digest", lambda study: "changed")
        hashes.add(identity.run_hash(study, settings, True))
        assert len(hashes) == 8

    def test_what_is_only_written_differently_does_not(self, study, settings):
        same = dataclasses.replace(settings, bias=0)
        assert identity.run_hash(study, settings, True) == identity.run_hash(study, same, True)

    def test_the_source_of_the_study_counts(self, study, tmp_path, monkeypatch):
        before = identity.source_digest(study)
        folder = tmp_path / "copy"
        shutil.copytree(identity.study_folder(study), folder)
        monkeypatch.setattr(identity, "study_folder", lambda study: folder)
        assert identity.source_digest(study) == before
        (folder / "helper.py").write_text("x = 1\n")
        assert identity.source_digest(study) != before

    def test_a_missing_input_is_one_sentence(self, study, settings, tmp_path):
        missing = dataclasses.replace(study, inputs=lambda s: [tmp_path / "none.npz"])
        with pytest.raises(SettingError, match=r"Cannot read the input file .*none.npz' \(No such file or directory\)"):
            identity.run_hash(missing, settings, True)


class TestLookup:
    def test_by_folder_hash_and_prefix(self, go, settings, tmp_path):
        run = go(settings)
        out = tmp_path / "runs"
        for text in (str(run.folder), run.folder.name, run.folder.name[:5]):
            assert lab_run.locate(text, out) == run.folder

    def test_a_moved_run_knows_where_it_is(self, go, settings, tmp_path):
        run = go(settings)
        moved = run.folder.rename(tmp_path / "moved")
        document = lab_run.open_run(moved).document
        assert document["run"] == str(moved)
        assert document["report"] == str(moved / "report.html")

    @pytest.mark.parametrize("text", ["0" * 16, "", "*", "../..x"])
    def test_what_is_not_there_is_refused(self, go, settings, tmp_path, text):
        with pytest.raises(UsageError):
            lab_run.open_run(lab_run.locate(text, tmp_path / "runs"))

    def test_an_ambiguous_prefix_and_an_unfinished_run_are_refused(self, tmp_path):
        for name in ("abc1", "abc2"):
            folder = tmp_path / "walk" / name
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text("{}")
        (tmp_path / "walk" / "def3.partial").mkdir()
        with pytest.raises(UsageError, match="beginning of 2 runs"):
            lab_run.locate("abc", tmp_path)
        with pytest.raises(UsageError, match="is not finished"):
            lab_run.locate("def3", tmp_path)

    @pytest.mark.parametrize(
        ("file", "content", "reason"),
        [
            ("manifest.json", "{", "damaged"),
            ("manifest.json", '{"schema": 99}', "schema 99"),
            ("claims.json", "{}", "lacks claims"),
            ("claims.json", None, "Cannot read"),
        ],
    )
    def test_a_damaged_run_is_refused(self, go, settings, file, content, reason):
        run = go(settings)
        (run.folder / file).unlink()
        if content is not None:
            (run.folder / file).write_text(content)
        with pytest.raises(UsageError, match=reason):
            lab_run.open_run(run.folder)


def test_report_again_judges_and_draws_from_the_stored_data(go, study, settings, log):
    run = go(dataclasses.replace(settings, figures=True))
    calls = log()
    before = tree(run.folder)
    (run.folder / "report.html").unlink()
    (run.folder / "figures" / "paths.png").unlink()
    again = lab_run.report_again(run, study)
    assert log() == calls
    assert tree(run.folder) == before
    assert again.document == run.document
    assert json.loads((run.folder / "manifest.json").read_text()) == run.manifest


def test_report_again_says_when_the_source_has_changed(go, study, settings, monkeypatch):
    run = go(settings)
    monkeypatch.setattr(lab_run, "source_digest", lambda study: "changed")
    for _ in range(2):
        run = lab_run.report_again(run, study)
        assert len([sentence for sentence in run.manifest["warnings"] if "source has changed" in sentence]) == 1
