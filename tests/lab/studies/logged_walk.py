"""A random walk whose parts are logged: the smallest study that can be interrupted."""

import os
import signal
import time
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from separatrix.lab import Claim, Experiment, Figure, Measurement, SettingError, Study, setting

STEPS = 20


@dataclass(frozen=True)
class Settings:
    members: int = setting(8, "independent walks", low=1, high=1000)
    bias: float = setting(0.0, "mean of a step", unit="m", low=-1, high=1)
    parts: int = setting(2, "parts of each experiment", low=1)
    figures: bool = setting(False, "draw the paths")
    diverging: int = setting(0, "members that diverge", low=0)
    bytes_per_member: int = setting(0, "memory declared for a member", unit="B", low=0)
    pause: float = setting(0.0, "time that a part takes at least", unit="s", low=0)
    fatal_seed: int = setting(-1, "seed with which a simulation kills its process")
    seed: int = setting(0, "seed of all random numbers", low=0)


def simulate(settings, name, bias):
    def members(start, stop):
        walks = np.stack(
            [np.random.default_rng([settings.seed, m]).normal(bias, 1, STEPS).cumsum() for m in range(start, stop)]
        )
        time.sleep(settings.pause)
        if settings.seed == settings.fatal_seed:
            os.kill(os.getpid(), signal.SIGKILL)
        step = [3 if m < settings.diverging else -1 for m in range(start, stop)]
        if "WALK_LOG" in os.environ:
            cell = f" {settings.bias} {settings.seed}" if settings.pause else ""
            descriptor = os.open(os.environ["WALK_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, f"{name} {start}-{stop}{cell}\n".encode())
            os.close(descriptor)
        return xr.Dataset(
            {
                "position": (("member", "time"), walks, {"units": "m"}),
                "diverged_at_step": ("member", step),
            },
            coords={
                "member": np.arange(start, stop),
                "time": ("time", np.arange(STEPS), {"units": "seconds"}),
            },
        )

    return members


def experiments(settings):
    common = {
        "members": settings.members,
        "seconds": 30.0 * settings.parts,
        "bytes_per_member": settings.bytes_per_member,
    }
    return [
        Experiment("walk", simulate(settings, "walk", settings.bias), **common),
        Experiment("pushed", simulate(settings, "pushed", 2.0), control=True, **common),
        Experiment("exact", lambda start, stop: xr.Dataset({"variance": ("time", np.arange(3) / 3)})),
    ]


def mean_position(name):
    def measure(settings, results):
        last = results[name]["position"].isel(time=-1).values
        half = 5 * np.sqrt(STEPS / len(last))
        excluded = float((results[name]["diverged_at_step"] >= 0).mean())
        return [
            Measurement("last", last.mean(), (last.mean() - half, last.mean() + half), (-18, 18), excluded=excluded)
        ]

    return measure


def draw(settings, results):
    figure, axes = plt.subplots(figsize=(3, 2))
    axes.plot(results["walk"]["position"].T)
    return figure


def check(settings):
    if settings.diverging > settings.members:
        raise SettingError(f"diverging = {settings.diverging} is not allowed: it must be at most members.")
    return ["One walk is not much."] if settings.members == 1 else []


STUDY = Study(
    slug="logged-walk",
    title="A walk that keeps a log",
    reference="A test. https://example.org/walk",
    question="Does the walk stay <near> zero?",
    topics=("walks",),
    settings=Settings,
    presets={"smoke": {"members": 4}},
    experiments=experiments,
    claims=lambda settings: [
        Claim(
            "C1", "The walk stays near zero.", "made up", mean_position("walk"), mean_position("pushed"), "biased steps"
        )
    ],
    figures=lambda settings: [Figure("paths", "All paths", "Each line is a walk.", draw)] if settings.figures else [],
    check=check,
)
