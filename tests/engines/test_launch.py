"""Ensembles that share a launch get the bits that they get alone."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from test_ensemble import Map, observe

from separatrix.engines.launch import Launch


def finish(records, diverged, start):
    return xr.Dataset(
        {"x": (("time", "row", "member"), records["x"]), "diverged_at_step": ("member", diverged)},
        {"member": np.arange(start, start + diverged.size)},
    )


def state(start, stop):
    return {"x": 0.3 * np.sin(np.arange(start, stop))[None].repeat(2, 0), "name": np.arange(start, stop)}


def launch(rate=0.1, label="one", grid=(0, 9, 20), drive=(1.0, -1.0, 0.5), ill=10**6):
    arguments = {"rate": np.float64(rate), "ill": np.uint32(ill), "drive": np.asarray(drive)}
    return Launch(Map(), observe, state, 5, label, lambda: arguments, np.asarray(grid), finish)


def test_together_they_get_the_bits_they_get_alone():
    requests = [(launch(), 0, 6), (launch(0.2, "two"), 3, 40), (launch(0.05, ill=6), 1, 4)]
    assert len({one.group for one, _, _ in requests}) == 1
    for (one, start, stop), joint in zip(requests, Launch.together(requests), strict=True):
        alone = one(start, stop)
        xr.testing.assert_identical(joint, alone)
        assert joint.x.values.tobytes() == alone.x.values.tobytes()
    # member 2 of the third, and nobody else, becomes infinite
    assert [int((data.diverged_at_step >= 0).sum()) for data in Launch.together(requests)] == [0, 0, 1]


@pytest.mark.parametrize(
    "other",
    [
        launch(grid=(0, 9, 21)),
        launch(drive=(1.0, -1.0, 0.6)),
        replace(launch(), step=Map(block=8)),
        replace(launch(), observe=lambda state, arguments: state),
        replace(launch(), state=lambda a, b: {"x": np.zeros((3, b - a)), "name": np.arange(a, b)}),
        replace(launch(), arguments=lambda: {**launch().arguments(), "rate": np.float32(0.1)}),
    ],
)
def test_what_needs_another_program_or_other_data_is_of_another_group(other):
    assert other.group != launch().group == launch(rate=0.3, label="two").group
