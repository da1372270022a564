import numpy as np
import pytest

from separatrix.datasets.regression import load_regression
from separatrix.systems.deep_linear.dataset_noise import dataset_mean_gradient, dataset_noise_traces
from separatrix.systems.deep_linear.whitened_task import whitened_task

SAMPLES, D_IN, D_OUT = 60, 5, 3


def raw_data(d_out=D_OUT, seed=0):
    """Correlated inputs with a constant and a repeated column, and outputs that follow them with an offset."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(SAMPLES, D_IN)) @ rng.normal(size=(D_IN, D_IN)) + rng.normal(size=D_IN)
    x = np.concatenate([x, np.full((SAMPLES, 1), 0.1), x[:, :1]], axis=1)
    return x, x @ rng.normal(size=(D_IN + 2, d_out)) + rng.normal(size=(SAMPLES, d_out)) + 7


@pytest.fixture(params=[(1, 1), (3, 3), (5, 3), (5, 8)], ids=lambda p: f"{p[0]} components, {p[1]} outputs")
def case(request):
    components, d_out = request.param
    raw = raw_data(d_out)
    return *raw, whitened_task(*raw, components=components, modes=1)


def test_inputs_are_white_and_the_correlation_is_diagonal(case):
    task = case[2]
    d_in = task.inputs.shape[1]
    assert d_in == task.components
    np.testing.assert_allclose(task.inputs.T @ task.inputs / SAMPLES, np.eye(d_in), atol=1e-14)
    np.testing.assert_allclose(task.inputs.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(task.outputs.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(task.outputs.T @ task.inputs / SAMPLES, task.teacher, atol=1e-14)
    np.testing.assert_allclose(np.diagonal(task.teacher), task.singular_values)
    assert task.singular_values[0] == 1
    assert np.all(np.diff(task.singular_values) <= 0)


def test_the_teacher_is_the_optimum_of_the_full_batch_with_real_and_with_clean_outputs(case):
    task = case[2]
    # Any factorisation will do, so take the one whose first layer is the identity.
    weights = [np.eye(task.components), task.teacher]
    for outputs in (task.outputs, task.clean_outputs):
        for gradient in dataset_mean_gradient(weights, task.inputs, outputs):
            np.testing.assert_allclose(gradient, 0, atol=1e-14)
    np.testing.assert_allclose(dataset_noise_traces(weights, task.inputs, task.clean_outputs), 0, atol=1e-28)
    np.testing.assert_allclose(
        task.residual_noise, np.sqrt(np.mean((task.outputs - task.clean_outputs) ** 2, axis=0)), rtol=1e-14
    )


def test_frames_carry_raw_data_to_the_task_and_the_optimum_back_to_least_squares(case):
    x, y, task = case
    np.testing.assert_allclose((x - task.input_mean) @ task.input_frame, task.inputs, atol=1e-12)
    np.testing.assert_allclose(task.scale * (y - task.output_mean) @ task.output_frame, task.outputs, atol=1e-12)
    np.testing.assert_allclose(task.output_frame.T @ task.output_frame, np.eye(y.shape[1]), atol=1e-14)
    back = task.output_frame @ task.teacher @ task.input_frame.T / task.scale
    predicted = task.output_mean + (x - task.input_mean) @ back.T
    # The leading principal components with an intercept, by an independent solver.
    axes = np.linalg.svd(x - x.mean(0))[2][: task.components].T
    design = np.concatenate([np.ones((SAMPLES, 1)), x @ axes], axis=1)
    np.testing.assert_allclose(predicted, design @ np.linalg.lstsq(design, y)[0], atol=1e-11)


def test_components_beyond_the_rank_of_the_inputs_are_not_kept():
    x, y = raw_data()
    task = whitened_task(x, y, components=16, modes=3)
    assert task.components == D_IN
    assert task.explained_variance == pytest.approx(1)


def test_explained_variance_is_that_of_the_principal_components():
    x, y = raw_data()
    variances = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    task = whitened_task(x, y, components=2, modes=1)
    assert task.explained_variance == pytest.approx(variances[:2].sum() / variances.sum(), rel=1e-12)


def test_few_samples_leave_fewer_components_than_samples():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 10))
    assert whitened_task(x, y, components=10, modes=1).components == 5


def test_kurtosis_is_one_for_gaussian_inputs_and_two_thirds_on_a_sphere():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100_000, 4))
    y = x @ rng.normal(size=(4, 2))
    # For d = 4, E|x|^4 = 24 and Var |x|^4 = 1920 - 576; six standard errors of the ratio.
    assert whitened_task(x, y, components=4, modes=1).kurtosis == pytest.approx(
        1, abs=6 * 1344**0.5 / 24 / 100_000**0.5
    )
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    # |x|^2 has mean d and varies by the whitening alone: O(1 / sqrt(N)) each, O(1 / N) in the fourth moment.
    assert whitened_task(x, y, components=4, modes=1).kurtosis == pytest.approx(4 / 6, abs=1e-3)


@pytest.mark.parametrize(("input_unit", "output_unit"), [(1e-180, 1e180), (1e180, 1e-180), (-3.0, 3.0)])
def test_units_and_signs_of_the_raw_data_do_not_matter(input_unit, output_unit):
    x, y = raw_data()
    expected = whitened_task(x, y, components=4, modes=1)
    task = whitened_task(x * input_unit, y * output_unit, components=4, modes=1)
    for name in ("singular_values", "residual_noise", "kurtosis", "explained_variance"):
        np.testing.assert_allclose(getattr(task, name), getattr(expected, name), rtol=1e-11)
    np.testing.assert_allclose(task.outputs, expected.outputs, atol=1e-11)
    np.testing.assert_allclose(task.scale, expected.scale / abs(output_unit), rtol=1e-11)


def test_frames_do_not_depend_on_the_order_of_the_samples():
    x, y = raw_data(d_out=8)
    order = np.random.default_rng(1).permutation(SAMPLES)
    expected, task = (whitened_task(*data, components=4, modes=1) for data in ((x, y), (x[order], y[order])))
    np.testing.assert_allclose(task.inputs, expected.inputs[order], atol=1e-10)
    np.testing.assert_allclose(task.outputs, expected.outputs[order], atol=1e-10)


def test_classes_have_a_direction_without_a_mode():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, SAMPLES)
    x = np.eye(4)[labels] + rng.normal(size=(SAMPLES, 4))
    task = whitened_task(x, np.eye(4)[labels], components=4, modes=3)
    assert task.singular_values[3] == 0
    np.testing.assert_allclose(task.outputs[:, 3], 0, atol=1e-14)
    np.testing.assert_allclose(task.output_frame[:, 3], 0.5)
    with pytest.raises(ValueError, match="modes must be at most 3, the rank of the input-output correlation, got 4"):
        whitened_task(x, np.eye(4)[labels], components=4, modes=4)


# Two-level inputs are orthogonal and white, so that the columns of the outputs are the modes.
LEVELS = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 4), axis=-1).reshape(16, 4)


@pytest.mark.parametrize("modes", [2, 3])
def test_degenerate_modes_among_the_followed_and_the_next_are_named(modes):
    outputs = LEVELS * [2, 1.001, 1.0005, 0.5]
    with pytest.raises(
        ValueError, match=r"^modes 2 and 3 are degenerate \(relative singular values 0.5005 and 0.50025\)"
    ):
        whitened_task(LEVELS, outputs, components=4, modes=modes)
    assert whitened_task(LEVELS, outputs, components=4, modes=1).singular_values[1] == pytest.approx(0.5005)
    assert whitened_task(LEVELS, LEVELS * [2, 1.002, 1, 0.5], components=4, modes=modes).modes == modes


@pytest.mark.parametrize(
    ("inputs", "outputs", "choice", "sentence"),
    [
        (LEVELS, LEVELS[:, :1] * LEVELS[:, 1:2], {}, "the inputs and the outputs are uncorrelated"),
        (LEVELS, np.ones((16, 1)), {}, "the inputs and the outputs are uncorrelated"),
        (np.full((16, 2), 0.1), LEVELS, {}, "the inputs are constant"),
        (LEVELS, LEVELS[:8], {}, r"inputs and outputs must have shapes .* got \(16, 4\) and \(8, 4\)"),
        (LEVELS, LEVELS[:, 0], {}, r"inputs and outputs must have shapes .* got \(16, 4\) and \(16,\)"),
        (LEVELS[:, :0], LEVELS, {}, r"inputs and outputs must have shapes .* got \(16, 0\) and \(16, 4\)"),
        (np.where(LEVELS > 0, np.nan, 0), LEVELS, {}, "inputs must be finite"),
        (LEVELS, np.where(LEVELS > 0, np.inf, 0), {}, "outputs must be finite"),
        (LEVELS, LEVELS, {"components": 0}, "components must be at least 1, got 0"),
        (LEVELS, LEVELS, {"modes": 0}, "modes must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_sentence(inputs, outputs, choice, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
        whitened_task(inputs, outputs, **{"components": 4, "modes": 1} | choice)


def test_the_defaults_of_the_study_suit_the_digits():
    pytest.importorskip("sklearn")
    data = load_regression("digits")
    task = whitened_task(data.inputs, data.outputs, components=16, modes=4)
    assert task.inputs.shape == (1797, 16)
    np.testing.assert_allclose(task.singular_values[:5], [1, 0.960, 0.932, 0.890, 0.846], atol=1e-3)
    assert task.singular_values[9] == 0
    assert 0.9 < task.kurtosis < 1
