"""The kernel of a PyTorch module is that of its Jacobian, whatever it is made of, and the module is left as it was."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.probes.tangent_kernel import contraction
from separatrix.probes.tangent_kernel.jax_kernel import JaxTangentKernel

torch = pytest.importorskip("torch")

from separatrix.probes.tangent_kernel.products import kernel_products, sign_probes  # noqa: E402
from separatrix.probes.tangent_kernel.torch_kernel import TorchTangentKernel  # noqa: E402
from separatrix.probes.torch_model import TorchModel  # noqa: E402

SAMPLES, CLASSES = 6, 3


class Mixed(torch.nn.Module):
    """Convolutions followed by in-place activations, a shared layer, layer norm, batch norm in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.ReLU(inplace=True), torch.nn.Conv2d(3, 4, 3, stride=2),
            torch.nn.BatchNorm2d(4), torch.nn.ReLU(inplace=True),
        )  # fmt: skip
        self.norm = torch.nn.LayerNorm(4)
        self.shared = torch.nn.Linear(4, 4, bias=False)
        self.head = torch.nn.Linear(4, CLASSES)

    def forward(self, x):
        tokens = self.shared(self.norm(self.features(x).flatten(2).mT))
        return self.head((tokens + self.shared(torch.tanh(tokens))).mean(1))


class Words(torch.nn.Module):
    """Tokens at few positions, group norm, a weight with a parametrisation."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(5, 16)
        self.dense = torch.nn.Linear(16, 16)
        self.norm = torch.nn.GroupNorm(2, 16)
        self.head = torch.nn.Linear(16, CLASSES)
        torch.nn.utils.parametrize.register_parametrization(self.head, "weight", torch.nn.Tanh())

    def forward(self, tokens):
        hidden = torch.tanh(self.dense(self.table(tokens)))
        return self.head(self.norm(hidden.mT).square().mean(2))


class Borrowed(torch.nn.Module):
    """A weight that is used outside its layer too."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, CLASSES)

    def forward(self, x):
        return self.layer(x) + torch.tanh(x) @ self.layer.weight.mT


def brute_force(module, x):
    trained = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    one = lambda p, row: torch.func.functional_call(module, p, (row[None],))[0]  # noqa: E731
    slopes = torch.func.vmap(torch.func.jacrev(one), (None, 0))(trained, x)
    flat = torch.cat([a.reshape(len(x) * CLASSES, -1) for a in slopes.values()], dim=1).detach().numpy()
    return flat @ flat.T


def mixed():
    torch.manual_seed(0)
    return Mixed().double().eval(), torch.randn(SAMPLES, 1, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["full", "class-trace", "sum-of-logits"])
def test_the_kernel_is_the_gram_matrix_of_the_jacobian_in_whole_and_in_blocks(kind):
    module, x = mixed()
    expected = brute_force(module, x)
    four = expected.reshape(SAMPLES, CLASSES, SAMPLES, CLASSES)
    if kind != "full":
        summed = np.einsum("icjc->ij", four) if kind == "class-trace" else four.sum(axis=(1, 3))
        expected = summed / CLASSES
    whole = TorchTangentKernel(module, x, contraction=kind)
    parts = TorchTangentKernel(module, x, contraction=kind, memory_bytes=whole.predicted_bytes // 2)
    assert parts.block < whole.block == SAMPLES
    for probe in (whole, parts):
        np.testing.assert_allclose(probe().numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_few_positions_are_summed_in_pairs_and_tokens_are_unit_vectors():
    torch.manual_seed(4)
    module, tokens = Words().double(), torch.randint(0, 5, (SAMPLES, 2))
    expected = brute_force(module, tokens)
    probe = TorchTangentKernel(module, tokens)
    assert probe._layers == {"table": (2, 5, 16), "dense": (2, 16, 16), "norm": (32, 1, 1)}
    chosen = {name: contraction.pairs_are_cheaper(*probe._layers[name], CLASSES, False) for name in probe._layers}
    assert chosen == {"table": False, "dense": True, "norm": False}
    np.testing.assert_allclose(probe().numpy(), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_a_weight_that_is_used_outside_its_layer_is_noticed():
    torch.manual_seed(1)
    module, x = Borrowed().double(), torch.randn(SAMPLES, 5, dtype=torch.float64)
    np.testing.assert_allclose(TorchTangentKernel(module, x)().numpy(), brute_force(module, x), rtol=1e-10)


def test_frozen_parameters_do_not_count_and_the_module_is_left_as_it_was():
    module, x = mixed()
    module.head.weight.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    found = TorchTangentKernel(module, x)()
    np.testing.assert_allclose(found.numpy(), brute_force(module, x), atol=1e-12 * float(found.abs().max()))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))
    assert all(p.grad is None for p in module.parameters())
    assert not any(m._forward_hooks for m in module.modules())
    assert not found.requires_grad


def test_both_frameworks_give_the_same_kernel_and_products():
    torch.manual_seed(2)
    module = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, CLASSES)).double()
    x = torch.randn(SAMPLES, 5, dtype=torch.float64)
    weights = [jnp.asarray(p.detach().numpy()) for p in module.parameters()]

    def function(p, x):
        return jnp.tanh(x @ p[0].T + p[1]) @ p[2].T + p[3]

    kernel = TorchTangentKernel(module, x)().numpy()
    np.testing.assert_allclose(JaxTangentKernel(function, weights, jnp.asarray(x.numpy()))(weights), kernel, rtol=1e-10)
    probes = sign_probes((SAMPLES, CLASSES), 3, seed=0)
    model = TorchModel(module, (x, torch.zeros(SAMPLES, dtype=torch.long)), torch.nn.functional.cross_entropy)
    expected = (probes.reshape(3, -1) @ kernel).reshape(probes.shape)
    np.testing.assert_allclose(kernel_products(model, probes), expected, rtol=1e-9)


def test_half_precision_is_computed_in_float32():
    torch.manual_seed(3)
    module = torch.nn.Linear(5, CLASSES).bfloat16()
    x = torch.randn(SAMPLES, 5).bfloat16()
    found = TorchTangentKernel(module, x)()
    assert found.dtype == torch.float32
    assert module.weight.dtype == torch.bfloat16
    exact = np.kron(x.float().numpy() @ x.float().numpy().T + 1, np.eye(CLASSES))
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-5, atol=1e-5)


def test_modules_without_a_kernel_are_refused():
    module, x = mixed()
    with pytest.raises(ValueError, match=r"features\.3 normalises over the batch"):
        TorchTangentKernel(module.train(), x)
    drop = torch.nn.Sequential(torch.nn.Linear(5, CLASSES), torch.nn.Dropout(0.5))
    with pytest.raises(ValueError, match="drops units"):
        TorchTangentKernel(drop, torch.ones(4, 5))
    with pytest.raises(ValueError, match="two or more examples"):
        TorchTangentKernel(torch.nn.Linear(5, CLASSES), torch.ones(1, 5))
    with pytest.raises(ValueError, match="requires_grad"):
        TorchTangentKernel(torch.nn.Linear(5, CLASSES).requires_grad_(False), torch.ones(4, 5))
    with pytest.raises(ValueError, match="MiB allowed"):
        TorchTangentKernel(torch.nn.Linear(5, CLASSES), torch.ones(4, 5), memory_bytes=100)
