"""The report: one HTML page that needs nothing else, for a screen, a phone or paper."""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separatrix.lab import budget, document
from separatrix.lab.settings import specs, to_dict
from separatrix.lab.study import Study

if TYPE_CHECKING:
    import jinja2


def render(study: Study, settings: Any, outcome: dict[str, Any], manifest: dict[str, Any], folder: Path) -> str:
    """HTML text of the report; the figures of ``manifest`` are read from ``folder`` and put inline."""
    figures = [
        {**figure, "data": base64.b64encode((folder / figure["file"]).read_bytes()).decode("ascii")}
        for figure in manifest["figures"]
    ]
    return _template().render(
        study=study,
        notes=study.notes_for(settings),
        outcome=outcome,
        manifest=manifest,
        figures=figures,
        count=document.count_verdicts(outcome["claims"]),
        summary=document.summary(outcome["claims"]),
        settings=_settings_rows(settings),
    )


@functools.cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("separatrix.lab"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": document.number,
        "interval": document.interval,
        "region": document.region,
        "in_time": budget.in_time,
        "in_bytes": budget.in_bytes,
        "gauge": gauge,
        "rounded": document.rounded,
        "extent": document.extent,
    }
    return environment.get_template("report.html")


def _settings_rows(settings: Any) -> list[dict[str, Any]]:
    values = to_dict(settings)
    rows = []
    for name, spec in specs(type(settings)).items():
        default = list(spec.default) if spec.many else spec.default
        rows.append(
            {
                "name": name,
                "value": _text(values[name]),
                "default": _text(default),
                "changed": values[name] != default,
                "unit": spec.unit,
                "help": spec.help,
            }
        )
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(element) for element in value)
    return "none" if value is None else str(value)


def gauge(measurement: dict[str, Any]) -> dict[str, float | bool] | None:
    """Where interval, estimate and accepted region lie on a common scale, in percent of its length.

    None when the measurement has no finite interval.
    """
    ends: Sequence[float | None] = measurement["interval"]
    estimate = measurement["estimate"]
    if estimate is None or any(end is None or not math.isfinite(end) for end in (estimate, *ends)):
        return None
    low, high = (float(end) for end in ends if end is not None)
    bounds = [end for end in measurement["threshold"] if end is not None]
    left, right = min([low, estimate, *bounds]), max([high, estimate, *bounds])
    margin = 0.12 * (right - left) or 0.1 * abs(estimate) or 1.0
    left, right = left - margin, right + margin

    def place(value: float) -> float:
        return round(100 * (value - left) / (right - left), 2)

    region_low, region_high = measurement["threshold"]
    return {
        "low": place(low),
        "high": place(high),
        "estimate": place(estimate),
        "region_low": 0.0 if region_low is None else place(region_low),
        "region_high": 100.0 if region_high is None else place(region_high),
    }
