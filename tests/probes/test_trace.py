"""Traces and diagonals against dense ones: unbiased, with standard errors that cover at the stated rate."""

import numpy as np
import pytest
from dense_matrices import dense
from scipy import stats

from separatrix.probes.matrices import groups
from separatrix.probes.operators import ProbeError
from separatrix.probes.trace import diagonal, group_traces, trace, trace_hutch_plus_plus

FALSE_ALARM = 1e-6
REPEATS = 400
OUTLIERS = np.r_[50, 30, 20, 12, 8, np.linspace(-0.5, 1, 75)]


def assert_covered(z, samples):
    """Errors over standard errors of independent estimates are Student's, up to the normality of the samples."""
    level = 0.9
    inside = int(np.sum(np.abs(z) < stats.t.ppf(0.5 + level / 2, samples - 1)))
    # samples are not exactly normal: the rate may be off by 0.03
    assert stats.binom.cdf(inside, len(z), level - 0.03) > FALSE_ALARM
    assert stats.binom.sf(inside - 1, len(z), level + 0.03) > FALSE_ALARM


@pytest.mark.parametrize(
    ("estimator", "samples", "first"),
    [
        (lambda matrix, seed: trace(matrix, 32, seed=seed), 32, 0),
        (lambda matrix, seed: trace_hutch_plus_plus(matrix, 48, seed=seed), 16, 0),
        (lambda matrix, seed: group_traces(matrix, 32, seed=seed)["second"], 32, 40),
    ],
    ids=["Hutchinson", "Hutch++", "a block"],
)
def test_standard_errors_cover_the_trace_at_the_stated_rate(estimator, samples, first):
    array, matrix = dense(OUTLIERS)
    exact = np.trace(array[first:, first:])
    found = [estimator(matrix, seed) for seed in range(REPEATS)]
    z = np.array([(f.value - exact) / f.standard_error for f in found])
    assert_covered(z, samples)
    assert {f.samples for f in found} == {samples}
    assert np.mean([low <= exact <= high for low, high in (f.interval(0.9) for f in found)]) > 0.8


def test_hutch_plus_plus_is_far_better_where_few_eigenvalues_dominate():
    _, matrix = dense(OUTLIERS)
    plain, better = trace(matrix, 48), trace_hutch_plus_plus(matrix, 48)
    assert plain.products == better.products == 48
    assert better.standard_error < 0.2 * plain.standard_error
    assert better.converged
    assert not trace(matrix, 8, tolerance=1e-3).converged


def test_hutch_plus_plus_is_exact_up_to_the_rank_of_its_sketch():
    _, matrix = dense(np.r_[3.0, -2.0, 1.5, np.zeros(30)])
    found = trace_hutch_plus_plus(matrix, 12)
    assert abs(found.value - 2.5) < 1e-12
    assert found.standard_error < 1e-12


def test_block_traces_add_up_and_do_not_depend_on_how_vectors_are_grouped():
    _, matrix = dense(OUTLIERS)
    parts = group_traces(matrix, 40, seed=3)
    assert abs(sum(p.value for p in parts.values()) - trace(matrix, 40, seed=3).value) < 1e-10


def test_the_diagonal_is_within_its_errors():
    array, matrix = dense(OUTLIERS)
    found = diagonal(matrix, 500)
    z = (found.values - np.diag(array)) / found.standard_errors
    assert np.max(np.abs(z)) < stats.t.isf(FALSE_ALARM / 2 / z.size, 499)
    assert 0.8 < np.sqrt(np.mean(z**2)) < 1.2
    assert not diagonal(matrix, 4, tolerance=1e-3).converged
    _, flat = dense(np.full(20, 2.0))
    exact = diagonal(flat, 2)
    assert exact.converged
    np.testing.assert_allclose(exact.values, 2.0, rtol=1e-12)


def test_groups_are_disjoint_and_complete_or_refused():
    blocks = {"a.weight": slice(0, 4), "a.bias": slice(4, 6), "b.weight": slice(6, 9)}
    assert groups(blocks, {"weights": "weight$", "biases": "bias"}) == {
        "weights": (slice(0, 4), slice(6, 9)),
        "biases": (slice(4, 6),),
    }
    with pytest.raises(ProbeError, match=r"the parameter a\.bias must be in one group, and is in none"):
        groups(blocks, {"weights": "weight"})
    with pytest.raises(ProbeError, match=r"a\.bias must be in one group, and is in \['one', 'two'\]"):
        groups(blocks, {"one": "", "two": "bias"})
    with pytest.raises(ProbeError, match="the group c has no parameter: 'zzz' is found in no name"):
        groups(blocks, {"all": "", "c": "zzz"})


def test_a_standard_error_needs_two_samples():
    _, matrix = dense(np.arange(5.0))
    with pytest.raises(ProbeError, match="at least 2 probes, got 1"):
        trace(matrix, 1)
    with pytest.raises(ProbeError, match="at least 6 products, got 5"):
        trace_hutch_plus_plus(matrix, 5)
