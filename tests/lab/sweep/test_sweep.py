"""A sweep is a grid of ordinary runs: nothing is lost or computed twice, and the numbers are those of the runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from separatrix.engines.ensemble import _evolve
from separatrix.lab import Experiment, UsageError, discovery, store
from separatrix.lab import run as lab_run
from separatrix.lab.errors import StoreError
from separatrix.lab.sweep import Grid, axis, driver, open_sweep, seed_axis, sweep
from separatrix.lab.sweep.results import locate_sweep


@pytest.fixture
def log(tmp_path, monkeypatch):
    file = tmp_path / "log"
    monkeypatch.setenv("WALK_LOG", str(file))
    return lambda: file.read_text().splitlines() if file.exists() else []


def walk(study, out, *, seeds=2, bias=(0.0, 0.2, 1.0), **settings):
    base = study.settings(members=4, **settings)
    return Grid(study, base, (axis(study.settings, "bias", bias), *seed_axis(study, base, seeds)), out)


def test_each_cell_is_an_ordinary_run_with_the_same_numbers(study, tmp_path):
    grid = walk(study, tmp_path / "sweep")
    found = sweep(grid, on="inline")
    assert found.manifest["counts"] == {"done": 6, "failed": 0, "left": 0, "total": 6}
    for cell in range(grid.size):
        values = grid.values(cell)
        alone = lab_run.run(study, grid.cell(cell), out=tmp_path / "alone")
        at = found.dataset.sel(claim="C1", **values)
        assert str(at["run"].item()) == alone.folder.name
        claim = alone.document["claims"][0]
        assert (at["estimate"], at["low"], at["high"]) == (claim["estimate"], *claim["interval"])
        assert at["control_verdict"] == -1
        here = json.loads((tmp_path / "sweep" / "logged-walk" / alone.folder.name / "claims.json").read_text())
        assert here["claims"] == alone.document["claims"]
        for path in (alone.folder / "data").iterdir():
            twin = tmp_path / "sweep" / "logged-walk" / alone.folder.name / "data" / path.name
            xr.testing.assert_identical(store.read_dataset(path), store.read_dataset(twin))


def test_a_cell_gets_its_report_when_somebody_asks(study, tmp_path, log):
    grid = walk(study, tmp_path, figures=True)
    found = sweep(grid, on="inline")
    folder = tmp_path / "logged-walk" / str(found.dataset["run"].values[0, 0])
    assert not (folder / "report.html").exists()
    computed = len(log())
    alone = lab_run.run(study, grid.cell(0), out=tmp_path)
    assert alone.reused
    assert alone.folder == folder
    assert (folder / "report.html").exists()
    assert (folder / "figures" / "paths.png").exists()
    assert len(log()) == computed


def test_runs_that_are_there_are_not_computed_again(study, tmp_path, log):
    grid = walk(study, tmp_path)
    lab_run.run(study, grid.cell(3), out=tmp_path)
    sweep(grid, on="inline")
    assert len(log()) == 6 * 4  # two experiments in two parts each; the third is not logged
    wider = walk(study, tmp_path, bias=(0.0, 0.2, 0.5, 1.0))
    sweep(wider, on="inline")
    assert len(log()) == 8 * 4
    again = sweep(wider, on="inline")
    assert again.reused
    assert len(log()) == 8 * 4


def test_an_interrupted_cell_goes_on_with_its_parts(study, tmp_path, log):
    grid = walk(study, tmp_path, bias=(0.0,), seeds=1)
    planned = grid.plan(0)
    from separatrix.lab import execution

    journal = execution.open_partial(planned, {"walk": 2, "pushed": 2, "exact": 1})
    execution.keep(planned, planned.experiments[0], (0, 2), planned.experiments[0].simulate(0, 2))
    assert journal["part_size"]["walk"] == 2
    sweep(grid, on="inline")
    assert sorted(log()) == ["pushed 0-2", "pushed 2-4", "walk 0-2", "walk 2-4"]


def test_a_cell_that_is_refused_or_raises_is_recorded_and_the_others_go_on(study, tmp_path, log):
    def experiments(settings):
        def broken(start, stop):
            raise RuntimeError(f"no members\n{start} to {stop}")

        first, *rest = study.experiments(settings)
        return [replace(first, simulate=broken) if settings.seed == 1 else first, *rest]

    sick = replace(study, experiments=experiments)
    base = study.settings(members=4, diverging=5)
    grid = Grid(
        sick, base, (axis(study.settings, "members", (4, 5, 6)), *seed_axis(study, base, 2)), tmp_path
    )  # with 4 members, 5 cannot diverge
    found = sweep(grid, on="inline")
    assert found.manifest["counts"] == {"done": 2, "failed": 4, "left": 0, "total": 6}
    reason = found.dataset["reason"]
    assert reason.sel(members=4, seed=0).item() == "diverging = 5 is not allowed: it must be at most members."
    assert reason.sel(members=5, seed=1).item() == "RuntimeError: no members 0 to 2"
    assert found.dataset["status"].sel(members=6, seed=0).item() == 1
    assert np.isnan(found.dataset["estimate"].sel(members=5, seed=1)).all()
    assert (found.dataset["verdict"].sel(members=5, seed=1) == -2).all()

    # failures are remembered, and computed again only when asked
    computed = len(log())
    assert sweep(grid, on="inline").reused
    healed = Grid(study, base, grid.axes, tmp_path)
    again = sweep(healed, on="inline", retry_failed=True)
    assert again.manifest["counts"] == {"done": 4, "failed": 2, "left": 0, "total": 6}
    assert len(log()) > computed
    assert open_sweep(again.folder).manifest["counts"]["done"] == 4


def test_failures_of_an_interrupted_sweep_are_remembered(study, tmp_path):
    grid = walk(study, tmp_path)
    grid.partial.mkdir(parents=True)
    store.write_json(grid.partial / "failures.json", {"2": "it was too warm"})
    found = sweep(grid, on="inline")
    assert found.manifest["counts"]["failed"] == 1
    assert found.dataset["reason"].values.ravel()[2] == "it was too warm"
    assert not grid.partial.exists()


def test_a_sweep_of_which_nothing_can_run_is_refused_before_anything_is_written(study, tmp_path):
    base = study.settings(members=1, diverging=9)
    grid = Grid(study, base, (axis(study.settings, "members", (1, 2)),), tmp_path / "runs")
    with pytest.raises(UsageError, match="diverging = 9 is not allowed"):
        sweep(grid, on="inline")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"on": "moon"}, "on = 'moon' is not allowed: it must be one of inline, processes, ray."),
        ({"on": "inline", "address": "here"}, "address = 'here' is not allowed with on = 'inline'"),
    ],
)
def test_wrong_requests_are_one_sentence(study, tmp_path, change, sentence):
    with pytest.raises(UsageError, match=sentence):
        sweep(walk(study, tmp_path), **change)


def test_a_grid_needs_axes_each_once_and_not_too_many_cells(study, tmp_path):
    base = study.settings()
    seeds = axis(study.settings, "seed", range(2000))
    with pytest.raises(UsageError, match="needs an axis"):
        Grid(study, base, (), tmp_path)
    with pytest.raises(UsageError, match="name seed twice"):
        Grid(study, base, (seeds, seeds), tmp_path)
    with pytest.raises(UsageError, match="at most 1000000 are allowed"):
        Grid(study, base, (seeds, axis(study.settings, "members", range(1, 1000))), tmp_path)


def test_the_last_axis_varies_fastest(study, tmp_path):
    grid = walk(study, tmp_path, seeds=3)
    assert [tuple(grid.values(cell).values()) for cell in (0, 1, 3, 8)] == [(0.0, 0), (0.0, 1), (0.2, 0), (1.0, 2)]
    assert grid.cell(4) == replace(grid.settings, bias=0.2, seed=1)


def test_a_full_disk_is_one_sentence_and_finished_cells_stay(study, tmp_path, monkeypatch, log):
    grid = walk(study, tmp_path)
    write, written = store.write_dataset, []

    def full(path, dataset):
        if len(written) == 12:
            raise StoreError(f"Cannot write {path} (No space left on device): finished parts are kept.")
        written.append(path)
        write(path, dataset)

    monkeypatch.setattr(store, "write_dataset", full)
    with pytest.raises(StoreError, match="No space left"):
        sweep(grid, on="inline")
    monkeypatch.setattr(store, "write_dataset", write)
    whole = [path for path in (tmp_path / "logged-walk").iterdir() if path.name.isalnum()]
    assert len(whole) == 1
    before = [(path / "manifest.json").read_bytes() for path in whole]
    found = sweep(grid, on="inline")
    assert found.manifest["counts"]["done"] == 6
    assert [(path / "manifest.json").read_bytes() for path in whole] == before


def test_a_folder_that_cannot_be_written_is_one_sentence(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"out = .*file/runs' is not allowed: it must be a folder that can be written"):
        sweep(walk(study, tmp_path / "file" / "runs"), on="inline")


def test_quantities_become_variables_over_the_axes(study, tmp_path):
    from separatrix.lab import Quantity

    def final(settings, results):
        walks = results["walk"]["position"].mean("member")
        return xr.Dataset({"estimate": walks, "low": walks - 1, "high": walks + 1})

    def odd(settings, results):
        return xr.Dataset({"estimate": ("bias", [settings.bias])}, {"bias": [settings.bias]})

    def ragged(settings, results):
        return xr.Dataset(
            {"estimate": ("number", np.arange(settings.seed + 1.0))}, {"number": range(settings.seed + 1)}
        )

    rich = replace(
        study,
        quantities=lambda s: [
            Quantity("path", "mean position", final, unit="m", needs=("walk",)),
            Quantity("given", "the bias", odd),
            Quantity("ragged", "of different length", ragged),
        ],
    )
    base = study.settings(members=4)
    axes = (axis(study.settings, "bias", (0.0, 0.5)), *seed_axis(study, base, 2))
    said = []
    found = sweep(Grid(rich, base, axes, tmp_path), on="inline", notify=said.append)
    data = found.dataset
    assert data["path"].dims == ("bias", "seed", "time")
    np.testing.assert_allclose(data["path_high"] - data["path_low"], 2)
    assert data["given"].dims == ("bias", "seed")  # a dimension named as an axis is the cell's own
    np.testing.assert_array_equal(data["given"].values, [[0, 0], [0.5, 0.5]])
    assert any("ragged is left out where its coordinates are not" in sentence for sentence in said)
    assert [quantity["name"] for quantity in found.manifest["quantities"]] == ["path", "given", "ragged"]

    # only one of them: the claim is not measured, nor what it alone needs simulated
    only = sweep(Grid(rich, base, axes, tmp_path / "only", only=("path",)), on="inline")
    assert "estimate" not in only.dataset
    xr.testing.assert_identical(only.dataset["path"], data["path"])
    run = tmp_path / "only" / "logged-walk" / str(only.dataset["run"].values[0, 0])
    assert [path.name for path in (run / "data").iterdir()] == ["walk.zarr"]


def test_sweeps_are_found_by_folder_or_hash(study, tmp_path):
    found = sweep(walk(study, tmp_path), on="inline")
    digits = found.manifest["hash"]
    for text in (str(found.folder), digits, digits[:6], f"sweep-{digits[:8]}"):
        assert locate_sweep(text, tmp_path) == found.folder
    with pytest.raises(UsageError, match="There is no sweep 'zzzz'"):
        locate_sweep("zzzz", tmp_path)
    found.folder.rename(found.folder.with_name(f"{found.folder.name}.partial"))
    with pytest.raises(UsageError, match="is not finished: give its command again"):
        locate_sweep(digits, tmp_path)


def test_batches_share_launches_and_keep_workers_busy():
    assert [len(batch) for batch in driver._batches(range(1000), 0.0, 1)] == [256, 256, 256, 232]
    assert [len(batch) for batch in driver._batches(range(10), 25.0, 1)] == [2] * 5
    assert len(driver._batches(range(100), 0.0, 4)) == 8
    assert driver._batches([], 1.0, 2) == []


TINY = {"depth": (2,), "singular_values": (2.0, 1.0), "learning_rate": 0.01, "aligned_runs": 4}


@pytest.mark.slow
class TestSharedLaunches:
    """The main study: cells that differ in numbers only are one program and one launch."""

    @pytest.fixture
    def main_study(self):
        return discovery.import_study(discovery.locate("saddle-to-saddle-sgd"))

    def grid(self, study, out, noises=9, seeds=9):
        base = study.resolve("default", TINY)
        noise = axis(study.settings, "label_noise", np.linspace(0.1, 0.9, noises).round(6).tolist())
        return Grid(study, base, (noise, *seed_axis(study, base, seeds)), out, controls=False, only=("mode_variance",))

    def test_eighty_one_cells_are_one_compilation(self, main_study, tmp_path):
        before = _evolve._cache_size()
        found = sweep(self.grid(main_study, tmp_path), on="inline")
        assert found.manifest["counts"]["done"] == 81
        assert _evolve._cache_size() - before <= 1
        variance = found.dataset["mode_variance"].mean("seed").sel(depth=2)
        ratio = variance / (found.dataset["label_noise"] ** 2 * 0.01 * variance["mode"].copy(data=[2.0, 1.0]))
        assert float(abs(ratio - 1).max()) < 0.2

    def test_a_cell_of_a_shared_launch_has_the_bits_of_a_run_alone(self, main_study, tmp_path):
        grid = self.grid(main_study, tmp_path / "sweep", noises=3, seeds=2)
        sweep(grid, on="inline")
        for cell in (0, 3, 5):
            alone = lab_run.run(main_study, grid.cell(cell), out=tmp_path / "alone", controls=False, only=grid.only)
            twin = Path(str(alone.folder).replace(str(tmp_path / "alone"), str(tmp_path / "sweep")))
            for path in (alone.folder / "data").iterdir():
                one, other = store.read_dataset(path), store.read_dataset(twin / "data" / path.name)
                xr.testing.assert_identical(one, other)
                assert one["strength_matrix"].values.tobytes() == other["strength_matrix"].values.tobytes()

    def test_one_bad_simulation_of_a_shared_launch_does_not_stop_the_others(self, main_study, tmp_path):
        class Broken:
            def __init__(self, launch):
                self.launch, self.group = launch, launch.group

            def __call__(self, start, stop):
                return self.together([(self, start, stop)])[0]

            def together(self, requests):
                if any(one.launch.arguments()["label_noise"] > 0.8 for one, _, _ in requests):
                    raise ArithmeticError("too loud")
                return self.launch.together([(one.launch, start, stop) for one, start, stop in requests])

        def experiments(settings):
            return [
                Experiment(one.name, Broken(one.simulate), one.members, one.bytes_per_member, one.seconds)
                for one in main_study.experiments(settings)
                if one.name.startswith("stationary")
            ]

        found = sweep(self.grid(replace(main_study, experiments=experiments), tmp_path, 5, 1), on="inline")
        assert found.dataset["status"].values.tolist() == [1, 1, 1, 1, 2]
        assert found.dataset["reason"].values[-1] == "ArithmeticError: too loud"
