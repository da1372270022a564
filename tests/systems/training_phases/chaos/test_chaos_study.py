"""The study of chaos and cone: one run of the smoke preset, its verdicts, and mutants that turn them."""

import dataclasses
import json

import numpy as np
import pytest

from separatrix.cli import main
from separatrix.lab import SettingError
from separatrix.lab.claims import combine
from separatrix.systems.training_phases.chaos.runs import Training
from separatrix.systems.training_phases.chaos.settings import check, problem
from separatrix.systems.training_phases.chaos.tangents import tangent_agreement
from separatrix.systems.training_phases.chaos.transition import (
    chaos_effect,
    determinism,
    transition,
    transition_steps,
)
from separatrix.systems.training_phases.chaos_and_cone import STUDY

pytest.importorskip("sklearn")

SMALL = STUDY.resolve("smoke", {})


@pytest.fixture(scope="module")
def results():
    """Datasets of the smoke preset, without its slowest control."""
    wanted = ("copies", "identical", "smooth", "kinked", "slow")
    return {one.name: one.simulate(0, one.members) for one in STUDY.experiments(SMALL) if one.name in wanted}


def verdict(measurements):
    return str(combine(measurements))


@pytest.mark.slow
@pytest.mark.parametrize(("identifier", "expected"), [("D1", "holds"), ("D2", "holds"), ("D3", "holds"),
                                                      ("D4", "fails"), ("D7", "holds"), ("D10", "holds"),
                                                      ("D11", "fails"), ("D12", "holds")])  # fmt: skip
def test_claims_come_out_as_the_mathematics_says(results, identifier, expected):
    claim = next(one for one in STUDY.claims(SMALL) if one.id == identifier)
    assert verdict(claim.measure(SMALL, results)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("identifier", ["D1", "D2", "D5", "D7", "D9", "D10", "D11", "D12", "D13"])
def test_controls_fail(results, identifier):
    claim = next(one for one in STUDY.claims(SMALL) if one.id == identifier)
    assert verdict(claim.control(SMALL, results)) == "fails"


@pytest.mark.slow
def test_a_difference_in_the_last_bit_of_an_unperturbed_copy_forbids_all_conclusions(results):
    spoiled = dict(results)
    spoiled["identical"] = results["identical"].copy(deep=True)
    spoiled["identical"]["distance"][0, 0, 0, -1] = 1e-16
    assert verdict(determinism(SMALL, spoiled)) != "holds"
    assert verdict(chaos_effect(SMALL, spoiled)) == "undecided"
    assert verdict(transition(SMALL, spoiled)) == "undecided"


@pytest.mark.slow
def test_a_tangent_map_without_momentum_is_found_out(results):
    spoiled = dict(results)
    spoiled["smooth"] = results["smooth"].copy(deep=True)
    spoiled["smooth"]["log_tangent"] *= 0.5
    assert verdict(tangent_agreement(SMALL, spoiled)) == "fails"


@pytest.mark.slow
def test_figures_and_quantities_are_drawn_from_the_same_data(results):
    for figure in STUDY.figures(SMALL):
        figure.draw(SMALL, results)
    for quantity in STUDY.quantities(SMALL):
        found = quantity.as_dict(SMALL, results)
        assert np.all(np.isfinite(np.asarray(found["estimate"], float)))


def test_the_transition_is_the_first_step_after_which_nothing_grows():
    import xarray as xr

    log = np.array([[5, 0.5, 5, 0.2, 0.0], [5, 4, 3, 2, 1.5], [0, 0, 0, 0, 0.0]])
    data = xr.Dataset(
        {"amplification": (("member", "direction", "spawn", "step"), 10 ** log[:, None, :, None])},
        {"spawn": [0, 10, 20, 30, 40]},
    )
    settings = dataclasses.replace(SMALL, directions=1)
    np.testing.assert_array_equal(transition_steps(settings, data), [30, settings.steps, 0])


def test_perturbations_have_the_size_of_the_settings_and_do_not_depend_on_the_split():
    both, second = Training(SMALL, 0, 2), Training(SMALL, 1, 2)
    ways = both.directions(40, both.state[0], 2)
    alone = second.directions(40, second.state[0], 2)
    for whole, part in zip(ways, alone, strict=True):
        for name, leaf in whole.items():
            np.testing.assert_array_equal(leaf[1:], part[name])
    sizes = sum(np.sum(leaf**2, axis=tuple(range(2, leaf.ndim))) for layer in ways for leaf in layer.values())
    np.testing.assert_allclose(sizes, 1, rtol=1e-12)


def test_label_noise_redraws_the_stated_share_of_the_training_labels():
    noisy = problem(dataclasses.replace(SMALL, label_noise=0.5))
    # a label drawn anew is the old one in a tenth of the cases
    assert np.mean(noisy.labels != noisy.split.labels) == pytest.approx(0.45, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spawn_steps": (0, 40)}, "spawn_steps"),
        ({"spawn_steps": (10, 40, 80)}, "spawn_steps"),
        ({"spawn_steps": (0, 40, 480)}, "the last must be less than steps"),
        ({"record_every": 33}, "record_every"),
        ({"examples": 15}, "examples"),
        ({"sigma": 1e-16}, "sigma"),
        ({"batch_size": 5000}, "batch_size"),
        ({"data": "cifar"}, "data"),
        ({"network": "cnn", "batch_norm": True}, "batch_norm"),
    ],
    ids=["few", "first", "beyond", "uneven", "odd", "tiny", "large", "unknown", "norm"],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(changes, words):
    with pytest.raises(SettingError, match=words):
        check(dataclasses.replace(SMALL, **changes))


@pytest.mark.slow
def test_a_tiny_run_goes_through_the_command_line(tmp_path, capsys):
    options = ["--hidden-widths", "8", "--steps", "20", "--record-every", "4", "--spawn-steps", "0", "4", "8",
               "--runs", "3", "--samples", "200", "--kernel", "estimated", "--kernel-vectors", "4",
               "--only", "D1", "D2", "--no-controls", "--json"]  # fmt: skip
    assert main(["run", "chaos-and-cone", "--preset", "smoke", *options, "--out", str(tmp_path)]) == 0
    outcome = json.loads(capsys.readouterr().out)
    found = {claim["id"]: claim["verdict"] for claim in outcome["claims"]}
    # a shallow network for twenty steps has no chaos to speak of
    assert found == {"D1": "holds", "D2": "fails"}
