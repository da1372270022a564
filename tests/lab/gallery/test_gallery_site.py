"""The site appears whole or not at all, and takes the place of nothing but a gallery."""

import os

import gallery_fakes as fake
import pytest

from separatrix.lab import UsageError
from separatrix.lab.errors import StoreError
from separatrix.lab.gallery import pages, site


@pytest.fixture
def runs(tmp_path):
    fake.run(tmp_path / "runs" / "walk" / "aa", report="<body></body>")
    return tmp_path / "runs"


def test_the_site_lies_in_the_folder_of_the_runs_unless_told_otherwise(runs, tmp_path):
    assert site.build(runs).folder == runs / "gallery"
    other = site.build(runs, tmp_path / "far" / "away")
    assert other.index.is_file()
    assert sorted(path.name for path in other.folder.parent.iterdir()) == ["away"]


def test_a_second_build_replaces_the_first(runs):
    first = site.build(runs)
    (first.folder / "walk" / "stale.html").write_text("old")
    fake.run(runs / "walk" / "bb")
    second = site.build(runs)
    assert (first.runs, second.runs) == (1, 2)
    assert not (second.folder / "walk" / "stale.html").exists()
    assert sorted(path.name for path in runs.iterdir()) == ["gallery", "walk"]


def test_equal_runs_make_equal_sites(runs, tmp_path):
    def content(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert content(site.build(runs, tmp_path / "one").folder) == content(site.build(runs, tmp_path / "two").folder)


def test_when_a_build_fails_the_old_site_stays(runs, monkeypatch):
    before = site.build(runs).index.read_bytes()

    def fail(*arguments):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(pages, "compare_page", fail)
    with pytest.raises(StoreError, match="No space left on device"):
        site.build(runs)
    assert (runs / "gallery" / "index.html").read_bytes() == before
    assert sorted(path.name for path in runs.iterdir()) == ["gallery", "walk"]


def test_what_a_killed_build_left_is_swept_away(runs):
    (runs / ".gallery.new" / "walk").mkdir(parents=True)
    (runs / ".gallery.old").mkdir()
    site.build(runs)
    assert sorted(path.name for path in runs.iterdir()) == ["gallery", "walk"]


@pytest.mark.parametrize("name", ["runs", "home", "home/diary.txt"])
def test_only_a_gallery_or_an_empty_folder_is_replaced(runs, tmp_path, name):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "diary.txt").write_text("dear diary")
    with pytest.raises(UsageError, match="must be a gallery, an empty folder or a new one"):
        site.build(runs, tmp_path / name)
    assert (tmp_path / "home" / "diary.txt").read_text() == "dear diary"


def test_an_empty_folder_may_become_a_gallery(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    assert site.build(runs, tmp_path / "empty").index.is_file()


def test_no_runs_are_no_error(tmp_path):
    built = site.build(tmp_path)
    assert built.summary == "0 studies, 0 runs, 0 sweeps"
    assert "no finished runs here yet" in built.index.read_text("utf-8")


def test_what_is_left_out_is_said_on_the_page(runs, notices):
    (runs / "foreign" / "x").mkdir(parents=True)
    built = site.build(runs, None, notices.append)
    assert any("foreign" in sentence for sentence in notices)
    page = built.index.read_text("utf-8")
    assert "1 folder was left out" in page
    assert "The folder &#39;foreign&#39; is left out" in page
    assert str(runs) not in page


def test_a_run_without_a_study_around_it_is_left_out(runs, notices):
    assert site.build(runs / "walk", None, notices.append).studies == 0
    assert len(notices) == 1
    assert "name the one above" in notices[0]


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="There is no folder"):
        site.build(tmp_path / "nowhere")
