"""The dense derivatives, made once; one thread for PyTorch, whose small products lose time in waiting threads."""

import pytest
from small_networks import dense_derivatives


@pytest.fixture(scope="session")
def dense():
    """Dense derivatives of the small network."""
    return dense_derivatives()


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    try:
        import torch
    except ImportError:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
