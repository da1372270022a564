"""A wrong formula or a wrong simulation turns the verdict of its claim."""

import inspect
import sys
import textwrap

import pytest
from exact_results import LazyResults, claim, tiny, verdict

from separatrix.engines.ensemble import _evolve, _steps_until
from separatrix.systems.deep_linear import mode_solutions, network_simulation, product_spectra, zero_balanced_flow
from separatrix.systems.deep_linear.exact_solutions import experiments as experiments_part

pytestmark = pytest.mark.slow

SETTINGS = tiny(scan_depth=(2, 4), exact_draws=3)
#: Conditions that decide at these sizes.
PART = {"A2": "decoupled"}


@pytest.fixture(scope="module")
def results():
    return LazyResults(SETTINGS)


def rewrite(monkeypatch, function, old, new):
    """Replace ``old`` by ``new`` in the source of a function, everywhere the function is known."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{old!r} occurs {source.count(old)} times in {function.__qualname__}"
    owner = sys.modules[function.__module__]
    scope = dict(vars(owner))
    exec(compile(source.replace(old, new), function.__qualname__, "exec"), scope)
    name = function.__name__
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("separatrix.") and vars(module).get(name) is function:
            monkeypatch.setattr(module, name, scope[name])


def judged(name, results):
    return verdict(claim(name).measure(SETTINGS, results), PART.get(name, ""))


THEORY = [
    ("A1", mode_solutions.balanced_strength, "left = np.exp(-2 * s * t)", "left = np.exp(-2.2 * s * t)"),
    ("A1", mode_solutions.mode_strength, "depth * c *", "1.1 * depth * c *"),
    ("A4", mode_solutions.mode_strength, "2 - 2 / depth", "2 - 1 / depth"),
    ("A4", mode_solutions._advance, "goal = begun + np.maximum(start - _FLAT, 0.0) + tau", "goal = begun + 1.1 * tau"),
    ("A4", mode_solutions.progress, "2 / depth - 1", "2 / depth - 0.9"),
    ("A8", product_spectra.fraction_below, "(d + 1) ** 2 / np.tan", "(d + 1) / np.tan"),
]


@pytest.mark.parametrize(("name", "function", "old", "new"), THEORY)
def test_a_wrong_theory_turns_the_verdict(results, monkeypatch, name, function, old, new):
    assert judged(name, results) == "holds"
    rewrite(monkeypatch, function, old, new)
    assert judged(name, results) != "holds"


SIMULATED = [
    ("A1", network_simulation._descend, "w + rate * outer_product(error, before)",
     "w + 1.1 * rate * outer_product(error, before)"),
    ("A2", network_simulation._descend, "weights[0] + rate *", "weights[0] + 0.5 * rate *"),
    ("A3", mode_solutions.unbalanced_amplitudes, "rate + 2 * s * tanh + tanh * q**2", "rate + 2 * s * tanh"),
    ("A3", mode_solutions.unbalanced_amplitudes, "2 * expit(-rate * t)", "expit(-rate * t)"),
    ("A3", zero_balanced_flow._step, "np.expm1(2 * exponent)", "np.sinh(2 * exponent)"),
    ("A3", zero_balanced_flow._eigenbasis, "-both[1]", "both[1]"),
    ("A6", experiments_part._scan_start, "orthogonal_weights(rng, widths)",
     "orthogonal_weights(rng, widths, gain=0.5)"),
    ("A8", experiments_part._product_spectrum, "gain=GAIN", "gain=1.0"),
    ("A9", network_simulation._forward, "jnp.tanh if", "(lambda z: jnp.tanh(jnp.maximum(z, 0))) if"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "old", "new"), SIMULATED)
def test_a_wrong_simulation_turns_the_verdict(results, monkeypatch, name, function, old, new):
    assert judged(name, results) == "holds"
    rewrite(monkeypatch, function, old, new)
    for program in (_evolve, _steps_until):
        program.clear_cache()
    try:
        assert judged(name, LazyResults(SETTINGS)) == "fails"
    finally:
        for program in (_evolve, _steps_until):
            program.clear_cache()
