import copy
import sys
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest
from significance import assert_means

from separatrix.systems.deep_linear import dataset_noise, gradient_noise, modewise, torch_adapter
from separatrix.systems.deep_linear.gradient_noise import GAUSSIAN, InputLaw

torch = pytest.importorskip("torch")
nn = torch.nn

WIDTHS, SAMPLES, SIGMA = (3, 5, 2, 4), 7, 0.6
COVARIANCE = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 2.0]])
LAWS = {"Gaussian": GAUSSIAN, "correlated, heavy-tailed": InputLaw(COVARIANCE, 1.3)}


def network(dtype=torch.float64):
    layers = [nn.Linear(a, b, bias=False, dtype=dtype) for a, b in pairwise(WIDTHS)]
    rng = np.random.default_rng(0)
    for layer in layers:
        layer.weight.data = torch.tensor(rng.normal(0, 0.8, layer.weight.shape), dtype=dtype)
    return nn.Sequential(layers[0], nn.Identity(), nn.Sequential(*layers[1:]))


def arrays(seed=1):
    rng = np.random.default_rng(seed)
    teacher = rng.normal(size=(WIDTHS[-1], WIDTHS[0]))
    left, right = (np.linalg.qr(rng.normal(size=(d, d)))[0][:, :2] for d in (WIDTHS[-1], WIDTHS[0]))
    return teacher, left, right, rng.normal(size=(SAMPLES, WIDTHS[0])), rng.normal(size=(SAMPLES, WIDTHS[-1]))


TEACHER, LEFT, RIGHT, INPUTS, OUTPUTS = arrays()
WEIGHTS = [w.numpy() for w in torch_adapter.layer_weights(network())]


def half_squared(predicted, wanted):
    """``|y - W x|^2 / 2``, averaged over the samples."""
    return (predicted - wanted).square().sum(-1).mean() / 2


LOSSES = {"half-squared": half_squared, "mse": nn.MSELoss()}


def backward(loss, inputs, outputs):
    """Gradients of all layers by one backward pass of PyTorch."""
    model = network()
    LOSSES[loss](model(torch.as_tensor(inputs)), torch.as_tensor(outputs)).backward()
    return [p.grad.numpy() for p in model.parameters()]


def everything(model, convert=lambda a: a):
    """All results, by name, with every array argument given through ``convert``."""
    teacher, left, right, x, y = map(convert, arrays())
    law = InputLaw(convert(COVARIANCE), 1.3)
    a = torch_adapter
    return {
        "layer_weights": a.layer_weights(model),
        "mean_gradient": a.mean_gradient(model, teacher, law),
        "noise_traces": [a.noise_traces(model, teacher, SIGMA, law)],
        "mode_strengths": [a.mode_strengths(model, left, right)],
        "mode_moments": list(a.mode_moments(model, teacher, left, right, SIGMA, law)),
        "dataset_mean_gradient": a.dataset_mean_gradient(model, x, y),
        "dataset_noise_traces": [a.dataset_noise_traces(model, x, y)],
        "dataset_mode_diffusion": list(a.dataset_mode_diffusion(model, x, y, left, right)),
    }


# -- the moments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_the_data_sets_mean_gradient_is_that_of_a_full_batch_backward_pass(loss):
    ours = torch_adapter.dataset_mean_gradient(network(), INPUTS, OUTPUTS, loss=loss)
    for g, exact in zip(ours, backward(loss, INPUTS, OUTPUTS), strict=True):
        np.testing.assert_allclose(g, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_data_sets_traces_are_the_variance_of_single_sample_backward_passes(loss):
    each = [backward(loss, INPUTS[i : i + 1], OUTPUTS[i : i + 1]) for i in range(SAMPLES)]
    exact = [np.var(layer, axis=0).sum() for layer in (np.stack(g) for g in zip(*each, strict=True))]
    traces = torch_adapter.dataset_noise_traces(network(), INPUTS, OUTPUTS, loss=loss)
    np.testing.assert_allclose(traces, exact, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_traces_of_the_gaussian_law_are_those_of_sampled_backward_passes(loss):
    model, n = network(), 50_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, WIDTHS[0], generator=generator, dtype=torch.float64)
    y = x @ torch.as_tensor(TEACHER).mT
    y += SIGMA * torch.randn(n, WIDTHS[-1], generator=generator, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    value = lambda p, x, y: LOSSES[loss](torch.func.functional_call(model, p, x[None]), y[None])  # noqa: E731
    each = torch.func.vmap(torch.func.grad(value), (None, 0, 0))(parameters, x, y)
    means = torch_adapter.mean_gradient(model, TEACHER, loss=loss)
    squares = [(g - mean).square().sum((1, 2)) for g, mean in zip(each.values(), means, strict=True)]
    # Deviations from the exact mean: their squares are independent and unbiased for the trace.
    assert_means(torch.stack(squares), torch_adapter.noise_traces(model, TEACHER, SIGMA, loss=loss).numpy())
    for g, mean in zip(each.values(), means, strict=True):
        assert_means(g.flatten(1).mT, mean.flatten().numpy())


@pytest.mark.parametrize("law", LAWS)
def test_results_are_those_of_the_functions_of_arrays(law):
    model, law = network(), LAWS[law]
    np.testing.assert_allclose(
        torch_adapter.noise_traces(model, TEACHER, SIGMA, law),
        gradient_noise.noise_traces(WEIGHTS, TEACHER, SIGMA, law),
        rtol=1e-12,
    )
    for ours, exact in (
        (torch_adapter.mean_gradient(model, TEACHER, law), gradient_noise.mean_gradient(WEIGHTS, TEACHER, law)),
        (
            torch_adapter.mode_moments(model, TEACHER, LEFT, RIGHT, SIGMA, law),
            modewise.mode_moments(WEIGHTS, TEACHER, LEFT, RIGHT, SIGMA, law),
        ),
        (
            torch_adapter.dataset_mode_diffusion(model, INPUTS, OUTPUTS, LEFT, RIGHT),
            dataset_noise.dataset_mode_diffusion(WEIGHTS, INPUTS, OUTPUTS, LEFT, RIGHT),
        ),
    ):
        for a, b in zip(ours, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_a_step_on_mse_is_a_shorter_step_on_the_half_squared_loss():
    eta, short, batch = 0.01, 0.01 * 2 / WIDTHS[-1], 4
    arguments = network(), TEACHER, LEFT, RIGHT, SIGMA
    mse, half = (torch_adapter.mode_moments(*arguments, loss=loss) for loss in ("mse", "half-squared"))
    step = lambda m, rate: rate * (m.flow + rate / batch * m.ito)  # noqa: E731
    torch.testing.assert_close(step(mse, eta), step(half, short))
    torch.testing.assert_close(eta**2 * mse.variance_rate, short**2 * half.variance_rate)
    torch.testing.assert_close(mse.strength, half.strength)


def test_mode_strengths_are_entries_of_the_product_in_the_teachers_frame():
    product = WEIGHTS[2] @ WEIGHTS[1] @ WEIGHTS[0]
    np.testing.assert_allclose(torch_adapter.mode_strengths(network(), LEFT, RIGHT), LEFT.T @ product @ RIGHT)


def test_one_layer_is_a_network_too():
    layer = nn.Linear(3, 4, bias=False, dtype=torch.float64)
    residual = TEACHER - layer.weight.detach().numpy()
    exact = np.sum(residual**2) * 3 + SIGMA**2 * 4 * 3 + np.sum(residual**2)
    np.testing.assert_allclose(torch_adapter.noise_traces(layer, TEACHER, SIGMA), [exact])


# -- the model is read and nothing else ---------------------------------------------------------------------------


def test_reading_a_model_changes_nothing():
    model = network().train()
    model[2].eval()
    model[0].weight.requires_grad_(False)
    half_squared(model(torch.as_tensor(INPUTS)), torch.as_tensor(OUTPUTS)).backward()
    state = lambda: (  # noqa: E731
        [(p.requires_grad, p._version, id(p.grad), p.data_ptr()) for p in model.parameters()],
        [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        [p.tolist() for p in model.parameters()],
        [module.training for module in model.modules()],
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.is_grad_enabled(),
        torch.get_default_device(),
        torch.get_default_dtype(),
    )
    before = copy.deepcopy(state())
    results = everything(model)
    assert state() == before
    assert not any(r.requires_grad for group in results.values() for r in group)


def test_the_weights_are_copies_that_training_does_not_change():
    model = network()
    weights = torch_adapter.layer_weights(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert all(w.abs().min() > 0 for w in weights)
    assert [tuple(w.shape) for w in weights] == [(5, 3), (2, 5), (4, 2)]


def test_results_take_the_dtype_of_the_model_whatever_the_arguments_are():
    single = everything(network(torch.float32))
    for name, exact in everything(network()).items():
        for a, b in zip(single[name], exact, strict=True):
            assert (a.dtype, b.dtype) == (torch.float32, torch.float64)
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_results_are_made_on_the_device_of_the_model():
    # Tensors on the device "meta" have a shape and no values, and refuse to meet those of another device.
    for group in everything(network().to("meta")).values():
        assert {r.device.type for r in group} == {"meta"}


@pytest.mark.parametrize(
    "convert",
    [
        torch.as_tensor,
        lambda a: torch.as_tensor(a).requires_grad_(),
        jnp.asarray,
        lambda a: a.tolist(),
        lambda a: np.ascontiguousarray(a[::-1])[::-1],
    ],
    ids=["tensors", "tensors in a graph", "JAX arrays", "lists", "reversed views"],
)
def test_arrays_of_every_kind_are_converted(convert):
    converted = everything(network(), convert)
    for name, exact in everything(network()).items():
        for a, b in zip(converted[name], exact, strict=True):
            torch.testing.assert_close(a, b)


def test_autocast_does_not_lower_the_precision():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = everything(network(torch.float32))
    for name, exact in everything(network(torch.float32)).items():
        for a, b in zip(inside[name], exact, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


# -- what is refused ----------------------------------------------------------------------------------------------

LINEAR = nn.Linear(3, 3, bias=False)


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Plain(nn.Sequential):
    pass


def pruned(layer):
    from torch.nn.utils import prune

    return prune.l1_unstructured(layer, "weight", 0.5)


@pytest.mark.parametrize(
    "model",
    [LINEAR, [LINEAR, nn.Identity()], nn.ModuleList([LINEAR]), Plain(nn.Identity(), nn.Sequential(LINEAR))],
)
def test_every_arrangement_of_linear_layers_is_read(model):
    (weight,) = torch_adapter.layer_weights(model)
    torch.testing.assert_close(weight, LINEAR.weight.detach())


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (lambda: nn.Sequential(LINEAR, nn.ReLU()), "model[1] is of type ReLU: allowed are bias-free nn.Linear"),
        (lambda: nn.Sequential(nn.Sequential(LINEAR, nn.Dropout())), "model[0][1] is of type Dropout: allowed are"),
        (lambda: nn.ReLU(), "model is of type ReLU: allowed are"),
        (lambda: [LINEAR, "tanh"], "model[1] is of type str: allowed are"),
        (lambda: None, "model is of type NoneType: allowed are"),
        (lambda: nn.Sequential(LINEAR, nn.Linear(3, 3)), "model[1] is an nn.Linear with a bias: allowed are"),
        (lambda: nn.Sequential(nn.LazyLinear(3, bias=False)), "model[0] is an nn.LazyLinear without weights yet"),
        (lambda: nn.Sequential(Twice(3, 3, bias=False)), "model[0] is of type Twice: allowed are"),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3, bias=False)),
         "model is a reparametrised nn.Linear: allowed are"),
        (lambda: pruned(nn.Linear(3, 3, bias=False)), "model is a reparametrised nn.Linear: allowed are"),
        (lambda: nn.utils.spectral_norm(nn.Linear(3, 3, bias=False)),
         "model is a reparametrised nn.Linear: allowed are"),
        (lambda: nn.Sequential(LINEAR, nn.Linear(4, 2, bias=False)),
         "model[1] takes 4 inputs, but the layer before it has 3 outputs"),
        (lambda: nn.Sequential(LINEAR, LINEAR), "model[1] has the weights of model[0]: every layer must have its own"),
        (lambda: nn.Sequential(LINEAR, nn.Linear(3, 3, bias=False, dtype=torch.float64)),
         "model[1] is torch.float64 on cpu, but the first layer is torch.float32 on cpu: all layers must agree"),
        (lambda: nn.Sequential(), "the model has no layers: allowed are"),
        (lambda: nn.Identity(), "the model has no layers: allowed are"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.*spectral_norm.*:FutureWarning")
def test_a_model_that_is_not_deep_linear_is_refused_in_one_sentence(model, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the sentence is compared below)
        torch_adapter.layer_weights(model())
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda a, m: a.noise_traces(m, TEACHER.T, SIGMA), "teacher must have shape (4, 3), got (3, 4)"),
        (lambda a, m: a.mean_gradient(m, TEACHER[0]), "teacher must have shape (4, 3), got (3,)"),
        (lambda a, m: a.noise_traces(m, TEACHER, -1), "label_noise must be a standard deviation, finite and not negative, got -1"),  # noqa: E501
        (lambda a, m: a.mode_moments(m, TEACHER, LEFT, RIGHT, np.nan), "label_noise must be a standard deviation, finite and not negative, got nan"),  # noqa: E501
        (lambda a, m: a.noise_traces(m, TEACHER, 1, InputLaw(np.eye(2))), "the covariance of the inputs must have shape (3, 3), got (2, 2)"),  # noqa: E501
        (lambda a, m: a.mode_strengths(m, RIGHT, LEFT), "left must have shape (4, modes), got (3, 2)"),
        (lambda a, m: a.mode_strengths(m, LEFT, RIGHT[:, :1]), "right must have shape (3, 2), got (3, 1)"),
        (lambda a, m: a.dataset_noise_traces(m, OUTPUTS, INPUTS), "inputs must have shape (samples, 3), got (7, 4)"),
        (lambda a, m: a.dataset_noise_traces(m, INPUTS, OUTPUTS[:5]), "outputs must have shape (7, 4), got (5, 4)"),
        (lambda a, m: a.dataset_mean_gradient(m, INPUTS[:0], OUTPUTS[:0]), "inputs must have at least one sample"),
        (lambda a, m: a.mean_gradient(m, TEACHER, loss="l1"), "loss must be 'half-squared' or 'mse', got 'l1'"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_the_model_are_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the sentence is compared below)
        call(torch_adapter, network())
    assert str(error.value) == sentence


def test_without_torch_the_package_to_install_is_named(monkeypatch):
    model = network()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"^reading a PyTorch model needs PyTorch: pip install separatrix\[torch\]$"):
        torch_adapter.layer_weights(model)
