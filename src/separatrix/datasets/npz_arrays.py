"""Named arrays of real numbers in an ``npz`` file of the user, or one sentence that says what is wrong with it."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float


def read_npz(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Float[np.ndarray, "..."]]:
    """The ``required`` arrays of a file, and those ``optional`` ones that it has, as float64.

    Raises
    ------
    ValueError
        If the file is missing or damaged, lacks a required array, or holds something else than real numbers in one.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        assigned = ", ".join(f"{name}=..." for name in required)
        raise ValueError(f"{path} is not an npz file, write it with numpy.savez(FILE, {assigned})")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in required if name not in archive.files]
            if missing:
                present = " and ".join(archive.files) or "no array at all"
                raise ValueError(f"{path} has no array {' and no array '.join(missing)}, it has {present}")
            wanted = [*required, *(name for name in optional if name in archive.files)]
            return {name: _real_array(name, _stored_array(archive, name)) for name in wanted}
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as an npz file ({error})") from None


def refuse_unfinite(name: str, values: Float[np.ndarray, "..."]) -> None:
    """Raise `ValueError` with the number of values that are not finite, if there are any."""
    count = int(np.sum(~np.isfinite(values)))
    if count:
        raise ValueError(f"{name} has {count} value{'s that are' if count > 1 else ' that is'} not finite")


def _stored_array(archive: "np.lib.npyio.NpzFile", name: str) -> np.ndarray:
    try:
        values = archive[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):  # NumPy's own advice is to unpickle, which runs code from the file
            raise ValueError(f"{name} holds Python objects, but it must hold real numbers") from None
        raise ValueError(f"{name} is damaged and cannot be read ({error})") from None
    if not isinstance(values, np.ndarray):  # a member of the archive that was not written by NumPy comes as bytes
        raise ValueError(f"{name} is not a NumPy array")
    return values


def _real_array(name: str, values: np.ndarray) -> Float[np.ndarray, "..."]:
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, got {values.dtype}")
    with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes infinite, and is refused as such
        return np.asarray(values, np.float64)
