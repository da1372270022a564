"""The same sweep here, in a pool and on Ray has the same bits, and survives SIGKILL of anybody at any time."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from separatrix.lab import discovery, store
from separatrix.lab.sweep import executors, open_sweep

pytestmark = pytest.mark.slow

STUDIES = Path(__file__).parent.parent / "studies"
OVER = ("--over", "bias=0:1:6", "--seeds", "4", "--members", "4", "--pause", "0.05")
CELLS = 24


@pytest.fixture
def environment(tmp_path):
    return os.environ | {discovery.PATH_VARIABLE: str(STUDIES), "WALK_LOG": str(tmp_path / "log")}


def command(out, *more):
    return [sys.executable, "-m", "separatrix", "sweep", "logged-walk", *OVER, "--out", str(out), *more]


def finish(out, environment, *more):
    done = subprocess.run(command(out, "--json", *more), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def content(out):
    """All that a sweep leaves on disk, apart from when and on what it was computed."""
    runs = {
        path.parent.parent.name: {
            name: (variable.dims, str(variable.dtype), variable.values.tobytes())
            for name, variable in store.read_dataset(path).variables.items()
        }
        for path in sorted(out.glob("logged-walk/*/data/walk.zarr"))
    }
    (folder,) = out.glob("logged-walk/sweep-*")
    found = open_sweep(folder)
    arrays = {str(name): variable.values.tobytes() for name, variable in found.dataset.variables.items()}
    return runs, arrays, found.manifest["counts"]


def assert_nothing_left(out):
    names = [path.name for path in (out / "logged-walk").iterdir()]
    assert [name for name in names if name.endswith((".partial", ".replaced"))] == []
    assert sum(name.isalnum() for name in names) == CELLS


def assert_no_cell_was_computed_again(tmp_path, kills, at_once=2):
    """A part under way when its process is killed is lost; whatever was finished is not computed again."""
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(set(lines)) == CELLS * 2 * 2  # two experiments in two parts of each cell
    # of each worker, the cells of one batch may be on the way at a kill
    assert len(lines) - len(set(lines)) <= kills * at_once * 4 * 2


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("reference")
    environment = os.environ | {discovery.PATH_VARIABLE: str(STUDIES)}
    counts = finish(out, environment, "--on", "inline")["counts"]
    assert counts == {"done": CELLS, "failed": 0, "left": 0, "total": CELLS}
    return content(out)


def kill_after(process, log, lines):
    """SIGKILL a process as soon as the log has this many lines; False if it ended before."""
    while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < lines):
        time.sleep(0.01)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def children(pid):
    """Processes below this one, at any depth."""
    below = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            below += [int(child), *children(child)]
    return below


class TestProcesses:
    def test_the_same_bits_as_in_one_process(self, tmp_path, environment, reference):
        finish(tmp_path / "runs", environment, "--on", "processes", "--workers", "2")
        assert content(tmp_path / "runs") == reference
        assert_nothing_left(tmp_path / "runs")

    def test_the_driver_killed_at_random_times_resumes(self, tmp_path, environment, reference):
        log, rng, kills = tmp_path / "log", random.Random(0), 0
        for on in ("inline", "processes", "processes"):
            begun = len(log.read_text().splitlines()) if log.exists() else 0
            process = subprocess.Popen(
                command(tmp_path / "runs", "--on", on), env=environment, stderr=subprocess.DEVNULL
            )
            kills += kill_after(process, log, begun + rng.randint(3, 20))
        assert kills == 3
        finish(tmp_path / "runs", environment, "--on", "processes")
        assert content(tmp_path / "runs") == reference
        assert_nothing_left(tmp_path / "runs")
        assert_no_cell_was_computed_again(tmp_path, kills)

    def test_a_worker_killed_is_replaced(self, tmp_path, environment, reference):
        log = tmp_path / "log"
        process = subprocess.Popen(
            command(tmp_path / "runs", "--on", "processes", "--workers", "2"),
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        killed = 0
        while process.poll() is None:
            lines = len(log.read_text().splitlines()) if log.exists() else 0
            workers = [
                pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            if lines > 10 * (killed + 1) and killed < 2 and workers:
                os.kill(workers[-1], signal.SIGKILL)
                killed += 1
                time.sleep(1.0)
            time.sleep(0.02)
        assert killed == 2
        assert process.returncode == 0
        assert content(tmp_path / "runs") == reference
        assert_nothing_left(tmp_path / "runs")
        assert_no_cell_was_computed_again(tmp_path, killed)

    def test_a_cell_that_kills_its_worker_fails_alone(self, tmp_path, environment):
        few = ("--over", "bias=0,1", "--seeds", "3", "--members", "4", "--fatal-seed", "2", "--json")
        done = subprocess.run(
            [sys.executable, "-m", "separatrix", "sweep", "logged-walk", *few, "--out", str(tmp_path / "runs")],
            env=environment, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        found = json.loads(done.stdout)
        assert found["counts"] == {"done": 4, "failed": 2, "left": 0, "total": 6}
        dataset = open_sweep(Path(found["sweep"])).dataset
        assert dataset["status"].sel(seed=2).values.tolist() == [2, 2]
        assert all("its process was killed" in str(text) for text in dataset["reason"].sel(seed=2).values)

    def test_workers_end_when_their_driver_is_killed(self, tmp_path, environment):
        process = subprocess.Popen(
            command(tmp_path / "runs", "--on", "processes"), env=environment, stderr=subprocess.DEVNULL
        )
        log = tmp_path / "log"
        while not log.exists():
            time.sleep(0.01)
        workers = children(process.pid)
        assert len(workers) >= 2
        assert kill_after(process, log, 0)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in workers):
            time.sleep(0.1)
        assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []

    def test_ctrl_c_is_one_sentence_and_resumable(self, tmp_path, environment):
        process = subprocess.Popen(
            command(tmp_path / "runs", "--on", "processes"), env=environment, stderr=subprocess.PIPE, text=True
        )
        while not (tmp_path / "log").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, notices = process.communicate(timeout=60)
        assert process.returncode in (130, -signal.SIGINT)
        assert notices.splitlines()[-1].startswith("Interrupted: finished parts are kept")
        assert "Traceback" not in notices

    def test_cores_are_dealt_out(self, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 4, 5}, raising=False)
        assert executors.shares(2) == [[0, 4], [1, 5]]
        assert executors.shares(4) == executors.shares(9) == [[0], [1], [4], [5]]


class TestRay:
    @pytest.fixture(autouse=True)
    def installed(self):
        pytest.importorskip("ray")

    def test_the_same_bits_as_in_one_process(self, tmp_path, environment, reference):
        finish(tmp_path / "runs", environment, "--on", "ray", "--workers", "2")
        assert content(tmp_path / "runs") == reference
        assert_nothing_left(tmp_path / "runs")

    def test_a_cluster_that_loses_a_worker_a_node_and_the_driver(self, tmp_path, environment, reference):
        program = [sys.executable, str(Path(__file__).parent / "ray_cluster.py")]
        with subprocess.Popen(
            program, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as cluster:
            try:
                address, node = json.loads(cluster.stdout.readline())
                log, on = tmp_path / "log", ("--on", "ray", "--address", address)
                process = subprocess.Popen(
                    command(tmp_path / "runs", *on),
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                self.wait_for(log, 8, process)
                for worker in self.workers(node)[:1]:
                    os.kill(worker, signal.SIGKILL)
                self.wait_for(log, 20, process)
                os.kill(node, signal.SIGKILL)
                kill_after(process, log, 32)
                finish(tmp_path / "runs", environment, *on)
            finally:
                cluster.stdin.close()
                cluster.wait(60)
        assert content(tmp_path / "runs") == reference
        assert_nothing_left(tmp_path / "runs")
        assert_no_cell_was_computed_again(tmp_path, kills=3, at_once=4)

    @staticmethod
    def wait_for(log, lines, process):
        while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < lines):
            time.sleep(0.02)

    @staticmethod
    def workers(node):
        return [pid for pid in children(node) if b"_run_batch" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    @pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:no-number"])
    def test_an_address_where_nobody_answers_is_one_sentence(self, tmp_path, study, address):
        from separatrix.lab import UsageError
        from separatrix.lab.sweep import Grid, axis, sweep

        grid = Grid(study, study.settings(), (axis(study.settings, "bias", (0.0, 0.1)),), tmp_path)
        with pytest.raises(UsageError, match=f"address = '{address}' is not allowed: nobody answers there"):
            sweep(grid, on="ray", address=address)
        assert list(tmp_path.iterdir()) == []


def test_without_ray_the_sentence_names_what_to_install(monkeypatch, study, tmp_path):
    from separatrix.lab import UsageError
    from separatrix.lab.sweep import Grid, axis, sweep

    monkeypatch.setitem(sys.modules, "ray", None)
    grid = Grid(study, study.settings(), (axis(study.settings, "bias", (0.0, 0.1)),), tmp_path)
    with pytest.raises(UsageError, match=r"Ray is not installed \(pip install 'separatrix\[ray\]'\)"):
        sweep(grid, on="ray")
