"""The report stands alone: one page, no network, every figure and every number that a reader needs to judge it."""

import base64
import dataclasses
import re
from html.parser import HTMLParser

import pytest

from separatrix.lab import Claim, Experiment, Measurement
from separatrix.lab import run as lab_run
from separatrix.lab.report import gauge


class Page(HTMLParser):
    """Attributes and text of a page, and whether its tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "rect", "line", "circle", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.links, self.sources, self.tags, self.open, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [attributes["href"]] if "href" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        if tag == "img":
            assert attributes["alt"]

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def run(study, tmp_path):
    return lab_run.run(study, study.settings(figures=True, bias=0.25, diverging=1), out=tmp_path)


@pytest.fixture
def page(run):
    return Page((run.folder / "report.html").read_text("utf-8"))


def test_the_page_is_well_formed_and_needs_no_network(page):
    assert page.open == []
    assert page.links == ["https://example.org/walk"]  # the reference of the study
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"link", "script", "iframe"} & set(page.tags)


def test_style_loads_nothing(run):
    style = re.search(r"<style>(.*)</style>", (run.folder / "report.html").read_text("utf-8"), re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style
    for medium in ("prefers-color-scheme: dark", "@media print", "max-width"):
        assert medium in style


def test_every_figure_is_inline(run, page):
    files = sorted((run.folder / "figures").iterdir())
    assert len(page.sources) == len(files) == 1
    assert base64.b64decode(page.sources[0].partition(",")[2]) == files[0].read_bytes()
    assert "Each line is a walk." in page.text


def test_everything_that_a_verdict_rests_on_is_there(run, page):
    manifest = run.manifest
    expected = [
        "A walk that keeps a log",
        "Does the walk stay <near> zero?",
        "The walk stays near zero.",
        "biased steps",
        "12 % excluded",
        manifest["hash"],
        manifest["command"],
        manifest["device"],
        manifest["created"],
        "float64",
        "mean of a step",
        "0.25 m",
        *[f"{name} {version}" for name, version in manifest["versions"].items()],
    ]
    for words in expected:
        assert " ".join(words.split()) in page.text


def test_text_of_a_study_is_text_and_never_markup(study, tmp_path):
    hostile = '<script>alert(1)</script> & "quotes" {{ 7 * 7 }}'
    changed = dataclasses.replace(study, title=hostile, question=hostile, notes=hostile, reference=hostile)
    page = Page((lab_run.run(changed, study.settings(), out=tmp_path).folder / "report.html").read_text("utf-8"))
    assert "script" not in page.tags
    assert page.text.count("{{ 7 * 7 }}") == 5


def test_a_page_without_figures_controls_or_measurements(study, tmp_path):
    empty = dataclasses.replace(
        study,
        claims=lambda s: [
            Claim("C1", "Nothing is known.", "nowhere", lambda s, r: [], lambda s, r: [], "nothing"),
            Claim(
                "C2",
                "Something is not a number.",
                "nowhere",
                lambda s, r: [Measurement("nan", float("nan"), (float("nan"), 1.0), (0.0, float("inf")))],
                lambda s, r: [],
                "nothing",
            ),
        ],
    )
    run = lab_run.run(empty, study.settings(), out=tmp_path, controls=False)
    page = Page((run.folder / "report.html").read_text("utf-8"))
    assert page.sources == []
    assert "2 undecided" in page.text
    assert "No condition could be measured at these settings." in page.text
    assert "nan" not in page.text.replace("nan – [–", "")


def test_an_undecided_claim_says_what_would_decide_it(study, tmp_path):
    wide = dataclasses.replace(
        study,
        claims=lambda s: [
            Claim(
                "C1",
                "It is small.",
                "derived",
                lambda s, r: [Measurement("x", 0.75, (0.25, 1.25), (0.0, 1.0), members=1000)],
                lambda s, r: [Measurement("x", 9.0, (8.0, 10.0), (0.0, 1.0))],
                "it is large",
            )
        ],
        experiments=lambda s: [Experiment("walk", study.experiments(s)[0].simulate, 8)],
    )
    page = Page((lab_run.run(wide, study.settings(), out=tmp_path).folder / "report.html").read_text("utf-8"))
    assert "would be decided with about 4,000 members" in page.text
    assert "fails, as it must" in page.text


@pytest.mark.parametrize(
    ("estimate", "interval", "threshold"),
    [
        (0.5, [0.4, 0.6], [0.0, 1.0]),
        (0.5, [0.4, 0.6], [None, 1.0]),
        (5.0, [4.0, 6.0], [None, 1.0]),
        (5.0, [4.0, 6.0], [7.0, None]),
        (0.0, [0.0, 0.0], [0.0, 0.0]),
        (1e-300, [0.0, 1e-299], [0.0, None]),
        (1.0, [1.0, 1.0], [None, None]),
    ],
)
def test_the_gauge_keeps_its_order_and_its_bounds(estimate, interval, threshold):
    places = gauge({"estimate": estimate, "interval": interval, "threshold": threshold})
    assert 0 <= places["low"] <= places["estimate"] <= places["high"] <= 100
    assert 0 <= places["region_low"] <= places["region_high"] <= 100
    inside = threshold[0] is not None and interval[0] >= threshold[0]
    assert not inside or places["region_low"] <= places["low"]


@pytest.mark.parametrize("interval", [[None, 1.0], [0.0, None], [float("nan"), 1.0]])
def test_there_is_no_gauge_without_an_interval(interval):
    assert gauge({"estimate": 0.5, "interval": interval, "threshold": [0, 1]}) is None
