"""The outcome of a run as one JSON document: what ``--json`` prints and ``claims.json`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from separatrix.lab import store
from separatrix.lab.claims import ClaimResult
from separatrix.lab.settings import to_dict
from separatrix.lab.study import Study


def build(
    study: Study,
    settings: Any,
    judged: Sequence[ClaimResult],
    folder: Path,
    run_hash: str,
    versions: dict[str, str],
    quantities: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Document with ``study``, ``settings``, ``claims`` (see `ClaimResult.as_dict`), quantities, where the run lies."""
    content = {
        "schema": store.SCHEMA,
        "study": study.slug,
        "title": study.title,
        "settings": to_dict(settings),
        "claims": [result.as_dict() for result in judged],
        "quantities": list(quantities),
        "hash": run_hash,
        "run": str(folder),
        "report": str(folder / store.REPORT),
        "versions": versions,
    }
    return store.finite(content)


def flat(values: Any) -> list[Any]:
    """The elements of nested lists, in order; a single value is a list of one."""
    return [element for value in values for element in flat(value)] if isinstance(values, list) else [values]


def count_verdicts(claims: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Number of claims that hold, fail and are undecided."""
    return {name: sum(claim["verdict"] == name for claim in claims) for name in ("holds", "fails", "undecided")}


def summary(claims: Sequence[dict[str, Any]]) -> str:
    """One line, for example ``"9 hold, 1 fails, 2 undecided"``, and how many controls failed as they must."""
    count = count_verdicts(claims)
    text = (
        f"{count['holds']} hold{'s' if count['holds'] == 1 else ''}, "
        f"{count['fails']} fail{'s' if count['fails'] == 1 else ''}, {count['undecided']} undecided"
    )
    controlled = [claim for claim in claims if claim["control_verdict"] is not None]
    if controlled:
        flipped = sum(claim["control_verdict"] == "fails" for claim in controlled)
        text += f"; {flipped} of {len(controlled)} controls fail, as a control must"
    return text


def number(value: float | None) -> str:
    """A number for people: four significant digits, or a word where there is none."""
    return "–" if value is None else f"{value:.4g}"


def extent(values: Any) -> str:
    """The only one of nested values, or the range of them, for example ``"0.1 to 3"``."""
    known = [value for value in flat(values) if value is not None]
    return " to ".join(dict.fromkeys(number(end) for end in (min(known, default=None), max(known, default=None))))


def rounded(count: int) -> str:
    """A large number of which only the size matters: two significant digits, for example ``"1,500"``."""
    return f"{int(float(f'{count:.2g}')):,}"


def interval(ends: Sequence[float | None] | None) -> str:
    """A confidence interval for people, for example ``[0.98, 1.02]``."""
    return "–" if ends is None else f"[{number(ends[0])}, {number(ends[1])}]"


def region(ends: Sequence[float | None] | None) -> str:
    """An accepted region for people, for example ``>= 0.5`` or ``0.9 to 1.1``."""
    if ends is None:
        return "–"
    low, high = ends
    if low is None:
        return "any" if high is None else f"≤ {number(high)}"
    return f"≥ {number(low)}" if high is None else f"{number(low)} to {number(high)}"
