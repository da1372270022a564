"""Kills a run with SIGKILL at every step it takes on disk and lets it resume; prints what happened as JSON lines.

Usage: python kill_harness.py FOLDER. The process stays single-threaded and forks a child for each run, so that
a killed child costs a fraction of a second instead of a start of the interpreter.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot  # noqa: F401
import xarray as xr
import zarr  # noqa: F401

from separatrix.lab import discovery, figures, report, store  # noqa: F401
from separatrix.lab import run as lab_run

STUDY = discovery.import_study(discovery.locate("logged-walk"))
SETTINGS = replace(STUDY.settings(), members=4)


def in_child(out, kill_at):
    """Run in a forked child that dies just before its ``kill_at``-th step; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        count = 0

        def scripted(step):
            def wrapper(*arguments, **options):
                nonlocal count
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*arguments, **options)

            return wrapper

        # what moves a run from one state on disk to the next; between two of these calls nothing visible happens
        store.os = SimpleNamespace(**vars(os))
        store.shutil = SimpleNamespace(**vars(shutil))
        lab_run.shutil = store.shutil
        for module, name in ((store.os, "rename"), (store.os, "replace"), (store.shutil, "rmtree")):
            setattr(module, name, scripted(getattr(module, name)))
        try:
            lab_run.run(STUDY, SETTINGS, out=out, controls=False)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit("the child failed instead of being killed")
    return os.WIFSIGNALED(status)


def finished_parts(out):
    """Parts that are whole on disk, whether still single or joined."""
    single = {f"{path.parent.name} {path.stem}" for path in out.glob("*/*.partial/parts/*/*.zarr")}
    joined = {path.stem for path in out.glob("*/*/data/*.zarr")}
    return single | {f"{name} {bounds}" for name in joined for bounds in ("0-2", "2-4")}


def main(folder):
    log = folder / "log"
    os.environ["WALK_LOG"] = str(log)
    xr.backends.list_engines()  # what can be loaded once need not be loaded by every child
    report._template()
    kill_at, killed = 0, True
    while killed:
        kill_at += 1
        out = folder / "runs"
        killed = in_child(out, kill_at)
        before = finished_parts(out)
        log.write_text("")
        in_child(out, 0)
        recomputed = before & set(log.read_text().splitlines())
        left = sorted(path.name for path in (out / "logged-walk").iterdir())
        print(json.dumps({"kill_at": kill_at, "killed": killed, "recomputed": sorted(recomputed), "left": left}))
        (folder / "results").mkdir(exist_ok=True)
        shutil.move(next(out.glob("*/*/data")), folder / "results" / str(kill_at))
        shutil.rmtree(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
