"""A study is found because it is there; what is broken is named and does not disturb the others."""

import sys

import pytest

from separatrix.lab import UsageError, discovery


def test_studies_are_found_without_being_imported(monkeypatch, tmp_path):
    (tmp_path / "boom_study.py").write_text("raise SystemError('imported')\nSTUDY = 1\n")
    (tmp_path / "no_study.py").write_text("raise SystemError('imported')\n# STUDY = 1\n    STUDY = 1\n")
    monkeypatch.setenv(discovery.PATH_VARIABLE, str(tmp_path))
    found = [one for one in discovery.find() if one.own]
    assert [one.slug for one in found] == ["boom-study"]
    assert "boom_study" not in sys.modules


def test_every_packaged_study_can_be_imported():
    for found in discovery.find():
        assert discovery.import_study(found).slug == found.slug


def test_several_folders_may_be_named(monkeypatch, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"study_{name}.py").write_text("STUDY = 1\n")
    monkeypatch.setenv(discovery.PATH_VARIABLE, f"{tmp_path / 'a'}:{tmp_path / 'b'}:")
    assert [one.slug for one in discovery.find() if one.own] == ["study-a", "study-b"]


def test_an_unknown_study_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="There is no study 'loged-walk': did you mean logged-walk"):
        discovery.locate("loged-walk")
    with pytest.raises(UsageError, match="`separatrix list` shows all"):
        discovery.locate("zzz")


def test_underscores_are_accepted():
    assert discovery.locate("logged_walk").slug == "logged-walk"


def test_a_slug_in_two_places_is_refused(monkeypatch, tmp_path):
    (tmp_path / "logged_walk.py").write_text("STUDY = 1\n")
    monkeypatch.setenv(discovery.PATH_VARIABLE, f"{tmp_path}:{discovery.os.environ[discovery.PATH_VARIABLE]}")
    with pytest.raises(UsageError, match="Two modules declare the study logged-walk"):
        discovery.locate("logged-walk")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_of_this_name\nSTUDY = 1\n", "line 1.: ModuleNotFoundError"),
        ("x = 1\n1 / 0\nSTUDY = 1\n", "line 2.: ZeroDivisionError"),
        ("x = (\nSTUDY = 1\n", "SyntaxError"),
        ("STUDY = 1\n", "defines STUDY as a int"),
    ],
)
def test_a_broken_module_is_one_sentence(monkeypatch, tmp_path, source, reason):
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.setenv(discovery.PATH_VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match=reason) as refusal:
        discovery.import_study(discovery.locate("broken"))
    assert len(str(refusal.value).splitlines()) == 1


def test_the_file_must_have_the_name_of_the_study(monkeypatch, tmp_path):
    source = (discovery.Path(discovery.os.environ[discovery.PATH_VARIABLE]) / "logged_walk.py").read_text()
    (tmp_path / "other_name.py").write_text(source)
    monkeypatch.setenv(discovery.PATH_VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match=r"must be named logged_walk\.py"):
        discovery.import_study(discovery.locate("other-name"))


def test_a_folder_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv(discovery.PATH_VARIABLE, "/nowhere/at/all")
    with pytest.raises(UsageError, match="not a folder"):
        discovery.find()


def test_a_study_may_use_modules_beside_it(monkeypatch, tmp_path):
    (tmp_path / "walk_helper_of_test.py").write_text("from dataclasses import dataclass\n")
    (tmp_path / "with_helper.py").write_text("import walk_helper_of_test\nSTUDY = walk_helper_of_test\n")
    monkeypatch.setenv(discovery.PATH_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UsageError, match="defines STUDY as a module"):
        discovery.import_study(discovery.locate("with-helper"))
