"""What the study simulates: learning curves, random starts, exact references, step counts and product spectra.

Names: ``modes_rate2`` is the decoupled start at depth 2 at twice the learning rate, ``modes_depth4`` at depth 4;
``small_tanh`` descends on the data from small random weights; ``scan_orthogonal_depth8`` counts steps.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.integrate import solve_ivp

from separatrix.engines.counter_normals import member_keys
from separatrix.engines.ensemble import evolve, steps_until
from separatrix.lab import Experiment
from separatrix.systems.deep_linear.depth_scaling import optimal_learning_rate
from separatrix.systems.deep_linear.exact_solutions.settings import (
    BatchTask,
    ModeTask,
    Settings,
    batch_task,
    mode_task,
    scan_task,
)
from separatrix.systems.deep_linear.learning_times import flow_time
from separatrix.systems.deep_linear.mode_solutions import unbalanced_amplitudes
from separatrix.systems.deep_linear.network_observables import NetworkObserver
from separatrix.systems.deep_linear.network_records import network_dataset
from separatrix.systems.deep_linear.network_simulation import (
    Activation,
    FullBatchDescent,
    GradientDescent,
    network_state,
    population_loss,
)
from separatrix.systems.deep_linear.product_spectra import product_singular_values
from separatrix.systems.deep_linear.response_observables import ResponseObserver
from separatrix.systems.deep_linear.starts import (
    decoupled_weights,
    gaussian_weights,
    orthogonal_weights,
    zero_balanced_weights,
)
from separatrix.systems.deep_linear.teacher import Teacher
from separatrix.systems.deep_linear.zero_balanced_flow import zero_balanced_flow

#: Learning rates of the curves at depth 2 over the setting's.
RATE_FACTORS = (4, 2, 1)
#: Hidden frames drawn for each learning curve: they must not matter.
FRAMES = 6
#: Standard deviation of the weights times the square root of the fan-in in the control that starts far from the saddle.
LARGE_SCALE = 2.0
#: Factor of the outputs in the control whose hidden units saturate.
LOUD_OUTPUTS = 30.0
#: Step sizes tried at each depth, in units of 1 / (L s_1^{2-2/L}), and the share of the initial loss to be reached.
STEP_GRID = np.arange(1, 11) / 10
LOSS_SHARE = 0.01
#: Widths, times and largest singular value of the start of the networks compared with an ODE solver.
UNALIGNED_WIDTHS = (5, 7, 3)
UNALIGNED_TIMES = np.array([0.5, 1.0, 2.0, 4.0, 8.0, 20.0])
PAIR_TIMES = np.linspace(0, 6, 25)
#: The first starts (s, a, b) of the scalar pairs; the others are random.
PAIRS = ((2.0, 0.5, 0.01), (2.0, 0.01, 0.5), (1.0, 1.5, 0.001), (1.0, 0.3, 0.29), (1.0, 0.5, -0.1))
#: Gain of the random orthogonal factors.
GAIN = 1.05
#: Square control of the step counts: all widths equal, a teacher of full rank, and the largest depth.
SQUARE_WIDTH, SQUARE_DEPTH = 12, 16
#: Layer amplitude of the control whose product shrinks with depth.
LAYER_AMPLITUDE = 0.9


def experiments(settings: Settings) -> list[Experiment]:
    """Everything that is simulated, subject by subject."""
    return [
        *mode_experiments(settings, mode_task(settings)),
        *batch_experiments(settings, batch_task(settings)),
        *exact_experiments(settings),
        *scan_experiments(settings, scan_task(settings)),
        *spectrum_experiments(settings),
    ]


# -- learning curves from decoupled starts ------------------------------------------------------------------------


def depth_rate(settings: Settings, task: ModeTask, depth: int) -> float:
    """Learning rate of the runs that compare depths: the same fraction of the largest stable one."""
    return settings.learning_rate * task.largest * optimal_learning_rate(task.largest, depth)


def _curve_times(strength: float, task: ModeTask, depth: int) -> np.ndarray:
    """Recording times, half of them while the fastest mode rises."""
    whole, fast = (
        1.15 * float(flow_time(strength, 0.98 * s, s, depth)) for s in (task.singular_values[-1], task.largest)
    )
    return np.union1d(np.linspace(0, fast, 200), np.linspace(0, whole, 200))


def mode_experiments(settings: Settings, task: ModeTask) -> Iterator[Experiment]:
    """Gradient descent from decoupled starts: three rates at depth 2, several depths, and one layer as a control."""
    strength = settings.initial_strength
    for factor in RATE_FACTORS:
        yield _mode_experiment(settings, task, f"modes_rate{factor}", 2, strength, factor * settings.learning_rate)
    for depth in settings.depth:
        yield _mode_experiment(
            settings, task, f"modes_depth{depth}", depth, settings.depth_strength, depth_rate(settings, task, depth)
        )
    yield _mode_experiment(settings, task, "single_layer", 1, strength, settings.learning_rate, control=True)


def _mode_experiment(
    settings: Settings, task: ModeTask, name: str, depth: int, strength: float, rate: float, control: bool = False
) -> Experiment:
    times = _curve_times(strength, task, depth)
    modes = task.singular_values.size
    widths = (task.inputs, *(2 * modes,) * (depth - 1), task.outputs)
    work = sum(a * b for a, b in pairwise(widths)) * task.inputs
    return Experiment(
        name,
        partial(_simulate_modes, settings, task, name, widths, strength, rate, times),
        members=FRAMES,
        bytes_per_member=8 * (times.size * (3 * modes + 6) + 12 * work),
        seconds=1.5 + 0.4 * depth + times[-1] / rate * (4e-6 * depth + 6 * FRAMES * work / 5e9),
        control=control,
    )


def _simulate_modes(
    settings: Settings, task: ModeTask, name: str, widths: Sequence[int], strength: float, rate: float,
    times: np.ndarray, start: int, stop: int,
) -> xr.Dataset:  # fmt: skip
    teacher = Teacher.diagonal(task.singular_values, task.inputs, task.outputs)
    starts = [
        decoupled_weights(np.random.default_rng([settings.seed, 1, len(widths), m]), teacher, widths,
                          np.full(teacher.modes, strength))
        for m in range(start, stop)
    ]  # fmt: skip
    state = network_state([np.stack(layer) for layer in zip(*starts, strict=True)])
    arguments = {"singular_values": task.singular_values, "learning_rate": rate}
    steps = np.unique(np.rint(times / rate).astype(np.int64))
    observer = NetworkObserver(("strength", "loss"), teacher.modes)
    records, diverged = evolve(
        GradientDescent(), observer, state, member_keys(settings.seed, name, start, stop), arguments, steps
    )
    return network_dataset(records, diverged, start, steps * rate, task.singular_values)


# -- random starts on data, linear and tanh -----------------------------------------------------------------------


def batch_experiments(settings: Settings, task: BatchTask) -> Iterator[Experiment]:
    """Full-batch descent of two-layer networks, linear and tanh, from the same random starts."""
    small = settings.start_scale
    yield _batch_experiment(settings, task, "small_linear", "linear", small)
    yield _batch_experiment(settings, task, "small_tanh", "tanh", small)
    yield _batch_experiment(settings, task, "large_linear", "linear", LARGE_SCALE, control=True)
    for activation in ("linear", "tanh"):
        yield _batch_experiment(
            settings, task, f"loud_{activation}", activation, small, loudness=LOUD_OUTPUTS, control=True
        )


def _batch_experiment(
    settings: Settings, task: BatchTask, name: str, activation: Activation, scale: float, loudness: float = 1.0,
    control: bool = False,
) -> Experiment:  # fmt: skip
    s = task.singular_values * loudness
    # From about the strength of a random start; twice as long, because such starts first have to align.
    seen = min(0.1 * scale**2, 0.1 * s[-1] / task.variance)
    horizon = 2.2 * float(flow_time(task.variance * seen, 0.5 * s[-1], s[-1], 2))
    rate = settings.batch_learning_rate / loudness
    samples, d_in, d_out = len(task.inputs), task.inputs.shape[1], task.outputs.shape[1]
    work = samples * settings.hidden_width * (d_in + d_out)
    steps = max(int(horizon / rate), 50)
    return Experiment(
        name,
        partial(_simulate_batch, settings, task, name, activation, scale, loudness, rate, steps),
        members=settings.runs,
        bytes_per_member=8 * (4 * samples * (d_in + d_out + settings.hidden_width) + 300 * (s.size + 2)),
        seconds=1.5 + steps * settings.runs * (6 * work / 4e9 + 3e-6),
        control=control,
    )


def _simulate_batch(
    settings: Settings, task: BatchTask, name: str, activation: Activation, scale: float, loudness: float,
    rate: float, steps: int, start: int, stop: int,
) -> xr.Dataset:  # fmt: skip
    widths = (task.inputs.shape[1], settings.hidden_width, task.outputs.shape[1])
    starts = [
        gaussian_weights(np.random.default_rng([settings.seed, 2, m]), widths, gain=scale) for m in range(start, stop)
    ]
    state = network_state([np.stack(layer) for layer in zip(*starts, strict=True)])
    arguments = {
        "inputs": task.inputs, "outputs": task.outputs * loudness, "left": task.left, "right": task.right,
        "learning_rate": rate,
    }  # fmt: skip
    grid = np.unique(np.rint(np.linspace(0, steps, 300)).astype(np.int64))
    records, diverged = evolve(
        FullBatchDescent(activation), ResponseObserver(activation), state,
        member_keys(settings.seed, name, start, stop), arguments, grid,
    )  # fmt: skip
    return network_dataset(records, diverged, start, grid * rate, task.singular_values * loudness)


# -- exact solutions beside an ODE solver -------------------------------------------------------------------------


def exact_experiments(settings: Settings) -> Iterator[Experiment]:
    """Scalar pairs and whole two-layer networks, by formula and by a solver at tight tolerance."""
    draws = settings.exact_draws
    yield Experiment("pairs", partial(_pairs, settings), members=len(PAIRS) + draws, seconds=0.02 * draws + 0.5)
    yield Experiment("unaligned", partial(_unaligned, settings, True), members=draws, seconds=0.3 * draws)
    yield Experiment(
        "unbalanced", partial(_unaligned, settings, False), members=draws, seconds=0.3 * draws, control=True
    )


def _solve(speed: Callable, start: np.ndarray, times: np.ndarray) -> np.ndarray:
    """States at ``times``, ``(t, n)``; interval by interval, since interpolation inside a step is less accurate."""
    states, now, state = [], 0.0, start
    for time in times:
        if time > now:
            state = solve_ivp(speed, (now, time), state, method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1]
            now = time
        states.append(state)
    return np.array(states)


def pair_start(settings: Settings, member: int) -> tuple[float, float, float]:
    """Singular value and amplitudes (s, a, b) of a scalar pair, some with a b < 0 and some above the target."""
    if member < len(PAIRS):
        return PAIRS[member]
    rng = np.random.default_rng([settings.seed, 3, member])
    s, (a, b) = rng.uniform(0.5, 3), rng.uniform(-2, 2, 2)
    return float(s), float(a), float(b)


def _pairs(settings: Settings, start: int, stop: int) -> xr.Dataset:
    cases = np.array([pair_start(settings, m) for m in range(start, stop)])
    numeric = np.stack(
        [_solve(lambda _t, z, s=s: (s - z[0] * z[1]) * z[::-1], np.array([a, b]), PAIR_TIMES) for s, a, b in cases]
    )
    s, a, b = cases.T[:, :, None]
    exact = np.stack(unbalanced_amplitudes(PAIR_TIMES, a, b, s), axis=-1)
    dimensions = ("member", "time", "amplitude")
    return xr.Dataset(
        {"numeric": (dimensions, numeric), "exact": (dimensions, exact), "singular_value": ("member", s[:, 0])},
        {"member": np.arange(start, stop), "time": PAIR_TIMES, "amplitude": ["input", "output"]},
    )


def unaligned_start(settings: Settings, member: int, balanced: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """Weights and teacher of one draw; in the control the second layer is three times as large."""
    rng = np.random.default_rng([settings.seed, 4, member])
    weights = zero_balanced_weights(rng, UNALIGNED_WIDTHS, rng.uniform(0.05, 0.6, min(UNALIGNED_WIDTHS)))
    teacher = rng.normal(size=(UNALIGNED_WIDTHS[2], UNALIGNED_WIDTHS[0]))
    return ([weights[0], weights[1]] if balanced else [weights[0], 3 * weights[1]]), teacher


def _unaligned(settings: Settings, balanced: bool, start: int, stop: int) -> xr.Dataset:
    numeric, exact = [], []
    d_in, hidden, d_out = UNALIGNED_WIDTHS
    for member in range(start, stop):
        (first, second), teacher = unaligned_start(settings, member, balanced)

        def speed(_t: float, state: np.ndarray, teacher: np.ndarray = teacher) -> np.ndarray:
            one, two = state[: hidden * d_in].reshape(hidden, d_in), state[hidden * d_in :].reshape(d_out, hidden)
            error = teacher - two @ one
            return np.concatenate([(two.T @ error).ravel(), (error @ one.T).ravel()])

        states = _solve(speed, np.concatenate([first.ravel(), second.ravel()]), UNALIGNED_TIMES)
        ones = states[:, : hidden * d_in].reshape(-1, hidden, d_in)
        numeric.append(states[:, hidden * d_in :].reshape(-1, d_out, hidden) @ ones)
        tolerance = 1e-8 if balanced else np.inf
        exact.append(zero_balanced_flow(first, second, teacher, UNALIGNED_TIMES, tolerance=tolerance).product)
    dimensions = ("member", "time", "output", "input")
    return xr.Dataset(
        {"numeric": (dimensions, np.array(numeric)), "exact": (dimensions, np.array(exact))},
        {"member": np.arange(start, stop), "time": UNALIGNED_TIMES},
    )


# -- steps until the loss is small --------------------------------------------------------------------------------

STARTS = ("decoupled", "orthogonal", "gaussian")


def scan_experiments(settings: Settings, task: ModeTask) -> Iterator[Experiment]:
    """Steps to 1 % of the initial loss at the best step size, against depth, from several starts."""
    square = ModeTask(np.linspace(1.0, 0.4, SQUARE_WIDTH), SQUARE_WIDTH, SQUARE_WIDTH)
    for depth in settings.scan_depth:
        for kind in STARTS:
            yield _scan_experiment(settings, task, f"scan_{kind}_depth{depth}", kind, depth)
        if depth <= SQUARE_DEPTH:
            yield _scan_experiment(settings, square, f"scan_square_depth{depth}", "orthogonal", depth, SQUARE_WIDTH)
    for depth in settings.scan_depth[-2:]:
        yield _scan_experiment(settings, task, f"scan_layerwise_depth{depth}", "layerwise", depth, control=True)


def _scan_experiment(
    settings: Settings, task: ModeTask, name: str, kind: str, depth: int, width: int = 0, control: bool = False
) -> Experiment:
    widths = (task.inputs, *(width or settings.scan_width,) * (depth - 1), task.outputs)
    members = settings.scan_runs
    size = sum(a * b for a, b in pairwise(widths))
    likely = {"gaussian": 12 * depth, "layerwise": 12 * depth, "decoupled": 40, "orthogonal": 20}[kind]
    likely = min(settings.most_steps, likely if not width else 40 * depth)
    work = 10 * size * min(task.inputs, task.outputs) * STEP_GRID.size * members * likely
    return Experiment(
        name,
        partial(_count_steps, settings, task, kind, widths),
        members=members,
        bytes_per_member=8 * STEP_GRID.size * 8 * size,
        seconds=1.0 + work / 5e9,
        control=control,
    )


def _scan_start(settings: Settings, task: ModeTask, kind: str, widths: Sequence[int], member: int) -> list[np.ndarray]:
    depth = len(widths) - 1
    rng = np.random.default_rng([settings.seed, 5, depth, member])
    if kind == "orthogonal":
        return orthogonal_weights(rng, widths)
    if kind == "gaussian":
        return gaussian_weights(rng, widths)
    strength = LAYER_AMPLITUDE**depth if kind == "layerwise" else settings.scan_strength
    teacher = Teacher.diagonal(task.singular_values, task.inputs, task.outputs)
    return decoupled_weights(rng, teacher, widths, np.full(teacher.modes, strength))


def _count_steps(
    settings: Settings, task: ModeTask, kind: str, widths: Sequence[int], start: int, stop: int
) -> xr.Dataset:
    starts = [_scan_start(settings, task, kind, widths, m) for m in range(start, stop)]
    if task.outputs < task.inputs:
        # The transposed network learns the transposed teacher in the same steps, and its batch of basis vectors is
        # smaller.
        starts = [[w.T for w in reversed(one)] for one in starts]
    rates = STEP_GRID * optimal_learning_rate(task.largest, len(widths) - 1)
    layers = [np.repeat(np.stack(layer), rates.size, axis=0) for layer in zip(*starts, strict=True)]
    state = network_state(layers, stacked=True)
    state["learning_rate"] = jnp.asarray(np.tile(rates, stop - start))
    arguments = {"singular_values": task.singular_values, "learning_rate": 0.0}
    goal = LOSS_SHARE * np.asarray(population_loss(state, arguments))
    steps = steps_until(
        GradientDescent(), population_loss, state, goal, arguments, settings.most_steps, race=rates.size
    )
    return xr.Dataset(
        {"steps": (("member", "rate"), steps.reshape(-1, rates.size))},
        {"member": np.arange(start, stop), "rate": STEP_GRID},
    )


# -- products of random matrices ----------------------------------------------------------------------------------


def spectrum_experiments(settings: Settings) -> Iterator[Experiment]:
    """Singular values of products of Gaussian and of orthogonal matrices."""
    most = settings.factors[-1]
    seconds = settings.matrix_draws * settings.matrix_size**3 * (most * 2e-10 + len(settings.factors) * 2e-9)
    for kind in ("gaussian", "orthogonal"):
        yield Experiment(
            f"spectra_{kind}",
            partial(_spectra, settings, kind),
            members=settings.matrix_draws,
            bytes_per_member=8 * 4 * settings.matrix_size**2,
            seconds=0.1 + seconds * (1 if kind == "gaussian" else 2),
        )


def _spectra(settings: Settings, kind: str, start: int, stop: int) -> xr.Dataset:
    values = np.stack([_product_spectrum(settings, kind, m) for m in range(start, stop)])
    return xr.Dataset(
        {"value": (("member", "factors", "rank"), values)},
        {"member": np.arange(start, stop), "factors": list(settings.factors)},
    )


def _product_spectrum(settings: Settings, kind: str, member: int) -> Float[np.ndarray, "f n"]:
    rng = np.random.default_rng([settings.seed, 6, kind == "orthogonal", member])
    size = (settings.matrix_size, settings.matrix_size)
    draw = gaussian_weights if kind == "gaussian" else partial(orthogonal_weights, gain=GAIN)
    return product_singular_values((draw(rng, size)[0] for _ in range(settings.factors[-1])), settings.factors)
