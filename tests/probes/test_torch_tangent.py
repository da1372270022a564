"""The tangent map of SGD in PyTorch: against Jacobians of the optimiser's own step, and against the one in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import cross_entropy, data, network, parameters, torch_module

from separatrix.probes.chaos.measure import measure_chaos
from separatrix.probes.chaos.perturbation import random_direction
from separatrix.probes.operators import ProbeError

torch = pytest.importorskip("torch")

from separatrix.probes.chaos.torch_copies import measure_torch_chaos  # noqa: E402
from separatrix.probes.chaos.torch_tangent import TorchTangent  # noqa: E402

nn = torch.nn
OPTIONS = {
    "plain": {},
    "heavy ball with weight decay": {"momentum": 0.9, "weight_decay": 0.02},
    "Nesterov's": {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    "dampened ascent": {"momentum": 0.7, "dampening": 0.4, "maximize": True},
}


def batches(count, size=12, seed=3):
    rng = np.random.default_rng(seed)
    return [(torch.tensor(rng.normal(size=(size, 3))), torch.tensor(rng.integers(0, 2, size))) for _ in range(count)]


def normalised():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def train_step(model, optimizer, batch):
    optimizer.zero_grad()
    loss(model, batch).backward()
    optimizer.step()


def groups(model):
    """Two learning rates."""
    first, *rest = model.parameters()
    return [{"params": [first], "lr": 0.3}, {"params": rest}]


def directions(model, count=2):
    shapes = [p.detach().numpy() for p in model.parameters()]
    return [random_direction(np.random.default_rng(k), shapes) for k in range(count)]


def whole_step(model, options, batch):
    """State ``(theta, v)`` after a step of the optimiser itself, as a function of the state."""
    names, shapes = zip(*[(name, p.shape) for name, p in model.named_parameters()], strict=True)
    sizes = [shape.numel() for shape in shapes]

    def step(state):
        position, momentum = state.split(sum(sizes))
        parts = [a.reshape(s) for a, s in zip(position.split(sizes), shapes, strict=True)]
        value = loss(lambda x: torch.func.functional_call(model, dict(zip(names, parts, strict=True)), (x,)), batch)
        slopes = torch.autograd.grad(value, parts, create_graph=True)
        moved = [a.clone() for a in parts]
        optimizer = torch.optim.SGD(
            [{"params": moved[:1], "lr": 0.3}, {"params": moved[1:]}], 0.1, differentiable=True, **options
        )
        turned = [a.reshape(s).clone() for a, s in zip(momentum.split(sizes), shapes, strict=True)]
        for p, slope, v in zip(moved, slopes, turned, strict=True):
            p.grad = slope
            if "momentum" in options:
                optimizer.state[p]["momentum_buffer"] = v
        optimizer.step()
        return torch.cat([a.reshape(-1) for a in (*moved, *turned)])

    return step


@pytest.mark.parametrize("name", OPTIONS)
def test_growth_is_that_of_the_product_of_the_jacobians_of_the_optimizers_steps(name):
    model, options = normalised(), OPTIONS[name]
    optimizer = torch.optim.SGD(groups(model), 0.1, **options)
    first, *others = batches(4)
    train_step(model, optimizer, first)  # so that there is a momentum
    ways = directions(model)
    tangent = TorchTangent(model, optimizer, loss, ways)
    size = sum(p.numel() for p in model.parameters())
    product = torch.eye(2 * size, dtype=torch.float64)
    for batch in others:
        buffers = (
            [optimizer.state[p].get("momentum_buffer") for p in model.parameters()] if "momentum" in options else []
        )
        position = nn.utils.parameters_to_vector(model.parameters()).detach()
        state = torch.cat([position, nn.utils.parameters_to_vector(buffers) if buffers else torch.zeros_like(position)])
        product = torch.autograd.functional.jacobian(whole_step(model, options, batch), state) @ product
        with tangent.following(batch):
            train_step(model, optimizer, batch)
    for k, way in enumerate(ways):
        flat = np.concatenate([a.ravel() for a in way])
        exact = np.linalg.norm(product.numpy()[:size, :size] @ flat)
        assert np.exp(tangent.growth[k]) == pytest.approx(exact, rel=1e-10)


def test_a_fresh_optimizer_starts_its_momentum_undamped():
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, dampening=0.5, weight_decay=0.1)
    square = lambda model, batch: 0.5 * (model(batch[0]) ** 2).mean()  # noqa: E731

    def descend(model, optimizer, batch):
        optimizer.zero_grad()
        square(model, batch).backward()
        optimizer.step()

    chaos = measure_torch_chaos(descend, model, optimizer, batches(6), loss=square, sigma=1e-3)
    # the map is linear, so that copies at any distance do what infinitesimal ones do
    np.testing.assert_allclose(chaos.amplification, chaos.predicted, rtol=1e-9)
    assert chaos.predicted_exponent[1][0] <= chaos.exponent[0] <= chaos.predicted_exponent[1][1]


def test_both_frameworks_have_the_same_tangents():
    x, y = data()
    order = np.random.default_rng(0).integers(0, len(x), (20, 8))
    names = list(dict(torch_module().named_parameters()))

    def step(state, batch):
        theta, v = state
        slope = jax.grad(lambda p: cross_entropy(network(dict(zip(names, p, strict=True)), x[batch]), y[batch]))(theta)
        v = jax.tree.map(lambda v, g, p: 0.9 * v + g + 0.01 * p, v, slope, theta)
        return jax.tree.map(lambda p, v: p - 0.2 * v, theta, v), v

    x, y = jnp.asarray(x), jnp.asarray(y)
    start = tuple(parameters()[name] for name in names)
    ours = measure_chaos(step, (start, jax.tree.map(jnp.zeros_like, start)), order)
    module = torch_module()
    optimizer = torch.optim.SGD(module.parameters(), 0.2, momentum=0.9, weight_decay=0.01)
    given = [tuple(torch.tensor(np.asarray(a)[chosen]) for a in (x, y)) for chosen in order]
    theirs = measure_torch_chaos(train_step, module, optimizer, given, loss=loss, sigma=1e-6)
    np.testing.assert_allclose(theirs.predicted, ours.predicted, rtol=1e-9)
    np.testing.assert_allclose(theirs.amplification, ours.amplification, rtol=1e-5)
    np.testing.assert_array_equal(theirs.steps, ours.steps)


@pytest.mark.parametrize(("activation", "smooth"), [(nn.GELU, True), (nn.ReLU, False)])
def test_copies_of_smooth_networks_follow_the_tangent_and_those_of_rectifiers_do_not(activation, smooth):
    torch.manual_seed(0)
    layers = [part for _ in range(3) for part in (nn.Linear(16, 16), activation())]
    model = nn.Sequential(nn.Linear(3, 16), activation(), *layers, nn.Linear(16, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9)
    chaos = measure_torch_chaos(train_step, model, optimizer, batches(60, 16), loss=loss, sigma=1e-4)
    apart = np.abs(np.log(chaos.amplification / chaos.predicted)).max()
    assert apart < 1e-5 if smooth else apart > 0.5


def test_a_followed_training_keeps_its_bits_and_its_random_numbers():
    runs = []
    for followed in (False, True):
        model = nn.Sequential(normalised(), nn.Dropout())
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        tangent = TorchTangent(model, optimizer, loss, directions(model))
        torch.manual_seed(1)
        for batch in batches(3):
            if followed:
                with tangent.following(batch):
                    train_step(model, optimizer, batch)
            else:
                train_step(model, optimizer, batch)
        runs.append([*model.state_dict().values(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def clipped(model, optimizer, batch):
    optimizer.zero_grad()
    loss(model, batch).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimizer.step()


@pytest.mark.parametrize(
    ("step", "optimizer", "options", "sentence"),
    [
        (clipped, torch.optim.SGD, {"loss": loss}, "the training step missed that of SGD on the given loss by"),
        (train_step, torch.optim.Adam, {"loss": loss}, "the tangent map is that of torch.optim.SGD, got Adam"),
        (train_step, torch.optim.SGD, {"loss": lambda model, batch: 1.0}, "must be a scalar tensor that depends on"),
    ],
    ids=["clipping", "Adam", "no loss"],
)
def test_what_the_tangent_map_does_not_know_is_refused(step, optimizer, options, sentence):
    model = normalised()
    with pytest.raises(ProbeError, match=sentence):
        measure_torch_chaos(step, model, optimizer(model.parameters(), 0.1), batches(2), **options)


def test_adam_has_copies_without_a_prediction():
    model = normalised()
    chaos = measure_torch_chaos(train_step, model, torch.optim.Adam(model.parameters(), 0.01), batches(3))
    assert np.isfinite(chaos.exponent[0])
    assert chaos.growth is None
    with pytest.raises(ProbeError, match="not asked for"):
        _ = chaos.predicted


def test_a_run_that_blows_up_and_narrow_parameters_are_refused():
    model = normalised()
    optimizer = torch.optim.SGD(model.parameters(), 1e300)
    with pytest.raises(ProbeError, match="the run itself is not finite at step"):
        measure_torch_chaos(train_step, model, optimizer, batches(6), loss=loss, sigma=1e-6)
    narrow = nn.Linear(3, 2).bfloat16()
    with pytest.raises(ProbeError, match=r"parameters in torch.bfloat16 carry no small perturbation"):
        measure_torch_chaos(train_step, narrow, torch.optim.SGD(narrow.parameters(), 0.1), batches(2))
