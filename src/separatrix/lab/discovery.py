"""Finding studies: a study is a module that defines ``STUDY`` at top level; nothing needs to be registered."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import separatrix
from separatrix.lab.errors import UsageError
from separatrix.lab.study import Study

#: Environment variable with folders of one's own study modules, separated as in PATH.
PATH_VARIABLE = "SEPARATRIX_PATH"

_ROOMS = ("systems", "evals")
#: Modules that declare a study with a verb of its own: not listed, but found by name, so that its runs can be shown.
_OWN_VERB = {"probe": "separatrix.lab.probe.study"}
_DECLARATION = re.compile(r"^STUDY\b\s*[:=]", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """A study module on disk, not imported yet."""

    slug: str
    path: Path
    module: str
    own: bool  # from SEPARATRIX_PATH


def find() -> list[Found]:
    """All study modules of the package and of the folders in ``SEPARATRIX_PATH``, by slug, without importing any.

    Raises
    ------
    UsageError
        If ``SEPARATRIX_PATH`` names something that is not a folder.
    """
    return sorted([*_find_packaged(), *_find_own()], key=lambda found: (found.slug, found.path))


def _find_packaged() -> Iterator[Found]:
    package = Path(separatrix.__file__).parent
    for room in _ROOMS:
        for path in (package / room).rglob("*.py"):
            if _declares_study(path):
                module = ".".join(("separatrix", *path.relative_to(package).with_suffix("").parts))
                yield Found(path.stem.replace("_", "-"), path, module, own=False)


def _find_own() -> Iterator[Found]:
    for folder in filter(None, os.environ.get(PATH_VARIABLE, "").split(os.pathsep)):
        if not Path(folder).is_dir():
            raise UsageError(f"{PATH_VARIABLE} names {folder!r}, which is not a folder.")
        for path in Path(folder).glob("*.py"):
            if _declares_study(path):
                yield Found(path.stem.replace("_", "-"), path.resolve(), f"separatrix_studies_{path.stem}", own=True)


def _declares_study(path: Path) -> bool:
    try:
        return _DECLARATION.search(path.read_text("utf-8", errors="replace")) is not None
    except OSError:
        return False


def locate(slug: str) -> Found:
    """Find the one module that declares the study with this slug; nothing is imported.

    Raises
    ------
    UsageError
        If there is no such study (with the nearest names), or if two modules claim the slug.
    """
    if slug in _OWN_VERB:
        module = _OWN_VERB[slug]
        path = Path(separatrix.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
        return Found(slug, path, module, own=False)
    everything = find()
    matches = [found for found in everything if found.slug == slug.replace("_", "-")]
    if not matches:
        names = [found.slug for found in everything]
        near = difflib.get_close_matches(slug, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "`separatrix list` shows all."
        raise UsageError(f"There is no study {slug!r}: {hint}")
    if len(matches) > 1:
        raise UsageError(f"Two modules declare the study {slug}: {matches[0].path} and {matches[1].path}.")
    return matches[0]


def import_study(found: Found) -> Study:
    """Import a study module that was found; what goes wrong in it is reported in one sentence."""
    try:
        module = _import_own(found) if found.own else importlib.import_module(found.module)
    except Exception as error:
        line = _line_in(found.path, error)
        reason = " ".join(str(error).split())
        raise UsageError(
            f"The study {found.slug} cannot be imported ({found.path}{line}): {type(error).__name__}: {reason}."
        ) from error
    study = module.STUDY
    if not isinstance(study, Study):
        raise UsageError(f"{found.path} defines STUDY as a {type(study).__name__}, not as a Study.")
    if study.slug != found.slug:
        raise UsageError(
            f"{found.path} declares the study {study.slug!r}: its file must be named {study.slug.replace('-', '_')}.py."
        )
    return study


def _import_own(found: Found):
    loaded = sys.modules.get(found.module)
    if loaded is not None and loaded.__file__ == str(found.path):
        return loaded
    folder = str(found.path.parent)
    if folder not in sys.path:
        sys.path.append(folder)  # a study may be split over modules that lie beside it
    spec = importlib.util.spec_from_file_location(found.module, found.path)
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[found.module] = module  # dataclasses look their module up while it is being executed
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[found.module]
        raise
    return module


def _line_in(path: Path, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    frame, line = error.__traceback__, ""
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == str(path):
            line = f", line {frame.tb_lineno}"
        frame = frame.tb_next
    return line
