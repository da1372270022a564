import jax
import jax.numpy as jnp
import numpy as np
import pytest

from separatrix.optimizers.confident_learning import confident_joint, wrong_labels
from separatrix.optimizers.early_stopping import BestValidation, TwoStageDetector, clean_error, rejected_share
from separatrix.optimizers.sample_selection import (
    LOG_TWO,
    cross_entropy_losses,
    kept_mean,
    logistic_losses,
    selection_quality,
    small_loss,
    smallest_share,
)

OUTPUTS = np.array([3.0, -0.5, 0.2, -800.0, 0.0])
LABELS = np.array([1.0, 1.0, -1.0, 1.0, -1.0])


def convert(library, values):
    if library == "numpy":
        return np.asarray(values)
    if library == "jax":
        return jnp.asarray(values)
    return pytest.importorskip("torch").tensor(np.asarray(values))


each_library = pytest.mark.parametrize("library", ["numpy", "jax", "torch"])


@each_library
def test_the_same_algorithm_runs_on_arrays_of_every_library(library):
    outputs, labels = convert(library, OUTPUTS), convert(library, LABELS)
    losses = logistic_losses(outputs, labels)
    assert type(losses) is type(outputs)
    expected = [np.log1p(np.exp(-3.0)), np.log1p(np.exp(0.5)), np.log1p(np.exp(0.2)), 800.0, LOG_TWO]
    np.testing.assert_allclose(np.asarray(losses), expected)
    kept = small_loss(losses)
    assert np.asarray(kept).tolist() == [True, False, False, False, False]
    assert np.asarray(smallest_share(losses, 0.4)).tolist() == [True, False, False, False, True]
    assert float(kept_mean(losses, smallest_share(losses, 0.4))) == pytest.approx((expected[0] + LOG_TWO) / 2)
    assert float(rejected_share(losses)) == pytest.approx(0.8)


@each_library
def test_the_cross_entropy_of_two_classes_is_the_logistic_loss(library):
    logits = np.stack([np.zeros(5), OUTPUTS], axis=1)
    losses = cross_entropy_losses(convert(library, logits), convert(library, (LABELS > 0).astype(np.int64)))
    np.testing.assert_allclose(np.asarray(losses), np.asarray(logistic_losses(OUTPUTS, LABELS)), atol=1e-12)


def test_selection_works_inside_a_compiled_and_differentiated_step():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    y = np.array([1.0, -1.0, -1.0])

    @jax.jit
    def slope(w):
        def loss(w):
            losses = logistic_losses(x @ w, y)
            return kept_mean(losses, small_loss(jax.lax.stop_gradient(losses)))

        return jax.grad(loss)(w)

    w = jnp.array([1.0, 0.5])
    found = slope(w)
    # only the first sample is kept
    np.testing.assert_allclose(found, [-1 / (1 + np.exp(1.0)), 0.0], rtol=1e-12)
    assert np.all(np.asarray(slope(jnp.array([-9.0, 9.0]))) == 0)  # none is kept


def test_selection_in_pytorch_has_gradients():
    torch = pytest.importorskip("torch")
    w = torch.tensor([1.0, 0.5], requires_grad=True)
    losses = logistic_losses(torch.tensor([[1.0, 0.0], [0.0, 1.0]]) @ w, torch.tensor([1.0, -1.0]))
    kept_mean(losses, small_loss(losses)).backward()
    np.testing.assert_allclose(w.grad, [-1 / (1 + np.exp(1.0)), 0.0], rtol=1e-6)


def test_the_quality_counts_wrong_labels_found():
    quality = selection_quality([1, 1, 0, 0, 0], [1, 0, 1, 0, 0])
    assert (quality.accuracy, quality.precision, quality.recall) == (0.6, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert quality.f1 == pytest.approx(2 / 3)
    nothing = selection_quality([1, 1], [1, 0])
    assert np.isnan(nothing.precision)
    assert (nothing.recall, nothing.f1) == (0, 0)
    assert np.isnan(selection_quality([1, 0], [1, 1]).f1)


def test_bad_arguments_are_refused_in_one_sentence():
    for share in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"^share must lie in \(0, 1\]"):
            smallest_share(OUTPUTS, share)
    with pytest.raises(ValueError, match="one truth for each sample"):
        selection_quality([1, 0], [1])
    for rate in (0.0, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"^noise_rate must lie in \(0, 0\.5\)"):
            TwoStageDetector(rate)
    with pytest.raises(ValueError, match="patience is a factor above 1"):
        BestValidation(1.0)
    with pytest.raises(ValueError, match="must be finite, got nan at step 3"):
        BestValidation().update(3, np.nan)
    with pytest.raises(ValueError, match="noise_rate must lie in"):
        clean_error(0.3, 0.5)


# -- early stopping ---------------------------------------------------------------------------------------------------


def losses_with(rejected):
    return np.where(np.arange(100) < rejected, 1.0, 0.1)


def test_stage_two_begins_when_half_of_the_wrong_labels_are_believed():
    detector = TwoStageDetector(0.2)
    courses = {0: 100, 1: 40, 2: 22, 4: 20, 8: 20, 16: 12, 32: 9, 64: 0}
    began = [detector.update(step, losses_with(rejected)) for step, rejected in courses.items()]
    assert began == [False] * 6 + [True] * 2
    assert detector.stage_two_step == 32
    assert detector.selection_step == 8
    assert detector.shares[3] == pytest.approx(0.2)
    with pytest.raises(ValueError, match=r"^step must be later than 64, got 64$"):
        detector.update(64, losses_with(0))
    with pytest.raises(ValueError, match="before the first update"):
        _ = TwoStageDetector(0.2).selection_step


def test_the_best_validation_error_is_remembered():
    stopping = BestValidation(patience=3)
    errors = {1: 0.5, 2: 0.3, 4: 0.2, 8: 0.2, 12: 0.25, 13: 0.3}
    stopped = [stopping.update(step, error) for step, error in errors.items()]
    assert stopped == [False] * 5 + [True]
    assert (stopping.best_step, stopping.best_error) == (4, 0.2)


def test_noisy_labels_shrink_the_error_towards_one_half():
    assert clean_error(0.2 + 0.6 * 0.1, 0.2) == pytest.approx(0.1)


# -- confident learning -----------------------------------------------------------------------------------------------

PROBABILITIES = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.95, 0.05]])
OBSERVED = np.array([0, 0, 0, 1, 1, 1])


def test_the_confident_joint_counts_samples_above_their_class_means():
    # thresholds: class 0 (0.9 + 0.8 + 0.2) / 3 = 0.633, class 1 (0.9 + 0.7 + 0.05) / 3 = 0.55
    assert confident_joint(PROBABILITIES, OBSERVED).tolist() == [[2, 1], [1, 2]]


@pytest.mark.parametrize("method", ["noise rate", "joint"])
def test_labels_that_the_probabilities_contradict_are_taken_for_wrong(method):
    assert np.flatnonzero(wrong_labels(PROBABILITIES, OBSERVED, method)).tolist() == [2, 5]


def test_the_calibrated_joint_may_ask_for_more_than_it_is_sure_of():
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.55, 0.45], [0.45, 0.55], [0.1, 0.9], [0.2, 0.8]])
    observed = np.array([0, 0, 0, 0, 1, 1])
    # thresholds 0.5 and 0.85: of class 0 two are confident of it and one of the other, of four: 4/3 are wrong
    assert confident_joint(probabilities, observed).tolist() == [[2, 1], [0, 1]]
    assert np.flatnonzero(wrong_labels(probabilities, observed)).tolist() == [1]


def test_impossible_probabilities_and_labels_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        confident_joint(2 * PROBABILITIES, OBSERVED)
    with pytest.raises(ValueError, match="one label for each of the 6 samples"):
        confident_joint(PROBABILITIES, OBSERVED[:5])
    with pytest.raises(ValueError, match="from 0 to 1, each of them at least once"):
        wrong_labels(PROBABILITIES, np.zeros(6, int))
