"""Every kind of probe on checkpoints of small models, against the same numbers by brute force."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from separatrix import cli
from separatrix.lab.probe import chaos, kernel, study
from separatrix.probes.cone import cone
from separatrix.probes.connectivity import interpolated
from separatrix.probes.tangent_kernel.distance import distance_matrix, effective_rank, label_alignment
from separatrix.probes.tangent_kernel.phases import transition

MODELS = """
def net(params, inputs):
    import jax.numpy as jnp
    return jnp.tanh(inputs @ params["w"]) @ params["v"]

def linear(params, inputs):
    return inputs @ params["w"]

def well(params, inputs):
    return params["x"] ** 2 + 0 * inputs

def tokens(params, inputs):
    import jax.numpy as jnp
    return jnp.tanh(params["w"][inputs]) @ params["v"]

def square(outputs, targets):
    return 0.5 * ((outputs - targets) ** 2).mean()

def straight():
    from torch import nn
    return nn.Linear(4, 2, bias=False)

def normalised():
    from torch import nn
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 2))
"""
STEPS = (0, 10, 20, 40, 70, 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "kinds_model.py").write_text(MODELS)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(30, 4))
    np.savez(folder / "data.npz", inputs=inputs, targets=rng.integers(0, 2, 30))
    np.savez(folder / "real.npz", inputs=inputs, targets=rng.normal(size=(30, 2)))
    np.savez(folder / "ones.npz", inputs=np.zeros((5, 1)), targets=np.ones((5, 1)))
    np.savez(folder / "text.npz", inputs=rng.integers(0, 5, (6, 3)), targets=rng.integers(0, 4, (6, 3)))
    first = {"w": rng.normal(size=(4, 5)), "v": rng.normal(size=(5, 2))}
    second = {name: rng.normal(size=a.shape) for name, a in first.items()}
    for step in STEPS:
        share = np.nan if step == 70 else 1 - np.exp(-step / 15)  # fast at first; one checkpoint diverged
        save(folder / "steps", step, {name: (1 - share) * a + share * second[name] for name, a in first.items()})
    for step, x in ((0, -1.0), (1, 1.0)):
        save(folder / "wells", step, {"x": np.array([x])})
    for step in (0, 3):
        save(folder / "lines", step, {"w": rng.normal(size=(4, 2))})
        save(folder / "texts", step, {"w": rng.normal(size=(5, 3)), "v": rng.normal(size=(3, 4))})
    return folder


def save(folder, step, arrays):
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"step-{step}.npz", **arrays)


def load(folder, name):
    with np.load(folder / name) as stored:
        return {key: stored[key] for key in stored.files}


def measure(folder, monkeypatch, capsys, *more, model="net", data="data.npz", checkpoints="steps"):
    monkeypatch.chdir(folder)
    code = cli.main(
        ["probe", "--checkpoints", checkpoints, "--model", f"kinds_model:{model}", "--data", data, "--json", *more]
    )
    printed = capsys.readouterr()
    assert code == 0, printed.err
    document = json.loads(printed.out)
    return document["checkpoints"], {one["name"]: one for one in document["quantities"]}, document


def dense_kernel(folder, step, examples):
    params, x = load(folder, f"steps/step-{step}.npz"), load(folder, "data.npz")["inputs"][:examples]
    flat, unravel = ravel_pytree(params)
    rows = jax.jacobian(lambda p: (jnp.tanh(x @ unravel(p)["w"]) @ unravel(p)["v"]).ravel())(flat)
    return np.asarray(rows @ rows.T)


ALIVE = [step for step in STEPS if step != 70]
CENTRED = np.eye(2) - 0.5


def test_exact_kernels_their_motion_and_their_cone(folder, monkeypatch, capsys):
    rows, whole, document = measure(folder, monkeypatch, capsys, "--probe", "kernel", "--kernel-examples", "8")
    kernels = [dense_kernel(folder, step, 8) for step in ALIVE]
    distance = distance_matrix(kernels)
    targets = CENTRED[load(folder, "data.npz")["targets"][:8]]
    alive = [row for row in rows if row["diverged_at_step"] < 0]
    assert [row["step"] for row in alive] == ALIVE
    for k, row in enumerate(alive):
        assert row["kernel_norm"] == pytest.approx(np.linalg.norm(kernels[k]), rel=1e-9)
        assert row["kernel_rank"] == pytest.approx(effective_rank(kernels[k]), rel=1e-9)
        assert row["label_alignment"] == pytest.approx(label_alignment(kernels[k], targets), rel=1e-9)
        assert row["kernel_distance_first"] == pytest.approx(distance[0, k], rel=1e-7)
        assert row["kernel_distance_first_error"] == 0
        if k:
            turned = np.degrees(np.arccos(1 - distance[k - 1, k])) / (ALIVE[k] - ALIVE[k - 1])
            assert row["kernel_angular_speed"] == pytest.approx(turned, rel=1e-6)
    assert rows[4]["kernel_distance_first"] is None  # it diverged, and the next one is compared with that before it
    cut = transition(ALIVE, distance)
    assert (whole["kernel_transition"]["estimate"], whole["kernel_transition"]["high"]) == (cut.time, cut.time)
    assert whole["kernel_transition"]["low"] == ALIVE[cut.index - 1]
    radius = np.degrees(cone(distance[cut.index :, cut.index :]).radius)
    assert whole["kernel_cone_radius"]["estimate"] == pytest.approx(radius, rel=1e-6)
    page = (folder / "runs" / "probe" / document["hash"] / "report.html").read_text("utf-8")
    assert "radius of the cone of later kernels" in page


@pytest.mark.parametrize(("contraction", "rows_of_all"), [("full", 60), ("sum-of-logits", 30)])
def test_kernels_that_are_too_large_are_estimated_within_their_errors(
    folder, monkeypatch, capsys, contraction, rows_of_all
):
    # enough for the products with 16 vectors at six checkpoints, and not for the kernels
    monkeypatch.setattr(kernel, "MOST_BYTES", 6 * 8 * 20 * rows_of_all)
    common = ("--probe", "kernel", "--kernel-examples", "30", "--contraction", contraction, "--seed", "3")
    rows, whole, _ = measure(folder, monkeypatch, capsys, *common, "--vectors", "16")
    kernels = [dense_kernel(folder, step, 30) for step in ALIVE]
    targets = CENTRED[load(folder, "data.npz")["targets"]]
    if contraction == "sum-of-logits":
        kernels = [one.reshape(30, 2, 30, 2).sum((1, 3)) / 2 for one in kernels]
    distance = distance_matrix(kernels)
    for k, row in enumerate(row for row in rows if row["diverged_at_step"] < 0):
        for name, exact in (
            ("kernel_norm", np.linalg.norm(kernels[k])),
            ("kernel_rank", effective_rank(kernels[k])),
            ("label_alignment", label_alignment(kernels[k], targets)),
            *([("kernel_distance_first", distance[0, k])] if k else []),
        ):
            assert 0 < abs(row[name] - exact) < 4.5 * row[f"{name}_error"]
    low, high = whole["kernel_apex_angle"]["low"], whole["kernel_apex_angle"]["high"]
    assert low < whole["kernel_apex_angle"]["estimate"] < high


@pytest.mark.slow
def test_outputs_for_each_token_have_estimated_kernels_and_no_contraction(folder, monkeypatch, capsys):
    where = {"model": "tokens", "data": "text.npz", "checkpoints": "texts"}
    rows, _, _ = measure(folder, monkeypatch, capsys, "--probe", "kernel", "--vectors", "200", **where)
    params, x = load(folder, "texts/step-0.npz"), load(folder, "text.npz")["inputs"]
    flat, unravel = ravel_pytree(params)
    jacobian = jax.jacobian(lambda p: (jnp.tanh(unravel(p)["w"][x]) @ unravel(p)["v"]).ravel())(flat)
    exact = float(jnp.linalg.norm(jacobian @ jacobian.T))
    assert abs(rows[0]["kernel_norm"] - exact) < 4 * rows[0]["kernel_norm_error"] < 0.3 * exact
    arguments = ["probe", "--checkpoints", "texts", "--model", "kinds_model:tokens", "--data", "text.npz"]
    assert cli.main([*arguments, "--probe", "kernel", "--contraction", "class-trace"]) == 2
    assert "is not allowed for outputs of shape (6, 3, 4): it must be full." in capsys.readouterr().err


@pytest.mark.slow
def test_density_and_blocks_are_those_of_the_dense_hessian(folder, monkeypatch, capsys):
    options = ("--probe", "density,blocks", "--blocks", "first=w", "last=v", "--tolerance", "1e-6", "--vectors", "16")
    rows, _, _ = measure(folder, monkeypatch, capsys, *options, "--lanczos-steps", "8")
    data = load(folder, "data.npz")
    flat, unravel = ravel_pytree(load(folder, "steps/step-0.npz"))

    def loss(p):
        outputs = jnp.tanh(data["inputs"] @ unravel(p)["w"]) @ unravel(p)["v"]
        return -jnp.mean(jax.nn.log_softmax(outputs)[np.arange(30), data["targets"]])

    dense = np.asarray(jax.jit(jax.hessian(loss))(flat))
    row = rows[0]
    for name, exact in (("mean_eigenvalue", dense.trace()), ("mean_square_eigenvalue", np.sum(dense**2))):
        assert abs(row[name] - exact / len(dense)) < 4 * row[f"{name}_error"]
    for block, part in (("last", dense[:10, :10]), ("first", dense[10:, 10:])):  # sorted by name: v, w
        assert abs(row[f"{block}_sharpness"] - np.linalg.eigvalsh(part)[-1]) <= row[f"{block}_sharpness_residual"]
        assert abs(row[f"{block}_trace"] - part.trace()) < 4 * row[f"{block}_trace_error"]
        assert row[f"{block}_noise_trace"] > 0


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_perturbations_grow_as_the_product_of_the_steps_of_a_linear_model(folder, monkeypatch, capsys, framework):
    if framework == "torch":
        torch = pytest.importorskip("torch")
        (folder / "tensors").mkdir()
        for step in (0, 3):
            torch.save(
                {"weight": torch.tensor(load(folder, f"lines/step-{step}.npz")["w"].T)},
                folder / "tensors" / f"{step}.pt",
            )
    options = (
        "--probe",
        "chaos",
        "--learning-rate",
        "0.8",
        "--batch-size",
        "7",
        "--chaos-steps",
        "6",
        "--sigma",
        "1e-4",
    )
    where = {"jax": ("linear", "lines"), "torch": ("straight", "tensors")}[framework]
    kwargs = {"model": where[0], "checkpoints": where[1], "data": "real.npz"}
    rows, whole, document = measure(folder, monkeypatch, capsys, *options, "--loss", "kinds_model:square", **kwargs)
    inputs = load(folder, "real.npz")["inputs"]
    product = np.eye(4)
    for batch in chaos.batches(30, 7, 6, seed=0):
        product = (np.eye(4) - 0.8 * inputs[batch].T @ inputs[batch] / (7 * 2)) @ product
    shape = (4, 2) if framework == "jax" else (2, 4)
    directions = [np.random.default_rng([0, k]).normal(size=shape) for k in range(3)]
    columns = directions if framework == "jax" else [one.T for one in directions]
    grown = np.log([np.linalg.norm(product @ one) / np.linalg.norm(one) for one in columns])
    bound = 1e-9 if framework == "jax" else 2e-3  # the module is float32
    for row in rows:
        assert row["amplification"] == pytest.approx(np.exp(grown.mean()), rel=bound)
        assert row["exponent"] == pytest.approx(grown.mean() / 6, rel=3 * bound)
        assert row["exponent_error"] == pytest.approx(grown.std(ddof=1) / np.sqrt(3) / 6, rel=30 * bound)
        assert row["tangent_exponent"] == pytest.approx(grown.mean() / 6, rel=bound)
    # Student's interval over three directions
    low, high = whole["exponent"]["low"][0], whole["exponent"]["high"][0]
    assert (high - low) / 2 == pytest.approx(4.303 * rows[0]["exponent_error"], rel=1e-3)
    page = (folder / "runs" / "probe" / document["hash"] / "report.html").read_text("utf-8")
    assert "with the momentum buffer at rest" in page


def test_the_barrier_between_two_wells_is_the_height_of_the_hill(folder, monkeypatch, capsys):
    where = {"model": "well", "data": "ones.npz", "checkpoints": "wells"}
    (first, last), _, _ = measure(folder, monkeypatch, capsys, "--probe", "barrier", "--loss", "mse", **where)
    # (x^2 - 1)^2 between -1 and 1
    assert first["barrier_last"] == pytest.approx(1.0, rel=1e-6)
    assert first["barrier_next"] == first["barrier_last"]
    assert "disagreement_last" not in first  # real targets have no predicted class
    assert last["barrier_next"] is None


def test_a_training_that_blows_up_from_a_checkpoint_has_no_rate_and_the_others_keep_theirs(folder, monkeypatch, capsys):
    where = {"model": "well", "data": "ones.npz", "checkpoints": "wells"}
    options = "--probe", "sharpness,chaos", "--loss", "mse", "--learning-rate", "1e3", "--batch-size", "1"
    rows, _, _ = measure(folder, monkeypatch, capsys, *options, "--chaos-steps", "20", "--sigma", "1e-3", **where)
    for row in rows:
        assert row["sharpness_converged"]
        assert row["amplification"] is None
        assert not row["amplification_converged"]


def test_batch_statistics_are_those_of_the_point_on_the_segment(folder, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    import kinds_model

    torch.manual_seed(0)
    module = kinds_model.normalised()
    data = load(folder, "data.npz")
    x, y = torch.tensor(data["inputs"], dtype=torch.float32), torch.tensor(data["targets"])
    module[1].momentum = None
    module(x)  # takes the statistics
    first = {name: value.clone() for name, value in module.state_dict().items()}
    # the units before the normalisation ten times as large: the same function, all along the segment
    second = first | {name: 10 * first[name] for name in ("0.weight", "0.bias", "1.running_mean")}
    second["1.running_var"] = 100 * first["1.running_var"]
    (folder / "normalised").mkdir()
    for step, state in enumerate((first, second)):
        torch.save({"net": state, "optimizer": {"lr": 0.1}}, folder / "normalised" / f"{step}.pt")
    where = {"model": "normalised", "checkpoints": "normalised"}
    rows, _, _ = measure(
        folder, monkeypatch, capsys, "--probe", "barrier,chaos", "--learning-rate", "0.1", "--batch-size", "10",
        "--chaos-steps", "3", "--subtree", "net", **where,
    )  # fmt: skip
    assert rows[0]["barrier_last"] < 1e-4
    assert rows[0]["disagreement_last"] == 0
    assert rows[0]["disagreement_last_error"] > 0.02  # no example of thirty does not mean none
    assert rows[0]["amplification"] > 0  # dropout drew the same units in all copies
    # control: with the interpolated statistics of the ends it is another function
    module.load_state_dict(interpolated(first, second, 0.3))
    control = float(torch.nn.functional.cross_entropy(module.eval()(x), y).detach())
    assert abs(control - rows[0]["loss"]) > 0.01


def test_a_checkpoint_is_measured_alike_whatever_its_part(folder, monkeypatch):
    monkeypatch.chdir(folder)
    s = study.STUDY.resolve("default", {
        "checkpoints": "steps", "model": "kinds_model:net", "data": "data.npz",
        "probe": ("kernel", "density", "barrier"), "kernel_examples": 4, "lanczos_steps": 3, "lanczos_vectors": 2,
    })  # fmt: skip
    (experiment,) = study.STUDY.experiments(s)
    together, diverged = experiment.simulate(3, 6), experiment.simulate(4, 5)
    assert set(diverged.data_vars) == set(together.data_vars)
    assert together.isel(member=[1]).equals(diverged)
    assert together.isel(member=[2]).equals(experiment.simulate(5, 6))
