"""The image classifier is trained by Adam on the weighted logistic loss, and runs do not see each other."""

import jax
import numpy as np

from separatrix.systems.feature_learning.relu_classifier import (
    Classifier,
    ClassifierTask,
    output,
    small_classifier,
    train_classifiers,
)

STEPS, RATE = np.array([0, 1, 2, 12]), 0.05


def problem(seed):
    rng = np.random.default_rng(seed)
    x, test = rng.normal(size=(12, 3)), rng.normal(size=(8, 3))
    weights = (np.arange(12) % 4 > 0).astype(float)
    task = ClassifierTask(x, np.sign(x[:, 0]), weights, test, np.sign(test[:, 0]))
    return small_classifier(rng, 3, 5, 0.5), task


def stacked(*trees):
    return jax.tree.map(lambda *arrays: np.stack(arrays), *trees)


def adam(network, task, steps):
    """Adam as its paper writes it, with the gradient of the loss written out."""
    weights = [np.array(one, float) for one in network]
    means, squares = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    share = task.weights / task.weights.sum()
    for t in range(1, steps + 1):
        first, bias, second, offset = weights
        hidden = np.maximum(task.inputs @ first.T + bias, 0)
        margins = task.labels * (hidden @ second + offset)
        pull = -share * task.labels / (1 + np.exp(margins))
        back = pull[:, None] * second * (hidden > 0)
        slopes = [back.T @ task.inputs, back.sum(0), hidden.T @ pull, pull.sum()]
        means = [0.9 * m + 0.1 * g for m, g in zip(means, slopes, strict=True)]
        squares = [0.999 * v + 0.001 * g**2 for v, g in zip(squares, slopes, strict=True)]
        weights = [
            w - RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            for w, m, v in zip(weights, means, squares, strict=True)
        ]
    return Classifier(*weights)


def test_training_is_adam_on_the_weighted_loss():
    network, task = problem(0)
    margins, accuracy = train_classifiers(stacked(network), stacked(task), RATE, STEPS)
    for k, steps in enumerate(STEPS):
        trained = adam(network, task, steps)
        np.testing.assert_allclose(margins[0, k], task.labels * output(trained, task.inputs), atol=1e-7)
        right = task.test_labels * np.asarray(output(trained, task.test_inputs)) > 0
        np.testing.assert_allclose(accuracy[0, k], right.mean())


def test_runs_do_not_see_each_other():
    problems = [problem(seed) for seed in range(3)]
    networks, tasks = (stacked(*trees) for trees in zip(*problems, strict=True))
    margins, _ = train_classifiers(networks, tasks, RATE, STEPS)
    alone, _ = train_classifiers(*(stacked(one) for one in problems[2]), RATE, STEPS)
    np.testing.assert_allclose(margins[2], alone[0], rtol=1e-9)
