"""PyTorch modules of all kinds: what they mean to a probe, what is refused, and that nothing of them changes."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from separatrix.probes import matrices  # noqa: E402
from separatrix.probes.eigenpairs import eigenpairs  # noqa: E402
from separatrix.probes.gradient_noise import gradient_noise  # noqa: E402
from separatrix.probes.operators import ProbeError  # noqa: E402
from separatrix.probes.tangent_kernel.torch_kernel import TorchTangentKernel  # noqa: E402
from separatrix.probes.torch_model import TorchModel  # noqa: E402

CROSS_ENTROPY = nn.functional.cross_entropy
MSE = nn.functional.mse_loss


def inputs(n=12, d=3, seed=0, dtype=torch.float64):
    return torch.tensor(np.random.default_rng(seed).normal(size=(n, d)), dtype=dtype)


def classes(n=12):
    return torch.arange(n) % 2


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def dense_hessian(module, x, y, loss, names=None):
    """By double backward on a copy of the module, entry by entry."""
    module = copy.deepcopy(module)
    params = [p for p in module.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss(module(x), y), params, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])
    rows = [torch.autograd.grad(g, params, retain_graph=True, materialize_grads=True) for g in flat]
    return torch.stack([torch.cat([r.reshape(-1) for r in row]) for row in rows]).numpy()


def hessian_of(model):
    return np.asarray(model.hvp(model.vector(np.eye(model.size))))


MODULES = {
    "batch norm that trains": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)),
    "batch norm that is evaluated": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval(),
    "dropout that is evaluated": lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2)).eval(),
    "layer norm and GELU": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2)),
    "rectifiers": lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2)),
    "an unused parameter": lambda: nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(2, 2)}),
}  # fmt: skip


class Used(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, x):
        return self.parts["used"](x)


@pytest.mark.parametrize("name", MODULES)
def test_the_hessian_is_that_of_the_module_as_it_stands_and_nothing_changes(name):
    module = seeded(MODULES[name]).double()
    module = Used(module) if name == "an unused parameter" else module
    for i, p in enumerate(module.parameters()):
        p.grad = torch.full_like(p, i)
    state = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    random_state = torch.random.get_rng_state()
    x, y = inputs(), classes()
    model = TorchModel(module, (x, y), CROSS_ENTROPY)
    if name == "an unused parameter":
        used = torch.cat([torch.zeros(8, dtype=bool), torch.ones(6, dtype=bool)]).numpy()
        made = hessian_of(model)
        idle = [model.blocks["parts.idle.weight"], model.blocks["parts.idle.bias"]]
        assert all(np.all(made[place] == 0) for place in idle)
        assert used.sum() == 6
    else:
        np.testing.assert_allclose(hessian_of(model), dense_hessian(module, x, y, CROSS_ENTROPY), rtol=0, atol=1e-12)
    eigenpairs(matrices.hessian(model), 1)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(state.values(), module.state_dict().values(), strict=True))
    assert all(torch.all(p.grad == i) for i, p in enumerate(module.parameters()))
    assert torch.equal(random_state, torch.random.get_rng_state())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(3, 4, bias=False), nn.Linear(4, 3, bias=False)
        self.decode.weight = nn.Parameter(torch.zeros(3, 4))
        self.shared = nn.Linear(3, 3, bias=False)
        self.again = self.shared

    def forward(self, x):
        return torch.tanh(self.again(torch.tanh(self.shared(x)))) + self.decode(self.encode(x))


def test_tied_parameters_count_once_and_frozen_ones_not_at_all():
    module = seeded(Tied).double()
    module.encode.weight.requires_grad_(False)
    module.decode.weight.requires_grad_(False)
    model = TorchModel(module, (inputs(), inputs(seed=1)), MSE)
    assert dict(model.blocks) == {"shared.weight": slice(0, 9)}
    np.testing.assert_allclose(
        hessian_of(model), dense_hessian(module, inputs(), inputs(seed=1), MSE), rtol=0, atol=1e-12
    )


def test_attention_has_a_hessian():
    module = seeded(lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, activation="gelu"))
    x = torch.tensor(np.random.default_rng(0).normal(size=(3, 5, 4)), dtype=torch.float32)
    y = torch.tensor(np.random.default_rng(1).normal(size=(3, 5, 4)), dtype=torch.float32)
    model = TorchModel(module, (x, y), MSE)
    v, w = (model.vector(np.random.default_rng(i).normal(size=model.size)) for i in (2, 3))
    assert float(v @ model.hvp(w)) == pytest.approx(float(w @ model.hvp(v)), rel=1e-3)
    shift = 1e-2 * v / v.norm()
    wide = TorchModel(copy.deepcopy(module).double(), (x.double(), y.double()), MSE)

    def moved(sign):
        other = copy.deepcopy(module).double()
        nn.utils.vector_to_parameters(wide.parameters + sign * shift.double(), other.parameters())
        return TorchModel(other, (x.double(), y.double()), MSE).gradient()

    difference = (moved(1) - moved(-1)) / 2
    error = (model.hvp(shift).double() - difference).norm() / difference.norm()
    assert float(error) < 1e-3


def test_modules_in_bfloat16_are_measured_in_float32():
    narrow = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))).bfloat16()
    wide = copy.deepcopy(narrow).double()
    x = inputs().bfloat16()
    model = TorchModel(narrow, (x, classes()), CROSS_ENTROPY)
    exact = eigenpairs(matrices.hessian(TorchModel(wide, (x.double(), classes()), CROSS_ENTROPY)), 3, tolerance=1e-9)
    found = eigenpairs(matrices.hessian(model), 3, tolerance=1e-4)
    assert model.dtype == np.float32
    assert found.converged
    np.testing.assert_allclose(found.values, exact.values, rtol=1e-4)
    assert narrow[0].weight.dtype == torch.bfloat16


def test_dictionaries_loaders_and_losses_inside_of_the_module():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 3)

        def forward(self, tokens, labels):
            return CROSS_ENTROPY(self.table(tokens).mean(dim=1) @ self.table.weight.T, labels)

    module = seeded(Language).double()
    tokens, labels = torch.arange(24).reshape(8, 3) % 5, torch.arange(8) % 5
    whole = TorchModel(module, {"tokens": tokens, "labels": labels})
    positional = TorchModel(module, (tokens, labels))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tokens, labels), batch_size=3)
    pieces = TorchModel(module, (tuple(batch) for batch in loader))
    assert (pieces.examples, pieces.size) == (8, 15)
    for model in (positional, pieces):
        np.testing.assert_allclose(model.gradient(), whole.gradient(), atol=1e-14)
        np.testing.assert_allclose(hessian_of(model), hessian_of(whole), atol=1e-14)
    assert gradient_noise(pieces).trace.value == pytest.approx(gradient_noise(whole).trace.value, rel=1e-10)
    with pytest.raises(ProbeError, match="this needs the outputs of the model"):
        whole.gauss_newton(whole.vector(np.ones(15)))


class Masked(nn.Module):
    """Looks at values to choose what it does, as where attention masks are made."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x, mask):
        return self.layer(x if mask.all() else x * mask)


def test_control_flow_that_depends_on_values_is_no_obstacle():
    module = seeded(Masked).double()
    masks = torch.ones(12, 3, dtype=torch.float64)
    masks[::3, 1:] = 0
    model = TorchModel(module, ({"x": inputs(), "mask": masks}, classes()), CROSS_ENTROPY)
    plain = TorchModel(module.layer, (inputs() * masks, classes()), CROSS_ENTROPY)
    np.testing.assert_allclose(*(np.concatenate([*m.per_example_gradients(5)]) for m in (model, plain)), atol=1e-14)
    module.forward = lambda x: module.layer(x if (x > 0).all() else x**2)
    kernel, exact = TorchTangentKernel(module, inputs())(), TorchTangentKernel(module.layer, inputs() ** 2)()
    np.testing.assert_allclose(kernel, exact, rtol=1e-12)


def test_compiled_modules_are_differentiated_as_they_were_written():
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))).double()
    compiled = torch.compile(module, backend="aot_eager")
    compiled(inputs())
    model = TorchModel(compiled, (inputs(), classes()), CROSS_ENTROPY)
    exact = dense_hessian(module, inputs(), classes(), CROSS_ENTROPY)
    np.testing.assert_allclose(hessian_of(model), exact, rtol=0, atol=1e-12)


class Shortening(nn.Module):
    """Casts to bfloat16 itself."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).bfloat16()

    def forward(self, x):
        return self.layer(x.bfloat16())


class WithLoss(nn.Module):
    """Returns its loss inside of something, as language models do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return {"loss": self.layer(x).sum()}


def linear(**options):
    return nn.Linear(3, 2, **options).double()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: TorchModel(nn.Sequential(linear(), nn.Dropout()), (inputs(), classes()), CROSS_ENTROPY),
         "the loss changes from call to call, as with dropout in training mode: call module.eval()"),
        (lambda: TorchModel(linear().requires_grad_(False), (inputs(), classes()), CROSS_ENTROPY),
         "the module has no parameter with requires_grad: there is nothing to differentiate"),
        (lambda: TorchModel(nn.LazyLinear(2), (inputs(), classes()), CROSS_ENTROPY),
         "the parameter weight has no values yet: pass a batch through the module first"),
        (lambda: TorchModel(linear(), (inputs(), inputs()), lambda a, b: a),
         "the loss of a batch must be a scalar tensor, got shape (12, 2)"),
        (lambda: TorchModel(WithLoss(), (inputs().float(),)), "the loss of a batch must be a scalar tensor, got dict"),
        (lambda: TorchModel(nn.Embedding(5, 2, sparse=True), (classes(), classes()), CROSS_ENTROPY),
         "has sparse gradients, which have no derivatives: make it with sparse=False"),
        (lambda: TorchModel(Shortening(), (inputs(), classes()), CROSS_ENTROPY),
         "the module does not run in float32, in which its parameters are computed"),
        (lambda: TorchTangentKernel(linear(), {"x": inputs()}), "inputs must be one tensor, got dict"),
        (lambda: TorchModel(linear(), (inputs() * np.nan, classes()), CROSS_ENTROPY),
         "the loss is nan at these parameters: it has no derivatives to measure"),
        (lambda: TorchModel(linear(), (inputs(), classes(11)), CROSS_ENTROPY),
         "all tensors of a batch must have the same positive number of examples, got [11, 12]"),
        (lambda: TorchModel(linear(), [], CROSS_ENTROPY), "the data hold no batch"),
        (lambda: TorchModel(linear(), inputs(), CROSS_ENTROPY),
         "a batch must be a tuple (inputs, targets), got Tensor"),
        (lambda: TorchModel(linear(), (inputs(), "abc"), CROSS_ENTROPY),
         "a batch must be made of tensors or arrays, got str"),
        (lambda: TorchModel(len, (inputs(), classes()), CROSS_ENTROPY), "module must be an nn.Module, got builtin"),
        (lambda: TorchModel(nn.LSTM(3, 2).double(), (inputs(), classes()), CROSS_ENTROPY),
         "the module must return one tensor, got tuple"),
        (lambda: TorchModel(linear(), (inputs(), classes()), CROSS_ENTROPY, reduction="none"),
         "reduction must be 'mean' or 'sum', got 'none'"),
        (lambda: TorchModel(linear(), (inputs(), classes()), CROSS_ENTROPY, available_memory=0),
         "the derivatives of a single example need"),
        (lambda: gradient_noise(TorchModel(nn.Sequential(linear(), nn.BatchNorm1d(2).double()),
                                           (inputs(), classes()), CROSS_ENTROPY)),
         "gradients of single examples cannot be taken: 1 is a BatchNorm1d in training mode"),
        (lambda: gradient_noise(TorchModel(linear(), (inputs(), classes()), CROSS_ENTROPY, reduction="sum")),
         "gradients of single examples cannot be taken: the loss of a batch is not the sum of the losses"),
        (lambda: TorchModel(linear(), (inputs(), classes()), CROSS_ENTROPY).hvp(torch.zeros(7)),
         "a vector of this model has shape (8,) and a block (k, 8), got (7,)"),
        (lambda: TorchModel(linear(), (inputs(), classes()), CROSS_ENTROPY).subset([12]),
         "examples must be numbers from 0 to 11"),
    ],
    ids=["dropout", "frozen", "lazy", "no scalar", "loss in a dict", "sparse", "casts",
         "kernel of a dict", "not finite", "lengths", "no data", "no targets", "text",
         "no module", "two outputs", "reduction", "memory", "batch norm", "wrong reduction", "vector", "subset"],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(ProbeError) as refused:
        make()
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
