"""A file of a run is whole or absent, and what is read back is what was written, to the last bit."""

import errno
import json
import os

import numpy as np
import pytest
import xarray as xr

from separatrix.lab import store
from separatrix.lab.errors import StoreError, UsageError


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    return xr.Dataset(
        {
            "loss": (("member", "time"), rng.normal(size=(6, 5)), {"units": "nats"}),
            "special": ("time", special),
            "single": (("member",), rng.normal(size=6).astype("float32")),
            "count": ("member", np.arange(6)),
            "flag": ("member", np.arange(6) > 2),
            "phase": ("time", np.exp(1j * np.arange(5))),
            "scalar": 0.1 + 0.2,
            "empty": ("nothing", np.zeros(0)),
        },
        coords={
            "member": np.arange(6),
            "time": ("time", np.arange(5.0), {"units": "seconds"}),
            "mode": ("time", ["a", "b", "γ", "d", "e"]),
        },
        attrs={"dtype": "float64"},
    )


def bits(dataset):
    return {name: (v.dims, v.dtype, v.values.tobytes(), v.attrs) for name, v in dataset.variables.items()}


def test_a_dataset_is_read_back_bit_for_bit(tmp_path, dataset):
    store.write_dataset(tmp_path / "x.zarr", dataset)
    loaded = store.read_dataset(tmp_path / "x.zarr")
    texts = {"mode"}
    assert {k: v for k, v in bits(loaded).items() if k not in texts} == {
        k: v for k, v in bits(dataset).items() if k not in texts
    }
    assert loaded.mode.values.tolist() == dataset.mode.values.tolist()
    assert loaded.attrs == dataset.attrs


def test_parts_join_to_the_whole(tmp_path, dataset):
    pieces = []
    for start, stop in [(0, 2), (2, 5), (5, 6)]:
        store.write_dataset(tmp_path / f"{start}.zarr", dataset.isel(member=slice(start, stop)))
        pieces.append(store.read_dataset(tmp_path / f"{start}.zarr"))
    xr.testing.assert_identical(store.join_members(pieces), store.join_members([dataset]))


def test_parts_that_disagree_about_what_members_share_do_not_join(dataset):
    other = dataset.assign(special=dataset.special + 1)
    with pytest.raises(xr.MergeError):
        store.join_members([dataset.isel(member=slice(0, 3)), other.isel(member=slice(3, 6))])


def test_large_arrays_are_split_for_the_compressor(monkeypatch, dataset):
    monkeypatch.setattr(store, "_CHUNK_BYTES", 100)
    assert store._whole_chunks(dataset)["loss"]["chunks"] == (2, 5)
    assert "scalar" not in store._whole_chunks(dataset)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call):
    path = tmp_path / "x.json"
    store.write_json(path, {"a": 1})

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(StoreError, match=r"Cannot write .*x.json \(No space left on device\)"):
        store.write_json(path, {"a": 2})
    assert store.read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_dataset_leaves_nothing(tmp_path, monkeypatch, dataset):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(StoreError, match="No space left"):
        store.write_dataset(tmp_path / "x.zarr", dataset)
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_writer_left_is_removed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".temporary-x.zarr").mkdir()
    (tmp_path / "a" / ".temporary-x.zarr" / "zarr.json").write_text("{")
    (tmp_path / ".temporary-manifest.json").write_text("{")
    (tmp_path / "a" / "kept").write_text("")
    store.remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept"]


def test_json_is_strict():
    text = store.json_text({"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": -float("inf")}})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, [None, 1.5]], "b": {"c": None}}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_damaged_json_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UsageError, match="is damaged"):
        store.read_json(tmp_path / "x.json")


def test_missing_data_are_refused(tmp_path):
    with pytest.raises(UsageError, match="damaged or missing"):
        store.read_dataset(tmp_path / "none.zarr")
