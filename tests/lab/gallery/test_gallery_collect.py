"""What is on disk is read as it is; what is damaged or foreign costs one sentence and nothing else."""

import json
import shutil

import gallery_fakes as fake
import numpy as np
import pytest

from separatrix.lab import UsageError, store
from separatrix.lab.gallery.collect import collect, read_run
from separatrix.lab.gallery.sweeps import read_sweep


def test_runs_and_sweeps_are_found_newest_first(tmp_path, notices):
    fake.run(tmp_path / "walk" / "aa", created="2030-01-01T00:00:00+00:00")
    fake.run(tmp_path / "walk" / "bb", created="2030-01-02T00:00:00+00:00", report="<p>")
    fake.sweep(tmp_path / "walk" / "sweep-1", cells=False)
    (entry,) = collect(tmp_path, notices.append)
    assert [run.hash for run in entry.runs] == ["bb", "aa"]
    assert [run.report is None for run in entry.runs] == [False, True]
    assert [sweep.name for sweep in entry.sweeps] == ["sweep-1"]
    assert notices == []


def test_what_is_under_way_and_the_gallery_itself_are_passed_over_in_silence(tmp_path, notices):
    fake.run(tmp_path / "walk" / "aa")
    for name in ("bb.partial", "cc.replaced", "sweep-1.partial", ".temporary-x"):
        (tmp_path / "walk" / name).mkdir()
    (tmp_path / "young" / "dd.partial").mkdir(parents=True)
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "gallery.json").write_text("{}")
    assert [entry.slug for entry in collect(tmp_path, notices.append)] == ["walk"]
    assert notices == []


def spoil(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


DAMAGE = {
    "no JSON": lambda run: (run / "manifest.json").write_text("{"),
    "a list": lambda run: (run / "claims.json").write_text("[]"),
    "not UTF-8": lambda run: (run / "claims.json").write_bytes(b"\xff\xfe"),
    "no claims": lambda run: (run / "claims.json").unlink(),
    "other schema": lambda run: spoil(run / "manifest.json", schema=99),
    "unknown verdict": lambda run: spoil(run / "claims.json", claims=[fake.claim("C1", "<b>maybe</b>")]),
    "claims without verdicts": lambda run: spoil(run / "claims.json", claims=[{"id": "C1"}]),
    "claims are a number": lambda run: spoil(run / "claims.json", claims=3),
    "settings are a text": lambda run: spoil(run / "claims.json", settings="no"),
    "an interval of three": lambda run: spoil(run / "claims.json", claims=[fake.claim("C1") | {"interval": [1, 2, 3]}]),
    "figures are numbers": lambda run: spoil(run / "manifest.json", figures=[1]),
    "experiments are a text": lambda run: spoil(run / "manifest.json", experiments="walk"),
    "no manifest": lambda run: (run / "manifest.json").unlink(),
    "manifest is a folder": lambda run: ((run / "manifest.json").unlink(), (run / "manifest.json").mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_left_out_with_one_sentence(tmp_path, notices, damage):
    fake.run(tmp_path / "walk" / "aa")
    DAMAGE[damage](fake.run(tmp_path / "walk" / "bb", report="<p>"))
    (entry,) = collect(tmp_path, notices.append)
    assert [run.hash for run in entry.runs] == ["aa"]
    assert len(notices) == 1
    assert "bb' is left out: " in notices[0]
    assert "\n" not in notices[0]


@pytest.mark.parametrize("name", ["runs of May", "Other", "a--b"])
def test_a_folder_with_another_name_than_a_study_is_left_out(tmp_path, notices, name):
    fake.run(tmp_path / name / "aa")
    assert collect(tmp_path, notices.append) == []
    assert len(notices) == 1


def test_a_foreign_folder_costs_one_sentence_however_much_is_in_it(tmp_path, notices):
    for name in ("one", "two", "three"):
        (tmp_path / "foreign" / name).mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("not a folder")
    assert collect(tmp_path, notices.append) == []
    assert len(notices) == 1


@pytest.mark.parametrize("name", ["a<b", "index", "run", "copy of aa"])
def test_the_name_of_a_run_folder_is_a_hash(tmp_path, name):
    with pytest.raises(UsageError, match="not the hash"):
        read_run(fake.run(tmp_path / "walk" / name))


@pytest.mark.parametrize("file", ["../../secret.png", "figures/none.png", "report.html"])
def test_a_figure_is_a_picture_in_the_folder_of_its_run(tmp_path, file):
    (tmp_path / "secret.png").write_bytes(fake.PIXEL)
    run = fake.run(tmp_path / "walk" / "aa", report="<p>")
    assert [figure["file"] for figure in read_run(run).figures] == ["figures/first.png"]
    spoil(run / "manifest.json", figures=[{"name": "x", "file": file, "title": "", "caption": ""}])
    assert read_run(run).figures == ()


def test_a_sweep_keeps_every_value_in_its_place(tmp_path):
    folder = fake.sweep(tmp_path / "walk" / "sweep-1", cells=False)
    content = read_sweep(folder).content
    stored = store.read_dataset(folder / "results.zarr")
    assert content["axes"] == ["learning_rate", "depth"]
    assert content["dims"]["learning_rate"]["log"]
    assert content["dims"]["mode"]["values"] == ["1", "2", "3"]
    for quantity in content["quantities"]:
        variable = quantity["id"].removeprefix("quantity:")
        shape = [len(content["dims"][dim]["values"]) for dim in quantity["dims"]]
        ours = np.array(quantity["values"], float).reshape(shape)
        theirs = stored[variable].transpose(*quantity["dims"]).values
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert content["runs"] == stored["run"].values.ravel().tolist()
    assert content["reasons"] == {"26": "It was too large."}


def test_the_order_of_dimensions_on_disk_does_not_matter(tmp_path):
    folder = fake.sweep(tmp_path / "walk" / "sweep-1", cells=False)
    before = read_sweep(folder).content
    stored = store.read_dataset(folder / "results.zarr")
    shutil.rmtree(folder / "results.zarr")
    store.write_dataset(folder / "results.zarr", stored.transpose("depth", ..., "claim", "learning_rate"))
    assert read_sweep(folder).content == before


def test_texts_are_an_axis_and_zero_has_no_logarithm(tmp_path):
    folder = fake.sweep(tmp_path / "walk" / "sweep-1", rates=[0.0, 0.1], depths=[2, 3], cells=False)
    assert not read_sweep(folder).content["dims"]["learning_rate"]["log"]
    head = json.loads((folder / "sweep.json").read_text())
    head["axes"][1]["values"] = ["gaussian", [1, 2]]
    (folder / "sweep.json").write_text(json.dumps(head))
    dim = read_sweep(folder).content["dims"]["depth"]
    assert (dim["values"], dim["numeric"]) == (["gaussian", "1, 2"], False)


def without(name):
    def damage(folder):
        stored = store.read_dataset(folder / "results.zarr")
        shutil.rmtree(folder / "results.zarr")
        store.write_dataset(folder / "results.zarr", stored.drop_vars(name))

    return damage


def other_codes(folder):
    stored = store.read_dataset(folder / "results.zarr")
    shutil.rmtree(folder / "results.zarr")
    store.write_dataset(folder / "results.zarr", stored.assign(verdict=stored["verdict"] + 5))


def cut_off(folder):
    (chunk,) = [path for path in (folder / "results.zarr" / "estimate" / "c").rglob("*") if path.is_file()]
    chunk.write_bytes(chunk.read_bytes()[:7])


SWEEP_DAMAGE = {
    "no results": lambda folder: shutil.rmtree(folder / "results.zarr"),
    "no head": lambda folder: (folder / "sweep.json").unlink(),
    "other schema": lambda folder: spoil(folder / "sweep.json", schema=2),
    "no axes": lambda folder: spoil(folder / "sweep.json", axes=None),
    "an axis too short": lambda folder: spoil(folder / "sweep.json", axes=[{"name": "depth", "values": []}]),
    "a claim too many": lambda folder: spoil(folder / "sweep.json", claims=[{"id": n, "statement": ""} for n in "abc"]),
    "counts are missing": lambda folder: spoil(folder / "sweep.json", counts={}),
    "a quantity is missing": without("loss"),
    "verdicts are missing": without("verdict"),
    "runs are missing": without("run"),
    "unknown codes": other_codes,
    "results are garbage": lambda folder: (folder / "results.zarr" / "verdict" / "zarr.json").write_text("{"),
    "results are cut off": cut_off,
    "an axis called claim": lambda folder: spoil(folder / "sweep.json", axes=[{"name": "claim", "values": [1, 2]}]),
}


@pytest.mark.parametrize("damage", SWEEP_DAMAGE)
def test_a_damaged_sweep_is_left_out_with_one_sentence(tmp_path, notices, damage):
    fake.run(tmp_path / "walk" / "aa")
    SWEEP_DAMAGE[damage](fake.sweep(tmp_path / "walk" / "sweep-1", cells=False))
    (entry,) = collect(tmp_path, notices.append)
    assert entry.sweeps == ()
    assert len(notices) == 1
    assert "sweep-1' is left out: " in notices[0]
    assert "\n" not in notices[0]
