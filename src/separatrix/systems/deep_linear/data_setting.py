"""The setting `--data` that the studies of this folder share: a data set by name or file, whitened, or one refusal."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from separatrix.lab import SettingError

if TYPE_CHECKING:
    from separatrix.systems.deep_linear.whitened_task import WhitenedTask


@cache
def whitened_data(source: str, components: int, modes: int, synthetic: str) -> "WhitenedTask":
    """The data set that the setting ``data`` names, whitened and in the frame of its own teacher.

    Parameters
    ----------
    source
        ``digits``, ``fashion-mnist`` or a FILE.npz.
    components, modes
        As of :func:`separatrix.systems.deep_linear.whitened_task.whitened_task`.
    synthetic
        What the study offers beside data sets, for the sentence that refuses anything else.

    Raises
    ------
    SettingError
        If the data cannot be read or whitened, or have too few modes: one sentence.
    """
    from separatrix.datasets.regression import NAMES, load_regression
    from separatrix.systems.deep_linear.whitened_task import whitened_task

    if source not in NAMES and not source.endswith(".npz"):
        raise SettingError(
            f"data = {source!r} is not allowed: it must be {synthetic}, {', '.join(NAMES)}, or a FILE.npz with arrays "
            "x and y."
        )
    try:
        data = load_regression(source)
        return whitened_task(data.inputs, data.outputs, components=components, modes=modes)
    except (ValueError, OSError, ImportError) as error:
        raise SettingError(f"data = {source!r} cannot be used: {str(error).rstrip('.')}.") from None


def data_files(source: str) -> list[Path]:
    """Files whose content determines the data set; none for what comes inside a package."""
    from separatrix.datasets.regression import source_files

    return source_files(source)
