"""Axes of a sweep: a setting and the values it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from separatrix.lab.settings import SettingError, Spec, specs, unknown_setting

Value = bool | int | float | str

_FORMS = "write NAME=A,B,C or, for numbers, NAME=FIRST:LAST:COUNT or NAME=FIRST:LAST:COUNT:log"


@dataclass(frozen=True)
class Axis:
    """A setting with the values it takes in a sweep.

    Parameters
    ----------
    name
        Name of the setting. Of a setting that takes several values each cell gets one.
    values
        In order, each once.
    log
        Whether the values are spread evenly in the logarithm: plots follow.
    """

    name: str
    values: tuple[Value, ...]
    log: bool = False

    def setting(self, spec: Spec, value: Value) -> Any:
        """Value of the setting in a cell."""
        return (value,) if spec.many else value


def axis(settings_class: type, name: str, values: Sequence[Any], *, log: bool = False) -> Axis:
    """Checked axis of a study's settings.

    Raises
    ------
    SettingError
        If there is no such setting, a value is not allowed, or one comes twice.
    """
    table = specs(settings_class)
    if name not in table:
        raise unknown_setting(name, table)
    spec = table[name]
    if spec.many and spec.length not in (None, 1):
        raise SettingError(f"{name} cannot be swept over: it takes {spec.length} values.")
    checked = [spec.check((value,) if spec.many else value) for value in values]
    plain = tuple(value[0] if spec.many else value for value in checked)
    if not plain:
        raise SettingError(f"{name} has no values to sweep over: {_FORMS}.")
    if len(set(plain)) != len(plain):
        raise SettingError(f"{name} = {', '.join(map(str, plain))} is not allowed: each value must come once.")
    if any(value is None for value in plain):
        raise SettingError(f"{name} = none is not allowed in a sweep: an axis needs values.")
    return Axis(name, plain, log)


def parse(settings_class: type, text: str) -> Axis:
    """Axis from the text of an option ``--over``, for example ``depth=2,3,4`` or ``learning_rate=1e-4:1e-2:5:log``.

    Raises
    ------
    SettingError
        If the text is not of a known form or names something that is not allowed.
    """
    name, equals, right = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not right.strip():
        raise SettingError(f"over = {text!r} is not allowed: {_FORMS}.")
    table = specs(settings_class)
    if name not in table:
        raise unknown_setting(name, table)
    spec = table[name]
    parts = right.split(":")
    if len(parts) > 1 and spec.kind in (int, float):
        log = len(parts) == 4 and parts[3] == "log"
        if len(parts) != 3 + log:
            raise SettingError(f"over = {text!r} is not allowed: {_FORMS}.")
        return axis(settings_class, name, _spread(text, spec, *parts[:3], log=log), log=log)
    return axis(settings_class, name, [_read(spec, part.strip()) for part in right.split(",")])


def _read(spec: Spec, text: str) -> Any:
    from separatrix.lab.options import read_one

    if spec.kind is bool:
        if text.lower() not in ("true", "false"):
            raise spec.refuse(text)
        return text.lower() == "true"
    try:
        return read_one(spec, text)
    except (ValueError, OverflowError):
        raise spec.refuse(text) from None


def _spread(text: str, spec: Spec, first: str, last: str, count: str, *, log: bool) -> list[Any]:
    try:
        low, high, number = float(first), float(last), int(count)
    except ValueError:
        raise SettingError(f"over = {text!r} is not allowed: {_FORMS}.") from None
    if number < 1 or not (math.isfinite(low) and math.isfinite(high)) or (log and min(low, high) <= 0):
        raise SettingError(
            f"over = {text!r} is not allowed: FIRST and LAST must be finite{' and positive' if log else ''}, COUNT at "
            "least 1."
        )
    shares = [k / (number - 1) if number > 1 else 0.0 for k in range(number)]
    if log:
        values = [math.exp((1 - share) * math.log(low) + share * math.log(high)) for share in shares]
    else:
        values = [(1 - share) * low + share * high for share in shares]
    # The ends are what was typed, and the others short decimals where that is what was meant.
    values = [float(f"{value:.12g}") for value in values]
    if spec.kind is int:
        whole = [round(value) for value in values]
        if not log and any(abs(a - b) > 1e-9 for a, b in zip(whole, values, strict=True)):
            raise SettingError(f"over = {text!r} is not allowed: {spec.name} takes whole numbers.")
        return list(dict.fromkeys(whole))
    return values
