"""The ``separatrix`` command. Each verb calls one function of the lab; libraries are loaded when a verb needs them."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separatrix import __version__
from separatrix.lab import options
from separatrix.lab.errors import StoreError, UsageError
from separatrix.lab.settings import setting, specs

_MAIN_HELP = """\
separatrix: a laboratory for the dynamics of learning; theory predicts, simulation answers, every claim is a command.

usage:
  separatrix list [--json]                      studies that can be run
  separatrix run STUDY [settings] [options]     run a study and judge its claims
  separatrix show RUN [--json] [--out DIR]      verdicts of a finished run
  separatrix report RUN [--out DIR]             judge, draw and report again from the data of a run
  separatrix gallery [DIR] [--serve]            a web site of all runs in a folder
  separatrix --version
  separatrix VERB --help, separatrix run STUDY --help

RUN is the folder of a run, or the beginning of its hash.
A run that was interrupted goes on where it stopped when its command is given again."""


@dataclass(frozen=True)
class RunOptions:
    """Options of ``run`` beside the settings of the study."""

    preset: str = setting("default", "named set of values to start from, overridden by settings given explicitly")
    controls: bool = setting(True, "also run the control of each claim, in which it must fail")
    out: str = setting("runs", "folder of all runs")
    fresh: bool = setting(False, "compute again even if the same run is finished already")
    json: bool = setting(False, "print the outcome as one JSON document")


@dataclass(frozen=True)
class ListOptions:
    """Options of ``list``."""

    json: bool = setting(False, "print the studies as one JSON document")


@dataclass(frozen=True)
class ShowOptions:
    """Options of ``show``."""

    json: bool = setting(False, "print the outcome as one JSON document")
    out: str = setting("runs", "folder of all runs, where a hash is looked up")


@dataclass(frozen=True)
class ReportOptions:
    """Options of ``report``."""

    out: str = setting("runs", "folder of all runs, where a hash is looked up")


@dataclass(frozen=True)
class GalleryOptions:
    """Options of ``gallery``."""

    out: str = setting("", "folder of the site; if empty, the folder gallery in the folder of the runs")
    serve: bool = setting(False, "serve the site to browsers on this machine, until Ctrl-C")
    port: int = setting(8000, "port of the server; 0 takes any that is free", low=0, high=65535)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 cannot be written, 2 bad request, 130 interrupted."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a symbol is no reason to fail
    try:
        return _dispatch(tokens)
    except UsageError as error:
        return _complain(error, 2)
    except StoreError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("Interrupted: finished parts are kept, and the same command goes on from there.", 130)
    except BrokenPipeError:  # the reader of a pipe has gone, as in `separatrix list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _complain(sentence: object, code: int) -> int:
    print(" ".join(str(sentence).split()), file=sys.stderr)  # noqa: T201
    return code


def _dispatch(tokens: list[str]) -> int:
    verbs: dict[str, Callable[[list[str]], int]] = {
        "list": _list,
        "run": _run,
        "show": _show,
        "report": _report,
        "gallery": _gallery,
    }
    if not tokens or tokens[0] in ("-h", "--help", "help"):
        return _say(_MAIN_HELP)
    if tokens[0] == "--version":
        return _say(f"separatrix {__version__}")
    if tokens[0] not in verbs:
        raise UsageError(f"{tokens[0]!r} is not a command: the commands are {', '.join(verbs)}.")
    return verbs[tokens[0]](tokens[1:])


def _say(text: str) -> int:
    print(text, flush=True)  # noqa: T201
    return 0


def _say_usage(verb: str, options_class: type) -> int:
    return _say(f"usage: separatrix {verb} [options]\n\noptions\n{options.describe(options_class, width=_width())}")


_HELP = ("-h", "--help")


def _wants_help(tokens: Sequence[str]) -> bool:
    return any(token in _HELP for token in tokens)


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 110)


def _list(tokens: list[str]) -> int:
    if _wants_help(tokens):
        return _say_usage("list", ListOptions)
    given, rest = options.parse(tokens, ListOptions)
    options.reject_rest(rest, specs(ListOptions), "option")

    from separatrix.lab import discovery, runtime

    runtime.configure()
    rows = []
    for found in discovery.find():
        row: dict[str, Any] = {"study": found.slug, "path": str(found.path), "error": None}
        try:
            study = discovery.import_study(found)
        except UsageError as error:
            row["error"] = str(error)
        else:
            row |= {
                "title": study.title,
                "reference": study.reference,
                "topics": list(study.topics),
                "presets": ["default", *study.presets],
            }
        rows.append(row)
    if given.get("json"):
        from separatrix.lab.store import json_text

        return _say(json_text({"studies": rows}).rstrip())
    from separatrix.lab.table import print_studies

    print_studies(rows, sys.stdout)
    return 0


def _run(tokens: list[str]) -> int:
    if help_wanted := _wants_help(tokens):
        tokens = [token for token in tokens if token not in _HELP]
        if not tokens:
            return _say_usage("run STUDY [settings]", RunOptions)
    given, rest = options.parse(tokens, RunOptions)
    if not rest or rest[0].startswith("-"):
        raise UsageError("Name the study first: separatrix run STUDY [settings] [options].")
    slug, rest = rest[0], rest[1:]

    from separatrix.lab import discovery, runtime

    found = discovery.locate(slug)
    runtime.configure()
    study = discovery.import_study(found)
    if help_wanted:
        return _say(_study_help(study))
    overrides, rest = options.parse(rest, study.settings)
    options.reject_rest(rest, [*specs(study.settings), *specs(RunOptions)])
    chosen = RunOptions(**given)
    settings = study.resolve(chosen.preset, overrides)

    from separatrix.lab import interrupts, run
    from separatrix.lab.progress import notice

    with interrupts.remembered():
        finished = run.run(
            study, settings, out=Path(chosen.out), controls=chosen.controls, fresh=chosen.fresh, notify=notice
        )
    if finished.reused:
        notice(
            f"This run was finished before ({finished.manifest['created']}) and is reused; --fresh computes it again."
        )
    return _print_run(finished.document, chosen.json)


def _study_help(study: Any) -> str:
    presets = "\n".join(
        f"  {name}: " + (", ".join(f"{key} = {value}" for key, value in preset.items()) or "the defaults")
        for name, preset in {"default": {}, **study.presets}.items()
    )
    return (
        f"usage: separatrix run {study.slug} [settings] [options]\n\n{study.title}\n{study.reference}\n\n"
        f"settings\n{options.describe(study.settings, width=_width())}\n\n"
        f"options\n{options.describe(RunOptions, width=_width())}\n\npresets\n{presets}"
    )


def _show(tokens: list[str]) -> int:
    if _wants_help(tokens):
        return _say_usage("show RUN", ShowOptions)
    given, name = _parse_run_argument(tokens, ShowOptions, "show")

    from separatrix.lab import run

    chosen = ShowOptions(**given)
    finished = run.open_run(run.locate(name, Path(chosen.out)))
    return _print_run(finished.document, chosen.json)


def _report(tokens: list[str]) -> int:
    if _wants_help(tokens):
        return _say_usage("report RUN", ReportOptions)
    given, name = _parse_run_argument(tokens, ReportOptions, "report")

    from separatrix.lab import discovery, run, runtime

    finished = run.open_run(run.locate(name, Path(ReportOptions(**given).out)))
    found = discovery.locate(finished.document["study"])
    runtime.configure()
    study = discovery.import_study(found)
    return _say(run.report_again(finished, study).document["report"])


def _gallery(tokens: list[str]) -> int:
    if _wants_help(tokens):
        return _say_usage("gallery [DIR]", GalleryOptions)
    given, rest = options.parse(tokens, GalleryOptions)
    runs = rest.pop(0) if rest and not rest[0].startswith("-") else RunOptions.out
    options.reject_rest(rest, specs(GalleryOptions), "option")
    chosen = GalleryOptions(**given)
    if "port" in given and not chosen.serve:
        raise UsageError(f"port = {chosen.port} has no meaning without a server: add --serve.")

    from separatrix.lab import runtime
    from separatrix.lab.gallery import serve, site
    from separatrix.lab.progress import notice

    target = site.target_of(Path(runs), Path(chosen.out) if chosen.out else None)
    server = serve.server(target, chosen.port) if chosen.serve else None
    runtime.configure()
    built = site.build(Path(runs), target, notice)
    notice(f"{built.summary}.")
    if server is None:
        return _say(str(built.index))
    _say(serve.address(server))
    notice("Ctrl-C ends it.")
    serve.until_interrupted(server)
    return 0


def _parse_run_argument(tokens: list[str], options_class: type, verb: str) -> tuple[dict[str, Any], str]:
    given, rest = options.parse(tokens, options_class)
    if not rest or rest[0].startswith("--"):
        options.reject_rest(rest, specs(options_class), "option")
        raise UsageError(f"Name the run: separatrix {verb} RUN, its folder or the beginning of its hash.")
    options.reject_rest(rest[1:], specs(options_class), "option")
    return given, rest[0]


def _print_run(document: dict[str, Any], as_json: bool) -> int:
    if as_json:
        from separatrix.lab.store import json_text

        return _say(json_text(document).rstrip())
    from separatrix.lab.table import print_verdicts

    print_verdicts(document, sys.stdout)
    return _say(f"\n{document['report']}")
