"""Settings of the study: what contradicts itself is refused in one sentence, what cannot be tested is warned of."""

import dataclasses
import functools
import re
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from lazy_results import tiny

from separatrix.lab import SettingError, from_json, settings_hash, to_json
from separatrix.lab.settings import specs
from separatrix.systems.deep_linear.saddle_to_saddle import chain
from separatrix.systems.deep_linear.saddle_to_saddle.settings import check
from separatrix.systems.deep_linear.saddle_to_saddle_sgd import STUDY

SETTINGS = STUDY.settings
FIELDS = dict(specs(SETTINGS))


@pytest.fixture
def npz(tmp_path):
    """A linear teacher of six inputs and four outputs with distinct singular values, in a file."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 6))
    y = x[:, :4] * np.array([4.0, 3.0, 2.0, 1.0]) + 0.1 * rng.normal(size=(60, 4))
    path = tmp_path / "linear.npz"
    np.savez(path, x=x, y=y)
    return str(path)


@pytest.mark.parametrize(
    ("changes", "names_value", "allowed"),
    [
        ({"singular_values": (2.0, 2.0, 1.0)}, "singular_values = (2.0, 2.0, 1.0)", "strictly decreasing"),
        ({"singular_values": (1.0, 2.0)}, "singular_values = (1.0, 2.0)", "strictly decreasing"),
        ({"depth": (2, 3, 2)}, "depth = (2, 3, 2)", "each depth must appear once"),
        ({"hidden_width": 1}, "hidden_width = 1", "at least the 2 modes"),
        ({"scalar_rates": (0.04,)}, "scalar_rates = (0.04,)", "at least two values, strictly decreasing"),
        ({"scalar_rates": (0.02, 0.04)}, "scalar_rates = (0.02, 0.04)", "at least two values, strictly decreasing"),
        ({"scalar_rates": (0.02, 0.02)}, "scalar_rates = (0.02, 0.02)", "at least two values, strictly decreasing"),
        ({"data": "imagenet"}, "data = 'imagenet'", "gaussian, digits, fashion-mnist, or a FILE.npz"),
        ({"data": "nowhere.npz"}, "data = 'nowhere.npz'", "no file nowhere.npz"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_sentence(changes, names_value, allowed):
    with pytest.raises(SettingError) as error:
        check(tiny(**changes))
    text = str(error.value)
    assert text.startswith(names_value)
    assert allowed in text
    assert re.fullmatch(r"[^\n]*\.", text)


def test_a_batch_larger_than_the_data_is_refused_only_without_replacement(npz):
    with pytest.raises(SettingError, match=r"^batch_size = 61 is not allowed: without replacement .* 60 samples"):
        check(tiny(data=npz, batch_size=61, replacement=False))
    check(tiny(data=npz, batch_size=60, replacement=False))
    check(tiny(data=npz, batch_size=61, replacement=True))


def test_on_a_data_set_the_modes_that_are_followed_count(npz):
    with pytest.raises(SettingError, match=r"hidden_width = 3 .* at least the 4 modes"):
        check(tiny(data=npz, hidden_width=3, modes=4))
    check(tiny(data=npz, hidden_width=3, modes=3))


class TestWarnings:
    def test_a_reasonable_choice_has_none(self):
        assert check(tiny()) == []
        assert check(SETTINGS()) == []

    def test_instability_is_said_from_the_bound_on(self):
        # learning rate * lambda * (1 + (d_0 + 1) / B) with lambda = L s^(2 - 2/L) = 4 and d_0 = 2: 16 learning rates
        assert check(tiny(learning_rate=0.124, label_noise=0.0)) == []
        (warning,) = check(tiny(learning_rate=0.126, label_noise=0.0))
        assert warning.startswith("At depth 2 SGD is unstable: ")
        assert "= 2.02" in warning
        # a larger batch is stable again
        assert check(tiny(learning_rate=0.126, label_noise=0.0, batch_size=2)) == []

    def test_a_meaningless_temperature_is_said_where_sgd_is_stable(self):
        # one mode: kappa lambda = 2 learning rates, unstable from 6 learning rates = 2 on
        one = {"singular_values": (1.0,), "hidden_width": 1, "label_noise": 0.0}
        assert check(tiny(learning_rate=0.24, **one)) == []
        (warning,) = check(tiny(learning_rate=0.26, **one))
        assert "the temperature means nothing" in warning
        (warning,) = check(tiny(learning_rate=0.34, **one))
        assert "unstable" in warning

    def test_label_noise_above_critical_is_said(self):
        # critical at depth 2 is sigma / s = 1/2, and the weakest mode has s = 1
        assert check(tiny(label_noise=0.49)) == []
        (warning,) = check(tiny(label_noise=0.51))
        assert "label noise is above critical" in warning
        assert "0.51" in warning

    def test_unequal_numbers_of_inputs_and_outputs_are_said(self, npz):
        (warning,) = check(tiny(data=npz, modes=2))
        assert "d_0 = 6, d_L = 4" in warning
        assert not any("d_0" in warning for warning in check(tiny(data=npz, modes=2, components=4)))

    def test_every_depth_is_looked_at(self):
        warnings = check(tiny(depth=(2, 3, 4), label_noise=5.0))
        assert [warning[:10] for warning in warnings] == ["At depth 2", "At depth 3", "At depth 4"]


@pytest.mark.parametrize("preset", ["default", *STUDY.presets])
def test_presets_resolve_and_are_allowed(preset):
    settings = STUDY.resolve(preset, {})
    check(settings)
    names = [experiment.name for experiment in STUDY.experiments(settings)]
    assert len(set(names)) == len(names)
    for name, value in STUDY.presets.get(preset, {}).items():
        assert getattr(settings, name) == value


# -- any settings within their bounds ---------------------------------------------------------------------------------


def values_of(spec):
    """Any value that the declaration of one setting allows, numbers without a bound between 1e-6 and 1e6."""
    if spec.choices is not None:
        one = st.sampled_from(spec.choices)
    elif spec.kind is bool:
        one = st.booleans()
    elif spec.kind is int:
        one = st.integers(int(spec.low), int(spec.high if spec.high is not None else 2**40))
    elif spec.kind is float:
        low = max(spec.low, 1e-6)
        one = st.floats(low, 1e6 if spec.high is None else spec.high)
        if not spec.low_open:
            one = st.just(spec.low) | one
    else:
        one = st.sampled_from(["gaussian", "gaussian", "elsewhere", "missing.npz", ""])
    return st.lists(one, min_size=1, max_size=4).map(tuple) if spec.many else one


sensible = st.fixed_dictionaries({}, optional={name: values_of(spec) for name, spec in FIELDS.items()})
critical_learning_rate = functools.cache(chain.critical_learning_rate)  # the slow part of a plan, always the same
decreasing = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5, unique=True).map(lambda v: tuple(sorted(v)[::-1]))


@profile(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sensible)
def test_any_settings_within_bounds_pass_or_are_refused_in_one_sentence(values):
    settings = STUDY.resolve("default", values)
    try:
        sentences, form = check(settings), r"[A-Z].*\."
    except SettingError as error:
        sentences, form = [str(error)], r"[a-z_]+ = .* (is not allowed|cannot be used): .*\."
    assert all(re.fullmatch(form, sentence) for sentence in sentences)


@profile(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sensible,
    decreasing,
    st.lists(st.integers(2, 32), min_size=1, max_size=3, unique=True).map(tuple),
    st.integers(5, 40),
    st.floats(1e-5, 1.0),
)
def test_what_is_allowed_can_be_planned(values, singular_values, depth, hidden_width, learning_rate):
    values |= {
        "data": "gaussian",
        "singular_values": singular_values,
        "depth": depth,
        "hidden_width": hidden_width,
        "learning_rate": learning_rate,
        "init_exponent": min(values.get("init_exponent", 2.5), 3.0),
    }
    settings = STUDY.resolve("default", values)
    try:
        check(settings)
    except SettingError:
        assume(False)
    try:
        with mock.patch.object(chain, "critical_learning_rate", critical_learning_rate):
            experiments = STUDY.experiments(settings)
    except SettingError as error:
        sentence = str(error)
        experiments = None
    if experiments is None:
        assert re.fullmatch(r"learning_rate = .* would take .* steps, and a run can have at most 2\^31\.", sentence)
        return
    assert len({one.name for one in experiments}) == len(experiments)
    assert all(np.isfinite(one.seconds) and one.seconds > 0 and one.bytes_per_member > 0 for one in experiments)
    assert [one.id for one in STUDY.claims(settings)] == [f"C{k}" for k in range(1, 13)]
    assert STUDY.notes_for(settings)
    assert len(STUDY.figures(settings)) == 12


@profile(max_examples=300, deadline=None)
@given(sensible)
def test_settings_come_back_from_json_with_their_hash(values):
    settings = STUDY.resolve("default", values)
    again = from_json(SETTINGS, to_json(settings))
    assert again == settings
    assert settings_hash(again) == settings_hash(settings)


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_part_of_the_hash(name):
    other = {
        "seed": 1, "data": "digits", "components": 15, "modes": 3, "replacement": False, "singular_values": (4.0, 3.0),
        "depth": (2, 3), "hidden_width": 11, "learning_rate": 0.001, "batch_size": 2, "label_noise": 0.2,
        "initial_strength": 0.02, "init_exponent": 2.0, "aligned_runs": 501, "random_runs": 193, "chain_runs": 99_999,
        "samples": 1_999_999, "scalar_label_noise": 0.5, "scalar_rates": (0.04, 0.02), "dtype": "float32",
    }[name]  # fmt: skip
    default = SETTINGS()
    assert settings_hash(dataclasses.replace(default, **{name: other})) != settings_hash(default)
