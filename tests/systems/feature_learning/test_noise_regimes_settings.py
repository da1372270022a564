"""Settings of the study: what is refused, what is warned of, and that any of them end in one sentence."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from separatrix.lab import SettingError, from_json, to_json
from separatrix.systems.feature_learning.noise_regimes.settings import check, densities
from separatrix.systems.feature_learning.sgd_noise_regimes import STUDY


def small(**changes):
    return STUDY.resolve("smoke", changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"chi": -1.0}, "chi = -1.0 is not allowed: it must be a finite number > -1"),
        ({"alpha": 0.0}, "alpha = 0.0 is not allowed"),
        ({"temperature": -1.0}, "temperature = -1.0 is not allowed"),
        ({"temperatures": (0.0, 1.0)}, r"temperatures = \(0.0, 1.0\) is not allowed"),
        ({"batch_size": 0}, "batch_size = 0 is not allowed"),
        ({"samples": (1, 2)}, r"samples = \(1, 2\) is not allowed"),
        ({"samples": (512, 512)}, "strictly increasing"),
        ({"lazy_samples": (512,)}, "at least two values"),
        ({"batch_size": 300, "replacement": False, "samples": (512, 1024)}, "batch_size = 300 .* half"),
        ({"network_batch": 100, "replacement": False}, "network_batch = 100 .* half"),
        ({"network": "convolutional"}, "needs images"),
        ({"data": "cifar"}, "data = 'cifar' cannot be used: it must be sign, "),
        ({"data": "nothing-here.npz"}, "data = 'nothing-here.npz' cannot be used: .*nothing-here"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(SettingError, match=sentence) as refused:
        check(small(**changes))
    assert "\n" not in str(refused.value)


def test_labels_of_more_than_two_classes_are_refused(tmp_path):
    path = tmp_path / "three.npz"
    np.savez(path, x=np.ones((9, 4)), y=np.arange(9) % 3)
    with pytest.raises(SettingError, match="two distinct labels"):
        check(small(data=str(path)))


def test_a_data_set_too_small_is_refused_with_what_it_leaves(tmp_path):
    path = tmp_path / "few.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(60, 4)), y=np.arange(60) % 2)
    with pytest.raises(SettingError, match="test samples the data leave at most 40"):
        check(small(data=str(path), network_samples=50, test_samples=20))
    assert check(small(data=str(path), network_samples=40, test_samples=20)) == check(small())
    with pytest.raises(SettingError, match="both must be even"):
        check(small(data=str(path), network_samples=41, test_samples=20))


def test_what_no_claim_can_test_is_said():
    assert any("far above the crossover" in one for one in check(small(temperature_over_margin=5.0)))
    assert any("will be censored" in one for one in check(small(most_steps=1000)))
    assert any("below 16 d" in one for one in check(small(samples=(64, 128))))
    assert any("K3 and K5" in one for one in check(small(temperatures=(1.0, 2.0))))


def test_densities_come_once():
    assert [chi for chi, _ in densities(small())] == [1.0, 0.0, 3.0]
    assert [chi for chi, _ in densities(small(chi=0.0))] == [0.0, 3.0]


@pytest.mark.parametrize("preset", ["default", "smoke"])
def test_presets_pass_and_survive_json(preset):
    settings = STUDY.resolve(preset, {})
    check(settings)
    assert from_json(type(settings), to_json(settings)) == settings


def test_time_and_memory_grow_with_what_is_asked_for():
    cost = lambda s: sum(one.seconds for one in STUDY.experiments(s))  # noqa: E731
    assert cost(small(stopped_runs=2000, lazy_runs=2000)) > 2 * cost(small())
    largest = lambda s: max(one.bytes_per_member for one in STUDY.experiments(s))  # noqa: E731
    assert largest(small(samples=(2**16, 2**17))) > 10 * largest(small())


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.floats(-0.9, 10), st.lists(st.integers(2, 10**5), min_size=1, max_size=4).map(tuple),
    st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=5).map(tuple), st.booleans(), st.integers(1, 64),
)  # fmt: skip
def test_any_settings_within_bounds_pass_or_are_refused_in_one_sentence(chi, samples, temperatures, replacement, batch):
    refused, sentences = "", []
    try:
        sentences = check(
            small(chi=chi, samples=samples, temperatures=temperatures, replacement=replacement, batch_size=batch)
        )
    except SettingError as error:
        refused = str(error)
    assert re.fullmatch(r"([a-z_]+ = .* (is|are) not allowed: .*\.)?", refused)
    assert all(re.fullmatch(r"[A-Z].*\.", sentence) for sentence in sentences)
