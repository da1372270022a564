"""The worked example of CONTRIBUTING.md is a complete study: it runs, its claims hold, its controls fail."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text("utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    (source,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    folder = tmp_path_factory.mktemp("example")
    (folder / "studies").mkdir()
    (folder / "studies" / "constant_step_noise.py").write_text(source, "utf-8")
    environment = os.environ | {"SEPARATRIX_PATH": str(folder / "studies"), "PYTHONWARNINGS": "error"}

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "separatrix", "run", "constant-step-noise", "--json", *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )

    return command


@pytest.mark.parametrize("arguments", [[], ["--preset", "smoke", "--seed", "7"]])
def test_every_claim_holds_and_every_control_fails(run, arguments):
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(c["verdict"], c["control_verdict"]) for c in document["claims"]] == [("holds", "fails")] * 2
    assert Path(document["report"]).name == "report.html"


def test_a_step_that_diverges_is_refused_in_one_sentence(run):
    done = run("--learning-rate", "2.5")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "learning_rate = 2.5 is not allowed: it must be less than 1.99 / curvature = 1.99.\n"


def test_the_text_names_what_exists():
    assert "SEPARATRIX_PATH" in TEXT
    assert "`diverged_at_step`" in TEXT
