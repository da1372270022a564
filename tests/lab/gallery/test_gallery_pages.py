"""Pages show what was collected, and nothing that a study or a run says can become markup."""

import json
import re
from html.parser import HTMLParser

import gallery_fakes as fake
import pytest
from gallery_fakes import HOSTILE

from separatrix.lab.gallery import pages
from separatrix.lab.gallery.about import About, about
from separatrix.lab.gallery.collect import collect

ALLOWED = {"index.html", "gallery.css", "gallery.js", "gallery.json", "logged-walk", "another", "hostile"}


class Page(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words, self.data = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.data += data
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def all_pages(gallery):
    return [path for path in sorted(gallery.folder.rglob("*.html")) if "<!doctype" in path.read_text("utf-8")]


def test_the_site_is_complete_and_holds_nothing_else(gallery):
    assert (gallery.studies, gallery.runs, gallery.sweeps) == (3, 4 + 2 * 25, 2)
    assert gallery.summary == "3 studies, 54 runs, 2 sweeps"
    assert {path.name for path in gallery.folder.iterdir()} == ALLOWED
    assert len(all_pages(gallery)) == 1 + 3 * 3 + 2 + 2  # front; study, compare, run of each; reports; sweeps


def test_pages_are_well_formed_and_point_at_nothing_outside(gallery):
    for path in all_pages(gallery):
        page = Page(path.read_text("utf-8"))
        assert page.open == [], path
        assert page.tags.count("h1") == 1, path
        for name, value in page.attributes:
            if name in ("src", "href") and value not in ("data:,", "https://example.org/walk"):
                assert not re.match(r"(https?:)?//|file:|/", value), (path, value)
                target = value.partition("#")[0]
                if target and not value.startswith("data:"):
                    assert (path.parent / target).exists(), (path, value)
    for name in ("gallery.css", "gallery.js"):
        text = (gallery.folder / name).read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"@import|url\((?!#)|https?://|fetch\(|XMLHttpRequest", text)


def test_hostile_texts_stay_texts(gallery):
    for path in [gallery.index, *sorted((gallery.folder / "hostile").glob("*.html"))]:
        if path.stem == "b1":
            continue  # a report is the study's own page
        page = Page(path.read_text("utf-8"))
        assert "onerror" not in dict(page.attributes), path
        assert page.tags.count("script") == path.read_text("utf-8").count("<script"), path
        assert "49" not in page.text.split(), path
    index = Page(gallery.index.read_text("utf-8"))
    assert " ".join(HOSTILE.split()) in index.text
    sweep = Page((gallery.folder / "hostile" / "sweep-bad.html").read_text("utf-8"))
    assert json.loads(sweep.data)["title"] == HOSTILE
    assert json.loads(sweep.data)["reasons"]["26"] == HOSTILE


@pytest.mark.parametrize("text", [HOSTILE, "<!-- <script>", "]]>", "\u2028", "</SCRIPT >"])
def test_embedded_data_cannot_end_the_script(text):
    embedded = pages.embedded({text: [text, float("nan")]})
    assert not set("<>&\u2028") & set(embedded)
    assert json.loads(embedded) == {text: [text, None]}


def test_a_report_gets_the_bar_and_is_otherwise_untouched(gallery):
    original = next((gallery.folder.parent / "logged-walk").glob("*/report.html"))
    shown = (gallery.folder / "logged-walk" / f"{original.parent.name}.html").read_text("utf-8")
    before, after = original.read_text("utf-8").split("<body>")
    assert shown.startswith(before)
    assert shown.endswith(after.partition("<main>")[2])
    assert 'href="../index.html"' in shown
    assert '<main id="main">' in shown


def entry(folder):
    (one,) = collect(folder, pytest.fail)
    return one


def test_the_run_that_stands_for_a_study_is_the_nearest_to_its_defaults(tmp_path):
    fake.run(tmp_path / "walk" / "aa", created="2030-01-01", report="<p>", rate=1.0, seed=0)
    fake.run(tmp_path / "walk" / "bb", created="2030-01-02", report="<p>", rate=1.0, seed=7)
    fake.run(tmp_path / "walk" / "cc", created="2030-01-03", report="<p>", rate=2.0, seed=0)
    fake.run(tmp_path / "walk" / "dd", created="2030-01-04", rate=1.0, seed=0)
    known = About("Walk", defaults={"rate": 1.0, "seed": 0})
    assert pages.arrange(entry(tmp_path), known).shown.hash == "bb"  # the newest of two; dd has no report
    assert pages.arrange(entry(tmp_path), About("Walk")).shown.hash == "cc"  # the newest, if nothing is known


def test_what_sets_runs_apart(tmp_path):
    fake.run(tmp_path / "walk" / "aa", report="<p>", rate=1.0, depth=[2, 3], clean=True)
    fake.run(tmp_path / "walk" / "bb", report="<p>", rate=2.0, depth=[2], clean=True)
    study = pages.arrange(entry(tmp_path), About("Walk"))
    assert [study.description(run) for run in study.entry.runs] == ["rate = 2.0, depth = 2", "rate = 1.0, depth = 2 3"]


def test_cells_of_sweeps_are_not_listed_among_the_runs(gallery):
    page = Page((gallery.folder / "logged-walk" / "index.html").read_text("utf-8"))
    assert "25 more runs are cells of the sweeps" in page.text
    assert page.text.count("bias = ") >= 2


def test_a_study_that_is_not_installed_is_told_from_its_report(tmp_path, notices):
    report = (
        "<body><p class='reference'>A &amp; B (1999)</p><h2>What was asked</h2><p>Is <b>x</b>\nsmall?</p><p>And y?</p>"
        "<h2>Verdicts</h2><p>no question</p></body>"
    )
    fake.run(tmp_path / "unheard-of" / "aa", title="Unheard", report=report)
    known = about(entry(tmp_path), notices.append)
    assert (known.title, known.reference, known.question) == ("Unheard", "A & B (1999)", "Is x small?\n\nAnd y?")
    assert (known.topics, known.defaults) == ((), None)
    assert len(notices) == 1


def test_an_installed_study_speaks_for_itself(gallery):
    text = Page((gallery.folder / "logged-walk" / "index.html").read_text("utf-8")).text
    assert "Does the walk stay <near> zero?" in text
    assert "walks" in text


def test_a_sweep_of_thousands_of_cells_is_one_page(tmp_path):
    rates = [float(f"{0.001 * 1.01**number:.6g}") for number in range(100)]
    fake.sweep(tmp_path / "walk" / "sweep-1", rates=rates, depths=list(range(1, 101)), cells=False)
    study = pages.arrange(entry(tmp_path), About("Walk"))
    page = pages.sweep_page(study, study.entry.sweeps[0])
    assert len(page) < 5e6
    assert len(json.loads(Page(page).data)["runs"]) == 10_000
