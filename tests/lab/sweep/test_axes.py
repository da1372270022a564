"""What can be swept over, and how it is written."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from separatrix.lab.settings import SettingError, setting
from separatrix.lab.sweep.axes import axis, parse


@dataclass(frozen=True)
class Settings:
    depth: tuple[int, ...] = setting((2, 3), "layers", low=2)
    learning_rate: float = setting(0.1, "step size", low=0, low_open=True)
    runs: int = setting(10, "runs", low=1, high=10_000)
    data: str = setting("gaussian", "data")
    replacement: bool = setting(True, "with replacement")
    dtype: Literal["float64", "float32"] = setting("float64", "type")
    pair: tuple[float, float] = setting((0.0, 1.0), "two numbers")
    most: int | None = setting(None, "an optional number", low=1)


def test_lists_and_ranges():
    assert parse(Settings, "depth=2,3,4").values == (2, 3, 4)
    assert parse(Settings, "learning-rate=1e-3,0.1").values == (1e-3, 0.1)
    assert parse(Settings, "learning_rate=0.1:0.5:5").values == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert parse(Settings, "data=digits, gaussian").values == ("digits", "gaussian")
    assert parse(Settings, "replacement=true,false").values == (True, False)
    assert parse(Settings, "dtype=float32").values == ("float32",)
    assert parse(Settings, "most=3,4").values == (3, 4)
    decades = parse(Settings, "learning_rate=1e-4:1e-2:5:log")
    assert decades.log
    assert decades.values == pytest.approx([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2], rel=1e-11)
    assert decades.values[::2] == (1e-4, 1e-3, 1e-2)
    assert parse(Settings, "runs=1:1000:4:log").values == (1, 10, 100, 1000)
    assert parse(Settings, "runs=1:3:3").values == (1, 2, 3)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 40), st.booleans())
def test_a_range_has_its_ends_and_equal_steps(first, last, count, log):
    if abs(first - last) <= 1e-6 * first:
        return
    found = parse(Settings, f"learning_rate={first!r}:{last!r}:{count}" + (":log" if log else "")).values
    assert len(found) == count
    assert found[0] == pytest.approx(first, rel=1e-11)
    assert found[-1] == pytest.approx(last, rel=1e-11)
    inner = [math.log(value) for value in found] if log else found
    steps = [b - a for a, b in itertools.pairwise(inner)]
    assert max(steps) - min(steps) < 1e-9 * max(abs(value) for value in inner)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("depth", "over = 'depth' is not allowed: write NAME=A,B,C"),
        ("depth=", "over = 'depth=' is not allowed: write NAME=A,B,C"),
        ("dept=2", "dept is not a setting: did you mean depth?"),
        ("depth=1,2", "depth = (1,) is not allowed: it must be one or more values, each a whole number >= 2."),
        ("depth=2,2", "depth = 2, 2 is not allowed: each value must come once."),
        ("depth=2:4", "over = 'depth=2:4' is not allowed"),
        ("depth=2:4:3:lin", "over = 'depth=2:4:3:lin' is not allowed"),
        ("learning_rate=0:1:3:log", "FIRST and LAST must be finite and positive, COUNT at least 1."),
        ("learning_rate=a:1:3", "over = 'learning_rate=a:1:3' is not allowed"),
        ("learning_rate=0.1:nan:3", "FIRST and LAST must be finite"),
        ("runs=1:2:3", "over = 'runs=1:2:3' is not allowed: runs takes whole numbers."),
        ("learning_rate=x", "learning_rate = 'x' is not allowed: it must be a finite number > 0."),
        ("learning_rate=0:1:3", "learning_rate = 0.0 is not allowed: it must be a finite number > 0."),
        ("replacement=maybe", "replacement = 'maybe' is not allowed: it must be True or False."),
        ("pair=1,2", "pair cannot be swept over: it takes 2 values."),
    ],
)
def test_what_is_not_allowed_is_one_sentence(text, sentence):
    with pytest.raises(SettingError) as refused:
        parse(Settings, text)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_axis_needs_values_each_once():
    for values in ([], [0.1, 0.1], [None]):
        with pytest.raises(SettingError):
            axis(Settings, "most" if values == [None] else "learning_rate", values)
