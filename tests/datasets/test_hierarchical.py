"""The toy tree has the correlations for which learning in stages was explained."""

import numpy as np
import pytest

from separatrix.datasets.hierarchical import hierarchical_items


def test_the_modes_are_the_splits_of_the_tree():
    items, features = hierarchical_items(3)
    assert (items.shape, features.shape) == ((8, 8), (8, 15))
    np.testing.assert_array_equal(items.T @ items / 8, np.eye(8) / 8)
    # every item lies below one node of each level
    np.testing.assert_array_equal(features.sum(axis=1), 4)
    np.testing.assert_array_equal(features.sum(axis=0), [8, 4, 4, 2, 2, 2, 2, *[1] * 8])
    s = np.linalg.svd(features.T @ items / 8)[1]
    np.testing.assert_allclose(s, [0.4841, 0.3307, 0.2165, 0.2165, *[0.125] * 4], atol=5e-5)


def test_one_level_is_the_least():
    assert hierarchical_items(1)[1].tolist() == [[1, 1, 0], [1, 0, 1]]
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        hierarchical_items(0)
