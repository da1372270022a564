"""Summary curves are medians and quartiles over members, of bounded number and size."""

import gallery_fakes as fake
import numpy as np
import pytest
import xarray as xr

from separatrix.lab.gallery import curves
from separatrix.lab.gallery.collect import read_run
from separatrix.lab.gallery.curves import summary_curves


def summarise(tmp_path, notices, **data):
    return summary_curves(read_run(fake.run(tmp_path / "walk" / "aa", report="<p>", data=data)), notices.append)


def test_a_curve_is_the_median_with_the_central_half(tmp_path, notices):
    panels = {panel["quantity"]: panel for panel in summarise(tmp_path, notices, walk=fake.walks(1.0, points=300))}
    assert set(panels) == {"loss", "strength"}  # whole numbers are counts, not curves
    loss = panels["loss"]
    assert (loss["experiment"], loss["time_unit"], loss["members"]) == ("walk", "steps", 4)
    time = np.array(loss["time"])
    assert len(time) == curves.POINTS <= 200
    assert (time[0], time[-1]) == (0.0, 149.5)
    (line,) = loss["lines"]  # with four digits
    np.testing.assert_allclose(line["median"], 2 * time + 1.0 + 1.5, rtol=5e-4)
    np.testing.assert_allclose(line["low"], 2 * time + 1.0 + 0.75, rtol=5e-4)
    np.testing.assert_allclose(line["high"], 2 * time + 1.0 + 2.25, rtol=5e-4)


def test_values_that_are_not_finite_are_left_out_of_the_median(tmp_path, notices):
    panels = {panel["quantity"]: panel for panel in summarise(tmp_path, notices, walk=fake.walks(0.0))}
    first, second = panels["strength"]["lines"]
    assert (first["label"], second["label"]) == ("mode 1", "mode 2")
    assert first["median"][0] == 1.5  # of 0, 1, 2, 3
    assert first["median"][-1] == 2.0  # of 1, 2, 3: the first member has diverged


def test_where_every_member_has_diverged_there_is_no_value(tmp_path, notices):
    path = np.full((3, 10), np.inf)
    path[:, :5] = 1.0
    data = xr.Dataset({"x": (("member", "time"), path)}, {"time": np.arange(10.0)})
    (panel,) = summarise(tmp_path, notices, walk=data)
    assert panel["lines"][0]["median"] == [1.0] * 5 + [None] * 5


def test_only_a_few_lines_of_one_more_dimension_are_taken(tmp_path, notices):
    time = np.arange(6.0)
    data = xr.Dataset(
        {
            "many": (("time", "mode"), np.tile(np.arange(9.0), (6, 1))),
            "matrix": (("time", "row", "column"), np.zeros((6, 2, 2))),
            "alone": ("time", time),
            "constant": ((), 3.0),
        },
        {"time": time},
    )
    panels = {panel["quantity"]: panel for panel in summarise(tmp_path, notices, walk=data)}
    assert set(panels) == {"many", "alone"}
    assert [line["median"][0] for line in panels["many"]["lines"]] == [0, 1, 2, 3]
    assert panels["alone"]["lines"][0]["median"] == panels["alone"]["lines"][0]["low"] == time.tolist()


def test_every_experiment_is_represented_when_not_all_fits(tmp_path, notices, monkeypatch):
    monkeypatch.setattr(curves, "PANELS", 3)
    many = {f"walk{number}": fake.walks(0.0, points=20) for number in range(3)}
    assert [panel["experiment"] for panel in summarise(tmp_path, notices, **many)] == ["walk0", "walk1", "walk2"]


def test_the_size_is_bounded(tmp_path, notices, monkeypatch):
    monkeypatch.setattr(curves, "NUMBERS", 500)
    panels = summarise(tmp_path, notices, one=fake.walks(0.0), two=fake.walks(0.0))
    assert [panel["quantity"] for panel in panels] == ["loss"]


@pytest.mark.parametrize("points", [1, 4])
def test_a_few_points_are_no_curve(tmp_path, notices, points):
    assert summarise(tmp_path, notices, walk=fake.walks(0.0, points=points)) == []


def test_missing_data_cost_one_sentence(tmp_path, notices):
    run = fake.run(tmp_path / "walk" / "aa", report="<p>", data={"walk": fake.walks(0.0), "gone": fake.walks(0.0)})
    (run / "data" / "gone.zarr").rename(run / "elsewhere")
    panels = summary_curves(read_run(run), notices.append)
    assert {panel["experiment"] for panel in panels} == {"walk"}
    assert len(notices) == 1
