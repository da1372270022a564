"""Looking at a sweep: along chosen axes, where it crosses a level, as plots, as files, on the command line."""

import csv
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from separatrix import cli
from separatrix.lab import UsageError, store
from separatrix.lab.sweep import Sweep, figures, maps, show
from separatrix.lab.sweep.results import MANIFEST, RESULTS

NOISE, DEPTH = np.array([0.1, 0.2, 0.4, 0.8]), np.array([2, 3])


@pytest.fixture
def found(tmp_path):
    """A made-up sweep: ``slope = noise - 0.36 / depth`` for mode 1, twice that for mode 2; one cell has failed."""
    slope = (NOISE[None] - 0.36 / DEPTH[:, None])[..., None] * [1.0, 2.0]
    over = ("depth", "noise")
    verdict = np.sign(slope[..., 0]).astype(np.int8)
    verdict[1, 3] = -2
    estimate = np.where(verdict > -2, slope[..., 0], np.nan)
    status = np.where(verdict > -2, 1, 2).astype(np.int8)
    data = {
        "slope": ((*over, "mode"), slope),
        "slope_low": ((*over, "mode"), slope - 0.01),
        "slope_high": ((*over, "mode"), slope + 0.01),
        "critical": (over, NOISE[None] * DEPTH[:, None] / 0.36),
        **{f"critical_{end}": (over, NOISE[None] * DEPTH[:, None] / 0.36) for end in ("low", "high")},
        "estimate": (("claim", *over), estimate[None]),
        "low": (("claim", *over), estimate[None] - 0.02),
        "high": (("claim", *over), estimate[None] + 0.02),
        "verdict": (("claim", *over), verdict[None]),
        "control_verdict": (("claim", *over), -np.ones_like(verdict)[None]),
        "status": (over, status),
        "run": (over, np.array([[f"{d}{k}" for k in range(4)] for d in DEPTH])),
        "reason": (over, np.where(status == 2, "ValueError: too much", "")),
    }
    dataset = xr.Dataset(data, {"depth": DEPTH, "noise": NOISE, "mode": [1, 2], "claim": ["C1"]})
    manifest = {
        "schema": store.SCHEMA,
        "study": "made-up",
        "title": "Made up",
        "hash": "0123456789abcdef",
        "axes": [
            {"name": "depth", "values": DEPTH.tolist(), "unit": "layers", "help": "", "log": False},
            {"name": "noise", "values": NOISE.tolist(), "unit": "", "help": "", "log": True},
        ],
        "claims": [{"id": "C1", "statement": "It rises."}],
        "quantities": [
            {"name": "slope", "label": "slope of it", "unit": "1/s"},
            {"name": "critical", "label": "noise over critical", "unit": ""},
        ],
        "counts": {"done": 7, "failed": 1, "left": 0, "total": 8},
    }
    folder = tmp_path / "runs" / "made-up" / "sweep-0123456789abcdef"
    folder.mkdir(parents=True)
    store.write_json(folder / MANIFEST, manifest)
    store.write_dataset(folder / RESULTS, dataset)
    return Sweep(folder, manifest, dataset)


def test_a_quantity_is_picked_with_its_interval(found):
    picked = maps.pick(found, "slope", {"mode": "2"}, ("noise", "depth"))
    assert picked["estimate"].dims == ("noise", "depth")
    np.testing.assert_allclose(picked["estimate"], 2 * (NOISE[:, None] - 0.36 / DEPTH))
    np.testing.assert_allclose(picked["high"] - picked["low"], 0.02)
    claim = maps.pick(found, "estimate:C1", {"depth": "3"}, ("noise",))
    np.testing.assert_allclose(claim["high"] - claim["estimate"], [0.02, 0.02, 0.02, np.nan])
    assert maps.names(found) == ["slope", "critical", "verdict:C1", "control_verdict:C1", "estimate:C1"]


@pytest.mark.parametrize(
    ("name", "select", "keep", "sentence"),
    [
        ("slop", {}, ("noise",), "'slop' is not in the sweep: it has slope, critical, verdict:C1"),
        ("verdict:C9", {}, ("noise",), "'verdict:C9' is not in the sweep"),
        ("slope", {}, ("noise", "depth"), "slope depends on mode, too: choose one of 1, 2."),
        ("slope", {"mode": "3"}, ("noise", "depth"), "mode = '3' is not in the sweep: it has 1, 2."),
        ("critical", {"mode": "1"}, ("noise",), "critical has no dimension 'mode': it has depth, noise."),
        ("critical", {}, ("width",), "critical has no dimension 'width'"),
    ],
)
def test_what_is_not_there_is_one_sentence(found, name, select, keep, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        maps.pick(found, name, select, keep)


def test_crossings_are_interpolated_with_their_intervals(found):
    picked = maps.pick(found, "slope", {"mode": "1"}, ("depth", "noise"))
    at = maps.crossings(picked, "noise", 0.0)
    np.testing.assert_allclose(at["estimate"], 0.36 / DEPTH, rtol=1e-12)
    np.testing.assert_allclose(at["low"], 0.36 / DEPTH - 0.01, rtol=1e-12)
    np.testing.assert_allclose(at["high"], 0.36 / DEPTH + 0.01, rtol=1e-12)
    assert np.isnan(maps.crossings(picked, "noise", 9.0)["estimate"]).all()
    texts = picked.assign_coords(noise=list("abcd"))
    with pytest.raises(UsageError, match="its values are no numbers"):
        maps.crossings(texts, "noise", 0.0)


class TestPlots:
    def test_a_phase_diagram_has_cells_scales_and_contours(self, found):
        drawn = figures.phase_diagram(
            found, "slope", "noise", "depth", select={"mode": "1"}, contours=[("slope", 0.0), ("critical", 1.0)]
        )
        axes, bar = drawn.axes
        assert axes.get_xscale() == "log"
        assert axes.get_xlabel() == "noise"
        assert axes.get_ylabel() == "depth [layers]"
        assert bar.get_ylabel() == "slope of it [1/s]"
        assert [text.get_text() for text in axes.get_yticklabels()] == ["2", "3"]
        assert [text.get_text() for text in drawn.legends[0].get_texts()] == [
            "slope of it [1/s] = 0",
            "noise over critical = 1",
        ]
        edges = axes.collections[0].get_coordinates()[0, :, 0]
        np.testing.assert_allclose(edges[1:-1], np.sqrt(NOISE[1:] * NOISE[:-1]))
        plt.close(drawn)

    def test_verdicts_have_names_and_a_cell_without_one_stays_empty(self, found):
        drawn = figures.phase_diagram(found, "verdict:C1", "noise", "depth")
        axes, bar = drawn.axes
        assert [text.get_text() for text in bar.get_yticklabels()] == ["fails", "undecided", "holds"]
        values = axes.collections[0].get_array()
        assert values.mask.sum() == 1
        plt.close(drawn)

    def test_curves_and_dots(self, found):
        drawn = figures.curves(found, "slope", "noise", by="depth", select={"mode": "2"})
        (axes,) = drawn.axes
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["depth = 2", "depth = 3"]
        np.testing.assert_allclose(axes.lines[1].get_ydata(), 2 * (NOISE - 0.12))
        plt.close(drawn)
        drawn = figures.scatter(found, "slope", "critical", by="depth", select={"mode": "1"})
        (axes,) = drawn.axes
        assert axes.get_xlabel() == "noise over critical"
        plt.close(drawn)


def test_files_for_other_programs(found, tmp_path):
    show.write_netcdf(found, tmp_path / "sweep.nc")
    with xr.open_dataset(tmp_path / "sweep.nc", engine="scipy") as read:
        np.testing.assert_allclose(read["slope"], found.dataset["slope"])
        assert read["verdict"].values.tolist() == found.dataset["verdict"].values.tolist()
        assert [str(text) for text in read["claim"].values] == ["C1"]
    show.write_csv(found, tmp_path / "sweep.csv")
    with open(tmp_path / "sweep.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    assert float(rows[5]["slope.2"]) == pytest.approx(2 * (0.2 - 0.12))
    assert (rows[5]["depth"], rows[5]["noise"], rows[5]["verdict.C1"], rows[5]["status"]) == ("3", "0.2", "1", "1")
    assert rows[7]["reason"] == "ValueError: too much"


class TestCommand:
    @pytest.fixture
    def say(self, found, capsys):
        def run(*arguments):
            code = cli.main(["sweep", "show", "0123", "--out", str(found.folder.parent.parent), *arguments])
            return code, capsys.readouterr()

        return run

    def test_the_summary(self, say):
        code, said = say()
        assert code == 0
        assert "8 cells: 7 done, 1 failed, 0 left." in said.out
        assert re.search(r"C1 +\| It rises. +\| +\d \| +0 \| +\d \| +8 \|", said.out)
        assert "slope: -0.16 to 1.36 1/s (slope of it)" in said.out
        assert "failed (1): ValueError: too much" in said.out
        assert json.loads(say("--json")[1].out)["counts"]["failed"] == 1

    def test_crossings_plots_and_files(self, say, tmp_path):
        code, said = say("--crossing", "0", "--quantity", "slope", "--x", "noise", "--select", "mode=1")
        assert code == 0
        assert said.out.splitlines() == [
            "slope = 0 at noise = 0.18 [0.17, 0.19] (depth = 2)",
            "slope = 0 at noise = 0.12 [0.11, 0.13] (depth = 3)",
        ]
        plot, table = tmp_path / "a.png", tmp_path / "a.csv"
        common = ("--quantity", "slope", "--x", "noise", "--select", "mode=1")
        assert (
            say(*common, "--y", "depth", "--contour", "critical=1", "--plot", str(plot), "--to-csv", str(table))[0] == 0
        )
        assert plot.read_bytes().startswith(b"\x89PNG")
        assert len(table.read_text().splitlines()) == 9
        assert say("--quantity", "slope", "--x", "critical", "--by", "depth", "--plot", str(tmp_path / "b.svg"))[0] == 0

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("--plot", "a.png"), "plot needs --quantity: say what and along which dimension."),
            (("--crossing", "0", "--quantity", "slope"), "crossing needs --x"),
            (("--plot", "a.gif", "--quantity", "slope", "--x", "noise"), "it must end in .png, .pdf or .svg."),
            (("--plot", "a.png", "--quantity", "slope", "--x", "noise", "--select", "mode"), "write NAME=VALUE."),
            (
                ("--plot", "a.png", "--quantity", "slope", "--x", "noise", "--y", "depth", "--select", "mode=1",
                 "--contour", "critical=x"),
                "the level must be a finite number.",
            ),
        ],
    )  # fmt: skip
    def test_wrong_requests_are_one_sentence(self, say, arguments, sentence):
        code, said = say(*arguments)
        assert code == 2
        assert len(said.err.splitlines()) == 1
        assert sentence in said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Name the study first: separatrix sweep STUDY"),
        (("logged-walk",), "A sweep needs an axis"),
        (("logged-walk", "--over"), "over needs a value: write --over NAME=VALUES."),
        (("logged-walk", "--over", "bias=0,9"), "bias = 9.0 is not allowed"),
        (("logged-walk", "--over=bias=0,1", "--on", "mars"), "on = 'mars' is not allowed"),
        (("logged-walk", "--over=bias=0,1", "--seeds", "0"), "seeds = 0 is not allowed"),
        (("logged-walk", "--over=bias=0,1", "--only", "C9"), "only = 'C9' is not allowed: logged-walk measures C1."),
        (("logged-walk", "--over=bias=0,1", "--ovr", "1"), "ovr is not a setting: did you mean over?"),
    ],
)
def test_a_sweep_that_cannot_be_asked_for_is_one_sentence(capsys, tmp_path, arguments, sentence):
    assert cli.main(["sweep", *arguments, *(("--out", str(tmp_path / "runs")) if arguments else ())]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_sweep_from_the_command_line(capsys, tmp_path):
    arguments = (
        "sweep",
        "logged-walk",
        "--over",
        "bias=0:1:3",
        "--members",
        "4",
        "--out",
        str(tmp_path),
        "--on",
        "inline",
    )
    assert cli.main(list(arguments)) == 0
    said = capsys.readouterr()
    assert "3 cells: 3 done, 0 failed, 0 left." in said.out
    assert said.err.startswith("3 cells, 3 to look at, in")
    assert cli.main([*arguments, "--json"]) == 0
    again = capsys.readouterr()
    assert "is reused" in again.err
    document = json.loads(again.out)
    assert document["axes"][0]["values"] == [0, 0.5, 1]
    assert document["command"] == "separatrix sweep logged-walk --over bias=0.0,0.5,1.0 --members 4"


def test_the_help_of_a_study_shows_the_options_of_the_verb(capsys):
    assert cli.main(["sweep", "logged-walk", "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: separatrix sweep logged-walk --over NAME=VALUES ... [settings] [options]")
    assert "--retry-failed" in said
    assert cli.main(["run", "logged-walk", "--help"]) == 0
    assert "--retry-failed" not in capsys.readouterr().out
