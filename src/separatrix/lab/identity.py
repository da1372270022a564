"""The identity of a run: a hash of everything that determines its result."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import separatrix
from separatrix.lab.settings import SettingError, to_json
from separatrix.lab.study import Study

#: Rooms of the package that a study computes with; what reports and stores does not change a result.
ROOMS = ("engines", "datasets", "networks", "optimizers", "probes")
_PACKAGE = Path(separatrix.__file__).parent


def run_hash(study: Study, settings: Any, controls: bool, only: Sequence[str] = (), source: str | None = None) -> str:
    """16 hexadecimal digits: study, settings, what is measured, content of its input files, source and version.

    ``source`` is its :func:`source_digest`, for those who have it already.
    """
    content = {
        "study": study.slug,
        "settings": to_json(settings),
        "controls": controls,
        "only": list(only),
        "inputs": inputs_digest(study.inputs(settings)),
        "source": source_digest(study) if source is None else source,
        "version": separatrix.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()[:16]


def inputs_digest(inputs: Iterable[Path | str]) -> str:
    """Digest of the content of the files and of the texts, in order; where the files lie does not matter."""
    digest = hashlib.sha256()
    for path in inputs:
        if isinstance(path, str):
            digest.update(hashlib.sha256(path.encode()).digest())
            continue
        try:
            with open(path, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise SettingError(f"Cannot read the input file {str(path)!r} ({error.strerror}).") from None
    return digest.hexdigest()


def source_digest(study: Study) -> str:
    """Digest of the Python source that determines the result: the computing rooms and the folder of the study."""
    home = study_folder(study)
    sources = {f"{room}/{path.relative_to(_PACKAGE / room)}": path for room in ROOMS for path in _modules(room)}
    # a user's folder may sit above anything, so only the files beside the study count there
    beside = home.rglob("*.py") if _PACKAGE in home.parents else home.glob("*.py")
    sources |= {f"study/{path.relative_to(home)}": path for path in beside}
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(sources[name].read_bytes()).digest())
    return digest.hexdigest()


def _modules(room: str) -> Iterable[Path]:
    return (_PACKAGE / room).rglob("*.py")


def study_folder(study: Study) -> Path:
    """Folder of a study: in the package that of its whole family (``systems/deep_linear``), elsewhere its module's."""
    folder = Path(str(sys.modules[study.settings.__module__].__file__)).resolve().parent
    systems = _PACKAGE / "systems"
    return systems / folder.relative_to(systems).parts[0] if systems in folder.parents else folder
