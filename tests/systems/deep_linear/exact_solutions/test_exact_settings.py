"""Settings of the study: what contradicts itself is refused in one sentence, what cannot be tested is warned of."""

import re

import numpy as np
import pytest
from exact_results import tiny
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from separatrix.cli import main
from separatrix.lab import SettingError, from_json, to_json
from separatrix.systems.deep_linear.deep_linear_exact_solutions import STUDY
from separatrix.systems.deep_linear.exact_solutions.settings import batch_task, check, mode_task, scan_task


@pytest.fixture
def npz(tmp_path):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 6))
    y = x[:, :4] * np.array([4.0, 3.0, 2.0, 1.0]) + 0.1 * rng.normal(size=(60, 4))
    path = tmp_path / "linear.npz"
    np.savez(path, x=x, y=y)
    return str(path)


REFUSED = [
    ({"singular_values": (2.0, 2.0)}, "singular_values = (2.0, 2.0)", "strictly decreasing"),
    ({"depth": (2, 2)}, "depth = (2, 2)", "each depth must appear once"),
    ({"scan_depth": (4, 2)}, "scan_depth = (4, 2)", "at least two values, increasing"),
    ({"scan_depth": (4,)}, "scan_depth = (4,)", "at least two values, increasing"),
    ({"factors": (2, 2)}, "factors = (2, 2)", "at least two values, increasing"),
    ({"initial_strength": 0.4}, "initial_strength = 0.4", "must lie below 0.4"),
    ({"depth_strength": 0.5}, "depth_strength = 0.5", "must lie below 0.4"),
    ({"scan_strength": 0.2}, "scan_strength = 0.2", "must lie below 0.16"),
    ({"learning_rate": 0.04}, "learning_rate = 0.04", "must be below 0.03125"),
    ({"scan_width": 3}, "scan_width = 3", "at least the 4 modes"),
    ({"data": "imagenet"}, "data = 'imagenet'", "hierarchical, digits, fashion-mnist, or a FILE.npz"),
    ({"data": "nowhere.npz"}, "data = 'nowhere.npz'", "no file nowhere.npz"),
]


@pytest.mark.parametrize(("changes", "start", "allowed"), REFUSED)
def test_what_contradicts_itself_is_refused_in_one_sentence(changes, start, allowed):
    with pytest.raises(SettingError) as error:
        check(tiny(**changes))
    assert str(error.value).startswith(start)
    assert allowed in str(error.value)
    assert re.fullmatch(r"[^\n]*\.", str(error.value))


@pytest.mark.parametrize("tokens", [["--data=nowhere.npz"], ["--depth", "1"], ["--data=gaussian"], ["--runs=none"]])
def test_bad_input_ends_with_code_two_and_writes_nothing(tokens, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(main(["run", STUDY.slug, *tokens, f"--out={tmp_path}"]))
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


def test_too_many_modes_of_a_data_set_are_refused(npz):
    with pytest.raises(SettingError, match="modes must be at most 4"):
        check(tiny(data=npz, modes=5))


@pytest.mark.parametrize("preset", ["default", *STUDY.presets])
def test_presets_are_allowed_and_have_no_warnings_about_small_networks(preset):
    warnings = check(STUDY.resolve(preset, {}))
    assert not [one for one in warnings if "_width" in one or "rate" in one]
    assert not [one for one in warnings if "stays undecided" in one]


def test_what_stays_undecided_is_said():
    assert len(check(tiny())) == 2
    assert len(check(tiny(scan_depth=(4, 32, 64)))) == 0
    (one,) = check(tiny(scan_depth=(4, 32, 64), hidden_width=3))
    assert "hidden_width = 3 is below the 8 modes" in one
    (one,) = check(tiny(scan_depth=(4, 32, 64), scan_width=17))
    assert "scan_width = 17" in one
    (one,) = check(tiny(scan_depth=(4, 32, 64), batch_learning_rate=1.0))
    assert "batch_learning_rate = 1" in one


def test_a_data_set_brings_its_own_modes(npz):
    settings = tiny(data=npz, modes=3)
    check(settings)
    modes, data = mode_task(settings), batch_task(settings)
    assert (modes.inputs, modes.outputs, modes.singular_values.size) == (6, 4, 3)
    assert modes.largest == 1
    assert scan_task(settings).singular_values.tolist() == modes.singular_values.tolist()
    assert data.variance == pytest.approx(1)
    correlation = data.outputs.T @ data.inputs / len(data.inputs)
    np.testing.assert_allclose(data.left.T @ correlation @ data.right, np.diag(data.singular_values), atol=1e-12)
    assert STUDY.inputs(settings)[0].name == "linear.npz"
    assert "60 samples, 6 whitened" in STUDY.notes_for(settings)
    assert STUDY.inputs(tiny()) == []


def test_the_tree_has_its_modes():
    data = batch_task(tiny())
    assert data.variance == 1 / 8
    correlation = data.outputs.T @ data.inputs / 8
    np.testing.assert_allclose(data.left.T @ correlation @ data.right, np.diag(data.singular_values), atol=1e-12)


@profile(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5),
    st.lists(st.integers(2, 64), min_size=1, max_size=3),
    st.floats(1e-6, 1),
    st.floats(1e-12, 10),
    st.lists(st.integers(2, 256), min_size=1, max_size=3),
    st.floats(1e-9, 0.3),
)
def test_any_settings_pass_and_can_be_planned_or_are_refused_in_one_sentence(s, depth, rate, strength, scan, scale):
    settings = tiny(singular_values=tuple(s), depth=tuple(depth), learning_rate=rate, initial_strength=strength,
                    scan_depth=tuple(scan), start_scale=scale)  # fmt: skip
    assert from_json(STUDY.settings, to_json(settings)) == settings
    try:
        sentences, form = check(settings), r".*\."
        experiments = STUDY.experiments(settings)
        assert len({one.name for one in experiments}) == len(experiments)
        assert all(np.isfinite(one.seconds) and one.seconds > 0 for one in experiments)
    except SettingError as error:
        sentences, form = [str(error)], r"[a-z_]+ = .* is not allowed[:,].*\."
    assert all(re.fullmatch(form, sentence) for sentence in sentences)
