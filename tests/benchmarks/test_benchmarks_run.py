"""The benchmarks run, their candidates agree, and what they store is complete. No time is tested."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "packages"),
    [
        pytest.param("sgd_ensemble", ["torch"], marks=pytest.mark.race),
        pytest.param("diffusion_observable", ["torch"], marks=pytest.mark.race),
        ("linear_regression_path", ["threadpoolctl"]),
        ("label_noise_training", ["torch"]),
        pytest.param("benign_oscillation", ["torch"], marks=pytest.mark.race),
        pytest.param("scalar_sde", ["torch", "diffrax"], marks=pytest.mark.race),
        pytest.param("exact_solutions", ["torch", "diffrax"], marks=pytest.mark.race),
        pytest.param("early_stopped_sgd", ["torch"], marks=pytest.mark.race),
        pytest.param("curvature", ["torch"], marks=pytest.mark.race),
        pytest.param("tangent_kernel", ["torch"], marks=pytest.mark.race),
        pytest.param("chaos_grid", ["torch"], marks=pytest.mark.race),
        pytest.param("sweeps", [], marks=pytest.mark.race),
    ],
)
def test_a_quick_race_is_stored_with_everything_needed_to_judge_it(name, packages, tmp_path):
    for package in packages:
        if subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False).returncode:
            pytest.skip(f"{package} is not installed")
    done = _run(f"benchmarks.{name}", "--quick", "--allow-load", "--rounds=2", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / f"{name}.json").read_text())
    assert report["quick"]
    assert report["allow_load"]
    assert {"processor", "cores", "memory_gib"} <= report["machine"].keys()
    assert {"python", "jax", "numpy", *packages} - {"threadpoolctl"} <= report["versions"].keys()
    assert len(report["load_before"]) == len(report["load_after"]) == 3
    assert any(ratio["goal"] for race in report["races"] for ratio in race["ratios"])
    for race in report["races"]:
        for row in race["candidates"].values():
            assert len(row["round_seconds_per_call"]) == 2
            low, high = row["seconds_per_unit_range"]
            assert 0 < low <= row["seconds_per_unit"] <= high
        for ratio in race["ratios"]:
            low, high = ratio["interval_95"]
            assert 0 < low <= ratio["ratio"] * (1 + 1e-9)
            assert ratio["ratio"] <= high * (1 + 1e-9)
            assert math.isfinite(ratio["ratio"])
            assert ratio["met"] == (None if ratio["goal"] is None else low >= ratio["goal"])


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of the memory")
def test_the_peak_memory_of_a_call_is_what_it_takes():
    script = (
        "import functools, operator\n"
        "from benchmarks import peak_memory\n"
        "print([peak_memory.of_call(functools.partial, operator.mul, b'1', n << 20) >> 20 for n in (1, 64)])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    little, much = json.loads(done.stdout)
    assert little < 8
    assert 60 < much < 72


def test_a_busy_machine_is_refused_in_one_sentence(tmp_path):
    script = (
        "import os; os.getloadavg = lambda: (99.0, 99.0, 99.0)\n"
        "from benchmarks import harness\n"
        f"import sys; sys.argv = ['race', '--out={tmp_path}']\n"
        "harness.main('none', '', lambda options: [])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("The machine is busy: one-minute load 99.00")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_disagreement_is_an_error_and_stores_nothing(tmp_path):
    script = (
        "import sys\n"
        "from benchmarks import harness\n"
        "def check(): harness.agree('mean', 1.0, 2.0, 0.1)\n"
        "def races(options): return [harness.Race('r', 'call', [harness.Candidate('a', lambda: 0, 1)], [], check)]\n"
        f"sys.argv = ['race', '--quick', '--allow-load', '--out={tmp_path}']\n"
        "harness.main('none', '', races)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "mean: 1 and 2 lie 10.0 standard errors apart" in done.stderr
    assert not list(tmp_path.iterdir())
