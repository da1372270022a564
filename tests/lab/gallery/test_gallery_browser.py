"""The gallery in a browser, from the disk: filter, open, read a diagram, compare; by mouse, by key and by touch."""

import re
import threading
from pathlib import Path

import gallery_fakes as fake
import pytest

from separatrix.lab.gallery import serve, site

PAGES = {
    "front": "index.html",
    "study": "logged-walk/index.html",
    "sweep": "logged-walk/sweep-abc.html",
    "numbers": "logged-walk/sweep-abc.html#show=quantity:loss",
    "controls": "logged-walk/sweep-abc.html#show=control_verdict",
    "comparison": "logged-walk/compare.html",
    "cell": "logged-walk/run.html#run=c000000000000004",
    "report": "REPORT",
    "hostile study": "hostile/index.html",
    "hostile sweep": "hostile/sweep-bad.html",
    "hostile comparison": "hostile/compare.html",
    "hostile run": "hostile/run.html#run=b1",
}


AUDIT = (Path(__file__).parent / "audit.js").read_text("utf-8").replace('"use strict";', "")


class Visit:
    """A page that reports everything it should not do."""

    def __init__(self, page, gallery):
        self.page, self.root = page, gallery.folder.as_uri()
        self.wrong = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: self.note(request.url))

    def note(self, url):
        if not url.startswith((self.root, "data:")):
            self.wrong.append(f"asked for {url}")

    def open(self, path):
        self.page.goto("about:blank")  # the same page with another address would not be loaded anew
        self.wrong.clear()
        self.page.goto(f"{self.root}/{path}")
        return self.page

    @property
    def place(self):
        return self.page.url.removeprefix(f"{self.root}/")


@pytest.fixture
def visit(browser, gallery):
    visits = []

    def start(**kind):
        visits.append(Visit(browser(**kind), gallery))
        return visits[-1]

    yield start
    for one in visits:
        assert one.wrong == []
        one.page.close()


def address(gallery, page):
    reports = sorted(path.parent.name for path in (gallery.folder.parent / "logged-walk").glob("*/report.html"))
    return PAGES[page].replace("REPORT", f"logged-walk/{reports[0]}.html")


def cell(page, rate, depth):
    """A cell by its place in the arrays; rows of the diagram run from top to bottom."""
    return page.get_by_role("row").nth(2 - depth).get_by_role("gridcell").nth(rate)


def audit(page, function):
    return page.evaluate(f"() => {{ {AUDIT}; return {function}(); }}")


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.id")


# ---------------------------------------------------------------- the front page


def test_cards_are_filtered_by_topic_and_verdict(visit):
    page = visit().open("index.html")
    cards = page.locator(".card:visible")
    assert cards.count() == 3
    page.get_by_label("Topic", exact=True).select_option("walks")
    assert cards.get_by_role("heading").all_inner_texts() == ["A walk that keeps a log"]
    assert page.get_by_role("status").inner_text() == "1 of 3 studies"
    page.get_by_label("Topic", exact=True).select_option("")
    page.get_by_label("Verdict", exact=True).select_option("fails")
    assert cards.get_by_role("heading").all_inner_texts() == ["Another study"]
    page.get_by_label("Topic", exact=True).select_option("walks")
    assert cards.count() == 0
    assert page.get_by_text("No study has this topic").is_visible()
    page.get_by_role("button", name="Show all").click()
    assert cards.count() == 3


def test_a_filter_is_part_of_the_address(visit):
    visited = visit()
    page = visited.open("index.html#verdict=fails")
    assert page.locator(".card:visible").count() == 1
    page.get_by_label("Verdict", exact=True).select_option("holds")
    assert visited.place == "index.html#verdict=holds"
    page.reload()
    assert page.get_by_label("Verdict", exact=True).input_value() == "holds"
    assert page.locator(".card:visible").count() == 1
    assert visited.open("index.html#topic=nonsense").locator(".card:visible").count() == 3


def test_from_the_card_to_the_report_and_back(visit, gallery):
    visited = visit()
    page = visited.open("index.html")
    card = page.locator(".card").filter(has=page.get_by_role("heading", name="A walk that keeps a log"))
    card.get_by_role("link", name="Report").click()
    assert re.fullmatch(r"logged-walk/[0-9a-f]{16}\.html", visited.place)
    assert page.get_by_role("heading", name="What was asked").is_visible()
    assert page.locator("figure img").evaluate("image => image.naturalWidth") > 100
    page.get_by_role("link", name="logged-walk").click()
    assert visited.place == "logged-walk/index.html"
    assert page.locator("img").evaluate("image => image.naturalWidth") > 100
    page.get_by_role("link", name="Separatrix gallery").click()
    assert visited.place == "index.html"


# ---------------------------------------------------------------- the phase diagram


def test_a_diagram_has_a_symbol_and_a_colour_for_every_verdict(visit):
    page = visit().open(PAGES["sweep"])
    assert page.get_by_role("gridcell").count() == 27
    kinds = {0: "holds", 5: "undecided", 8: "fails"}
    fills = {kind: cell(page, rate, 1).evaluate("cell => getComputedStyle(cell).fill") for rate, kind in kinds.items()}
    assert len(set(fills.values())) == 3
    for rate, kind in kinds.items():
        assert kind in cell(page, rate, 1).get_attribute("class").split()
        assert page.locator(f".symbol.{kind}").count() > 0
    assert page.locator("#map .label").all_text_contents() == ["learning_rate [1/step], logarithmic", "depth"]
    assert {"0.001", "0.5", "2", "3", "4"} <= set(page.locator("#map svg text").all_text_contents())
    # a logarithmic axis: 0.01 lies midway between 0.001 and 0.1
    centres = {
        rate: (box["x"] + box["width"] / 2) for rate in (1, 3, 6) for box in [cell(page, rate, 0).bounding_box()]
    }
    assert centres[1] < centres[3] < centres[6]


def test_pointing_at_a_cell_shows_its_numbers(visit):
    page = visit().open(PAGES["sweep"])
    cell(page, 3, 1).hover()
    panel = page.get_by_label("The chosen cell")
    text = " ".join(panel.inner_text().split())
    for words in ("learning_rate 0.01 1/step", "depth 3", "claim C1", "✓ holds", "estimate 0.03", "[0.027, 0.033]"):
        assert words in text
    assert "The rate is small enough." in text
    assert "control fails, as it must" in text
    said = page.locator("#said")
    assert said.get_attribute("aria-live") == "polite"
    assert said.inner_text() == "holds; estimate 0.03, interval [0.027, 0.033]"
    cell(page, 8, 2).hover()
    assert "It was too large." in panel.inner_text()
    assert panel.get_by_role("link").count() == 0
    cell(page, 7, 2).hover()
    assert "not computed yet" in panel.inner_text()


def test_a_click_opens_the_run_which_says_how_to_get_its_report(visit):
    visited = visit()
    page = visited.open(PAGES["sweep"])
    cell(page, 1, 1).click()
    assert visited.place == "logged-walk/run.html#run=c000000000000004"
    page.get_by_role("heading", name="Run c000000000000004").wait_for()
    assert "separatrix report c000000000000004" in page.inner_text("main")
    rows = page.get_by_role("table").nth(1).get_by_role("row").all_inner_texts()
    assert any(row.split() == ["learning_rate", "0.002"] for row in rows)
    assert page.get_by_role("table").nth(0).get_by_role("row").count() == 3
    page.get_by_role("link", name="sweep-abc").click()
    assert visited.place == "logged-walk/sweep-abc.html"


def test_the_diagram_by_keyboard(visit):
    visited = visit()
    page = visited.open(PAGES["sweep"])
    page.get_by_label("Claim", exact=True).focus()
    page.keyboard.press("Tab")
    assert focused(page) == "learning_rate 0.001 1/step, depth 4: holds"
    page.keyboard.press("ArrowLeft")  # there is nothing further left
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "learning_rate 0.002 1/step, depth 3: holds"
    assert page.locator("#said").inner_text().startswith("holds; estimate 0.006")
    assert page.locator(".cursor").count() > 0  # where the focus is can be seen
    page.keyboard.press("End")
    assert focused(page) == "learning_rate 0.5 1/step, depth 3: fails"
    page.keyboard.press("Control+Home")
    assert focused(page) == "learning_rate 0.001 1/step, depth 4: holds"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "open-run"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/run.html#run=c000000000000002")


def test_the_first_touch_reads_and_the_second_opens(visit):
    visited = visit(width=390, touch=True)
    page = visited.open(PAGES["sweep"])
    cell(page, 2, 0).tap()
    assert "estimate" in page.get_by_label("The chosen cell").inner_text()
    assert visited.place == "logged-walk/sweep-abc.html"
    cell(page, 2, 0).tap()
    page.wait_for_url("**/run.html#run=c000000000000006")


def test_quantity_claim_and_axes_can_be_chosen_and_are_in_the_address(visit):
    visited = visit()
    page = visited.open(PAGES["sweep"])
    page.get_by_label("Show", exact=True).select_option("Final loss")
    assert page.evaluate("document.activeElement.id") == "quantity"
    page.get_by_label("mode", exact=True).select_option("2")
    page.get_by_label("Horizontal axis", exact=True).select_option("mode")
    page.get_by_label("learning_rate", exact=True).select_option("0.01 1/step")
    assert page.locator("#map-title").inner_text() == "Final loss, learning_rate = 0.01 1/step"
    page.get_by_role("gridcell", name="mode 3, depth 2", exact=False).hover()
    assert "Final loss\n0.06 nats\ninterval\n[0.048, 0.072]" in page.get_by_label("The chosen cell").inner_text()
    shown = page.locator("#map .cell").evaluate_all("cells => cells.map((cell) => getComputedStyle(cell).fill)")
    page.reload()
    assert page.locator("#map-title").inner_text() == "Final loss, learning_rate = 0.01 1/step"
    again = page.locator("#map .cell").evaluate_all("cells => cells.map((cell) => getComputedStyle(cell).fill)")
    assert again == shown
    page.get_by_label("Show", exact=True).select_option("Verdict")
    page.get_by_label("Claim", exact=True).select_option(index=1)
    assert page.locator("#map-title").inner_text() == "Verdict, C2"
    page.get_by_label("Vertical axis", exact=True).select_option("claim")
    assert page.get_by_role("gridcell").count() == 18


def test_estimates_of_different_claims_never_share_a_scale(visit):
    page = visit().open("logged-walk/sweep-abc.html#show=estimate")
    axes = page.get_by_label("Vertical axis", exact=True).locator("option")
    assert axes.all_inner_texts() == ["learning_rate", "depth"]
    assert page.get_by_label("Claim", exact=True).is_visible()
    assert page.locator("#profile .whisker").count() == 9  # along depth 2, where every cell is done
    cell(page, 0, 2).hover()
    assert page.locator("#profile .whisker").count() == 7


def test_a_control_that_fails_has_done_its_duty(visit):
    page = visit().open(PAGES["controls"])
    assert cell(page, 0, 0).get_attribute("aria-label").endswith("fails, as it must")
    page.get_by_label("Show", exact=True).select_option("Verdict")
    good = cell(page, 0, 0).evaluate("cell => getComputedStyle(cell).fill")
    page.get_by_label("Show", exact=True).select_option("Verdict of the control")
    assert cell(page, 0, 0).evaluate("cell => getComputedStyle(cell).fill") == good


def test_the_same_as_a_table(visit):
    page = visit().open(PAGES["sweep"])
    page.get_by_text("The same as a table").click()
    rows = page.locator("#as-table tr").all_inner_texts()
    assert [len(row.split("\t")) for row in rows] == [10, 10, 10, 10]
    assert rows[1].split("\t")[0] == "4"
    assert rows[1].split("\t")[-1].strip() == "! failed"
    assert rows[3].split("\t")[1].strip() == "✓ holds"
    assert page.locator("#as-table a").count() == 25


def test_two_cells_are_compared_from_the_diagram(visit):
    visited = visit()
    page = visited.open(PAGES["sweep"])
    cell(page, 0, 0).hover()
    page.get_by_role("button", name="Pin for comparison").click()
    cell(page, 8, 1).hover()
    page.get_by_role("link", name="Compare with the pinned run").click()
    page.wait_for_url("**/compare.html#a=c000000000000000&b=c000000000000019")
    page.locator("#comparison").wait_for()
    assert page.locator("#summary").inner_text() == "2 settings differ; 1 verdict differs of 2."
    assert "separatrix report c000000000000000" in page.locator("#curves").inner_text()


# ---------------------------------------------------------------- the comparison


def test_two_runs_side_by_side(visit, gallery):
    visited = visit()
    page = visited.open(PAGES["comparison"])
    page.locator("#comparison").wait_for()
    lists = [page.get_by_label("First run (A)"), page.get_by_label("Second run (B)")]
    reports = {path.parent.name for path in (gallery.folder.parent / "logged-walk").glob("*/report.html")}
    for one, bias in zip(lists, ("0.0", "0.5"), strict=True):
        name = next(text for text in one.locator("option").all_inner_texts() if f"bias = {bias}" in text)
        one.select_option(label=name)
    page.wait_for_function("document.querySelector('#settings').innerText.includes('bias')")
    assert {one.input_value() for one in lists} == reports
    (row,) = page.locator("#settings tbody tr").all_inner_texts()
    assert row.split("\t") == ["bias", "0 m", "0.5 m", "mean of a step"]
    assert page.locator("#verdicts tbody tr").count() == 1
    assert page.locator("#verdicts .gauge circle").count() == 2
    assert page.get_by_label("Experiment").input_value() == "walk · position"
    plot = page.locator("#curves figure svg")
    assert plot.locator("path.line").count() == 2
    assert plot.locator("path.band").count() == 2
    assert "8 members, 1 diverged" in page.locator("#curves").inner_text()
    medians = re.findall(r"[AB] (-?[\d.]+)", plot.get_attribute("aria-label"))
    assert float(medians[0]) < float(medians[1])  # a bias moves the walk
    before = visited.place
    page.get_by_role("button", name="Swap A and B").click()
    page.wait_for_function("document.querySelector('#settings').innerText.match(/0.5 m\\s+0 m/)")
    a, b = re.fullmatch(r".*#a=(\w+)&b=(\w+)", before).groups()
    assert visited.place == f"logged-walk/compare.html#a={b}&b={a}"


def test_a_comparison_is_a_link(visit):
    page = visit().open("logged-walk/compare.html#a=c000000000000000&b=c000000000000008")
    page.locator("#comparison").wait_for()
    assert page.get_by_label("First run (A)").input_value() == "c000000000000000"
    assert page.get_by_label("Second run (B)").input_value() == "c000000000000008"
    page.evaluate("location.hash = '#a=c000000000000001&b=c000000000000008'")
    page.wait_for_function("document.getElementById('a').value === 'c000000000000001'")


@pytest.mark.parametrize("name", ["nowhere", "../../x", "<img>"])
def test_a_run_that_is_not_there_is_said_so(browser, gallery, name):
    visited = Visit(browser(), gallery)  # the missing file is an error of the console
    page = visited.open(f"logged-walk/compare.html#a={name}&b=c000000000000008")
    page.wait_for_function("document.getElementById('summary').innerText.length > 0")
    assert page.locator("#comparison").is_hidden()
    page = visited.open(f"logged-walk/run.html#run={name}")
    page.get_by_role("heading", name="No such run").wait_for()
    assert not [text for text in visited.wrong if "asked for" in text]
    page.close()


# ---------------------------------------------------------------- every page


@pytest.mark.parametrize("page", PAGES)
def test_pages_load_without_errors_and_without_a_network(visit, gallery, page):
    opened = visit().open(address(gallery, page))
    opened.wait_for_timeout(100)
    assert opened.evaluate("window.hacked") is None
    assert opened.locator("img[onerror]").count() == 0


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_landmarks_labels_and_descriptions(visit, gallery, page):
    opened = visit().open(address(gallery, page))
    opened.wait_for_timeout(100)
    assert audit(opened, "accessibility") == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_fit_a_phone(visit, gallery, page):
    opened = visit(width=390, touch=True).open(address(gallery, page))
    opened.wait_for_timeout(100)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    heights = opened.locator("select, button").evaluate_all("all => all.map((one) => one.offsetHeight)")
    assert all(height >= 40 for height in heights if height)  # a finger hits them


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", ["front", "study", "sweep", "numbers", "comparison", "cell"])
def test_text_can_be_read_in_light_and_dark(visit, gallery, page, dark):
    opened = visit(dark=dark).open(address(gallery, page))
    opened.wait_for_timeout(100)
    found = audit(opened, "contrast")
    assert found["low"] == []
    assert found["seen"] > 10
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 300) == dark


def test_the_skip_link_leads_to_the_content_and_keeps_the_address(visit):
    visited = visit()
    page = visited.open(PAGES["numbers"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert visited.place == PAGES["numbers"]


def test_focus_can_be_seen(visit):
    page = visit().open("index.html")
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outline").endswith("solid 3px")


def test_everything_can_be_reached_in_the_order_of_the_page(visit):
    page = visit().open("index.html")
    page.keyboard.press("Tab")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.innerText"))
    for link in ("A walk that keeps a log", "Report", "Compare", "Another study"):
        assert link in reached


def test_a_sweep_along_many_axes(browser, tmp_path):
    more = {"data": ["gaussian", "digits"], "seed": [0, 1, 2]}
    fake.sweep(tmp_path / "walk" / "sweep-1", cells=False, more=more)
    page = browser()
    page.goto((site.build(tmp_path).folder / "walk" / "sweep-1.html").as_uri())
    assert page.get_by_label("seed", exact=True).locator("option").all_inner_texts() == ["0", "1", "2"]
    page.get_by_label("Vertical axis", exact=True).select_option("data")
    page.get_by_label("Horizontal axis", exact=True).select_option("depth")
    page.get_by_label("learning_rate", exact=True).select_option("0.1 1/step")
    page.get_by_label("seed", exact=True).select_option("2")
    names = page.get_by_role("gridcell").evaluate_all("cells => cells.map((cell) => cell.ariaLabel)")
    row = [f"depth {depth}, data {{}}: {verdict}" for depth, verdict in ((2, "undecided"), (3, "fails"), (4, "fails"))]
    assert names == [name.format(data) for data in ("gaussian", "digits") for name in row]  # texts read downwards
    page.get_by_role("gridcell").first.hover()
    text = " ".join(page.get_by_label("The chosen cell").inner_text().split())
    assert text.startswith("learning_rate 0.1 1/step depth 2 data gaussian seed 2 claim C1")
    page.close()


def test_the_same_pages_from_the_server(browser, gallery):
    with serve.server(gallery.folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            visited = Visit(browser(), gallery)
            visited.root = serve.address(server).rstrip("/")
            page = visited.open("")
            page.get_by_role("link", name="1 sweep").first.click()
            cell(page, 0, 0).click()
            page.get_by_role("heading", name="Run ").wait_for()
            assert visited.wrong == []
            page.close()
        finally:
            server.shutdown()
            thread.join()


def test_a_sweep_along_one_axis(browser, tmp_path):
    fake.sweep(tmp_path / "walk" / "sweep-1", depths=[2], cells=False)
    page = browser()
    page.goto((site.build(tmp_path).folder / "walk" / "sweep-1.html").as_uri())
    assert page.get_by_label("Horizontal axis", exact=True).input_value() == "learning_rate"
    assert page.get_by_label("Vertical axis", exact=True).input_value() == "claim"  # there is no other
    assert page.get_by_role("gridcell").count() == 18
    page.get_by_role("gridcell").first.hover()
    assert (
        "The folder of its run c000000000000000 is not in this gallery."
        in page.get_by_label("The chosen cell").inner_text()
    )
    page.close()
