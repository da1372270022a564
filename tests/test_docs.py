"""The documentation tells the truth: examples run and print what they say, links lead somewhere, options exist."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from separatrix import cli
from separatrix.lab import discovery
from separatrix.lab.probe.settings import ProbeSettings
from separatrix.lab.settings import specs

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", ROOT / "CHANGELOG.md"]
PACKAGE = ROOT / "src" / "separatrix"
STUDIES = [discovery.import_study(found) for found in discovery.find() if not found.own]
each_study = pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.slug)


def name(page):
    return str(page.relative_to(ROOT))


def examples():
    for page in PAGES:
        for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)):
            yield pytest.param(code, id=f"{name(page)}-{number}")


def promised_output(code):
    """Comments behind ``print(...)``, and lines of comments at the end: what the example says that it prints."""
    lines = code.rstrip().splitlines()
    closing = []
    while lines[-1].startswith("# "):
        closing.insert(0, lines.pop()[2:])
    return [line.split("  # ")[1] for line in lines if "print(" in line and "  # " in line] + closing


@pytest.mark.parametrize("code", [*examples()])
def test_examples_print_what_they_say(code, tmp_path):
    if re.search(r"^import torch", code, re.M) and importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch")
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert promised_output(code)
    assert done.stdout.splitlines() == promised_output(code)


def targets(page):
    """Relative targets of links and images, outside code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`(?!\])", "", text))
    return [target.partition("#")[0] for target in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_links_and_images_lead_somewhere(page):
    missing = [target for target in targets(page) if target and not (page.parent / target).exists()]
    assert not missing


def test_the_links_are_seen():
    assert "docs/architecture.md" in targets(ROOT / "README.md")
    study = ROOT / "docs" / "studies" / "saddle-to-saddle-sgd.md"
    assert "../../src/separatrix/systems/deep_linear/saddle_to_saddle_sgd.py" in targets(study)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_exist(page):
    classes = [*(study.settings for study in STUDIES), cli.RunOptions, cli.ListOptions, cli.ShowOptions,
               cli.ReportOptions, cli.GalleryOptions, cli.SweepOptions, cli.SweepShowOptions,
               cli.ProbeOptions, ProbeSettings]  # fmt: skip
    fields = {field: spec for one in classes for field, spec in specs(one).items()}
    switches = {f"no_{field}" for field, spec in fields.items() if spec.kind is bool}
    known = {"help", "version", "over", *fields, *switches}
    written = re.findall(r"(?<![\w-])--([a-z][a-z-]*)", page.read_text("utf-8"))
    assert {option.replace("-", "_") for option in written} <= known


def study_page(study):
    return " ".join((ROOT / "docs" / "studies" / f"{study.slug}.md").read_text("utf-8").split())


@each_study
def test_the_page_of_the_study_gives_every_setting_with_its_default(study):
    def text(value):
        if isinstance(value, tuple):
            return " ".join(map(text, value))
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value).removesuffix(".0")

    rows = [
        f"| `--{field.replace('_', '-')}` | {text(spec.default)} |" for field, spec in specs(study.settings).items()
    ]
    assert [row for row in rows if row not in study_page(study)] == []


@each_study
def test_the_page_of_the_study_states_every_claim_and_its_control(study):
    page = study_page(study)
    claims = study.claims(study.settings())
    # further claims may come with a data set
    assert re.findall(r"- \*\*([A-Z]\d+)\*\* ", page)[: len(claims)] == [claim.id for claim in claims]
    for claim in claims:
        assert f"**{claim.id}** {claim.statement}" in page
        assert f"{claim.control_statement}." in page.partition(f"**{claim.id}**")[2].partition("- **")[0]


def test_rooms_import_only_what_the_architecture_says():
    table = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.M)
    allowed = {room: {*re.findall(r"`(\w+)`", imports), room} for room, imports in table}
    entry_points = {"__init__.py", "__main__.py", "__pycache__"}
    assert set(allowed) == {path.stem for path in PACKAGE.iterdir() if path.name not in entry_points}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                parts = str(module).split(".")
                if parts[0] == "separatrix" and len(parts) > 1 and parts[1] not in allowed.get(room, {"cli"}):
                    wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong
