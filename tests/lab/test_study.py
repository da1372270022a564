"""A study that contradicts itself is refused when it is declared, not when it is run."""

import dataclasses

import pytest

from separatrix.lab import Experiment, SettingError, UsageError, setting


def test_settings_come_from_a_preset_with_explicit_values_on_top(study):
    assert study.resolve("default", {}) == study.settings()
    assert study.resolve("smoke", {}).members == 4
    assert study.resolve("smoke", {"members": 5, "bias": 1}) == study.settings(members=5, bias=1.0)


def test_an_unknown_preset_is_answered_with_the_known_ones(study):
    with pytest.raises(
        UsageError, match="preset = 'papre' is not allowed: the presets of logged-walk are default, smoke"
    ):
        study.resolve("papre", {})


@pytest.mark.parametrize("preset", [{"membrs": 3}, {"members": 0}])
def test_a_preset_must_hold_allowed_settings(study, preset):
    with pytest.raises(SettingError):
        dataclasses.replace(study, presets={"paper": preset})


def test_a_preset_may_hold_lists(study):
    table = dataclasses.make_dataclass("Table", [("depth", tuple[int, ...], setting((1,), "layers"))], frozen=True)
    changed = dataclasses.replace(study, settings=table, presets={"paper": {"depth": [2, 3]}})
    assert changed.resolve("paper", {}).depth == (2, 3)


def test_settings_cannot_take_the_names_of_the_command(study):
    table = dataclasses.make_dataclass("Table", [("out", str, setting("x", "x"))], frozen=True)
    with pytest.raises(ValueError, match="out cannot be settings"):
        dataclasses.replace(study, settings=table, presets={})


@pytest.mark.parametrize("slug", ["Walk", "a_b", "", "a--b", "../x"])
def test_a_slug_is_lower_case_words(study, slug):
    with pytest.raises(ValueError, match="slug"):
        dataclasses.replace(study, slug=slug)


@pytest.mark.parametrize(("name", "members"), [("a/b", 1), ("", 1), ("walk", 0)])
def test_an_experiment_has_an_identifier_and_members(name, members):
    with pytest.raises(ValueError, match=r"experiment|Experiment"):
        Experiment(name, lambda start, stop: None, members)
