"""Parameters of a model from checkpoints on disk: NumPy, safetensors and PyTorch files, and Orbax folders."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from separatrix.probes.operators import ProbeError

#: Endings of the files that hold checkpoints, and the format of each.
FORMATS = {".npz": "NumPy", ".safetensors": "safetensors", ".pt": "PyTorch", ".pth": "PyTorch"}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip

#: Orbax: a pytree is a folder with the one file; a step of a manager has the other and a folder for each item.
_ORBAX_TREE, _ORBAX_STEP = "_METADATA", "_CHECKPOINT_METADATA"
_ORBAX_UNFINISHED = ".orbax-checkpoint-tmp"
_ORBAX_ONLY_ITEM = "default"


def checkpoint_paths(folder: Path) -> list[Path]:
    """Checkpoints in a folder, files or Orbax folders, in the order of the numbers in their names.

    What Orbax was still writing when it was stopped is left out.

    Raises
    ------
    ProbeError
        If there is no such folder, or it holds no checkpoint, is one itself, or holds several formats.
    """
    if _is_orbax(folder):
        raise ProbeError(f"the folder {str(folder)!r} is an Orbax checkpoint itself: give the folder that holds it")
    found = {path: _format(path) for path in folder.iterdir()} if folder.is_dir() else {}
    found = {path: kind for path, kind in found.items() if kind}
    if not found:
        raise ProbeError(f"the folder {str(folder)!r} holds no checkpoint ({', '.join(FORMATS)} or Orbax)")
    if len(formats := sorted(set(found.values()))) > 1:
        raise ProbeError(f"the folder {str(folder)!r} holds checkpoints of {' and '.join(formats)}: keep one format")
    number = lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]  # noqa: E731
    return sorted(found, key=number)


def checkpoint_files(path: Path) -> list[Path]:
    """Files that a checkpoint consists of: itself, or what lies in an Orbax folder."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def step_of(path: Path, otherwise: int) -> int:
    """The last number in the name of a checkpoint: ``step-0200.npz`` is 200."""
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else otherwise


def read_tree(path: Path, subtree: str = "") -> Any:
    """What a checkpoint holds, as it was saved: arrays by name, or the pytree of an Orbax folder.

    Arrays are NumPy's, or the tensors of a PyTorch file, which is read without running any code in it.

    Parameters
    ----------
    path
        One of :func:`checkpoint_paths`.
    subtree
        Keys joined by dots, ``"params"`` or ``"state.params"``: only what lies there, or whose name begins so.

    Raises
    ------
    ProbeError
        If it cannot be read, holds something else than arrays, has no such subtree, or has more than parameters and
        none was asked for.
    """
    try:
        tree = _READERS[_format(path)](path, subtree)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        if isinstance(error, ProbeError):
            raise
        raise ProbeError(f"{path.name} cannot be read as a checkpoint ({type(error).__name__})") from None
    if not subtree and isinstance(tree, Mapping) and isinstance(tree.get("params"), Mapping) and len(tree) > 1:
        raise ProbeError(f"{path.name} holds {', '.join(map(str, tree))}: say which are the parameters, with subtree")
    for name, leaf in _named(tree).items():
        if not hasattr(leaf, "shape"):
            raise ProbeError(f"{path.name} holds a {type(leaf).__name__} as {name}, which is no array: {_HINT}")
    return tree


def read_checkpoint(path: Path, subtree: str = "") -> dict[str, Any]:
    """The arrays of :func:`read_tree` by name; names of nested keys are joined by dots.

    Raises
    ------
    ProbeError
        As of :func:`read_tree`.
    """
    return _named(read_tree(path, subtree))


_HINT = "save the parameters alone, or say where they are with subtree"


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _at(tree: Any, subtree: str, path: Path) -> Any:
    """Part of nested dicts, or of names that are joined by dots."""
    for key in filter(None, subtree.split(".")):
        if not isinstance(tree, Mapping):
            raise ProbeError(f"{path.name} holds no {subtree!r}: {key!r} would lie within an array")
        inside = {str(name)[len(key) + 1 :]: leaf for name, leaf in tree.items() if str(name).startswith(f"{key}.")}
        if key not in tree and not inside:
            raise ProbeError(f"{path.name} holds no {subtree!r}, but {', '.join(map(str, tree))}")
        tree = tree.get(key, inside)
    return tree


def _format(path: Path) -> str:
    """Name of the format, empty if it is no checkpoint."""
    return "Orbax" if _is_orbax(path) else FORMATS.get(path.suffix, "")


def _is_orbax(path: Path) -> bool:
    return path.is_dir() and _ORBAX_UNFINISHED not in path.name and bool(_orbax_items(path))


def _orbax_items(path: Path) -> dict[str, Path]:
    """Folders of the pytrees in a checkpoint by name; its own, without a name, if it is one pytree."""
    if (path / _ORBAX_TREE).is_file():
        return {"": path}
    inside = sorted(path.iterdir()) if (path / _ORBAX_STEP).is_file() else []
    return {item.name: item for item in inside if (item / _ORBAX_TREE).is_file()}


def _read_npz(path: Path, subtree: str) -> Any:
    with np.load(path, allow_pickle=False) as stored:
        return _at({name: stored[name] for name in stored.files}, subtree, path)


def _read_safetensors(path: Path, subtree: str) -> Any:
    import ml_dtypes  # comes with JAX

    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind = _SAFETENSORS[entry["dtype"]]
        dtype = np.dtype(ml_dtypes.bfloat16) if kind == "bfloat16" else np.dtype(kind)
        start, stop = (8 + length + end for end in entry["data_offsets"])
        arrays[name] = np.frombuffer(content[start:stop], dtype).reshape(entry["shape"])
    return _at(arrays, subtree, path)


def _read_torch(path: Path, subtree: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ProbeError(f"{path.name} needs PyTorch: pip install separatrix[torch]") from error
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler has errors of its own
        raise ProbeError(
            f"{path.name} cannot be read without running code in it ({type(error).__name__}): save the state_dict"
        ) from None
    stored = _at(stored, subtree, path)
    for wrapper in () if subtree else _WRAPPERS:
        if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
            stored = stored[wrapper]
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise ProbeError(f"{path.name} holds no tensors by name: {_HINT}")
    return stored


def _read_orbax(path: Path, subtree: str) -> Any:
    try:
        from orbax import checkpoint
    except ImportError as error:
        raise ProbeError(f"{path.name} needs Orbax: pip install separatrix[orbax]") from error
    items: dict[str, Any] = dict(_orbax_items(path.absolute()))  # Orbax reads no others
    first, _, rest = subtree.partition(".")
    if first in items:
        items, subtree = {first: items[first]}, rest
    made = {}
    for name, folder in items.items():
        handler = checkpoint.PyTreeCheckpointHandler()
        structure = handler.metadata(folder).tree
        # as NumPy arrays whatever devices they were saved from
        how = jax.tree.map(lambda _: checkpoint.RestoreArgs(restore_type=np.ndarray), structure)
        made[name] = handler.restore(folder, args=checkpoint.args.PyTreeRestore(restore_args=how))
    alone = len(made) == 1 and next(iter(made)) in ("", _ORBAX_ONLY_ITEM, first)
    return _at(next(iter(made.values())) if alone else made, subtree, path)


_READERS = {"NumPy": _read_npz, "safetensors": _read_safetensors, "PyTorch": _read_torch, "Orbax": _read_orbax}
