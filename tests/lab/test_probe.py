"""``separatrix probe`` measures checkpoints like a run: stored, reported, reused, or refused in one sentence."""

import json

import jax
import numpy as np
import pytest

from separatrix import cli
from separatrix.lab.identity import run_hash
from separatrix.lab.probe import study

MODEL = """
def net(params, inputs):
    import jax.numpy as jnp
    return jnp.tanh(inputs @ params["w"]) @ params["v"]

def module():
    from torch import nn
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))

text = "no function"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(0)
    (folder / "probed_model.py").write_text(MODEL)
    np.savez(folder / "data.npz", inputs=rng.normal(size=(40, 4)), targets=rng.integers(0, 2, 40))
    np.savez(folder / "short.npz", inputs=rng.normal(size=(40, 4)), targets=rng.integers(0, 2, 39))
    (folder / "steps").mkdir()
    for step in (0, 20, 100):
        scale = np.nan if step == 100 else 1.0
        np.savez(folder / "steps" / f"step-{step}.npz", w=scale * rng.normal(size=(4, 5)), v=rng.normal(size=(5, 2)))
    return folder


def command(folder, *more, model="probed_model:net", data="data.npz", checkpoints="steps"):
    return ["probe", "--checkpoints", str(folder / checkpoints), "--model", model, "--data", str(folder / data), *more]


def dense(folder, step):
    with np.load(folder / "steps" / f"step-{step}.npz") as stored:
        w, v = stored["w"], stored["v"]
    with np.load(folder / "data.npz") as stored:
        x, y = stored["inputs"], stored["targets"]

    def loss(flat):
        outputs = jax.numpy.tanh(x @ flat[:20].reshape(4, 5)) @ flat[20:].reshape(5, 2)
        return -jax.numpy.mean(jax.nn.log_softmax(outputs)[np.arange(40), y])

    flat = np.concatenate([w.ravel(), v.ravel()])
    return float(loss(flat)), np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(flat))


def test_checkpoints_are_measured_stored_and_reused(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    arguments = command(
        folder, "--probe", "sharpness,negative,noise", "--tolerance", "1e-6", "--learning-rate", "0.5", "--json"
    )
    assert cli.main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    first, second, broken = document["checkpoints"]
    for row, step in ((first, 0), (second, 20)):
        loss, values = dense(folder, step)
        assert (row["checkpoint"], row["step"], row["diverged_at_step"]) == (f"step-{step}.npz", step, -1)
        assert row["loss"] == pytest.approx(loss, rel=1e-9)
        assert abs(row["sharpness"] - values[-1]) <= row["sharpness_residual"]
        assert abs(row["most_negative"] - values[0]) <= row["most_negative_residual"]
        assert row["sharpness_converged"]
        assert row["noise_trace"] > 0
        assert "trace" not in row
    assert broken["diverged_at_step"] == 100
    assert broken["sharpness"] is None
    assert not broken["sharpness_converged"]
    page = (folder / "runs" / "probe" / document["hash"] / "report.html").read_text("utf-8")
    assert "Most negative" in page
    assert cli.main(arguments) == 0
    again = capsys.readouterr()
    assert json.loads(again.out)["checkpoints"] == document["checkpoints"]
    assert "These checkpoints were measured before" in again.err
    monkeypatch.setenv("COLUMNS", "110")
    assert cli.main(arguments[:-1]) == 0
    table = capsys.readouterr().out.splitlines()
    assert max(map(len, table[:4])) <= 110
    assert table[0].split() == ["checkpoint", "loss", "sharpness", "most_negative", "noise_trace", "noise_scale"]
    assert f"{first['sharpness']:.4g} ± " in table[1]
    assert table[3].split() == ["step-100.npz", "diverged", "–", "–", "–", "–"]
    monkeypatch.setenv("COLUMNS", "60")  # the other columns come below
    assert cli.main(arguments[:-1]) == 0
    narrow = capsys.readouterr().out.splitlines()
    assert max(map(len, narrow[:9])) <= 60
    assert [narrow[k].split()[0] for k in (0, 5)] == ["checkpoint", "checkpoint"]
    for verb in ("show", "report"):
        assert cli.main([verb, document["hash"]]) == 0
        assert "report.html" in capsys.readouterr().out


def test_the_step_in_the_name_of_a_checkpoint_is_part_of_the_identity_of_a_run(folder):
    values = {"checkpoints": str(folder / "steps"), "model": "probed_model:net", "data": str(folder / "data.npz")}
    settings = study.STUDY.resolve("default", values)
    before = run_hash(study.STUDY, settings, controls=False)
    assert run_hash(study.STUDY, settings, controls=False) == before
    (folder / "steps" / "step-20.npz").rename(folder / "steps" / "step-30.npz")
    after = run_hash(study.STUDY, settings, controls=False)
    (folder / "steps" / "step-30.npz").rename(folder / "steps" / "step-20.npz")
    assert after != before


def test_modules_are_loaded_with_their_checkpoints(folder, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(folder)
    import sys

    (folder / "modules").mkdir()
    monkeypatch.syspath_prepend(str(folder))
    import probed_model

    module = probed_model.module()
    torch.save(module.state_dict(), folder / "modules" / "epoch1.pt")
    arguments = command(folder, "--json", "--probe", "sharpness", model="probed_model:module", checkpoints="modules")
    assert cli.main(arguments) == 0
    (row,) = json.loads(capsys.readouterr().out)["checkpoints"]
    with np.load(folder / "data.npz") as stored:
        x, y = torch.tensor(stored["inputs"], dtype=torch.float32), torch.tensor(stored["targets"])
    assert row["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(module(x), y).detach()), rel=1e-6)
    assert row["sharpness_converged"]
    assert "probed_model" in sys.modules


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "probed_model"}, "model = 'probed_model' is not allowed: it must be module:function."),
        ({"model": "probed_model:text"}, "model = 'probed_model:text' is not allowed: it is no function."),
        ({"model": "nowhere:net"}, "model = 'nowhere:net' is not allowed: No module named 'nowhere'."),
        ({"data": "short.npz"}, "inputs and targets must have the same number of examples, got (40, 4) and (39,)."),
        ({"data": "none.npz"}, "it must be an .npz file with inputs and targets"),
        ({"checkpoints": "nothing"}, "holds no checkpoint (.npz, .safetensors, .pt, .pth or Orbax)."),
        ({"more": ["--probe", "entropy"]}, "probe = ('entropy',) is not allowed: it must be one or more values"),
        ({"more": ["--examples", "41"]}, "examples = 41 is not allowed: the data have 40 examples."),
        ({"more": ["--probe", "batch-sharpness", "--batch-size", "64"]},
         "batch_size = 64 is not allowed: the data have 40 examples."),
        ({"more": ["--loss", "mse"]}, "step-0.npz: probed_model:net cannot be evaluated with these parameters"),
        ({"more": ["--loss", "hinge"]}, "loss = 'hinge' is not allowed: it must be cross-entropy, mse or module:"),
        ({"more": ["--subtree", "params"]}, "checkpoints: step-0.npz holds no 'params', but w, v."),
        ({"more": ["--probe", "chaos"]},
         "learning_rate needs a value for the probe chaos: it must be the step size of the training."),
        ({"more": ["--probe", "blocks"]}, "blocks needs a value for the probe blocks: it must be NAME=REGEX"),
        ({"more": ["--probe", "blocks", "--blocks", "all=w"]}, "the parameter v must be in one group, and is in none."),
        ({"more": ["--probe", "blocks", "--blocks", "a=(", "b=v"]}, "blocks = '(' is not allowed: it is no regular"),
    ],
    ids=["no function", "text", "no module", "lengths", "no data", "no checkpoints", "probe", "examples", "batch size",
         "shapes", "loss", "subtree", "chaos", "no blocks", "some blocks", "expression"],
)  # fmt: skip
def test_bad_requests_are_refused_in_one_sentence_and_nothing_is_written(folder, monkeypatch, capsys, change, sentence):
    monkeypatch.chdir(folder)
    more = change.pop("more", [])
    out = folder / "refused"
    assert cli.main(command(folder, *more, "--out", str(out), **change)) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not out.exists()
