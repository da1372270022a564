"""Eigenpairs are those of a dense decomposition, within residuals that are true; nothing is claimed without."""

import numpy as np
import pytest
from dense_matrices import dense, products

from separatrix.probes.eigenpairs import eigenpairs
from separatrix.probes.matrices import SymmetricMatrix, restricted
from separatrix.probes.operators import ProbeError

SPECTRA = {
    "distinct": np.linspace(-3, 7, 60),
    "outliers": np.r_[40, 25, 12, 9, 8, 7, np.linspace(-0.5, 0.5, 80)],
    "multiple": np.r_[5, 5, 5, 4, 4, np.linspace(-1, 1, 60)],
    "low rank": np.r_[3, 2, 1, np.zeros(40)],
    "identity": np.ones(20),
    "13 decades": np.r_[10.0 ** np.arange(6, -7, -1), np.full(30, 1e-8)],
    "negative": -np.arange(1, 30.0),
    "two clusters": np.r_[2 + 1e-7 * np.arange(10), 1 + 1e-7 * np.arange(40)],
}


@pytest.mark.parametrize("basis", [None, 12])
@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("name", SPECTRA)
def test_pairs_are_those_of_the_dense_matrix_within_their_residuals(name, which, basis):
    spectrum = SPECTRA[name] if (name, which) != ("13 decades", "smallest") else -SPECTRA[name]
    array, matrix = dense(spectrum)
    found = eigenpairs(matrix, 6, which=which, basis=basis, tolerance=1e-6, most_products=3000)
    exact = np.sort(np.linalg.eigvalsh(array))
    exact = exact[::-1][:6] if which == "largest" else exact[:6]
    assert found.converged
    assert found.complete
    rounding = 1e-13 * np.abs(spectrum).max()
    assert np.all(np.abs(found.values[:, None] - spectrum).min(axis=1) <= found.residuals + rounding)
    # which of a cluster narrower than the tolerance they are is not resolved
    assert np.all(np.abs(found.values - exact) <= np.maximum(found.residuals, 1e-6 * np.abs(exact)) + rounding)
    true = np.linalg.norm(found.vectors @ array - found.values[:, None] * found.vectors, axis=1)
    assert np.all(true <= found.residuals * (1 + 1e-6) + rounding)
    assert np.all(found.residuals <= 1e-6 * np.abs(exact) + rounding)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(6), rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_null_vectors_are_resolved_to_rounding_although_they_come_from_several_chains(seed):
    array, matrix = dense(SPECTRA["low rank"], seed=seed)
    found = eigenpairs(matrix, 6, tolerance=1e-6)
    assert found.converged
    true = np.linalg.norm(found.vectors @ array - found.values[:, None] * found.vectors, axis=1)
    assert np.all(true < 64 * np.finfo(float).eps * 3)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(6), rtol=0, atol=1e-13)


@pytest.mark.slow
def test_residuals_bound_the_errors_of_random_matrices_at_any_tolerance():
    rng = np.random.default_rng(0)
    for trial in range(200):
        array, matrix = dense(rng.standard_t(2, size=rng.integers(5, 40)), seed=trial)
        found = eigenpairs(matrix, 3, tolerance=10.0 ** rng.uniform(-10, 0), confirm=10, seed=trial)
        exact = np.linalg.eigvalsh(array)
        nearest = np.abs(found.values[:, None] - exact).min(axis=1)
        assert np.all(nearest <= found.residuals)


def test_the_search_for_missed_copies_finds_them_and_without_it_one_copy_stands_for_all():
    _, matrix = dense(SPECTRA["multiple"])
    alone = eigenpairs(matrix, 2, tolerance=1e-8, confirm=0)
    np.testing.assert_allclose(alone.values, [5, 4], rtol=1e-12)
    assert alone.complete is None
    found = eigenpairs(matrix, 5, tolerance=1e-8)
    np.testing.assert_allclose(found.values, [5, 5, 5, 4, 4], rtol=1e-12)


def test_too_few_products_are_no_convergence():
    _, matrix = dense(np.linspace(-3, 7, 60))
    found = eigenpairs(matrix, 2, tolerance=1e-8, most_products=8)
    assert not found.converged
    assert found.products == 9  # one more measures the residuals
    assert np.all(found.residuals > 1e-3)
    assert np.all(np.abs(found.values - [7, 7 - 10 / 59]) <= found.residuals + 1)


def test_single_precision_says_what_it_cannot_resolve():
    _, matrix = dense(SPECTRA["13 decades"], dtype=np.float32)
    found = eigenpairs(matrix, 6, tolerance=1e-3)
    assert found.pair_converged.tolist()[:3] == [True] * 3
    assert not found.pair_converged[5]
    assert np.all(np.abs(found.values - 10.0 ** np.arange(6, 0, -1)) <= found.residuals)


def test_products_that_are_not_of_a_symmetric_matrix_do_not_converge():
    array, honest = dense(np.linspace(-3, 7, 60))
    rng = np.random.default_rng(0)
    noisy = SymmetricMatrix(
        60, lambda rows: rows @ array + 1e-3 * rng.normal(size=rows.shape), honest.vector, honest.dtype,
        honest.blocks, honest.free_memory,
    )  # fmt: skip
    assert eigenpairs(honest, 2, tolerance=1e-5).converged
    found = eigenpairs(noisy, 2, tolerance=1e-5, most_products=200)
    assert not found.converged
    assert found.asymmetry > 1e-4


def test_a_start_near_the_answer_saves_products():
    _, matrix = dense(SPECTRA["distinct"])
    cold = eigenpairs(matrix, 1, tolerance=1e-6)
    warm = eigenpairs(matrix, 1, tolerance=1e-6, start=cold.vectors[0])
    assert warm.products < 4 < cold.products
    assert abs(warm.values[0] - 7) < 1e-9


def test_a_block_is_the_principal_submatrix():
    array, matrix = dense(SPECTRA["distinct"])
    block = restricted(matrix, "second")
    assert block.size == 30
    np.testing.assert_allclose(
        eigenpairs(block, 3, tolerance=1e-9).values, np.linalg.eigvalsh(array[30:, 30:])[:-4:-1], rtol=1e-12
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"count": 0}, "count must lie between 1 and the number of parameters 5, got 0"),
        ({"count": 6}, "count must lie between 1 and the number of parameters 5, got 6"),
        ({"which": "middle"}, "which must be 'largest' or 'smallest', got 'middle'"),
        ({"tolerance": 0.0}, "tolerance must be positive, got 0.0"),
        ({"count": 2, "basis": 3}, "basis must be at least 5 for 2 pairs, got 3"),
        ({"start": np.zeros(5)}, "the vector to start from must be finite and not zero"),
    ],
    ids=["no pair", "too many", "which", "tolerance", "basis", "start"],
)
def test_bad_requests_are_refused(arguments, sentence):
    _, matrix = dense(np.arange(5.0))
    with pytest.raises(ProbeError) as refused:
        eigenpairs(matrix, **arguments)
    assert str(refused.value) == sentence


def test_a_basis_that_does_not_fit_is_refused_before_it_is_made():
    array, _ = dense(np.arange(50.0))
    tight = products(array)
    tight = SymmetricMatrix(50, tight.apply, tight.vector, tight.dtype, tight.blocks, lambda: 4000)
    assert eigenpairs(tight, 1, tolerance=1e-2).converged  # 9 vectors fit, and restarts do the rest
    with pytest.raises(ProbeError, match="a basis of 100 vectors needs 40000 bytes, and 4000 are available"):
        eigenpairs(tight, 1, basis=100)


def test_a_matrix_that_is_not_finite_is_refused():
    _, matrix = dense(np.arange(5.0))
    broken = SymmetricMatrix(
        5, lambda rows: rows * np.nan, matrix.vector, matrix.dtype, matrix.blocks, matrix.free_memory
    )
    with pytest.raises(ProbeError, match="a product with the matrix is not finite"):
        eigenpairs(broken)
