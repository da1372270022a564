"""A run killed with SIGKILL at any moment resumes to bit-identical data and computes no finished part again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from separatrix.lab import run as lab_run
from separatrix.lab import store

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"SEPARATRIX_PATH": str(HERE / "studies"), "WALK_LOG": str(tmp_path / "log")}


def fingerprint(folder):
    return {
        path.name: {
            name: (variable.dims, str(variable.dtype), variable.values.tobytes())
            for name, variable in store.read_dataset(path).variables.items()
        }
        for path in sorted(folder.iterdir())
    }


def test_killed_at_every_step_on_disk(tmp_path, environment):
    done = subprocess.run(
        [sys.executable, HERE / "kill_harness.py", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(row["killed"] for row in rows) >= 14
    assert not rows[-1]["killed"]  # the last round ran through
    assert all(row["recomputed"] == [] for row in rows)
    # a run killed just before it would have said that it is done leaves its lock file, which locks nothing
    assert all([name for name in row["left"] if not name.endswith(".lock")] == row["left"][:1] for row in rows)
    assert rows[0]["left"][0].isalnum()
    results = sorted((tmp_path / "results").iterdir())
    assert len(results) == len(rows)
    whole = fingerprint(results[0])
    assert whole.keys() == {"walk.zarr", "exact.zarr"}
    assert all(fingerprint(folder) == whole for folder in results)


def command(out, *more):
    return [sys.executable, "-m", "separatrix", "run", "logged-walk", "--parts", "4", "--out", str(out), *more]


def test_the_command_killed_at_random_times_resumes(study, tmp_path, environment):
    log = tmp_path / "log"
    rng = random.Random(0)
    kills = 0
    slow = "--pause", "0.15"  # or a fast machine would be done before it can be killed
    for _ in range(3):
        log.touch()
        begun = len(log.read_text().splitlines())
        process = subprocess.Popen(command(tmp_path / "killed", *slow), env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(log.read_text().splitlines()) <= begun:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    arguments = command(tmp_path / "killed", *slow, "--json")
    last = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    computed = log.read_text().splitlines()
    assert set(computed) == {f"{name} {k}-{k + 2} 0.0 0" for name in ("walk", "pushed") for k in range(0, 8, 2)}
    # a kill destroys at most the two parts under way
    assert len(computed) - len(set(computed)) <= 2 * kills
    whole = lab_run.run(study, replace(study.settings(), parts=4, pause=0.15), out=tmp_path / "whole")
    assert fingerprint(Path(json.loads(last.stdout)["run"]) / "data") == fingerprint(whole.folder / "data")


def test_two_processes_with_the_same_run_share_it(tmp_path, environment):
    both = [
        subprocess.Popen(
            command(tmp_path / "runs", "--json"),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outcomes = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert json.loads(outcomes[0][0]) == json.loads(outcomes[1][0])
    computed = (tmp_path / "log").read_text().splitlines()
    assert len(computed) == len(set(computed)) == 8
    assert any("is reused" in notices for _, notices in outcomes)


def test_ctrl_c_is_one_sentence_and_resumable(tmp_path, environment):
    process = subprocess.Popen(
        command(tmp_path / "runs"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, notices = process.communicate(timeout=60)
    # a shell shows 130 for both: an interrupt during an import makes Python end itself by the signal
    assert process.returncode in (130, -signal.SIGINT)
    assert output == ""
    assert notices.splitlines()[-1].startswith("Interrupted: finished parts are kept")
    assert "Traceback" not in notices
    assert [path.suffix for path in (tmp_path / "runs" / "logged-walk").iterdir()] == [".partial"]
