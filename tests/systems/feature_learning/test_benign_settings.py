"""Settings of the study: what contradicts itself is refused in one sentence, what cannot be tested is warned of."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from separatrix import cli
from separatrix.lab import SettingError, runtime
from separatrix.systems.feature_learning.benign_oscillation import STUDY
from separatrix.systems.feature_learning.oscillation.image_runs import draw_images, image_steps
from separatrix.systems.feature_learning.oscillation.settings import check, input_files


def small(**changes):
    return STUDY.resolve("smoke", changes)


@pytest.mark.parametrize(
    ("changes", "begins", "allowed"),
    [
        ({"strong_steps": (0.5, 0.5)}, "strong_steps = (0.5, 0.5)", "strictly increasing"),
        ({"weak_norm": 1.0}, "weak_norm = 1", "less than strong_norm = 1"),
        ({"steps": 9000}, "most_steps = 6000", "at least steps = 9000"),
        ({"samples": 41}, "samples = 41", "with images it must be even"),
        ({"samples": 1900}, "samples = 1900", "leave images of each class for testing"),
        ({"data": "imagenet"}, "data = 'imagenet'", "none, digits, fashion-mnist, or a FILE.npz"),
        ({"data": "nowhere.npz"}, "data = 'nowhere.npz'", "no file nowhere.npz"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_sentence(changes, begins, allowed):
    with pytest.raises(SettingError) as error:
        check(small(**changes))
    text = str(error.value)
    assert text.startswith(begins)
    assert allowed in text
    assert re.fullmatch(r"[^\n]*\.", text)


@pytest.mark.parametrize(
    "option",
    [
        ["--strong-steps", "0"],
        ["--strong-share", "0"],
        ["--strong-share", "1.5"],
        ["--start-scale", "0"],
        ["--oscillation", "0"],
        ["--weak-norm", "2"],
        ["--noise-power", "-1"],
        ["--runs", "1"],
    ],
)
def test_the_command_refuses_with_code_two_and_writes_nothing(option, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "configure", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "benign-oscillation", *option]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert option[0].lstrip("-").replace("-", "_") in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strong_steps": (0.2, 0.8, 1.7)}, "1.7, neurons die"),
        ({"noise_power": 0.9}, "1.2, noise unstable"),
        ({"weak_norm": 0.95}, "1.2, weak feature unstable"),
        ({"weak_norm": 0.05}, "1.2, growth too slow"),
        ({"noise_power": 0.1}, "teach the weak one at any step"),
        ({"strong_steps": (0.2,)}, "none from 1.2 on|no value from 1.2 on"),
    ],
)
def test_what_cannot_be_tested_is_warned_of(changes, words):
    assert any(re.search(words, text) for text in check(small(**changes)))


@pytest.mark.parametrize("preset", ["default", *STUDY.presets])
def test_presets_are_allowed_and_can_be_planned(preset):
    settings = STUDY.resolve(preset, {})
    assert check(settings) == []
    experiments = STUDY.experiments(settings)
    assert len({one.name for one in experiments}) == len(experiments)
    assert all(one.seconds > 0 and one.bytes_per_member > 0 for one in experiments)
    assert [one.id for one in STUDY.claims(settings)] == [f"L{k}" for k in range(1, 12)]
    assert STUDY.notes(settings)


def test_without_data_there_are_no_images():
    settings = small(data="none")
    assert [one.id for one in STUDY.claims(settings)] == [f"L{k}" for k in range(1, 10)]
    assert not [one for one in STUDY.experiments(settings) if one.name.startswith("images")]
    assert not [one for one in STUDY.figures(settings) if one.name == "images"]
    assert input_files(settings) == []


def test_images_from_a_file(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "two.npz"
    np.savez(path, x=rng.normal(size=(120, 9)), y=np.repeat([3, 7], 60))
    settings = small(data=str(path))
    assert check(settings) == []
    assert input_files(settings) == [path]
    data, start, test = draw_images(settings, 0)
    np.testing.assert_allclose(np.sum(data.backgrounds**2, axis=1), settings.image_power)
    assert data.backgrounds.shape == (40, 9)
    assert start.background.shape == (20, 9)
    assert test.labels.sum() == 0
    # no image is trained and tested on
    assert np.abs(data.backgrounds[:, None] - test.backgrounds[None]).sum(axis=2).min() > 1e-9
    assert image_steps(settings) == (0.2, 0.8, 1.2)


@profile(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.01, 4), min_size=1, max_size=5).map(tuple),
    st.floats(1e-3, 2),
    st.floats(0, 5),
    st.floats(0.01, 1),
)
def test_any_settings_within_bounds_pass_or_are_refused_in_one_sentence(steps, weak_norm, noise_power, share):
    settings = small(strong_steps=steps, weak_norm=weak_norm, noise_power=noise_power, strong_share=share)
    refused, sentences = "", []
    try:
        sentences = check(settings)
    except SettingError as error:
        refused = str(error)
    assert re.fullmatch(r"([a-z_]+ = .* is not allowed: .*\.)?", refused)
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in sentences)
