"""The ``separatrix`` command. Each verb calls one function of the lab; libraries are loaded when a verb needs them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from separatrix import __version__
from separatrix.lab import options
from separatrix.lab.errors import StoreError, UsageError
from separatrix.lab.settings import setting, specs

_MAIN_HELP = """\
separatrix: a laboratory for the dynamics of learning; theory predicts, simulation answers, every claim is a command.

usage:
  separatrix list [--json]                      studies that can be run
  separatrix run STUDY [settings] [options]     run a study and judge its claims
  separatrix sweep STUDY --over NAME=VALUES ... run a study over a grid of settings
  separatrix sweep show SWEEP [options]         what a sweep found; plots, NetCDF, CSV
  separatrix show RUN [--json] [--out DIR]      verdicts of a finished run
  separatrix report RUN [--out DIR]             judge, draw and report again from the data of a run
  separatrix gallery [DIR] [--serve]            a web site of all runs in a folder
  separatrix probe --checkpoints DIR ...        what a model of your own is doing along its checkpoints
  separatrix --version
  separatrix VERB --help, separatrix run STUDY --help

RUN is the folder of a run, or the beginning of its hash.
VALUES are A,B,C or FIRST:LAST:COUNT or FIRST:LAST:COUNT:log.
A run or sweep that was interrupted goes on where it stopped when its command is given again."""


@dataclass(frozen=True)
class RunOptions:
    """Options of ``run`` beside the settings of the study."""

    preset: str = setting("default", "named set of values to start from, overridden by settings given explicitly")
    controls: bool = setting(True, "also run the control of each claim, in which it must fail")
    only: tuple[str, ...] = setting(("all",), "claims and quantities to measure, with what they need")
    out: str = setting("runs", "folder of all runs")
    fresh: bool = setting(False, "compute again even if the same run is finished already")
    json: bool = setting(False, "print the outcome as one JSON document")


@dataclass(frozen=True)
class SweepOptions:
    """Options of ``sweep`` beside the axes and the settings of the study."""

    preset: str = setting("default", "named set of values to start from, overridden by settings given explicitly")
    controls: bool = setting(True, "also run the control of each claim, in which it must fail")
    only: tuple[str, ...] = setting(("all",), "claims and quantities to measure, with what they need")
    seeds: int = setting(1, "number of seeds of each cell, from the setting seed on", low=1, high=100_000)
    on: Literal["inline", "processes", "ray"] = setting("processes", "where the cells are computed")
    workers: int | None = setting(None, "processes or Ray tasks at a time; one for each core if none", low=1, high=4096)
    address: str = setting("", "address of a Ray cluster, or auto; a cluster of this machine if empty")
    retry_failed: bool = setting(False, "compute cells again that failed before")
    out: str = setting("runs", "folder of all runs")
    json: bool = setting(False, "print the outcome as one JSON document")


@dataclass(frozen=True)
class SweepShowOptions:
    """Options of ``sweep show``."""

    out: str = setting("runs", "folder of all runs, where a hash is looked up")
    json: bool = setting(False, "print the manifest as one JSON document")
    to_netcdf: str = setting("", "write the dataset to this NetCDF file")
    to_csv: str = setting("", "write one line for each cell to this CSV file")
    plot: str = setting("", "draw to this PNG, PDF or SVG file: a phase diagram over x and y, curves over x, or dots")
    quantity: str = setting("", "what to draw or to locate: a quantity, or verdict:C2, control_verdict:C2, estimate:C2")
    x: str = setting("", "dimension along the horizontal axis, or another quantity: one dot for each cell")
    y: str = setting("", "dimension along the vertical axis of a phase diagram")
    by: str = setting("", "dimension that tells curves apart")
    select: tuple[str, ...] = setting(("none",), "values of other dimensions, as NAME=VALUE")
    contour: tuple[str, ...] = setting(("none",), "quantities drawn as lines on a phase diagram, as NAME=LEVEL")
    crossing: float | None = setting(None, "level: print where the quantity crosses it along x")


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
class ProbeOptions:
    """Options of ``probe`` beside what to measure."""

    out: str = setting("runs", "folder of all runs")
    fresh: bool = setting(False, "measure again even if the same run is finished already")
    json: bool = setting(False, "print what was measured as one JSON document")


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
        "sweep": _sweep,
        "show": _show,
        "report": _report,
        "gallery": _gallery,
        "probe": _probe,
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


def _study_request(
    tokens: list[str], usage: str, options_class: type, more: Sequence[str] = ()
) -> tuple[Any, Any, Any] | None:
    """Study, its settings and the options that the tokens ask for; None if they ask for help, which is then printed."""
    if help_wanted := _wants_help(tokens):
        tokens = [token for token in tokens if token not in _HELP]
        if not tokens:
            _say_usage(usage.format("STUDY"), options_class)
            return None
    given, rest = options.parse(tokens, options_class)
    if not rest or rest[0].startswith("-"):
        raise UsageError(f"Name the study first: separatrix {usage.format('STUDY')} [options].")

    from separatrix.lab import discovery, runtime

    found = discovery.locate(rest[0])
    runtime.configure()
    study = discovery.import_study(found)
    if help_wanted:
        _say(_study_help(study, usage, options_class))
        return None
    overrides, rest = options.parse(rest[1:], study.settings)
    options.reject_rest(rest, [*specs(study.settings), *more, *specs(options_class)])
    chosen = options_class(**given)
    return study, study.resolve(chosen.preset, overrides), chosen


def _run(tokens: list[str]) -> int:
    request = _study_request(tokens, "run {} [settings]", RunOptions)
    if request is None:
        return 0
    study, settings, chosen = request

    from separatrix.lab import interrupts, run
    from separatrix.lab.progress import notice

    with interrupts.remembered():
        finished = run.run(
            study,
            settings,
            out=Path(chosen.out),
            controls=chosen.controls,
            only=_chosen(chosen.only),
            fresh=chosen.fresh,
            notify=notice,
        )
    if finished.reused:
        notice(
            f"This run was finished before ({finished.manifest['created']}) and is reused; --fresh computes it again."
        )
    return _print_run(finished.document, chosen.json)


def _chosen(only: tuple[str, ...]) -> tuple[str, ...]:
    return () if only == ("all",) else only


def _study_help(study: Any, usage: str, options_class: type) -> str:
    presets = "\n".join(
        f"  {name}: " + (", ".join(f"{key} = {value}" for key, value in preset.items()) or "the defaults")
        for name, preset in {"default": {}, **study.presets}.items()
    )
    return (
        f"usage: separatrix {usage.format(study.slug)} [options]\n\n{study.title}\n{study.reference}\n\n"
        f"settings\n{options.describe(study.settings, width=_width())}\n\n"
        f"options\n{options.describe(options_class, width=_width())}\n\npresets\n{presets}"
    )


def _sweep(tokens: list[str]) -> int:
    if tokens and tokens[0] == "show":
        return _sweep_show(tokens[1:])
    over, tokens = options.collect(tokens, "over")
    request = _study_request(tokens, "sweep {} --over NAME=VALUES ... [settings]", SweepOptions, ("over",))
    if request is None:
        return 0
    study, settings, chosen = request

    from separatrix.lab import interrupts, sweep
    from separatrix.lab.progress import notice
    from separatrix.lab.sweep import axes

    grid = sweep.Grid(
        study,
        settings,
        (*(axes.parse(study.settings, text) for text in over), *sweep.seed_axis(study, settings, chosen.seeds)),
        Path(chosen.out),
        chosen.controls,
        tuple(sorted(set(_chosen(chosen.only)))),
    )
    # Ray prints what it has to say; standard output is kept for the result.
    with interrupts.remembered(), contextlib.redirect_stdout(sys.stderr):
        finished = sweep.sweep(
            grid,
            on=chosen.on,
            workers=chosen.workers,
            address=chosen.address,
            retry_failed=chosen.retry_failed,
            notify=notice,
        )
    if finished.reused:
        notice(f"This sweep was finished before ({finished.manifest['created']}) and is reused.")
    return _print_sweep(finished, chosen.json)


def _print_sweep(finished: Any, as_json: bool) -> int:
    if as_json:
        from separatrix.lab.store import json_text

        return _say(json_text({**finished.manifest, "sweep": str(finished.folder)}).rstrip())
    from separatrix.lab.sweep.show import print_sweep

    print_sweep(finished, sys.stdout)
    return _say(f"\n{finished.folder}")


def _sweep_show(tokens: list[str]) -> int:
    if _wants_help(tokens):
        return _say_usage("sweep show SWEEP", SweepShowOptions)
    given, name = _parse_run_argument(tokens, SweepShowOptions, "sweep show")

    from separatrix.lab.sweep import locate_sweep, maps, open_sweep, show

    chosen = SweepShowOptions(**given)
    found = open_sweep(locate_sweep(name, Path(chosen.out)))
    select = options.pairs("select", chosen.select)
    if chosen.crossing is not None:
        _need(chosen, "crossing", "quantity", "x")
        others = [d for d in maps.dimensions(found, chosen.quantity) if d != chosen.x and d not in select]
        picked = maps.pick(found, chosen.quantity, select, (*others, chosen.x))
        what = f"{chosen.quantity} = {chosen.crossing:g}"
        show.print_crossings(maps.crossings(picked, chosen.x, chosen.crossing), what, chosen.x, sys.stdout)
    if chosen.plot:
        _need(chosen, "plot", "quantity", "x")
        _draw_sweep(found, chosen, select)
    if chosen.to_netcdf:
        show.write_netcdf(found, Path(chosen.to_netcdf))
    if chosen.to_csv:
        show.write_csv(found, Path(chosen.to_csv))
    if chosen.json or not (chosen.plot or chosen.to_netcdf or chosen.to_csv or chosen.crossing is not None):
        return _print_sweep(found, chosen.json)
    return 0


def _need(chosen: SweepShowOptions, option: str, *others: str) -> None:
    for other in others:
        if not getattr(chosen, other):
            raise UsageError(f"{option} needs --{other}: say what and along which dimension.")


def _draw_sweep(found: Any, chosen: SweepShowOptions, select: dict[str, str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from separatrix.lab import store
    from separatrix.lab.sweep import figures, maps

    if Path(chosen.plot).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UsageError(f"plot = {chosen.plot!r} is not allowed: it must end in .png, .pdf or .svg.")
    contours = [
        (name, options.level("contour", text)) for name, text in options.pairs("contour", chosen.contour).items()
    ]
    if chosen.y:
        drawn = figures.phase_diagram(found, chosen.quantity, chosen.x, chosen.y, select=select, contours=contours)
    elif chosen.x in maps.names(found):
        drawn = figures.scatter(found, chosen.quantity, chosen.x, by=chosen.by, select=select)
    else:
        drawn = figures.curves(found, chosen.quantity, chosen.x, by=chosen.by, select=select)
    with store.writing(Path(chosen.plot)):
        drawn.savefig(chosen.plot, dpi=160, facecolor="white")


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


def _probe(tokens: list[str]) -> int:
    from separatrix.lab import interrupts, runtime
    from separatrix.lab.progress import notice

    runtime.configure()
    from separatrix.lab.probe import study, table
    from separatrix.lab.probe.settings import ProbeSettings

    if _wants_help(tokens):
        return _say(
            "usage: separatrix probe --checkpoints DIR --model MODULE:FUNCTION --data FILE.npz [options]\n\n"
            f"settings\n{options.describe(ProbeSettings, width=_width())}\n\n"
            f"options\n{options.describe(ProbeOptions, width=_width())}"
        )
    given, rest = options.parse(tokens, ProbeOptions)
    overrides, rest = options.parse(rest, ProbeSettings)
    options.reject_rest(rest, [*specs(ProbeSettings), *specs(ProbeOptions)])
    chosen = ProbeOptions(**given)
    with interrupts.remembered():
        settings = study.STUDY.resolve("default", overrides)
        finished = study.probe(settings, out=Path(chosen.out), fresh=chosen.fresh, notify=notice)
    if finished.reused:
        notice("These checkpoints were measured before and the run is reused; --fresh measures again.")
    measured = table.rows(study.measured(finished, settings))
    if chosen.json:
        from separatrix.lab.store import json_text

        return _say(json_text({**finished.document, "checkpoints": measured}).rstrip())
    _say(f"{table.text(measured, study.columns(settings), _width())}\n")
    whole = [quantity for quantity in finished.document["quantities"] if not quantity["dimensions"]]
    return _print_run({**finished.document, "quantities": whole}, as_json=False)
