"""Command-line options made from settings dataclasses, and command lines made from settings.

A general-purpose parser generator reports a bad value in a framed box of several lines and knows nothing of bounds
and units. Here an option is a `setting`: the sentence that refuses a value is the one that Python users get, and the
help shows unit, default and range. The grammar is small: ``--name VALUE``, ``--name=VALUE``, ``--name A B`` or
``--name A,B`` for tuples, ``--name`` and ``--no-name`` for switches, ``_`` and ``-`` interchangeable.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from separatrix.lab.settings import SettingError, Spec, specs, to_dict, unknown_setting


def parse(tokens: Sequence[str], options_class: type) -> tuple[dict[str, Any], list[str]]:
    """Read the options of one settings dataclass out of ``tokens``.

    Returns
    -------
    values : dict
        The values given, by field name; when an option is repeated the last one counts.
    rest : list of str
        All other tokens, in order.

    Raises
    ------
    SettingError
        If a value is missing, cannot be read or is not allowed.
    """
    table = specs(options_class)
    values: dict[str, Any] = {}
    rest: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        option, has_value, inline = token.partition("=")
        name = option[2:].replace("-", "_") if option.startswith("--") else ""
        switched_off = name.removeprefix("no_")
        if name not in table and switched_off in table and table[switched_off].kind is bool and not has_value:
            values[switched_off] = False
        elif name not in table:
            rest.append(token)
        elif table[name].kind is bool:
            if has_value:
                raise SettingError(f"{name} is a switch: write --{dashed(name)} or --no-{dashed(name)}, not {token!r}.")
            values[name] = True
        else:
            spec = table[name]
            texts = [inline] if has_value else []
            most = len(tokens) if spec.many else 1
            while not has_value and len(texts) < most and position < len(tokens):
                if tokens[position].startswith("--"):
                    break
                texts.append(tokens[position])
                position += 1
            values[name] = read(spec, texts)
    return values, rest


def read(spec: Spec, texts: Sequence[str]) -> Any:
    """Value of one setting from the texts that followed its option."""
    if not texts:
        raise SettingError(f"{spec.name} needs a value: it must be {spec.allowed}.")
    given = " ".join(texts)
    if spec.optional and given == "none":
        return None
    try:
        if spec.many:
            value = tuple(read_one(spec, text) for joined in texts for text in joined.split(","))
        else:
            value = read_one(spec, texts[0])
    except (ValueError, OverflowError):
        raise spec.refuse(given) from None
    return spec.check(value)


def read_one(spec: Spec, text: str) -> Any:
    """One value of a setting from its text; raises ValueError or OverflowError if it cannot be read."""
    if spec.kind is int:
        try:
            return int(text)
        except ValueError:
            number = float(text)  # 1e5 is how people write a large whole number
            if not number.is_integer() or abs(number) > 2**53:
                raise
            return int(number)
    return spec.kind(text)


def collect(tokens: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """All values of an option that may be given several times, ``--name VALUE`` or ``--name=VALUE``, and the rest.

    Raises
    ------
    SettingError
        If a value is missing.
    """
    values: list[str] = []
    rest: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token.startswith(f"--{name}="):
            values.append(token.partition("=")[2])
        elif token != f"--{name}":
            rest.append(token)
        elif position == len(tokens) or tokens[position].startswith("--"):
            raise SettingError(f"{name} needs a value: write --{name} NAME=VALUES.")
        else:
            values.append(tokens[position])
            position += 1
    return values, rest


def pairs(name: str, texts: Sequence[str]) -> dict[str, str]:
    """Entries ``NAME=VALUE`` of an option; ``none`` alone means no entry.

    Raises
    ------
    SettingError
        If a text has no equals sign.
    """
    if tuple(texts) == ("none",):
        return {}
    for text in texts:
        if "=" not in text:
            raise SettingError(f"{name} = {text!r} is not allowed: write NAME=VALUE.")
    return {key.strip().replace("-", "_"): value.strip() for key, _, value in (text.partition("=") for text in texts)}


def level(name: str, text: str) -> float:
    """A finite number from its text.

    Raises
    ------
    SettingError
        If it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise SettingError(f"{name} = {text!r} is not allowed: the level must be a finite number.")
    return value


def reject_rest(rest: Sequence[str], known: Iterable[str], kind: str = "setting") -> None:
    """Raise `SettingError` for the first token that no option has claimed."""
    for token in rest:
        if token.startswith("--") and len(token) > 2:
            raise unknown_setting(token[2:].partition("=")[0].replace("-", "_"), known, kind)
        raise SettingError(
            f"{token!r} is not expected here: write {'an' if kind == 'option' else 'a'} {kind} as --name VALUE."
        )


def arguments(settings: Any) -> list[str]:
    """Command-line tokens that give exactly ``settings``: one option for each field that is not at its default."""
    tokens = []
    for name, spec in specs(type(settings)).items():
        value = spec.check(getattr(settings, name))
        if value == spec.check(spec.default):
            continue
        option = f"--{dashed(name)}"
        if spec.kind is bool:
            tokens.append(option if value else f"--no-{dashed(name)}")
            continue
        texts = ["none"] if value is None else [write(element) for element in (value if spec.many else (value,))]
        if any(text.startswith("--") for text in texts):
            tokens.append(f"{option}={','.join(texts)}")
        else:
            tokens += [option, *texts]
    return tokens


def write(value: Any) -> str:
    """One value as it is typed on the command line."""
    return repr(value) if isinstance(value, float) else str(value)


def command(slug: str, settings: Any, *, controls: bool = True, only: Sequence[str] = ()) -> str:
    """Shell command that reproduces a run with its settings spelt out (presets may change, this line does not)."""
    chosen = [*([] if controls else ["--no-controls"]), *(["--only", *only] if only else [])]
    return shlex.join(["separatrix", "run", slug, *arguments(settings), *chosen])


def dashed(name: str) -> str:
    """Spelling of a field name on the command line."""
    return name.replace("_", "-")


def describe(options_class: type, defaults: Any = None, width: int = 100) -> str:
    """Help text of all options of a settings dataclass: type, meaning, unit, default and allowed range."""
    shown = {} if defaults is None else to_dict(defaults)
    lines = []
    for name, spec in specs(options_class).items():
        default = shown.get(name, spec.default)
        lines.append(f"  {_usage(spec)}")
        details = [] if spec.kind is bool else [spec.allowed]
        details.append(f"default {_default(spec, default)}")
        unit = f" [{spec.unit}]" if spec.unit else ""
        text = f"{spec.help}{unit} ({'; '.join(details)})"
        lines += textwrap.wrap(text, width, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


def _usage(spec: Spec) -> str:
    option = f"--{dashed(spec.name)}"
    if spec.kind is bool:
        return f"{option}, --no-{dashed(spec.name)}"
    metavar = {int: "INT", float: "FLOAT", str: "TEXT"}[spec.kind]
    if spec.many:
        return (
            f"{option} {metavar} [{metavar} ...]"
            if spec.length is None
            else f"{option} {' '.join([metavar] * spec.length)}"
        )
    return f"{option} {metavar}"


def _default(spec: Spec, value: Any) -> str:
    if value is None:
        return "none"
    if spec.kind is bool:
        return f"--{dashed(spec.name)}" if value else f"--no-{dashed(spec.name)}"
    if spec.many:
        return " ".join(write(element) for element in value)
    return write(value) if value != "" else "empty"
