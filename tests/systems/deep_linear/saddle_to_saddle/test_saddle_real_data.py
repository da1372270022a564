"""The study on a data set from a file: a linear teacher of six inputs and four outputs with noise, 400 samples."""

import numpy as np
import pytest
from lazy_results import LazyResults, claim, tiny, verdict

from separatrix import cli
from separatrix.lab import runtime
from separatrix.systems.deep_linear.dataset_noise import dataset_mode_diffusion, fourth_moments
from separatrix.systems.deep_linear.gradient_noise import batch_factor
from separatrix.systems.deep_linear.network_observables import NetworkObserver
from separatrix.systems.deep_linear.network_simulation import network_state
from separatrix.systems.deep_linear.saddle_to_saddle.networks import _arguments
from separatrix.systems.deep_linear.saddle_to_saddle.settings import check, input_files, task
from separatrix.systems.deep_linear.saddle_to_saddle_sgd import STUDY

pytestmark = pytest.mark.slow

SAMPLES = 400
RNG_SEED = 12


def linear_data(samples=SAMPLES):
    rng = np.random.default_rng(RNG_SEED)
    x = rng.standard_t(8, size=(samples, 6))
    teacher = np.linalg.qr(rng.normal(size=(6, 6)))[0][:, :4] * np.array([4.0, 3.0, 2.0, 1.0])
    return x, x @ teacher + 0.3 * rng.normal(size=(samples, 4))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("data") / "linear.npz"
    x, y = linear_data()
    np.savez(file, x=x, y=y)
    return str(file)


def on(path, **changes):
    return tiny(data=path, modes=2, learning_rate=0.01, **{"aligned_runs": 6, "samples": 400_000, **changes})


# -- the task ---------------------------------------------------------------------------------------------------------


def test_the_task_is_the_file_in_its_teachers_frame(path):
    settings = on(path)
    problem = task(settings)
    assert (problem.inputs, problem.outputs, problem.modes) == (6, 4, 2)
    assert problem.followed[0] == 1.0
    assert np.all(np.diff(problem.followed) < 0)
    assert np.all(problem.singular_values[2:] == 0)
    assert [str(file) for file in input_files(settings)] == [path]
    # the clean labels are the teacher's, of the modes that are followed
    np.testing.assert_allclose(problem.clean_outputs[:, :2], problem.data.inputs[:, :2] * problem.followed, rtol=1e-12)
    assert np.all(problem.clean_outputs[:, 2:] == 0)
    residual = problem.data.outputs[:, :2] - problem.clean_outputs[:, :2]
    noise = np.sqrt(np.mean((residual * problem.data.inputs[:, :2]) ** 2, axis=0))
    np.testing.assert_allclose(problem.mode_label_noise, noise, rtol=1e-12)
    assert "linear.npz" in STUDY.notes_for(settings)
    assert "400 samples" in STUDY.notes_for(settings)


@pytest.mark.parametrize(("replacement", "factor"), [(True, 1 / 8), (False, 392 / (8 * 399))])
def test_batches_scale_the_noise_as_they_are_drawn(path, replacement, factor):
    problem = task(on(path, batch_size=8, replacement=replacement))
    assert problem.noise_scale_factor == pytest.approx(factor, rel=1e-12)
    assert batch_factor(8, SAMPLES, replacement) == pytest.approx(factor, rel=1e-12)


# -- C1 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "replacement", "samples"), [(1, True, 1_000_000), (8, True, 400_000), (8, False, 400_000)]
)
def test_the_covariance_of_the_data_set_is_exact_and_its_control_is_not(path, batch_size, replacement, samples):
    settings = on(path, batch_size=batch_size, replacement=replacement, samples=samples)
    results = LazyResults(settings)
    measurements, control = (part(settings, results) for part in (claim("C1").measure, claim("C1").control))
    assert len(measurements) == 3
    assert verdict(measurements) == "holds"
    assert verdict(control) == "fails"
    assert "the closed form for Gaussian inputs is off by" in measurements[0].note


def test_drawing_without_replacement_is_told_apart_from_drawing_with_it(tmp_path):
    # half of the samples in each batch: the factor of the covariance differs by two
    x, y = linear_data(40)
    np.savez(tmp_path / "few.npz", x=x, y=y)
    traces = []
    for flag in (True, False):
        settings = on(str(tmp_path / "few.npz"), batch_size=20, replacement=flag, samples=20_000)
        traces.append(np.trace(LazyResults(settings)["covariance_depth2"]["covariance"].mean("member").values))
    assert traces[1] / traces[0] == pytest.approx(20 / 39, rel=0.05)


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aligned(path):
    settings = on(path)
    return settings, LazyResults(settings)["aligned_depth2_noisy"]


def test_aligned_runs_learn_the_modes_of_the_file(aligned):
    settings, data = aligned
    problem = task(settings)
    assert np.all(data["diverged_at_step"] < 0)
    np.testing.assert_allclose(data["strength"].values[:, 0], settings.initial_strength * problem.followed[-1])
    end = data["strength"].values[:, -10:].mean(axis=(0, 1))
    np.testing.assert_allclose(end, problem.followed, rtol=0.1)
    assert "dataset_variance_rate" in data


def test_the_recorded_noise_of_the_first_record_is_that_of_the_data_set(aligned):
    """The start is known: aligned and balanced, all modes of one strength."""
    settings, data = aligned
    problem = task(settings)
    root = np.sqrt(data["strength"].values[0, 0])
    weights = [np.eye(2, problem.inputs) * root[:, None], np.eye(problem.outputs, 2) * root]
    left, right = np.eye(problem.outputs, 2), np.eye(problem.inputs, 2)
    flow, rate = dataset_mode_diffusion(weights, problem.data.inputs, problem.data.outputs, left, right)
    np.testing.assert_allclose(data["dataset_variance_rate"].values[0, 0], rate, rtol=1e-9)
    np.testing.assert_allclose(data["flow"].values[0, 0], flow, rtol=1e-9)
    # inputs with heavy tails: Gaussian inputs would make less noise
    assert np.all(data["variance_rate"].values[0, 0] != data["dataset_variance_rate"].values[0, 0])


@pytest.mark.parametrize("labels", ["clean", "noisy"])
def test_the_observer_records_the_data_sets_noise_at_any_weights(path, labels):
    settings = on(path)
    problem = task(settings)
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.6, (5, 3, problem.inputs)), rng.normal(0, 0.6, (5, problem.outputs, 3))]
    arguments = _arguments(settings, problem, labels)
    teacher = np.zeros((problem.outputs, problem.inputs))
    np.fill_diagonal(teacher, problem.singular_values)
    moments = fourth_moments(arguments["inputs"], arguments["outputs"], teacher)
    observer = NetworkObserver(("dataset_variance_rate", "flow"), problem.modes)
    recorded = observer(network_state(weights), arguments | {"fourth_moments": moments.covariance})
    left, right = np.eye(problem.outputs, 2), np.eye(problem.inputs, 2)
    _, rate = dataset_mode_diffusion(weights, arguments["inputs"], arguments["outputs"], left, right)
    np.testing.assert_allclose(np.asarray(recorded["dataset_variance_rate"]).T, rate, rtol=1e-9)


@pytest.mark.parametrize("replacement", [True, False])
def test_runs_on_a_file_do_not_depend_on_the_parts(path, replacement):
    settings = on(path, batch_size=3, replacement=replacement)
    experiment = LazyResults(settings).experiments["aligned_depth2_noisy"]
    whole, first, second = (experiment.simulate(*ends) for ends in ((0, 6), (0, 3), (3, 6)))
    for name in whole.data_vars:
        joined = np.concatenate([first[name].values, second[name].values])
        np.testing.assert_array_equal(joined, whole[name].values, err_msg=name)


def test_the_checks_of_a_file_warn_of_its_shape(path):
    assert any("d_0 = 6, d_L = 4" in warning for warning in check(on(path)))


# -- what cannot be used ----------------------------------------------------------------------------------------------


def broken():
    """(what is wrong, arrays to save, options, part of the sentence)."""
    x, y = linear_data(60)
    nan = x.copy()
    nan[3, 2] = np.nan
    same = x[:, :4] @ np.eye(4)
    white = np.linalg.qr(x[:, :4] - x[:, :4].mean(axis=0))[0]
    return {
        "NaN": ({"x": nan, "y": y}, {}, "x has 1 value that is not finite"),
        "infinite": ({"x": x, "y": np.where(y > 5, np.inf, y)}, {}, "not finite"),
        "flat inputs": ({"x": x[:, 0], "y": y}, {}, "x must have shape (samples, inputs), got (60,)"),
        "deep outputs": ({"x": x, "y": y[:, :, None]}, {}, "y must have shape (samples, outputs)"),
        "other length": ({"x": x, "y": y[:50]}, {}, "x has 60 samples but y has 50"),
        "few samples": ({"x": x[:5], "y": y[:5]}, {}, "more samples than inputs"),
        "degenerate": ({"x": white, "y": white}, {"modes": 2}, "modes 1 and 2 are degenerate"),
        "too many modes": ({"x": x, "y": y}, {"modes": 5}, "modes must be at most 4"),
        "no outputs": ({"x": x}, {}, "has no array y"),
        "constant": ({"x": x, "y": 0 * y}, {}, "y is constant"),
        "words": ({"x": x, "y": same.astype(str)}, {}, "y must hold real numbers"),
        "missing file": (None, {}, "there is no file"),
        "batch": ({"x": x, "y": y}, {"batch-size": 61, "replacement": "no"}, "batch_size = 61 is not allowed"),
        "narrow": ({"x": x, "y": y}, {"modes": 4, "hidden-width": 3}, "hidden_width = 3 is not allowed"),
    }


BROKEN = broken()


@pytest.mark.parametrize("case", BROKEN)
def test_data_that_cannot_be_used_are_refused_in_one_sentence(case, tmp_path, monkeypatch, capsys):
    arrays, options, reason = BROKEN[case]
    monkeypatch.setattr(runtime, "configure", lambda: None)
    monkeypatch.chdir(tmp_path)
    if arrays is not None:
        np.savez(tmp_path / "file.npz", **arrays)
    options = {"modes": 2, **options}
    tokens = [token for name, value in options.items() for token in flag(name, value)]
    code = cli.main(["run", "saddle-to-saddle-sgd", "--data", "file.npz", *tokens])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert reason in captured.err
    assert captured.err.endswith(".\n")
    assert captured.err.count("\n") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ([] if arrays is None else ["file.npz"])


def flag(name, value):
    return [f"--no-{name}"] if value == "no" else [f"--{name}", str(value)]
