"""The command answers quickly, says one sentence when it cannot, and prints results only on standard output.

The sentences are on record in lab/error_texts.json; ``python tests/test_cli.py`` records them anew after a change.
"""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from separatrix import cli
from separatrix.lab import discovery, runtime

HERE = Path(__file__).parent
TEXTS = HERE / "lab" / "error_texts.json"
ENVIRONMENT = os.environ | {"SEPARATRIX_PATH": str(HERE / "lab" / "studies")}


def process(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "separatrix", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        **more,
    )


@pytest.fixture
def command(capsys, monkeypatch):
    """Run the command line in this process; returns exit code, standard output and standard error."""
    monkeypatch.setenv(discovery.PATH_VARIABLE, ENVIRONMENT["SEPARATRIX_PATH"])
    monkeypatch.setattr(runtime, "configure", lambda: None)

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["show", "--help"], ["gallery", "--help"], ["nonsense"]]
)
def test_help_loads_no_library(arguments):
    heavy = ["jax", "numpy", "scipy", "matplotlib", "xarray", "zarr", "torch", "rich", "jinja2", "sklearn"]
    code = (
        f"import sys; from separatrix.cli import main; main({arguments!r}); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_run_prints_a_table_and_the_report(command, tmp_path):
    code, out, err = command("run", "logged-walk", "--out", tmp_path, "--preset", "smoke")
    assert code == 0
    assert "\x1b" not in out
    assert re.search(r"\| C1 .*\| holds .*\| fails", out)
    assert "1 holds, 0 fail, 0 undecided; 1 of 1 controls fail" in out
    assert Path(out.splitlines()[-1]).name == "report.html"
    assert Path(out.splitlines()[-1]).exists()
    assert err.startswith("Expected: 1 min 24 s, ")
    code, again, err = command("run", "logged-walk", "--out", tmp_path, "--preset", "smoke")
    assert (code, again) == (0, out)
    assert "is reused; --fresh computes it again" in err


def test_the_json_document(tmp_path):
    done = process("run", "logged-walk", "--json", "--out", tmp_path, "--members", "6")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout, parse_constant=pytest.fail)
    assert document["study"] == "logged-walk"
    assert document["settings"]["members"] == 6
    assert Path(document["report"]).exists()
    assert Path(document["run"]).name == document["hash"]
    for claim in document["claims"]:
        assert claim.keys() >= {"id", "statement", "estimate", "interval", "threshold", "verdict", "control_verdict"}
        assert claim["verdict"] in ("holds", "fails", "undecided")
        assert claim["control_verdict"] in ("holds", "fails", "undecided")
        assert [type(end) for end in claim["interval"]] == [float, float]
    stored = json.loads((Path(document["run"]) / "claims.json").read_text())
    assert stored == document
    manifest = json.loads((Path(document["run"]) / "manifest.json").read_text())
    assert manifest["device"].count("JAX") == 1
    shown = process("show", document["hash"][:6], "--json", "--out", tmp_path)
    assert json.loads(shown.stdout) == document


def test_show_and_report(command, tmp_path):
    _, table, _ = command("run", "logged-walk", "--out", tmp_path)
    folder = Path(table.splitlines()[-1]).parent
    assert command("show", folder)[1] == table
    assert command("show", "--out", tmp_path, folder.name[:4])[1] == table
    (folder / "report.html").unlink()
    code, out, _ = command("report", folder)
    assert (code, out.strip()) == (0, str(folder / "report.html"))
    assert (folder / "report.html").exists()


def test_list_names_every_study_and_what_is_broken(command, monkeypatch, tmp_path):
    (tmp_path / "broken_one.py").write_text("import nothing_of_this_name\nSTUDY = 1\n")
    monkeypatch.setenv(discovery.PATH_VARIABLE, f"{ENVIRONMENT['SEPARATRIX_PATH']}:{tmp_path}")
    code, out, _ = command("list")
    assert code == 0
    assert "A walk that keeps a log" in out
    assert "broken-one" in out
    assert "cannot be used" in out
    rows = {row["study"]: row for row in json.loads(command("list", "--json")[1])["studies"]}
    assert rows["logged-walk"]["error"] is None
    assert rows["logged-walk"]["presets"] == ["default", "smoke"]
    assert "ModuleNotFoundError" in rows["broken-one"]["error"]


def test_help_of_a_study_describes_every_setting(command):
    for arguments in (["run", "logged-walk", "--help"], ["run", "--help", "logged-walk"]):
        code, out, _ = command(*arguments)
        assert code == 0
        assert "--bias FLOAT" in out
        assert "mean of a step [m] (a finite number >= -1 and <= 1; default 0.0)" in " ".join(out.split())
        assert "smoke: members = 4" in out


def test_every_spelling_of_an_option(command, tmp_path):
    spellings = [
        ["logged-walk", "--bytes-per-member", "7"],
        ["logged-walk", "--bytes_per_member", "7"],
        ["logged-walk", "--bytes-per-member=7"],
        ["--json", "logged-walk", "--bytes_per_member=7"],
        ["--out", tmp_path, "logged-walk", "--no-figures", "--bytes_per_member=7"],
    ]
    runs = {json.loads(command("run", *words, "--json", "--out", tmp_path)[1])["hash"] for words in spellings}
    assert len(runs) == 1


def cases():
    return json.loads(TEXTS.read_text("utf-8"))


def place(words, out):
    return [word.replace("OUT", str(out)) for word in words]


def spoil(folder):
    """What the cases on record expect to find: a file where a folder should be, and a damaged run."""
    (folder / "file").write_text("")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "manifest.json").write_text("{")


@pytest.mark.parametrize("name", cases())
def test_refusals_are_the_sentences_on_record(command, tmp_path, name):
    case = cases()[name]
    spoil(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command(*place(case["arguments"], tmp_path))
    assert (code, out) == (2, "")
    assert err.replace(str(tmp_path), "OUT") == case["text"] + "\n"
    assert sorted(tmp_path.rglob("*")) == before


REAL = ["unknown study", "out of range", "not a number", "unknown setting", "out is below a file", "no such run"]


@pytest.mark.parametrize("name", REAL)
def test_refusals_of_the_real_command(tmp_path, name):
    spoil(tmp_path)
    done = process(*place(cases()[name]["arguments"], tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m separatrix --help | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.stderr == ""


def test_a_terminal_without_unicode_gets_a_table(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "separatrix", "run", "logged-walk", "--out", str(tmp_path)],
        capture_output=True,
        env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert b"holds" in done.stdout


def record():
    os.environ.update(ENVIRONMENT)
    table = cases()
    with tempfile.TemporaryDirectory() as folder:
        spoil(Path(folder))
        for case in table.values():
            with contextlib.redirect_stderr(io.StringIO()) as said:
                cli.main(place(case["arguments"], folder))
            case["text"] = said.getvalue().replace(folder, "OUT").rstrip("\n")
    TEXTS.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    record()
