"""Parameters of a model from files on disk, as arrays by name: NumPy, safetensors and PyTorch files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from separatrix.probes.operators import ProbeError

#: Endings of the files that hold checkpoints.
SUFFIXES = (".npz", ".safetensors", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def checkpoint_files(folder: Path) -> list[Path]:
    """Checkpoints in a folder, in the order of the numbers in their names.

    Raises
    ------
    ProbeError
        If there is no such folder or no checkpoint in it.
    """
    found = [path for path in folder.iterdir() if path.suffix in SUFFIXES] if folder.is_dir() else []
    if not found:
        raise ProbeError(f"the folder {str(folder)!r} holds no checkpoint ({', '.join(SUFFIXES)})")
    number = lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]  # noqa: E731
    return sorted(found, key=number)


def step_of(path: Path, otherwise: int) -> int:
    """The last number in the name of a checkpoint: ``step-0200.npz`` is 200."""
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else otherwise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Arrays by name: NumPy arrays, or the tensors of a PyTorch file (read without running any code in it).

    Raises
    ------
    ProbeError
        If the file cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        if path.suffix == ".safetensors":
            return _read_safetensors(path.read_bytes())
        return _read_torch(path)
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        if isinstance(error, ProbeError):
            raise
        raise ProbeError(f"{path.name} cannot be read as a checkpoint ({type(error).__name__})") from None


def _read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    import ml_dtypes  # comes with JAX

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
    return arrays


def _read_torch(path: Path) -> dict[str, Any]:
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
    for wrapper in _WRAPPERS:
        if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
            stored = stored[wrapper]
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise ProbeError(f"{path.name} holds no tensors by name: save the state_dict of the module")
    return stored
