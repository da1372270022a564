"""Settings of the study: what contradicts itself is refused in one sentence, what cannot be tested is warned of."""

import re

import numpy as np
import pytest

from separatrix import cli
from separatrix.lab import SettingError, runtime
from separatrix.systems.feature_learning.label_noise_two_stages import STUDY
from separatrix.systems.feature_learning.two_stages.image_training import draw_split, noise_guess
from separatrix.systems.feature_learning.two_stages.networks import grid_cells, main_cell, strong_cell
from separatrix.systems.feature_learning.two_stages.reduced import collapse_cells, theory_cell
from separatrix.systems.feature_learning.two_stages.settings import check, images, record_steps


def small(**changes):
    return STUDY.resolve("smoke", {"data": "none", **changes})


@pytest.mark.parametrize(
    ("changes", "begins", "allowed"),
    [
        ({"samples": 81}, "samples = 81", "an even number"),
        ({"image_tests": 81}, "image_tests = 81", "an even number"),
        ({"kappas": (8.0, 4.0)}, "kappas = (8.0, 4.0)", "strictly increasing"),
        ({"noises": (0.2, 0.2)}, "noises = (0.2, 0.2)", "strictly increasing"),
        ({"samples": 8}, "samples = 8", "label_noise = 0.2 leaves 3 samples of a class"),
        ({"negative_noise": 0.49, "samples": 12}, "samples = 12", "negative_noise = 0.49 leaves 3"),
        ({"negative_class": 3}, "negative_class = 3", "give both classes or none"),
        ({"learning_rate": 5.0}, "learning_rate = 5", "it must be at most 1"),
        ({"data": "imagenet"}, "data = 'imagenet'", "digits, fashion-mnist, a FILE.npz with arrays x and y, or none"),
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
        ["--label-noise", "0.5"],
        ["--label-noise", "-0.1"],
        ["--negative-noise", "0.7"],
        ["--kappa", "0"],
        ["--dimension", "1"],
        ["--learning-rate", "0"],
        ["--start-scale", "0"],
        ["--data", "nothing"],
    ],
)
def test_the_command_refuses_with_code_two_and_writes_nothing(option, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "configure", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "label-noise-two-stages", *option]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert option[0].lstrip("-").replace("-", "_") in captured.err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_tested_is_warned_of():
    assert check(small()) == []
    for changes, words in (
        ({"learning_rate": 2.0}, "blur within one step"),
        ({"start_scale": 0.1}, "above 0.1 the theory of Stage I"),
        ({"label_noise": 0.01}, "No label of a class is flipped"),
        ({"kappa": 2.0}, "There is no Stage I at kappa = 2 and strong_noise = 0.4"),
        ({"negative_noise": 0.48}, "There is no Stage I at kappa = 8 and label_noise = 0.48"),
        ({"kappas": (1.0,)}, "Claims L2 and L3"),
        ({"duration": 10.0}, "The duration is short for claim L4"),
    ):
        warnings = check(small(**changes))
        assert any(words in sentence for sentence in warnings), changes
        assert all(re.fullmatch(r"[A-Z].*\.", sentence) for sentence in warnings)


@pytest.mark.parametrize("preset", ["default", "smoke", "paper"])
def test_presets_are_allowed_and_can_be_planned(preset):
    settings = STUDY.resolve(preset, {"data": "none"})
    assert check(settings) == []
    experiments = STUDY.experiments(settings)
    assert len({one.name for one in experiments}) == len(experiments)
    assert all(one.seconds > 0 and one.bytes_per_member > 0 for one in experiments)
    assert [one.id for one in STUDY.claims(settings)] == [f"L{k}" for k in range(1, 15) if k not in (9, 13)]
    assert STUDY.notes(settings)


def test_claims_need_experiments_that_exist():
    settings = small()
    for controls in (True, False):
        names = {one.name for one in STUDY.experiments(settings) if controls or not one.control}
        needed = {one.name for claim in STUDY.claims(settings)
                  for one in STUDY.select(settings, [claim.id], controls).experiments}  # fmt: skip
        assert needed == names


def test_all_networks_take_steps_of_the_same_time():
    settings = small(learning_rate=0.1)
    cells = [main_cell(settings), strong_cell(settings), *grid_cells(settings), theory_cell(settings)]
    assert {cell.time_step for cell in cells} == {settings.time_step}
    for cell in (*cells, *collapse_cells(settings)):
        scale = cell.learning_rate * cell.noise_scale**2 * cell.dimension / (cell.samples * cell.width)
        assert scale == pytest.approx(cell.time_step)


def test_the_weaker_class_decides_when_stage_two_begins():
    both, one = main_cell(small(label_noise=0.3)), main_cell(small(label_noise=0.1, negative_noise=0.3))
    assert (one.positive, one.negative, one.noise) == (0.1, 0.3, 0.2)
    assert (one.stage_two, one.strength) == (both.stage_two, both.strength)
    assert np.isnan(main_cell(small(label_noise=0.1, negative_noise=0.45)).stage_two)


def test_stage_one_is_recorded_on_a_grid_of_four_hundredths():
    steps = record_steps(100.0, 0.01)
    assert steps[0] == 0
    assert np.all(np.diff(steps[steps * 0.01 <= 2]) == 4)
    assert steps[-1] == 10_000
    coarse = record_steps(50.0, 1.0)
    assert coarse.tolist() == sorted(set(coarse.tolist()))
    assert coarse[-1] == 50


# -- images of one's own ----------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    def settings(**extra):
        rng = np.random.default_rng(0)
        true = np.tile([2.0, 5.0], 200)
        y = np.where(np.arange(400) % 5 == 0, 7 - true, true)  # 2 <-> 5
        np.savez(tmp_path / "own.npz", x=rng.normal(size=(400, 3, 2)) + true[:, None, None], y=y, **extra)
        return small(data=str(tmp_path / "own.npz"), image_samples=200, image_tests=60)

    return settings


def test_labels_of_a_file_are_flipped_unless_it_says_which_are_right(own):
    settings = own()
    assert check(settings) == []
    data = images(settings)
    split = draw_split(settings, data, 0)
    assert split.wrong.sum() == 40
    assert noise_guess(settings, data) == 0.2
    assert np.all(split.right == ~split.wrong)
    clean = draw_split(settings, data, 0, clean=True)
    assert np.all(clean.labels[split.wrong] == -split.labels[split.wrong])
    assert clean.wrong.sum() == 40


def test_wrong_labels_of_a_file_are_those_it_says(own):
    true = np.tile([2.0, 5.0], 200)
    settings = own(y_clean=np.where(np.arange(400) < 300, true, np.nan))
    data = images(settings)
    assert check(settings) == []
    split = draw_split(settings, data, 0)
    assert 20 <= split.wrong.sum() <= 40
    assert np.all(~(split.right & split.wrong))
    assert 0 < (~(split.right | split.wrong)).sum() < 100
    assert noise_guess(settings, data) == pytest.approx(0.2)
    assert np.all(np.sign(split.test_inputs.mean(axis=1)) == split.test_labels)  # the right labels, not the observed


def test_a_clean_subset_is_tested_on_and_none_is_known_to_be_wrong(own):
    settings = own(clean=(np.arange(400) % 5 != 0) & (np.arange(400) % 3 == 0))
    split = draw_split(settings, images(settings), 0)
    assert not split.wrong.any()
    assert 0 < split.right.sum() < 100
    assert np.all(np.sign(split.test_inputs.mean(axis=1)) == split.test_labels)


def test_too_few_images_are_refused(own, tmp_path):
    settings = own(clean=np.arange(400) < 40)
    with pytest.raises(SettingError, match=r"^image_tests = 60 is not allowed: tests need known labels"):
        check(settings)
    with pytest.raises(SettingError, match=r"^image_samples = 380 is not allowed: with image_tests = 60 it needs 220"):
        check(small(data=settings.data, image_samples=380, image_tests=60))
