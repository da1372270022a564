"""Run folders and sweeps made up for tests: as small as can be, in the format of the real ones."""

import itertools
import math

import numpy as np
import xarray as xr

from separatrix.lab import store

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> & \"quotes\" {{ 7 * 7 }}"
TITLE = "A made-up study"

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def claim(name, verdict="holds", control="fails", estimate=1.0, statement="It is so."):
    return {
        "id": name,
        "statement": statement,
        "source": "made up",
        "estimate": estimate,
        "interval": [estimate - 0.1, estimate + 0.1],
        "threshold": [0.5, None],
        "unit": "",
        "condition": "always",
        "members_needed": None,
        "verdict": verdict,
        "control_verdict": control,
        "control_statement": "it is not so",
        "measurements": [],
        "control_measurements": [],
    }


def run(
    folder,
    *,
    claims=(),
    title=TITLE,
    created="2030-01-01T00:00:00+00:00",
    report=None,
    data=None,
    **settings,
):
    """A finished run; with the text of a report, and with a figure beside it, if ``report`` is given."""
    folder.mkdir(parents=True)
    study, name = folder.parent.name, folder.name
    content = {
        "schema": 1,
        "study": study,
        "title": title,
        "settings": settings,
        "claims": list(claims) or [claim("C1")],
        "hash": name,
        "versions": {"separatrix": "0"},
    }
    manifest = {
        "schema": 1,
        "study": study,
        "hash": name,
        "created": created,
        "command": f"separatrix run {study}",
        "controls": True,
        "seconds": 1.0,
        "device": "an abacus",
        "versions": {"separatrix": "0"},
        "warnings": [],
        "figures": [],
        "experiments": [{"name": one, "control": False, "members": 4, "diverged": 0} for one in data or {}],
    }
    for one, dataset in (data or {}).items():
        (folder / "data").mkdir(exist_ok=True)
        store.write_dataset(folder / "data" / f"{one}.zarr", dataset)
    if report is not None:
        (folder / "report.html").write_text(report, "utf-8")
        (folder / "figures").mkdir()
        (folder / "figures" / "first.png").write_bytes(PIXEL)
        manifest["figures"] = [{"name": "first", "title": "A picture", "caption": "", "file": "figures/first.png"}]
    store.write_json(folder / "claims.json", content)
    store.write_json(folder / "manifest.json", manifest)
    return folder


RATES = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
DEPTHS = [2, 3, 4]


def sweep(
    folder, *, rates=RATES, depths=DEPTHS, title=TITLE, cells=True, log=True, reason="It was too large.", more=None
):
    """A sweep over learning rate and depth: the last cell has failed, the one before is left, the others are done.

    ``cells`` also makes their run folders, without reports; along the axes in ``more`` nothing changes.
    """
    shape = (len(rates), len(depths))
    names = ["learning_rate", "depth"]
    product = np.outer(rates, depths)
    status = np.ones(shape, np.int8)
    status[-1, -1], status[-2, -1] = 2, 0
    done = status == 1
    rate, depth = np.meshgrid(rates, depths, indexing="ij")
    first = np.where(product < 0.05, 1, np.where(product < 0.3, 0, -1)).astype(np.int8)
    verdicts = np.stack([first, np.where(depth > 3, -1, 1).astype(np.int8)])
    verdicts[:, ~done] = -2
    estimate = np.where(done, np.stack([product, 1 / depth]), np.nan)
    loss = np.where(done[..., None], product[..., None] * np.array([1.0, 2.0, 3.0]), np.nan)
    runs = np.array([f"{'c':0<10}{number:06x}" for number in range(rate.size)]).reshape(shape)
    runs[status == 0] = ""
    reasons = np.full(shape, "", object)
    reasons[status == 2] = reason
    dims = ("claim", *names)
    dataset = xr.Dataset(
        {
            "estimate": (dims, estimate),
            "low": (dims, estimate * 0.9),
            "high": (dims, estimate * 1.1),
            "verdict": (dims, verdicts),
            "control_verdict": (dims, np.where(verdicts == -2, -2, -1).astype(np.int8)),
            "status": (names, status),
            "run": (names, runs),
            "reason": (names, reasons.astype(str)),
            "loss": ((*names, "mode"), loss),
            "loss_low": ((*names, "mode"), loss * 0.8),
            "loss_high": ((*names, "mode"), loss * 1.2),
        },
        {"claim": ["C1", "C2"], "learning_rate": rates, "depth": depths},
    )
    more = more or {}
    for name, values in reversed(more.items()):
        dataset = dataset.map(lambda array, name=name, values=values: array.expand_dims({name: values}))
    folder.mkdir(parents=True)
    store.write_dataset(folder / "results.zarr", dataset)
    study = folder.parent.name
    counts = {"done": int(done.sum()), "failed": 1, "left": 1, "total": rate.size}
    head = {
        "schema": 1,
        "study": study,
        "title": title,
        "hash": folder.name.removeprefix("sweep-"),
        "created": "2030-02-01T00:00:00+00:00",
        "command": f"separatrix sweep {study} --learning-rate {' '.join(map(str, rates))}",
        "settings": {"learning_rate": rates[0], "depth": depths[0], "width": 10},
        "axes": [
            {"name": "learning_rate", "values": rates, "unit": "1/step", "help": "step size", "log": log},
            {"name": "depth", "values": depths, "unit": "", "help": "number of layers", "log": False},
            *({"name": name, "values": values, "unit": "", "help": "", "log": False} for name, values in more.items()),
        ],
        "claims": [
            {"id": "C1", "statement": "The rate is small enough."},
            {"id": "C2", "statement": "Depth does not matter."},
        ],
        "quantities": [{"name": "loss", "label": "Final loss", "unit": "nats"}],
        "counts": counts,
        "versions": {"separatrix": "0"},
        "device": "an abacus",
        "seconds": 12.0,
    }
    store.write_json(folder / "sweep.json", head)
    for column, row in itertools.product(range(shape[0]), range(shape[1])) if cells else ():
        if done[column, row]:
            words = {1: "holds", 0: "undecided", -1: "fails"}
            judged = [
                claim(name, words[int(verdicts[number, column, row])], estimate=float(estimate[number, column, row]))
                for number, name in enumerate(("C1", "C2"))
            ]
            settings = {"learning_rate": rates[column], "depth": depths[row], "width": 10}
            run(folder.parent / str(runs[column, row]), claims=judged, title=title, **settings)
    return folder


def walks(bias, members=4, points=300):
    """A dataset with curves: a walk and two modes of it, with one member that has diverged."""
    time = np.arange(points)
    walk = bias * time + np.arange(members)[:, None]
    diverged = walk.copy()
    diverged[0, points // 2 :] = math.nan
    return xr.Dataset(
        {
            "loss": (("member", "time"), walk + 1.0),
            "strength": (("member", "time", "mode"), np.stack([diverged, 2 * diverged], axis=-1)),
            "steps": (("member", "time"), walk.astype(int)),
        },
        {"member": np.arange(members), "time": ("time", time * 0.5, {"units": "steps"})},
    )
