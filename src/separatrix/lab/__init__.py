"""The instrument: declare a study, run it, judge its claims, keep and report the result.

A study module needs only the names exported here; none of them loads an array or plotting library.
"""

from separatrix.lab.claims import Claim, ClaimResult, Measurement, Results, Verdict, diverged_fraction, judge
from separatrix.lab.errors import UsageError
from separatrix.lab.quantities import Quantity
from separatrix.lab.settings import SettingError, from_json, setting, settings_hash, to_json, validate
from separatrix.lab.study import Experiment, Figure, Study

__all__ = [
    "Claim",
    "ClaimResult",
    "Experiment",
    "Figure",
    "Measurement",
    "Quantity",
    "Results",
    "SettingError",
    "Study",
    "UsageError",
    "Verdict",
    "diverged_fraction",
    "from_json",
    "judge",
    "setting",
    "settings_hash",
    "to_json",
    "validate",
]
