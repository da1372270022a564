"""Typed settings of a study: a frozen dataclass whose fields say their help, unit and allowed values.

The same description validates a value that comes from Python, from JSON or from the command line,
so that a setting means the same, and is refused with the same sentence, wherever it was written.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from separatrix.lab.errors import UsageError

Settings = TypeVar("Settings")


class SettingError(UsageError):
    """One sentence that names the setting, the value given and what is allowed."""


def setting(
    default: Any,
    help: str,  # noqa: A002  (the word every command line uses)
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    low_open: bool = False,
    high_open: bool = False,
    choices: Sequence[Any] | None = None,
) -> Any:
    """Field of a settings dataclass.

    Parameters
    ----------
    default
        Value when neither a preset nor the user says otherwise. The annotation of the field decides the type:
        ``bool``, ``int``, ``float``, ``str``, ``Literal[...]``, ``int | None``, ``float | None``, or a tuple of these
        (``tuple[int, ...]`` or, with a fixed length, ``tuple[float, float]``).
    help
        One line for the command line and the report.
    unit
        Physical or mathematical unit, for example ``"steps"``.
    low, high
        Bounds of a number, or of each element of a tuple; excluded themselves with ``low_open``, ``high_open``.
    choices
        The only values allowed.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "low": low,
        "high": high,
        "low_open": low_open,
        "high_open": high_open,
        "choices": None if choices is None else tuple(choices),
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What one setting accepts, read off its dataclass field."""

    name: str
    kind: type
    default: Any
    help: str
    unit: str
    optional: bool
    many: bool
    length: int | None
    low: float | None
    high: float | None
    low_open: bool
    high_open: bool
    choices: tuple[Any, ...] | None

    @property
    def allowed(self) -> str:
        """What the setting accepts, as the end of a sentence that begins with "it must be"."""
        if self.kind is bool:
            return "True or False"
        if self.choices is not None:
            text = "one of " + ", ".join(str(choice) for choice in self.choices)
        else:
            text = {int: "a whole number", float: "a finite number", str: "a text"}[self.kind] + self.range
        if self.many:
            count = "one or more values" if self.length is None else f"{self.length} values"
            text = f"{count}, each {text}"
        return f"{text}, or none" if self.optional else text

    @property
    def range(self) -> str:
        """Bounds, for example " > 0 and <= 1"; empty without bounds."""
        low = None if self.low is None else f" {'>' if self.low_open else '>='} {self.low:g}"
        high = None if self.high is None else f" {'<' if self.high_open else '<='} {self.high:g}"
        return " and".join(bound for bound in (low, high) if bound)

    def refuse(self, value: Any) -> SettingError:
        """Build the sentence that refuses ``value`` (a text is what the user typed)."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return SettingError(f"{self.name} = {shown} is not allowed: it must be {self.allowed}.")

    def check(self, value: Any) -> Any:
        """Return ``value`` in canonical form (integers given for a float become floats).

        Raises
        ------
        SettingError
            If the type is wrong, or the value is not finite, out of bounds or not among the choices.
        """
        if value is None and self.optional:
            return None
        if not self.many:
            return self._check_one(value, value)
        if not isinstance(value, tuple) or not value or (self.length is not None and len(value) != self.length):
            raise self.refuse(value)
        return tuple(self._check_one(element, value) for element in value)

    def _check_one(self, value: Any, given: Any) -> Any:
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            try:
                value = float(value)
            except OverflowError:
                raise self.refuse(given) from None
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            raise self.refuse(given)
        if self.kind is float:
            if not math.isfinite(value):
                raise self.refuse(given)
            value = float(value) + 0.0  # -0.0 equals 0.0, so both must give the same hash
        if self.choices is not None and value not in self.choices:
            raise self.refuse(given)
        if self.low is not None and (value < self.low or (self.low_open and value == self.low)):
            raise self.refuse(given)
        if self.high is not None and (value > self.high or (self.high_open and value == self.high)):
            raise self.refuse(given)
        # commas separate the elements of a tuple on the command line
        if self.many and isinstance(value, str) and (not value or "," in value):
            raise self.refuse(given)
        return value


@functools.cache
def specs(settings_class: type) -> Mapping[str, Spec]:
    """Map each field name of a settings dataclass to its `Spec`, in order of declaration.

    Raises
    ------
    TypeError
        If the class is not a frozen dataclass of `setting` fields of supported types (a mistake of the study's author).
    """
    params = getattr(settings_class, "__dataclass_params__", None)
    if params is None or not params.frozen:
        raise TypeError(f"{settings_class.__name__} must be a frozen dataclass.")
    hints = typing.get_type_hints(settings_class)
    table = {}
    for field in dataclasses.fields(settings_class):
        if "help" not in field.metadata:
            raise TypeError(f"{settings_class.__name__}.{field.name} must be declared with setting(default, help).")
        metadata = dict(field.metadata)
        shape = _shape_of(hints[field.name], f"{settings_class.__name__}.{field.name}")
        if metadata["choices"] is None:
            metadata["choices"] = shape.pop("choices")
        else:
            shape.pop("choices")
        spec = Spec(name=field.name, default=field.default, **metadata, **shape)
        spec.check(field.default)
        table[field.name] = spec
    return table


def _shape_of(hint: Any, where: str) -> dict[str, Any]:
    """Decompose an annotation into element type, tuple length, optionality and literal choices."""
    shape: dict[str, Any] = {"optional": False, "many": False, "length": None, "choices": None}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        others = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        if len(others) == 1 and others[0] in (int, float):
            shape["optional"], hint = True, others[0]
    if typing.get_origin(hint) is tuple:
        elements = typing.get_args(hint)
        shape["many"], hint = True, elements[0]
        if elements[1:] != (Ellipsis,):
            shape["length"] = len(elements)
            if any(element != hint for element in elements):
                raise TypeError(f"{where}: the elements of a tuple must have one type.")
    if typing.get_origin(hint) is typing.Literal:
        shape["choices"] = typing.get_args(hint)
        hint = type(shape["choices"][0])
    if hint not in (bool, int, float, str) or (hint is bool and shape["many"]):
        raise TypeError(f"{where}: {hint} is not a supported type of setting.")
    return {**shape, "kind": hint}


def validate(settings: Any) -> None:
    """Check every field of ``settings`` against its declaration.

    Raises
    ------
    SettingError
        For the first field with a wrong type, a value that is not finite, out of bounds or not among the choices.
    """
    for name, spec in specs(type(settings)).items():
        spec.check(getattr(settings, name))


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as JSON-ready values (tuples become lists), validated and in canonical form."""
    values = {name: spec.check(getattr(settings, name)) for name, spec in specs(type(settings)).items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def from_dict(settings_class: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Inverse of `to_dict`.

    Raises
    ------
    SettingError
        If a field is unknown or missing, or a value is not allowed.
    """
    table = specs(settings_class)
    for name in values:
        if name not in table:
            raise unknown_setting(str(name), table)
    for name in table:
        if name not in values:
            raise SettingError(f"{name} is missing: the settings must give all of {', '.join(table)}.")
    return settings_class(**{name: canonical(spec, values[name]) for name, spec in table.items()})


def canonical(spec: Spec, value: Any) -> Any:
    """Checked value of one setting, where a tuple may also be written as a list (as in JSON)."""
    return spec.check(tuple(value) if spec.many and isinstance(value, list) else value)


def unknown_setting(name: str, known: typing.Iterable[str], kind: str = "setting") -> SettingError:
    """Build the sentence for a name that is no setting (or other ``kind`` of name), with the nearest names."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the {kind}s are {', '.join(known)}."
    shown = name if name.isprintable() and len(name) <= 60 else repr(name)[:60]
    return SettingError(f"{shown} is not {'an' if kind == 'option' else 'a'} {kind}: {hint}")


def to_json(settings: Any) -> str:
    """Canonical JSON text: sorted keys, no spaces, ASCII, floats written so that they are read back exactly."""
    return json.dumps(to_dict(settings), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(settings_class: type[Settings], text: str) -> Settings:
    """Inverse of `to_json`; raises `SettingError` on anything else than a JSON object of exactly the known fields."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise SettingError(f"The settings are not valid JSON: {error}.") from None
    if not isinstance(values, dict):
        raise SettingError("The settings must be a JSON object of names and values.")
    return from_dict(settings_class, values)


def settings_hash(settings: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of the canonical JSON: equal settings have equal hashes, on every machine."""
    return hashlib.sha256(to_json(settings).encode("ascii")).hexdigest()
