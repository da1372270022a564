"""A claim holds, fails or is undecided by where its interval lies, and says what would decide it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from separatrix.lab import Claim, Measurement, Verdict, judge

INF = math.inf


def measured(low, high, accepted=(0.0, 1.0), **more):
    return Measurement("here", (low + high) / 2, (low, high), accepted, **more)


@pytest.mark.parametrize(
    ("interval", "accepted", "verdict"),
    [
        ((0.2, 0.8), (0, 1), "holds"),
        ((0.0, 1.0), (0, 1), "holds"),
        ((1.1, 1.2), (0, 1), "fails"),
        ((-2.0, -1.0), (0, 1), "fails"),
        ((0.5, 1.5), (0, 1), "undecided"),
        ((1.0, 1.5), (0, 1), "undecided"),
        ((-5.0, 5.0), (0, 1), "undecided"),
        ((3.0, 4.0), (2, INF), "holds"),
        ((1.0, 1.5), (2, INF), "fails"),
        ((-9.0, -8.0), (-INF, 2), "holds"),
        ((math.nan, 1.0), (0, 1), "undecided"),
        ((0.5, INF), (0, INF), "holds"),
    ],
)
def test_verdict_by_position_of_the_interval(interval, accepted, verdict):
    assert measured(*interval, accepted).verdict == verdict


@pytest.mark.parametrize("interval", [(0.4, 0.6), (2.0, 3.0)])
def test_more_than_one_percent_excluded_decides_nothing(interval):
    assert measured(*interval, excluded=0.01).verdict is not Verdict.UNDECIDED
    assert measured(*interval, excluded=0.011).verdict is Verdict.UNDECIDED
    assert measured(*interval, excluded=0.011, members=10).members_needed is None


hundredths = st.integers(-1000, 1000).map(lambda number: number / 100)


@given(hundredths, st.floats(1e-3, 10), hundredths, st.floats(0, 10), st.integers(2, 10**6))
def test_the_power_estimate_decides_the_claim_if_the_estimate_stays(estimate, half, low, length, members):
    one = Measurement("x", estimate, (estimate - half, estimate + half), (low, low + length), members=members)
    needed = one.members_needed
    if one.verdict is not Verdict.UNDECIDED:
        assert needed is None
    elif needed is not None:
        assert needed >= members
        shrunk = half * math.sqrt(members / needed) * (1 - 1e-6)
        again = Measurement("x", estimate, (estimate - shrunk, estimate + shrunk), (low, low + length))
        assert again.verdict is not Verdict.UNDECIDED


def test_no_power_estimate_on_the_bound_or_without_members():
    assert measured(0.5, 1.5, members=100).members_needed is None
    assert measured(0.5, 1.6).members_needed is None
    assert measured(0.0, 1.5, members=100).members_needed == 900


def test_a_measurement_refuses_what_it_cannot_mean():
    with pytest.raises(ValueError, match="wrong order"):
        measured(1.0, 0.0)
    with pytest.raises(ValueError, match="wrong order"):
        measured(0.0, 1.0, (2, 1))
    with pytest.raises(ValueError, match="fraction"):
        measured(0.0, 1.0, excluded=3)
    with pytest.raises(ValueError, match="not a number"):
        measured(0.0, 1.0, (math.nan, 1))


def claim(measurements, control=()):
    return Claim("C1", "It is so.", "derived", lambda s, r: measurements, lambda s, r: control, "not so")


HOLDS, FAILS, UNDECIDED = measured(0.4, 0.6), measured(2, 3), measured(0.5, 1.2)


@pytest.mark.parametrize(
    ("measurements", "verdict"),
    [
        ([HOLDS, HOLDS], "holds"),
        ([HOLDS, UNDECIDED], "undecided"),
        ([HOLDS, UNDECIDED, FAILS], "fails"),
        ([], "undecided"),
    ],
)
def test_one_failure_fails_and_all_must_hold(measurements, verdict):
    assert judge(claim(measurements), None, {}, controls=False).verdict == verdict


def test_the_decisive_measurement_is_the_worst_with_the_verdict_of_the_claim():
    close, far = measured(0.05, 0.25), measured(9, 9.2)
    assert judge(claim([HOLDS, close]), None, {}, controls=False).decisive is close
    assert judge(claim([FAILS, far, close]), None, {}, controls=False).decisive is far
    assert judge(claim([HOLDS, UNDECIDED]), None, {}, controls=False).decisive is UNDECIDED
    assert judge(claim([]), None, {}, controls=False).decisive is None


def test_an_undecided_claim_needs_the_members_of_its_most_demanding_condition():
    slight, large = measured(0.0, 1.5, members=100), measured(0.0, 1.8, members=100)
    assert judge(claim([slight, large, HOLDS]), None, {}, controls=False).members_needed == large.members_needed
    assert large.members_needed > slight.members_needed
    assert judge(claim([slight, FAILS]), None, {}, controls=False).members_needed is None


@given(st.lists(st.tuples(st.floats(), st.floats(allow_nan=False), st.floats(allow_nan=False)), max_size=4))
def test_any_numbers_give_a_verdict_and_a_document(rows):
    measurements = [Measurement("x", e, (min(a, b), max(a, b)), (-1, INF), members=3) for e, a, b in rows]
    result = judge(claim(measurements, measurements), None, {}, controls=True)
    assert result.as_dict()["verdict"] in ("holds", "fails", "undecided")
    assert result.verdict == result.control_verdict


def test_the_document_of_a_claim():
    result = judge(claim([measured(0.4, 0.6, (0, INF), unit="s")], [FAILS]), None, {}, controls=True).as_dict()
    assert {key: result[key] for key in ("id", "estimate", "interval", "threshold", "verdict", "control_verdict")} == {
        "id": "C1",
        "estimate": 0.5,
        "interval": [0.4, 0.6],
        "threshold": [0.0, None],
        "verdict": "holds",
        "control_verdict": "fails",
    }
    assert result["measurements"][0]["unit"] == "s"
    assert judge(claim([HOLDS]), None, {}, controls=False).as_dict()["control_verdict"] is None


def test_numpy_numbers_become_plain_numbers():
    one = Measurement("x", np.float32(0.5), (np.float64(0), np.int64(1)), (0, 1), members=np.int64(3))
    assert [type(number) for number in (one.estimate, *one.interval, one.members)] == [float, float, float, int]


def test_a_claim_that_raises_raises():
    def broken(settings, results):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        judge(Claim("C1", "", "", broken, broken, ""), None, {}, controls=False)
