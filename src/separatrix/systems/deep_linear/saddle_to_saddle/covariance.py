"""Monte-Carlo check of the exact gradient covariance, mode diffusion and Ito drift (claim C1 of the study)."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy import stats

from separatrix.engines.counter_normals import Keys, member_keys
from separatrix.engines.intervals import bonferroni
from separatrix.lab import Experiment, Measurement, Results
from separatrix.systems.deep_linear.dataset_noise import dataset_gradient_covariance, dataset_mean_gradient
from separatrix.systems.deep_linear.gradient_noise import (
    batch_factor,
    gradient_covariance,
    layer_product,
    mean_gradient,
    partial_products,
)
from separatrix.systems.deep_linear.modewise import mode_moments
from separatrix.systems.deep_linear.network_simulation import DatasetSGD
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, Task, task

#: Independent blocks of samples: the interval of C1 is taken over them.
BLOCKS = 40
_GAUSSIAN = {"inputs": 3, "hidden": (5, 4), "outputs": 3, "label_noise": 0.7}


def covariance_experiments(settings: Settings, problem: Task) -> Iterator[Experiment]:
    """One experiment for each depth: random weights, the empirical covariance of each block of samples, and theory."""
    for depth in settings.depth:
        size = _parameters(_widths(problem, depth))
        samples = settings.samples
        yield Experiment(
            name=f"covariance_depth{depth}",
            simulate=partial(_simulate, settings=settings, problem=problem, depth=depth),
            members=BLOCKS,
            bytes_per_member=32 * size**2 + samples // BLOCKS * size * 24 // BLOCKS,  # one block at a time
            seconds=1 + samples * (1.5e-8 * size + 2.5e-10 * size**2),
        )


def _widths(problem: Task, depth: int) -> tuple[int, ...]:
    hidden = tuple(_GAUSSIAN["hidden"][l % 2] for l in range(depth - 1))  # noqa: E741
    if problem.data is None:
        return (_GAUSSIAN["inputs"], *hidden, _GAUSSIAN["outputs"])
    return (min(problem.inputs, 6), *hidden, min(problem.outputs, 4))


def _parameters(widths: Sequence[int]) -> int:
    return sum(a * b for a, b in pairwise(widths))


def _simulate(start: int, stop: int, *, settings: Settings, problem: Task, depth: int) -> xr.Dataset:
    widths = _widths(problem, depth)
    d_in, d_out = widths[0], widths[-1]
    fixed = np.random.default_rng([settings.seed, depth, 0])
    weights = [fixed.normal(0, 0.8, (after, before)) for before, after in pairwise(widths)]
    if problem.data is None:
        teacher, sigma = fixed.normal(size=(d_out, d_in)), _GAUSSIAN["label_noise"]
        data, factor = None, 1.0
    else:
        # The leading directions of the data set, whitened like the whole.
        data = (problem.data.inputs[:, :d_in], problem.data.outputs[:, :d_out])
        teacher, sigma = data[1].T @ data[0] / data[0].shape[0], float(np.sqrt(np.mean(problem.mode_label_noise**2)))
        factor = batch_factor(settings.batch_size, data[0].shape[0], settings.replacement)
    frames = np.eye(d_out, min(d_in, d_out)), np.eye(d_in, min(d_in, d_out))
    theory = _theory(weights, teacher, sigma, data, factor)
    samples = settings.samples // BLOCKS
    blocks = []
    for block in range(start, stop):
        rng = np.random.default_rng([settings.seed, depth, 1, block])
        if data is None:
            x = rng.normal(size=(samples, 1, d_in))
            y = x @ teacher.T + sigma * rng.normal(size=(samples, 1, d_out))
        else:
            index = _batches(settings, depth, block, samples, data[0].shape[0])
            x, y = data[0][index], data[1][index]
        blocks.append(_block_moments(weights, x, y, theory["mean"], frames))
    measured = {name: np.stack([b[name] for b in blocks]) for name in blocks[0]}
    dims = {"covariance": ("parameter", "other"), "variance_rate": ("mode",), "ito": ("output", "input")}
    variables = {name: (("member", *dims[name]), measured[name]) for name in dims}
    exact = {"covariance": theory["covariance"]}
    if data is None:
        moments = mode_moments(weights, teacher, np.eye(d_out), np.eye(d_in), sigma)
        exact["variance_rate"] = np.diagonal(moments.variance_rate)[: measured["variance_rate"].shape[1]]
        exact["ito"] = moments.ito
    else:
        exact["gaussian_covariance"] = factor * _assemble(
            weights, partial(gradient_covariance, weights, teacher, sigma)
        )
        del variables["variance_rate"], variables["ito"]
    exact["without_pairing"] = theory["without_pairing"]
    for name, value in exact.items():
        variables[f"theory_{name}"] = (dims.get(name, ("parameter", "other")), value)
    layer = np.repeat(np.arange(1, depth + 1), [w.size for w in weights])
    coordinates = {"member": np.arange(start, stop), "layer": ("parameter", layer)}
    return xr.Dataset(variables, coordinates, {"samples_per_member": samples, "label_noise": sigma})


def _assemble(weights: Sequence[np.ndarray], block) -> np.ndarray:
    depth = len(weights)
    return np.block([
        [block(l, m).reshape(weights[l - 1].size, weights[m - 1].size) for m in range(1, depth + 1)]
        for l in range(1, depth + 1)  # noqa: E741
    ])  # fmt: skip


def _theory(weights, teacher, sigma, data, factor) -> dict[str, np.ndarray]:
    if data is None:
        mean = mean_gradient(weights, teacher)
        covariance = _assemble(weights, partial(gradient_covariance, weights, teacher, sigma))
    else:
        mean = dataset_mean_gradient(weights, *data)
        covariance = factor * _assemble(weights, partial(dataset_gradient_covariance, weights, *data))
    # The control keeps only the first of the two pairings of the Gaussian fourth moment.
    ahead, behind = partial_products(weights)
    residual = teacher - layer_product(weights)
    q = residual @ residual.T + sigma**2 * np.eye(residual.shape[0])

    def first_pairing(l: int, m: int) -> np.ndarray:  # noqa: E741
        a_l, a_m, b_l, b_m = ahead[l - 1], ahead[m - 1], behind[l - 1], behind[m - 1]
        return np.einsum("ik,jp->ijkp", a_l.T @ q @ a_m, b_l @ b_m.T)

    return {
        "mean": np.concatenate([g.ravel() for g in mean]),
        "covariance": covariance,
        "without_pairing": factor * _assemble(weights, first_pairing),
    }


def _batches(settings: Settings, depth: int, block: int, count: int, samples: int) -> np.ndarray:
    """Sample numbers ``(count, B)`` from the sampler that the simulations use."""
    sampler = DatasetSGD(samples, settings.batch_size, settings.replacement)
    members = -(-count // sampler.block)
    keys = member_keys(settings.seed, f"covariance_depth{depth}_block{block}", 0, members)
    drawn = np.asarray(_draw(sampler, keys))  # (block, B, members)
    return np.moveaxis(drawn, 1, -1).reshape(-1, settings.batch_size)[:count]


@partial(jax.jit, static_argnums=0)
def _draw(sampler: DatasetSGD, keys: Keys) -> jax.Array:
    return sampler.draw(keys, jnp.uint32(0))


def _block_moments(weights, x, y, mean, frames) -> dict[str, np.ndarray]:
    """Moments of one block: ``x`` and ``y`` are ``(samples, batch, d)``."""
    left, right = frames
    ahead, behind = partial_products(weights)
    error = y - x @ layer_product(weights).T
    backward, forward = [error @ a for a in ahead], [x @ b.T for b in behind]
    count = x.shape[0]
    flat = np.concatenate(
        [(r.mT @ h).reshape(count, -1) / -x.shape[1] for r, h in zip(backward, forward, strict=True)], axis=1
    )
    flat -= mean
    covariance = flat.T @ flat / count
    # First-order change of w_aa per sample: minus its gradient along A_l^T u_a and B_l v_a of all layers.
    directions = np.concatenate(
        [
            np.einsum("ia,ja->ija", a.T @ left, b @ right).reshape(-1, left.shape[1])
            for a, b in zip(ahead, behind, strict=True)
        ]
    )
    change = flat @ directions
    # The Ito drift contracts the covariances of two layers through the layers between them.
    ito = np.zeros((left.shape[0], right.shape[0]))
    ends = np.cumsum([0, *(w.size for w in weights)])
    for l, low in enumerate(weights):  # noqa: E741
        between = np.eye(low.shape[0])
        for m in range(l + 1, len(weights)):
            block = covariance[ends[m] : ends[m + 1], ends[l] : ends[l + 1]].reshape(*weights[m].shape, *low.shape)
            ito += ahead[m] @ np.einsum("ijkp,jk->ip", block, between) @ behind[l]
            between = weights[m] @ between
    return {"covariance": covariance, "variance_rate": np.mean(change**2, axis=0), "ito": ito}


def covariance_error(settings: Settings, results: Results, prediction: str = "covariance") -> list[Measurement]:
    """Relative Frobenius distance between theory and the true moments, sampling error removed.

    With C_i the estimate of block i and C the theory, the mean of ``<C_i - C, C_j - C>`` over i != j is an unbiased
    estimate of the squared distance; its signed root is reported, with a jackknife interval.
    """
    measurements = []
    pairs = [(depth, l, m) for depth in settings.depth for l in range(1, depth + 1) for m in range(l, depth + 1)]  # noqa: E741
    extras = [] if task(settings).data is not None else ["variance_rate", "ito"]
    confidence = bonferroni(len(pairs) + len(extras) * len(settings.depth))
    for depth, l, m in pairs:  # noqa: E741
        data = results[f"covariance_depth{depth}"]
        rows, columns = data["layer"].values == l, data["layer"].values == m
        block = data["covariance"].values[:, rows][:, :, columns]
        theory = data[f"theory_{prediction}"].values[rows][:, columns]
        note = ""
        if "theory_gaussian_covariance" in data:
            gaussian = data["theory_gaussian_covariance"].values[rows][:, columns]
            exact = data["theory_covariance"].values[rows][:, columns]
            off = np.sqrt(np.sum((gaussian - exact) ** 2) / np.sum(exact**2))
            note = f"; the closed form for Gaussian inputs is off by {off:.0%}"
        measurements.append(_distance(f"depth {depth}, layers {l} and {m}", block, theory, confidence, data, note))
    for depth in settings.depth:
        data = results[f"covariance_depth{depth}"]
        for name in extras:
            label = {"variance_rate": "mode diffusion S_aa", "ito": "Ito drift"}[name]
            values, theory = data[name].values, data[f"theory_{name}"].values
            measurements.append(_distance(f"depth {depth}, {label}", values, theory, confidence, data))
    return measurements


def _distance(
    label: str, blocks: np.ndarray, theory: np.ndarray, confidence: float, data: xr.Dataset, note: str = ""
) -> Measurement:
    error = (blocks - theory).reshape(blocks.shape[0], -1)
    n = error.shape[0]
    total = error.sum(axis=0)
    gram = np.einsum("ip,ip->i", error, error)
    square = (total @ total - gram.sum()) / (n * (n - 1))
    # Jackknife: the statistic without each block in turn.
    rest = total - error
    left_out = (np.einsum("ip,ip->i", rest, rest) - (gram.sum() - gram)) / ((n - 1) * (n - 2))
    spread = np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2))
    reach = stats.t.ppf(0.5 + confidence / 2, n - 1) * spread
    norm = np.sum(theory**2)
    root = lambda q: float(np.sign(q) * np.sqrt(abs(q) / norm))  # noqa: E731
    raw = np.sqrt(np.sum((total / n) ** 2) / norm)
    samples = n * int(data.attrs["samples_per_member"])
    return Measurement(
        label, root(square), (root(square - reach), root(square + reach)), (-0.01, 0.01), members=samples,
        note=f"distance with the sampling error of {samples:g} samples in it: {raw:.2%}{note}",
    )  # fmt: skip
