"""Perturbed copies of a PyTorch training, as predicted where the step is linear, refused where it is random."""

import numpy as np
import pytest

from separatrix.probes.chaos.measure import NotDeterministicError

torch = pytest.importorskip("torch")

from separatrix.probes.chaos.torch_copies import measure_torch_chaos  # noqa: E402


def setup(momentum=0.0):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1, bias=False).double()
    return model, torch.optim.SGD(model.parameters(), 0.1, momentum=momentum)


def descend(model, optimizer, batch):
    optimizer.zero_grad()
    (0.5 * model(batch) ** 2).sum().backward()
    optimizer.step()


def test_a_quadratic_loss_contracts_perturbations_as_its_hessian_says():
    model, optimizer = setup()
    before = model.weight.detach().clone()
    batch = torch.diag(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).sqrt()
    chaos = measure_torch_chaos(descend, model, optimizer, [batch] * 10, sigma=1e-6, records=2)
    # distances shrink by a factor between (1 - 0.1 h) of the largest and of the smallest curvature h
    assert np.all(chaos.amplification[:, -1] < 0.9**10)
    assert np.all(chaos.amplification[:, -1] > 0.7**10)
    torch.testing.assert_close(model.weight.detach(), before, rtol=0, atol=0)


def test_the_momentum_of_the_run_is_copied_with_it():
    model, optimizer = setup(momentum=0.9)
    batch = torch.eye(3, dtype=torch.float64)
    for _ in range(5):
        descend(model, optimizer, batch)
    buffer = optimizer.state[model.weight]["momentum_buffer"].clone()
    chaos = measure_torch_chaos(descend, model, optimizer, [batch] * 4, sigma=1e-6, records=1)
    # dv <- 0.9 dv + dx, dx <- dx - 0.1 dv, from dx = 1 and dv = 0
    x, v = 1.0, 0.0
    for _ in range(4):
        v = 0.9 * v + x
        x = x - 0.1 * v
    np.testing.assert_allclose(chaos.amplification[:, 0], abs(x), rtol=1e-6)
    torch.testing.assert_close(optimizer.state[model.weight]["momentum_buffer"], buffer, rtol=0, atol=0)


def test_fewer_steps_than_records_are_all_recorded():
    chaos = measure_torch_chaos(descend, *setup(), [torch.eye(3, dtype=torch.float64)] * 3, sigma=1e-6, records=10)
    assert chaos.steps.tolist() == [1, 2, 3]
    assert chaos.amplification.shape == (3, 3)


def test_dropout_without_a_key_of_its_own_is_refused():
    def noisy(model, optimizer, batch):
        descend(model, optimizer, batch + torch.randn_like(batch))

    with pytest.raises(NotDeterministicError, match="not deterministic"):
        measure_torch_chaos(noisy, *setup(), [torch.eye(3, dtype=torch.float64)] * 3, sigma=1e-6)
