"""The verdicts are those of the mathematics: other seeds do not change them, and wrong mathematics turns them.

A mutant replaces one piece of a formula or of a simulation, by its text, and the claim that rests on it must not hold
any more. Mutants of the theory judge the data of one seed again; mutants of a simulation compute their own.
"""

import inspect
import sys
import textwrap

import pytest
from lazy_results import LazyResults, claim, tiny, verdict

from separatrix.engines.ensemble import _evolve
from separatrix.systems.deep_linear import (
    balance,
    collapse,
    diffusion_peak,
    gradient_noise,
    learning_times,
    modewise,
    network_simulation,
    stationary,
)
from separatrix.systems.deep_linear.saddle_to_saddle import balance as balance_part
from separatrix.systems.deep_linear.saddle_to_saddle import noise_peak
from separatrix.systems.deep_linear.saddle_to_saddle.endpoints import _temperature
from separatrix.systems.deep_linear.scalar_simulation import ScalarChain, _RootNoise

pytestmark = pytest.mark.slow

#: Sizes at which the claims below are decided; the runs from random starts are not judged and only a few.
DECIDED = {
    "learning_rate": 0.004,
    "aligned_runs": 200,
    "random_runs": 4,
    "chain_runs": 100_000,
    "samples": 1_000_000,
}
#: The conditions of a claim that are decided at these sizes.
PART = {"C3": "aligned start", "C4": "KS distance"}
CLAIMS = ("C1", "C3", "C4", "C5", "C7", "C8", "C9", "C10", "C11", "C12")


FIRST, *OTHERS = (101, 102)


@pytest.fixture(scope="module")
def results():
    """Data of the first seed, also those on which the mutants of the theory are judged."""
    return LazyResults(tiny(seed=FIRST, **DECIDED))


@pytest.mark.parametrize("seed", [FIRST, *OTHERS])
def test_other_seeds_give_the_same_verdicts(results, seed):
    settings = tiny(seed=seed, **DECIDED)
    results = results if seed == FIRST else LazyResults(settings)
    verdicts = {name: verdict(claim(name).measure(settings, results), PART.get(name, "")) for name in CLAIMS}
    controls = {name: verdict(claim(name).control(settings, results), PART.get(name, "")) for name in CLAIMS}
    assert verdicts == dict.fromkeys(CLAIMS, "holds")
    assert controls == dict.fromkeys(CLAIMS, "fails")


# -- mutants ----------------------------------------------------------------------------------------------------------


def rewrite(monkeypatch, target, old, new):
    """Replace ``old`` by ``new`` in the text of a function or method, everywhere it has been imported."""
    name = target.__name__
    source = textwrap.dedent(inspect.getsource(target))
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {name}"
    scope = {}
    exec(compile(source.replace(old, new), f"<mutant of {name}>", "exec"), target.__globals__, scope)
    if "." in target.__qualname__:
        owner = getattr(sys.modules[target.__module__], target.__qualname__.split(".")[0])
        monkeypatch.setattr(owner, name, scope[name])
        return
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("separatrix.") and vars(module).get(name) is target:
            monkeypatch.setattr(module, name, scope[name])


@pytest.fixture
def mutate(monkeypatch):
    """:func:`rewrite`; programs compiled before and during the test are forgotten."""
    _evolve.clear_cache()
    yield lambda *change: rewrite(monkeypatch, *change)
    _evolve.clear_cache()


def judged(name, settings, results):
    return verdict(claim(name).measure(settings, results), PART.get(name, ""))


THEORY = [
    # C3: where the peak is
    ("C3", diffusion_peak.diffusion_exponent, "(4 if", "(2 if"),
    ("C3", diffusion_peak.diffusion_exponent, "(1 - 1 / depth)", "1"),
    ("C3", diffusion_peak.stationary_progress, "(c + 1 - root) / (c + 2), (", "c / (c + 2) + 0 * root, ("),
    ("C3", diffusion_peak.stationary_progress, "2 * np.asarray", "4 * np.asarray"),
    # C4: laws and temperatures
    ("C4", stationary.boltzmann_temperature, "relaxation_rate(depth, singular_value)", "1.0"),
    ("C4", stationary.log_density, "-3 * (depth - 1)", "-4 * (depth - 1)"),
    ("C4", stationary.log_density, "+ integral / noise_scale", "+ integral / (1.21 * noise_scale)"),
    # C5: contraction
    ("C5", stationary.relaxation_rate, "depth * np.asarray", "np.asarray"),
    ("C5", stationary.contraction_exponent, "return sum(pieces) / learning_rate",
     "return -float(relaxation_rate(depth, singular_value))"),
    ("C5", stationary.contraction_exponent, "return sum(pieces) / learning_rate",
     "return sde_contraction_exponent(depth, singular_value, learning_rate / batch_size)"),
    # C9: escape
    ("C9", learning_times.escape_drift, "return 2 * s -", "return s -"),
    ("C9", learning_times._passage_parameters, "rate = 4 *", "rate = 2 *"),
    ("C9", learning_times._passage_parameters, "(2 * np.asarray(singular_value)", "(np.asarray(singular_value)"),
    # C10: the lead's power law
    ("C10", noise_peak.lead_scaling, "2 - 2 / (depth + shift)", "1 - 1 / (depth + shift)"),
    ("C10", noise_peak.lead_scaling, "2 - 2 / (depth + shift)", "2 - 1 / (depth + shift)"),
    ("C10", noise_peak.lead_scaling, "rise.learned_time - rise.peak_time", "rise.learned_time"),
    # C12: drift away from balance
    ("C12", balance.balance_time_course, "outputs * lower - inputs * upper", "inputs * lower - outputs * upper"),
    ("C12", balance.balance_time_course, "outputs * lower - inputs * upper", "outputs * lower"),
    ("C12", balance.balance_time_course, "(1 + lower / upper)", "1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "target", "old", "new"), THEORY)
def test_a_wrong_theory_turns_the_verdict(results, monkeypatch, name, target, old, new):
    settings = tiny(seed=FIRST, **DECIDED)
    assert judged(name, settings, results) == "holds"
    rewrite(monkeypatch, target, old, new)
    assert judged(name, settings, results) == "fails"


SIMULATED = [
    # C1: the closed forms are evaluated beside the simulation
    ("C1", gradient_noise.gradient_covariance, "+ rho * cross_l", "+ 0 * cross_l"),
    ("C1", gradient_noise.gradient_covariance, "covariance = out[", "covariance = 0 * out["),
    ("C1", gradient_noise.gradient_covariance, "per_network(label_noise, 2) ** 2",
     "1.5 * per_network(label_noise, 2) ** 2"),
    ("C1", modewise.mode_moments, "+ rho * xp.sum(cross * swapped", "+ 0 * xp.sum(cross * swapped"),
    ("C1", modewise.mode_moments, "flat(out) @ flat(back).mT", "flat(out) @ flat(back).mT / depth"),
    ("C1", modewise.mode_moments, "kick + rho * _trace", "kick + 0 * _trace"),
    # C4: label noise of the chain 10 % too large, inputs' noise doubled
    ("C4", ScalarChain.__call__, 'arguments["label_noise"]', '1.1 * arguments["label_noise"]'),
    ("C4", ScalarChain.__call__, 'arguments["label_noise"]', '0.9 * arguments["label_noise"]'),
    ("C4", _RootNoise.__call__, 'arguments["noise_scale"]', '1.21 * arguments["noise_scale"]'),
    # C7: the scalar chain beside the network
    ("C7", network_simulation._sgd_step, "roots + rate *", "roots + 1.1 * rate *"),
    ("C7", network_simulation._sgd_step, "roots ** (depth - 1)", "roots ** depth"),
    ("C7", network_simulation._sgd_step, "roots[:, None] ** depth * x", "1.05 * roots[:, None] ** depth * x"),
    # C8: the threshold, from which the learning rates follow
    ("C8", collapse.root_growth, "/ batch_size\n    if label_noise", "/ batch_size / 1.5\n    if label_noise"),
    ("C8", collapse.root_growth, "/ batch_size\n    if label_noise", "/ batch_size * 1.5\n    if label_noise"),
    ("C8", collapse.root_growth, "1 + learning_rate * singular_value", "1 + 2 * learning_rate * singular_value"),
    # C9: noise of the chain 10 % too small
    ("C9", ScalarChain.__call__, "jnp.mean(x**2, axis=0, keepdims=True)",
     "1 + 0.9 * (jnp.mean(x**2, axis=0, keepdims=True) - 1)"),
    # C11: one step of the balance
    ("C11", balance_part._one_step_balance, "identity.append(gain - loss)", "identity.append(gain)"),
    ("C11", balance_part._one_step_balance, "identity.append(gain - loss)", "identity.append(gain + loss)"),
    ("C11", balance_part._one_step_balance, "gain = rate**2", "gain = rate"),
    ("C11", network_simulation._descend, "return below, w + rate * outer_product(error, before)",
     "return below, w + rate * (1 + 1e-6) * outer_product(error, before)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "target", "old", "new"), SIMULATED)
def test_a_wrong_simulation_turns_the_verdict(mutate, name, target, old, new):
    mutate(target, old, new)
    # a wrong simulation shows with fewer runs than a right one needs
    settings = tiny(seed=7, **DECIDED | {"chain_runs": 20_000, "samples": 400_000, "aligned_runs": 100})
    assert judged(name, settings, LazyResults(settings)) == "fails"


TEMPERATURE = [
    (network_simulation.OnlineSGD.__call__, 'arguments["label_noise"]', '1.1 * arguments["label_noise"]'),
    (stationary.boltzmann_temperature, "0.5 *", "0.605 *"),
    (stationary.boltzmann_temperature, "relaxation_rate(depth, singular_value)", "1.0"),
]


@pytest.mark.parametrize(("target", "old", "new"), TEMPERATURE)
def test_a_wrong_temperature_turns_the_verdict(mutate, target, old, new):
    mutate(target, old, new)
    settings = tiny(seed=7, **DECIDED)
    modes = [(2, 0), (2, 1)]
    measurements = [_temperature(settings, LazyResults(settings), *mode, False, 0.98) for mode in modes]
    assert verdict(measurements) == "fails"
