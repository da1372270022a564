"""Settings of the study: what contradicts itself is refused in one sentence, what cannot be tested is warned of."""

import re

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from lazy_generalization import small

from separatrix import cli
from separatrix.lab import SettingError, runtime
from separatrix.systems.high_dimensional_regression.generalization.settings import check, descent_ratio
from separatrix.systems.high_dimensional_regression.high_dim_generalization import STUDY


@pytest.mark.parametrize(
    ("changes", "begins", "allowed"),
    [
        ({"ratios": (0.5, 1.0, 1.0, 2.0)}, "ratios = (0.5, 1.0, 1.0, 2.0)", "strictly increasing"),
        ({"ratios": (0.5, 2.0)}, "ratios = (0.5, 2.0)", "1 must be among the values"),
        ({"ratios": (1.0, 2.0)}, "ratios = (1.0, 2.0)", "with smaller and larger ones"),
        ({"ratios": (0.01, 1.0, 2.0)}, "ratios = (0.01, 1.0, 2.0)", "at least 4 samples"),
        ({"start_variances": (0.5,)}, "start_variances = (0.5,)", "at least two values"),
        ({"noise_ratios": (1.0, 0.2)}, "noise_ratios = (1.0, 0.2)", "strictly increasing"),
        ({"feature_widths": (10, 20, 30)}, "feature_widths = (10, 20, 30)", "feature_samples = 150 must be among"),
        ({"learning_rate": 0.7}, "learning_rate = 0.7", "descent diverges from 2 / (1 + sqrt(alpha))^2 = 0.6863"),
        ({"data": "imagenet"}, "data = 'imagenet'", "gaussian, digits, fashion-mnist, or a FILE.npz"),
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
        ["--ratios", "-1", "1", "2"],
        ["--ratios", "0", "1", "2"],
        ["--noise-ratios", "-0.1"],
        ["--start-variances", "-1", "0"],
        ["--feature-noise", "0"],
        ["--learning-rate", "3"],
        ["--draws", "1"],
        ["--dtype", "float16"],
    ],
)
def test_the_command_refuses_with_code_two_and_writes_nothing(option, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "configure", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "high-dim-generalization", *option]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert option[0].lstrip("-").replace("-", "_") in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_reasonable_choice_has_no_warning_and_others_are_warned_of():
    assert check(small()) == []
    assert any("B3" in text for text in check(small(ratios=(0.5, 1.0, 1.25, 2.0))))
    assert any("B4" in text for text in check(small(start_variances=(0.0, 0.1))))
    assert any("B2" in text for text in check(small(ratios=(0.25, 0.5, 1.0, 2.0), feature_widths=(75, 150, 300))))


@pytest.mark.parametrize("preset", ["default", *STUDY.presets])
def test_presets_are_allowed_and_can_be_planned(preset):
    settings = STUDY.resolve(preset, {})
    assert check(settings) == []
    experiments = STUDY.experiments(settings)
    assert len({one.name for one in experiments}) == len(experiments)
    assert all(one.seconds > 0 and one.bytes_per_member > 0 for one in experiments)
    assert [one.id for one in STUDY.claims(settings)] == [f"B{k}" for k in range(1, 10)]
    assert STUDY.notes(settings)


@profile(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.01, 50), min_size=1, max_size=6).map(tuple),
    st.lists(st.floats(1e-3, 10), min_size=1, max_size=3).map(tuple),
    st.floats(1e-3, 5),
)
def test_any_settings_within_bounds_pass_or_are_refused_in_one_sentence(ratios, noise_ratios, learning_rate):
    settings = small(ratios=ratios, noise_ratios=noise_ratios, learning_rate=learning_rate)
    refused, sentences = "", []
    try:
        sentences = check(settings)
    except SettingError as error:
        refused = str(error)
    assert re.fullmatch(r"([a-z_]+ = .* is not allowed: .*\.)?", refused)
    assert all(re.fullmatch(r"[A-Z].*\.", sentence) for sentence in sentences)
    assert refused or descent_ratio(settings) < 1
