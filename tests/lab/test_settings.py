"""Settings mean the same in Python, in JSON and on the command line, and hash by what they mean."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from separatrix.lab import SettingError, from_json, options, setting, settings_hash, to_json, validate
from separatrix.lab.settings import specs


@dataclass(frozen=True)
class Everything:
    learning_rate: float = setting(0.1, "step size", unit="1/step", low=0, high=2, low_open=True)
    temperature: float = setting(1.0, "any number")
    offset: float | None = setting(None, "shift, or none", low=-1, high=1, high_open=True)
    members: int = setting(16, "independent runs", low=1)
    cutoff: int | None = setting(3, "last mode, or none")
    data: str = setting("gaussian", "where inputs come from")
    start: Literal["aligned", "random"] = setting("aligned", "initial weights")
    order: int = setting(2, "order of the scheme", choices=(1, 2, 4))
    replacement: bool = setting(True, "draw with replacement")
    depth: tuple[int, ...] = setting((2, 3), "layers", low=1, high=64)
    strengths: tuple[float, ...] = setting((1.0, 0.5), "modes", low=0)
    window: tuple[float, float] = setting((0.0, 1.0), "ends of the window")
    names: tuple[str, ...] = setting(("a", "b"), "names of modes")


finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
words = st.text(st.characters(codec="utf-8", exclude_characters="\0,"), min_size=1)
valid = st.builds(
    Everything,
    learning_rate=st.floats(0, 2, exclude_min=True) | st.integers(1, 2),
    temperature=finite | st.integers(-(2**53), 2**53),
    offset=st.none() | st.floats(-1, 1, exclude_max=True),
    members=st.integers(1),
    cutoff=st.none() | st.integers(),
    data=texts,
    start=st.sampled_from(["aligned", "random"]),
    order=st.sampled_from([1, 2, 4]),
    replacement=st.booleans(),
    depth=st.lists(st.integers(1, 64), min_size=1, max_size=5).map(tuple),
    strengths=st.lists(st.floats(0, allow_infinity=False), min_size=1, max_size=5).map(tuple),
    window=st.tuples(finite, finite),
    names=st.lists(words, min_size=1, max_size=3).map(tuple),
)
many = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@many
@given(valid)
def test_valid_settings_round_trip_through_json_and_the_command_line(original):
    validate(original)
    read = from_json(Everything, to_json(original))
    assert read == original
    values, rest = options.parse(options.arguments(read), Everything)
    assert rest == []
    typed = Everything(**values)
    assert typed == original
    assert settings_hash(typed) == settings_hash(read) == settings_hash(original)
    # underscores and commas are accepted as well
    loose = [
        "--" + token[2:].replace("-", "_") if token.startswith("--") and "=" not in token else token
        for token in options.arguments(read)
    ]
    assert Everything(**options.parse(loose, Everything)[0]) == original


def not_a_number(text):
    try:
        float(text)
    except ValueError:
        return True
    return False


nonsense = texts.filter(not_a_number).filter(
    lambda text: not text.startswith("--") and "," not in text and text != "none"
)
bad_number = nonsense | st.sampled_from(["nan", "inf", "-inf", "1e999", "", "0x10", "1,2"])
bad_text = {
    "learning_rate": bad_number | st.sampled_from(["0", "-1", "2.0001", "-0.0"]),
    "temperature": bad_number,
    "offset": bad_number | st.sampled_from(["1", "-1.5"]),
    "members": bad_number | st.sampled_from(["0", "-3", "1.5", "none"]),
    "cutoff": bad_number | st.sampled_from(["0.5"]),
    "start": nonsense,
    "order": nonsense | st.sampled_from(["3", "1.5"]),
    "depth": nonsense | st.sampled_from(["0", "65", "2,0", "2,,3", "1.5", "nan"]),
    "strengths": nonsense | st.sampled_from(["-1", "1,-1e-300", "1,inf"]),
    "window": nonsense | st.sampled_from(["1", "1,2,3", "0,nan"]),
    "names": st.sampled_from(["a,,b", "", ","]),
}
invalid = st.sampled_from(sorted(bad_text)).flatmap(lambda name: st.tuples(st.just(name), bad_text[name]))


@many
@given(invalid, st.booleans())
def test_invalid_values_are_refused_in_one_line_that_names_the_setting(case, inline):
    name, text = case
    option = "--" + name.replace("_", "-")
    tokens = [f"{option}={text}"] if inline else [option, text]
    with pytest.raises(SettingError) as refusal:
        Everything(**options.parse(tokens, Everything)[0])
    sentence = str(refusal.value)
    assert sentence.startswith(name)
    assert len(sentence.splitlines()) == 1
    assert len(sentence) < 250
    assert "must be" in sentence


wrong = {
    "learning_rate": [math.nan, math.inf, 0.0, -1e-9, 2.1, "0.1", None, True, (0.1,), 10**400],
    "temperature": [math.nan, "1", [1.0], 10**400],
    "offset": [1.0, math.nan, "none"],
    "members": [0, 1.0, True, None, "3"],
    "data": [1, None, ("a",)],
    "start": ["", "Aligned", None],
    "order": [3, 2.0, "2", True],
    "replacement": [1, None, "yes"],
    "depth": [(), [2, 3], (2, 65), (2.0,), 2, None],
    "window": [(0.0,), (0.0, 1.0, 2.0), (math.nan, 1.0)],
    "names": [(), ("a,b",), ("",), (1,), "ab"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in wrong.items() for value in values])
def test_wrong_values_from_python_are_refused(name, value):
    with pytest.raises(SettingError, match=f"^{name} = .* is not allowed: it must be "):
        validate(dataclasses.replace(Everything(), **{name: value}))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_never_holds_a_number_that_json_does_not_know(value):
    with pytest.raises(SettingError):
        to_json(Everything(temperature=value))


def test_json_is_canonical():
    assert to_json(Everything(temperature=1)) == to_json(Everything(temperature=1.0))
    assert settings_hash(Everything(temperature=-0.0)) == settings_hash(Everything(temperature=0.0))
    assert " " not in to_json(Everything())
    assert list(json.loads(to_json(Everything()))) == sorted(specs(Everything))


def test_the_hash_is_the_same_on_every_machine_and_in_every_version():
    assert settings_hash(Everything()) == "f1581c567f16ef99c2d8377ea6a40ea206acea7760a746aeb992a51ea28439a5"


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"learning_rate": NaN}', "null"])
def test_json_that_is_no_object_of_the_fields_is_refused(text):
    with pytest.raises(SettingError):
        from_json(Everything, text)


def test_unknown_and_missing_fields_are_refused():
    values = json.loads(to_json(Everything()))
    with pytest.raises(SettingError, match="lerning_rate is not a setting: did you mean learning_rate"):
        from_json(Everything, json.dumps({**values, "lerning_rate": 1.0}))
    del values["depth"]
    with pytest.raises(SettingError, match="depth is missing"):
        from_json(Everything, json.dumps(values))


def test_whole_numbers_may_be_written_with_an_exponent():
    assert options.parse(["--members", "1e5"], Everything)[0] == {"members": 100_000}


def test_a_repeated_option_counts_once_and_the_last_one_wins():
    assert options.parse(["--order", "1", "--order", "4"], Everything)[0] == {"order": 4}


def test_negative_numbers_are_values():
    assert options.parse(["--window", "-1e-3", "-.5", "--offset", "-1"], Everything)[0] == {
        "window": (-1e-3, -0.5),
        "offset": -1.0,
    }


@pytest.mark.parametrize("hint", [dict, "complex", tuple[int, str], str | None, tuple[bool, ...]])
def test_a_type_that_cannot_be_a_setting_is_a_mistake_of_the_author(hint):
    table = dataclasses.make_dataclass("Table", [("x", hint, setting(1, "x"))], frozen=True)
    with pytest.raises((TypeError, NameError)):
        specs(table)


def test_settings_must_be_frozen_and_described():
    with pytest.raises(TypeError, match="frozen"):
        specs(dataclasses.make_dataclass("Table", [("x", int, setting(1, "x"))]))
    with pytest.raises(TypeError, match=r"declared with setting"):
        specs(dataclasses.make_dataclass("Table", [("x", int, 1)], frozen=True))


def test_the_help_gives_type_unit_default_and_range():
    text = " ".join(options.describe(Everything).split())
    for name, spec in specs(Everything).items():
        assert f"--{name.replace('_', '-')}" in text
        assert spec.help in text
    assert "--learning-rate FLOAT step size [1/step] (a finite number > 0 and <= 2; default 0.1)" in text
    assert "--start TEXT initial weights (one of aligned, random; default aligned)" in text
