import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.engines.lanes import outer_product, product, transposed_product

SIZES = [
    # rows, columns, batch: one turn, an odd number of terms, full groups with and without a remainder, long batches
    (1, 1, 1),
    (3, 2, 1),
    (2, 7, 3),
    (10, 20, 8),
    (33, 23, 16),
    (50, 50, 4),
    (2, 3, 33),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "columns", "batch"), SIZES)
def test_products_are_those_of_each_member(rows, columns, batch, dtype):
    rng = np.random.default_rng(rows + columns)
    shapes = ((rows, columns), (columns, batch), (rows, batch))
    w, x, r = (rng.normal(size=(*shape, 5)).astype(dtype) for shape in shapes)
    ours = jax.jit(lambda w, x, r: (product(w, x), transposed_product(w, r), outer_product(r, x)))(w, x, r)
    rules = {"ijn,jbn->ibn": (w, x), "ijn,ibn->jbn": (w, r), "ibn,jbn->ijn": (r, x)}
    for result, (rule, pair) in zip(ours, rules.items(), strict=True):
        assert result.dtype == dtype
        exact = np.einsum(rule, *(a.astype(np.float64) for a in pair))
        np.testing.assert_allclose(result, exact, rtol=0, atol=64 * np.finfo(dtype).eps)


@pytest.mark.parametrize(("rows", "columns", "batch"), SIZES)
def test_grouping_the_terms_changes_no_bit(rows, columns, batch):
    rng = np.random.default_rng(rows)
    shapes = ((rows, columns), (columns, batch), (rows, batch))
    w, x, r = (jnp.asarray(rng.normal(size=(*shape, 32)), jnp.float32) for shape in shapes)

    def one_by_one(a, b):
        """``sum_k a[:, k] b[k]``, one term a turn."""
        zero = jnp.zeros((a.shape[0], *b.shape[1:]), a.dtype)
        return jax.lax.fori_loop(0, b.shape[0], lambda k, total: total + a[:, k][:, None] * b[k][None], zero)

    ours = jax.jit(lambda w, x, r: (product(w, x), transposed_product(w, r), outer_product(r, x)))(w, x, r)
    pairs = ((w, x), (w.swapaxes(0, 1), r), (r, x.swapaxes(0, 1)))
    for result, pair in zip(ours, pairs, strict=True):
        np.testing.assert_array_equal(result, jax.jit(one_by_one)(*pair))


def test_a_member_that_is_not_finite_leaves_the_others_bit_unchanged():
    rng = np.random.default_rng(0)
    w, x = (jnp.asarray(rng.normal(size=shape)) for shape in ((3, 2, 4), (2, 1, 4)))
    healthy, ill = product(w, x), product(w.at[0, 0, 1].set(jnp.inf), x)
    assert not np.all(np.isfinite(ill[..., 1]))
    np.testing.assert_array_equal(np.delete(ill, 1, -1), np.delete(healthy, 1, -1))
