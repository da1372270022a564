"""Learning times, noise peaks and plateaus read off curves whose answers are known."""

import numpy as np
import pytest

from separatrix.systems.deep_linear.diffusion_peak import peak_progress
from separatrix.systems.deep_linear.learning_times import flow_time, lead_time
from separatrix.systems.deep_linear.rises import LEARNED, crossing_times, plateau_losses, rises
from separatrix.systems.deep_linear.scalar_mode import strength_diffusion

S = np.array([2.0, 1.0])
TIME = np.linspace(0.0, 10.0, 101)


def ramps(starts, lengths):
    """Strengths that rise linearly from 0 at ``starts`` to ``S`` over ``lengths``, ``(n, t, r)``."""
    return S * np.clip((TIME[None, :, None] - np.array(starts)[:, None]) / np.array(lengths)[:, None], 0, 1)


def test_linear_ramps_are_learned_at_95_percent_between_records():
    # Two runs; the second learns in the other order, at times off the grid of records.
    starts, lengths = [[1.0, 4.0], [5.03, 0.51]], [[2.0, 3.0], [1.7, 2.9]]
    strength = ramps(starts, lengths)
    # The noise is largest at 3/5 of the way.
    noise = strength / S * (1.2 - strength / S)
    found = rises(TIME, strength, noise, S)
    assert np.all(found.learned)
    assert np.all(found.peaked_before)
    np.testing.assert_allclose(found.learned_time, np.array(starts) + 0.95 * np.array(lengths), rtol=1e-12)
    np.testing.assert_allclose(found.peak_time, np.array(starts) + 0.6 * np.array(lengths), atol=0.051)
    np.testing.assert_allclose(found.peak_progress, 0.6, atol=0.05 / np.min(lengths) + 1e-12)


@pytest.mark.parametrize("depth", [2, 3])
def test_gradient_flow_gives_the_lead_time_of_the_theory(depth):
    s, start = 1.3, 0.01
    strength = np.geomspace(start, 0.97 * s, 2000)
    time = flow_time(start * (1 - 1e-12), strength, s, depth)
    grid = np.linspace(0, time[-1], 4001)
    w = np.interp(grid, time, strength)
    found = rises(grid, w[None, :, None], strength_diffusion(w, s, depth, 1.0, 0.2 * s)[None, :, None], np.array([s]))
    assert found.learned_time[0, 0] == pytest.approx(flow_time(start, LEARNED * s, s, depth), abs=2e-4)
    step = grid[1]
    lead = found.learned_time - found.peak_time
    assert lead[0, 0] == pytest.approx(lead_time(s, depth, label_noise=0.2), abs=2 * step)
    assert found.peak_progress[0, 0] == pytest.approx(peak_progress(depth, 0.2), abs=4 * step)


def test_excursions_after_learning_are_ignored():
    strength = ramps([[1.0, 4.0]], [[2.0, 3.0]])
    noise = strength / S * (1.2 - strength / S)
    calm = rises(TIME, strength, noise, S)
    late = TIME > 8
    strength[:, late] = 1.5 * S
    noise[:, late] = 100.0
    # Falling back below 95 % and rising again does not change the first time either.
    strength[:, TIME > 9] = 0.5 * S
    strength[:, TIME > 9.5] = S
    for before, after in zip(calm, rises(TIME, strength, noise, S), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_mode_never_learned_has_no_times():
    strength = ramps([[1.0, 4.0], [1.0, 4.0]], [[2.0, 3.0], [2.0, 7.0]])  # run 1, mode 1 ends at 6/7
    found = rises(TIME, strength, strength, S)
    np.testing.assert_array_equal(found.learned, [[True, True], [True, False]])
    for values in (found.learned_time, found.peak_time, found.peak_progress):
        np.testing.assert_array_equal(np.isnan(values), ~found.learned)
    assert not found.peaked_before[1, 1]
    # 94.9 % is not enough, 95 % is.
    almost = np.array([0.0, 0.949, 0.949])[None, :, None]
    assert not rises(np.arange(3.0), almost, almost, np.array([1.0])).learned[0, 0]
    enough = rises(np.arange(3.0), almost / 0.949 * 0.95, almost, np.array([1.0]))
    assert enough.learned_time[0, 0] == pytest.approx(1.0)


def test_noise_that_peaks_with_the_learned_record_did_not_peak_before():
    strength = ramps([[1.0, 4.0]], [[2.0, 3.0]])
    found = rises(TIME, strength, strength.copy(), S)  # the noise only rises
    assert not np.any(found.peaked_before)
    assert np.all(found.peak_time >= found.learned_time)


def test_learned_from_the_start():
    strength = np.broadcast_to(S, (1, 5, 2)).copy()
    found = rises(np.arange(5.0) + 3, strength, strength, S)
    np.testing.assert_array_equal(found.learned_time, [[3.0, 3.0]])
    assert not np.any(found.peaked_before)


def test_a_run_that_diverged_keeps_what_it_learned_before():
    strength = ramps([[1.0, 6.0]], [[2.0, 3.0]])
    noise = strength / S * (1.2 - strength / S)
    strength[:, TIME > 5], noise[:, TIME > 5] = np.nan, np.nan
    found = rises(TIME, strength, noise, S)
    np.testing.assert_array_equal(found.learned, [[True, False]])
    assert found.learned_time[0, 0] == pytest.approx(2.9)


def test_plateau_losses_are_medians_between_the_modes():
    s = np.array([3.0, 2.0, 1.0])
    time = np.linspace(0, 30, 301)
    starts = np.array([[1.0, 11.0, 21.0], [1.0, 11.0, 12.0]])  # in run 1 the last two rise together
    strength = s * np.clip((time[None, :, None] - starts[:, None]) / 4, 0, 1)
    loss = 0.5 * np.sum((s - strength) ** 2, axis=2)
    # A spike of the loss on each plateau leaves the median where it is.
    loss[:, (time > 8) & (time < 9)] = 50.0
    loss[:, (time > 18) & (time < 19)] = 50.0
    plateaus = plateau_losses(loss, strength, s)
    assert plateaus.shape == (2, 2)
    np.testing.assert_allclose(plateaus[:, 0], 2.5, rtol=1e-12)  # (2^2 + 1^2) / 2
    assert plateaus[0, 1] == pytest.approx(0.5)
    assert np.isnan(plateaus[1, 1])


def test_a_plateau_starts_at_95_percent_and_ends_at_5():
    s = np.array([2.0, 1.0])
    first, second = np.array([0.0, 1.89, 1.91, 2.0, 2.0, 1.8]), np.array([0.0, 0.0, 0.03, 0.049, 0.051, 0.0])
    strength = np.stack([first, second], axis=1)[None]
    loss = np.array([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])
    # Records 2 and 3 only: what falls back below 5 % has started all the same.
    assert plateau_losses(loss, strength, s)[0, 0] == 6.0
    assert plateau_losses(loss, strength[:, :, :1], s[:1]).shape == (1, 0)
    assert np.isnan(plateau_losses(loss, 0.9 * strength, s)[0, 0])


def test_crossings_are_interpolated_and_missing_where_there_are_none():
    strength = ramps([[1.0, 4.0], [2.03, 9.5]], [[2.0, 3.0], [1.7, 2.9]])
    found = crossing_times(TIME, strength, S / 2)
    np.testing.assert_allclose(found, [[2.0, 5.5], [2.03 + 0.85, np.nan]], rtol=1e-12)
    # from the start, and with a gap in the record
    strength[0, 30:] = np.nan
    np.testing.assert_array_equal(crossing_times(TIME, strength + S, S / 2), [[0.0, 0.0], [0.0, 0.0]])
    assert np.isnan(crossing_times(TIME, strength, S)[0, 1])
