"""What `separatrix sweep` writes is what the gallery reads, with claims and without."""

from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr

from separatrix.lab import Quantity, discovery
from separatrix.lab.gallery.collect import collect
from separatrix.lab.sweep import Grid, axis, seed_axis, sweep


@pytest.fixture
def study(monkeypatch):
    monkeypatch.setenv(discovery.PATH_VARIABLE, str(Path(__file__).parent.parent / "studies"))
    found = discovery.import_study(discovery.locate("logged-walk"))
    mean = lambda s, r: xr.Dataset({"estimate": r["walk"]["position"].mean("member")})  # noqa: E731
    paths = Quantity("path", "mean position", mean, unit="m", needs=("walk",))
    return replace(found, quantities=lambda settings: [paths])


@pytest.mark.parametrize("only", [(), ("path",), ("C1",)])
def test_a_real_sweep_is_read(study, tmp_path, notices, only):
    base = study.settings(members=4)
    axes = (axis(study.settings, "bias", (0.0, 0.5, 1.0)), *seed_axis(study, base, 2))
    found = sweep(Grid(study, base, axes, tmp_path, only=only), on="inline")
    (entry,) = collect(tmp_path, notices.append)
    assert notices == []
    (read,) = entry.sweeps
    assert read.name == found.folder.name
    assert read.content["dims"]["bias"]["values"] == [0.0, 0.5, 1.0]
    assert read.content["runs"] == found.dataset["run"].values.ravel().tolist()
    names = {quantity["id"] for quantity in read.content["quantities"]}
    assert ("verdict" in names) == ("path" not in only)
    assert ("quantity:path" in names) == ("C1" not in only)
    assert len(entry.runs) == 6
