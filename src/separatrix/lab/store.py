"""The run folder on disk: every file appears whole or not at all, and what has appeared survives a crash."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separatrix.lab.errors import StoreError, UsageError

if TYPE_CHECKING:
    import xarray

SCHEMA = 1
MANIFEST = "manifest.json"
DOCUMENT = "claims.json"
REPORT = "report.html"
#: Parts are computed and written by several threads.
_one_writer = threading.Lock()
_TEMPORARY = ".temporary-"
_CHUNK_BYTES = 2**28  # the compressor of Zarr takes at most 2 GiB at once


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an `OSError` met while writing into one sentence that names the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"Cannot write {path} ({reason}): finished parts are kept, and the same command goes on from there."
        ) from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file through a temporary name, so that a reader or a crash sees the old or the new one."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    with writing(path):
        try:
            with open(temporary, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON: numbers that are not finite become null."""
    replace_file(path, json_text(content).encode("utf-8"))


def json_text(content: Any) -> str:
    """Strict JSON text of nested dicts, lists and plain numbers."""
    return json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def finite(content: Any) -> Any:
    """Replace numbers that are not finite by None in nested dicts and lists."""
    if isinstance(content, dict):
        return {str(key): finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; a file that is missing or is none is refused with one sentence."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}).") from None
    except ValueError:
        raise UsageError(f"{path} is damaged: it is not valid JSON.") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} is damaged: it does not hold a JSON object.")
    return content


class NotRunError(KeyError):
    """The data of an experiment that a run leaves out, because it measures only some of its study's claims."""


class StoredResults(dict[str, "xarray.Dataset"]):
    """Datasets by experiment; asking for one that was left out raises `NotRunError`."""

    def __missing__(self, name: str) -> xarray.Dataset:
        raise NotRunError(name)


def write_dataset(path: Path, dataset: xarray.Dataset) -> None:
    """Write a dataset as a Zarr folder, complete on disk before it gets its name."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    with _one_writer, writing(path):
        try:
            with warnings.catch_warnings():  # not safe among threads, hence one writer at a time
                # texts have no final Zarr v3 specification; we read them back with the library that wrote them
                warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification", category=Warning)
                warnings.filterwarnings("ignore", message=".*unstable", category=Warning)
                dataset.to_zarr(temporary, mode="w", zarr_format=3, consolidated=False, encoding=_whole_chunks(dataset))
            for folder, _, files in os.walk(temporary):
                for name in files:
                    _sync(os.path.join(folder, name), os.O_RDONLY)
                sync_folder(Path(folder))
            os.rename(temporary, path)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(path.parent)


def _whole_chunks(dataset: xarray.Dataset) -> dict[Any, dict[str, Any]]:
    """Encoding that stores each array as one file, split along its first axis only when it is very large.

    Not compressed: noisy doubles shrink by a tenth at twice the time to write and read.
    """
    encoding = {}
    for name, variable in dataset.variables.items():
        if variable.ndim and variable.size:
            pieces = -(-variable.nbytes // _CHUNK_BYTES)
            encoding[name] = {"chunks": (-(-variable.shape[0] // pieces), *variable.shape[1:]), "compressors": None}
    return encoding


def read_dataset(path: Path) -> xarray.Dataset:
    """Load a dataset written by `write_dataset` into memory."""
    import xarray as xr

    try:
        # a unit such as "s" is a label here, never a request to decode times
        with xr.open_zarr(path, chunks=None, consolidated=False, decode_times=False, decode_timedelta=False) as stored:
            dataset = stored.load()
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{path} is damaged or missing ({type(error).__name__}): run the study again, "
            "with --fresh if its data are damaged."
        ) from None
    for variable in dataset.variables.values():
        variable.encoding = {}
    return ordered(dataset)


def ordered(dataset: xarray.Dataset) -> xarray.Dataset:
    """The dataset with its variables sorted by name: a folder lists its arrays in no particular order."""
    import xarray as xr

    return xr.Dataset(
        {name: dataset.variables[name] for name in sorted(dataset.data_vars, key=str)},
        {name: dataset.variables[name] for name in sorted(dataset.coords, key=str)},
        dataset.attrs,
    )


def join_members(parts: Sequence[xarray.Dataset]) -> xarray.Dataset:
    """Concatenate parts along ``member``; variables without that dimension must be equal in all parts."""
    import xarray as xr

    if len(parts) == 1:
        return parts[0]
    return xr.concat(
        parts,
        dim="member",
        data_vars="minimal",
        coords="minimal",
        compat="equals",
        join="exact",
        combine_attrs="override",
    )


def rename(source: Path, target: Path) -> None:
    """Rename a folder and make the new name durable."""
    with writing(target):
        os.rename(source, target)
        sync_folder(target.parent)


def make_folder(path: Path) -> None:
    """Create a folder of a run that is under way."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a folder with all it holds, if it exists."""
    if path.exists():
        with writing(path):
            shutil.rmtree(path)


def remove_temporaries(folder: Path) -> None:
    """Remove what an interrupted writer left under ``folder``."""
    for path in sorted(folder.rglob(f"{_TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    _sync(str(path), os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
