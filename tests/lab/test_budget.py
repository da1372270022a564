"""The split of an experiment follows from memory and time, covers every member once, and refuses what cannot fit."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from separatrix.lab import Experiment, UsageError, budget


def experiment(members=1000, bytes_per_member=0, seconds=0.0):
    return Experiment("sgd", lambda start, stop: None, members, bytes_per_member, seconds)


@given(st.integers(1, 5000), st.integers(0, 10**9), st.floats(0, 1e5), st.integers(10**9, 10**12))
def test_parts_cover_all_members_and_fit(members, bytes_per_member, seconds, available):
    size = budget.part_size(experiment(members, bytes_per_member, seconds), available)
    parts = budget.parts(members, size)
    assert [member for start, stop in parts for member in range(start, stop)] == list(range(members))
    assert size == 1 or size * bytes_per_member <= available * budget.MEMORY_SHARE
    assert size == 1 or seconds * size / members <= budget.PART_SECONDS * (1 + 1e-9)


def test_a_short_experiment_is_one_part():
    assert budget.part_size(experiment(seconds=10.0), 10**9) == 1000


def test_a_part_has_no_more_members_than_the_experiment_allows():
    whole = dataclasses.replace(experiment(members=10, seconds=1.0), most_together=1)
    assert budget.part_size(whole, 10**9) == 1


def test_equal_parts_are_preferred():
    assert budget.part_size(experiment(members=1000, seconds=95.0), 10**9) == 250
    assert budget.part_size(experiment(members=997, seconds=95.0), 10**9) == 314


def test_a_member_that_cannot_fit_is_refused_with_both_sizes():
    with pytest.raises(
        UsageError, match=r"sgd needs 3000000000 bytes \(3 GB\).*2000000000 bytes \(2 GB\) are available"
    ):
        budget.part_size(experiment(bytes_per_member=3 * 10**9), 2 * 10**9)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "less than 1 s"), (42.4, "42 s"), (100, "1 min 40 s"), (119.7, "2 min 0 s"), (7260, "2 h 1 min")],
)
def test_times_in_words(seconds, words):
    assert budget.in_time(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (4e18, "4e+03 PB")])
def test_sizes_in_words(count, words):
    assert budget.in_bytes(count) == words
