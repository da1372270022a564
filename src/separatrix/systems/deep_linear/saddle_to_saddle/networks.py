"""Full networks of the study: aligned, random and stationary runs, what is recorded of them and for how long.

Names: ``aligned_depth3_noisy`` is the aligned start at depth 3 with label noise; ``_clean`` without; on a data set the
clean labels are the teacher's and the noisy ones the data's own. ``_double`` and ``_half`` change the learning rate.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from separatrix.engines.ensemble import State, Step
from separatrix.engines.launch import Launch
from separatrix.lab import Experiment, SettingError
from separatrix.systems.deep_linear.dataset_noise import fourth_moments
from separatrix.systems.deep_linear.learning_times import flow_time
from separatrix.systems.deep_linear.network_observables import NetworkObserver
from separatrix.systems.deep_linear.network_records import network_dataset
from separatrix.systems.deep_linear.network_simulation import DatasetSGD, GradientDescent, OnlineSGD, network_state
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, Task, task
from separatrix.systems.deep_linear.stationary import relaxation_rate
from separatrix.systems.deep_linear.teacher import Teacher, aligned_balanced_weights, layer_widths, random_weights

#: Learning-rate factors of the runs that measure how an error scales with the learning rate, and their number over
#: that of the other aligned runs: they measure small differences of means.
RATE_FACTORS = {"double": 2.0, "single": 1.0, "half": 0.5}
RATE_RUNS = 4
#: Learning-rate factor of the runs that measure the lead of the noise peak: a lead is few steps long, and at the full
#: learning rate that alone bends its power law.
LEAD_FACTOR = 0.25
#: Label noise of the loud control over the largest singular value: above critical at every depth and mode.
LOUD = 0.75
#: Variance width^-exponent of the control that starts far from the saddles.
LAZY_EXPONENT = 0.5


def sgd(settings: Settings, problem: Task) -> Step:
    """SGD on the task's data: fresh Gaussian samples or a fixed data set."""
    if problem.data is None:
        return OnlineSGD(problem.inputs, problem.outputs, settings.batch_size)
    return DatasetSGD(problem.data.inputs.shape[0], settings.batch_size, settings.replacement)


def _arguments(settings: Settings, problem: Task, labels: str, factor: float = 1.0) -> dict[str, np.ndarray]:
    """What the compiled runs take: ``labels`` are clean, noisy (as the settings or the data say) or loud."""
    cast = partial(np.asarray, dtype=settings.dtype)
    loud = LOUD * float(problem.followed[0])
    noise = {"clean": 0.0, "noisy": float(np.sqrt(np.mean(problem.mode_label_noise**2))), "loud": loud}[labels]
    arguments = {
        "singular_values": cast(problem.singular_values),
        "learning_rate": cast(settings.learning_rate * factor),
        "label_noise": cast(noise),
    }
    if problem.data is not None:
        outputs = problem.data.outputs if labels == "noisy" else problem.clean_outputs
        if labels == "loud":
            outputs = outputs + loud * np.random.default_rng([settings.seed, 7]).normal(size=outputs.shape)
        arguments |= {"inputs": cast(problem.data.inputs), "outputs": cast(outputs)}
    return arguments


_LEARNING = ("strength", "loss")
_NOISE = ("variance_rate",)
_EVERYTHING = (*_LEARNING, *_NOISE, "flow", "noise_trace", "gradient_norm", "off_diagonal", "imbalance")


def _observer(problem: Task, names: tuple[str, ...]) -> NetworkObserver:
    """Observer of these quantities, on a data set with its own noise beside that of Gaussian inputs."""
    if problem.data is not None and "variance_rate" in names:
        names += ("dataset_variance_rate",)
    return NetworkObserver(names, problem.modes)


@lru_cache(maxsize=4)
def _fourth_moments(settings: Settings, labels: str) -> Float[np.ndarray, "p p"]:
    """Moments behind the data set's own noise, for these labels."""
    problem = task(settings)
    arguments = _arguments(settings, problem, labels)
    teacher = np.eye(problem.outputs, problem.singular_values.size) * problem.singular_values
    teacher = teacher @ np.eye(problem.singular_values.size, problem.inputs)
    moments = fourth_moments(arguments["inputs"], arguments["outputs"], teacher)
    return moments.covariance.astype(settings.dtype)


def network_experiment(
    settings: Settings, problem: Task, name: str, members: int, widths: Sequence[int], times: np.ndarray,
    *, step: Step, observer: NetworkObserver, weights: Callable[[int, int], list[np.ndarray]],
    labels: str, factor: float = 1.0, roots: np.ndarray | None = None, control: bool = False,
) -> Experiment:  # fmt: skip
    """An ensemble of networks as an experiment, with the time and memory it needs.

    Parameters
    ----------
    name, members, control
        As of the experiment.
    widths
        ``(d_0, ..., d_L)``.
    times
        Recording times, learning rate times steps.
    weights
        ``(start, stop) -> [W_1, ..., W_L]`` of these members, or one set of weights shared by all.
    labels
        ``clean``, ``noisy`` or ``loud``.
    factor
        Learning rate over that of the settings.
    roots
        ``(modes,)``: start of the scalar chains that run along on the same samples; None for none.
    """
    steps = times[-1] / (settings.learning_rate * factor)
    if not steps < 2**31:
        raise SettingError(
            f"learning_rate = {settings.learning_rate:g} is not allowed with these settings: the experiment {name} "
            f"would take {steps:.2g} steps, and a run can have at most 2^31."
        )

    def arguments() -> dict[str, np.ndarray]:
        values = _arguments(settings, problem, labels, factor)
        if "dataset_variance_rate" in observer.names:
            values["fourth_moments"] = _fourth_moments(settings, labels)
        return values

    def state(start: int, stop: int) -> State:
        members = network_state(weights(start, stop), stop - start, settings.dtype)
        if roots is not None:
            members["roots"] = np.repeat(np.asarray(roots, settings.dtype)[:, None], stop - start, axis=1)
        return members

    batch = problem.inputs if isinstance(step, GradientDescent) else settings.batch_size
    products = sum(a * b for a, b in pairwise(widths))
    flops = 6 * products * batch
    observed = times.size * (len(widths) ** 2) * max(widths) ** 2 * 60e-9 / 16
    if "dataset_variance_rate" in observer.names:
        pairs = (problem.inputs + problem.outputs) * (problem.inputs + problem.outputs + 1) / 2
        observed += times.size * problem.modes * pairs**2 * 2 / 1.5e10
    drawn = 0 if isinstance(step, GradientDescent) else 6e-9 * batch * (problem.inputs + problem.outputs)
    per_step = flops / (6e9 if batch == 1 else 1e10) + 30e-9 + drawn
    record = times.size * (4 * problem.modes + 2 * len(widths) + 8) * 8
    lasting = sum(a * b for a, b in pairwise(widths)) * 8
    scratch = 8 * problem.modes * 4 * (problem.inputs + problem.outputs) ** 2 if problem.data is not None else 0
    return Experiment(
        name=name,
        simulate=Launch(
            step, observer, state, settings.seed, name, arguments,
            np.rint(times / (settings.learning_rate * factor)).astype(np.int64),
            partial(network_dataset, times=times, singular_values=problem.followed),
        ),
        members=members,
        bytes_per_member=3 * record + 12 * lasting + scratch,
        seconds=1.5 + members * (steps * per_step + observed),
        control=control,
    )  # fmt: skip


def rise_times(singular_values: Float[np.ndarray, " r"], strength: float, depth: int, records: int) -> np.ndarray:
    """Recording times of aligned runs: dense where gradient flow learns each mode, sparse between.

    Parameters
    ----------
    singular_values
        ``(r,)``.
    strength
        Initial strength of all modes.
    depth
        L.
    records
        Records for the rise of each mode, from 5 % to 97 % of its singular value with a margin of 30 % in time.
    """
    windows = []
    for s in singular_values:
        early, late = (
            float(flow_time(strength, share * s, s, depth)) for share in (max(0.05, 1.5 * strength / s), 0.97)
        )
        windows.append(np.linspace(0.7 * early, 1.3 * late, records))
    return np.sort(np.concatenate([[0.0], *windows]))


def aligned_experiments(settings: Settings, problem: Task) -> Iterator[Experiment]:
    """Runs from the aligned, balanced start; with other learning rates; and misaligned, for controls."""
    teacher = Teacher.diagonal(problem.followed, problem.inputs, problem.outputs)
    strength = settings.initial_strength * problem.followed[-1]
    for depth in settings.depth:
        widths = layer_widths(problem.inputs, problem.outputs, depth, problem.modes)
        start_weights = aligned_balanced_weights(teacher, widths, np.full(problem.modes, strength))
        learning = rise_times(problem.followed, strength, depth, 80 if problem.data is None else 40)
        # 30 e-foldings of the slowest entry bring the distance below 1e-8 from anything below 1e5.
        late = np.linspace(0.1, 1, 10) * 30 * _slowest_time(problem, depth)
        to_the_end = np.concatenate([learning, learning[-1] + late])
        roots = np.full(problem.modes, strength ** (1 / depth))
        make = partial(network_experiment, settings, problem, widths=widths, step=sgd(settings, problem), roots=roots)
        runs = {
            "members": settings.aligned_runs,
            "times": to_the_end,
            "weights": lambda _a, _b, w=start_weights: w,
            "observer": _observer(problem, _EVERYTHING),
        }
        for labels in ("clean", "noisy"):
            yield make(name=f"aligned_depth{depth}_{labels}", labels=labels, **runs)
        yield make(name=f"loud_depth{depth}", labels="loud", control=True, **runs)
        yield make(name=f"lead_depth{depth}", labels="clean", factor=LEAD_FACTOR, **runs)
        runs |= {
            "members": RATE_RUNS * settings.aligned_runs,
            "times": rise_times(problem.followed, strength, depth, 16),
            "observer": _observer(problem, ("strength", "reduced_strength")),
        }
        for arm, factor in RATE_FACTORS.items():
            yield make(name=f"rate_depth{depth}_{arm}", labels="noisy", factor=factor, **runs)
        runs["weights"] = lambda _a, _b, w=start_weights: _rotate(w)
        for arm in ("double", "single"):
            yield make(
                name=f"misaligned_depth{depth}_{arm}", labels="noisy", factor=RATE_FACTORS[arm], control=True, **runs
            )


def _rotate(weights: list[np.ndarray], angle: float = 0.4) -> list[np.ndarray]:
    """The first layer turned by ``angle`` in the plane of the first and last followed input directions."""
    first = weights[0]
    turn = np.eye(first.shape[1])
    i, j = 0, first.shape[0] - 1
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = np.sin(angle), -np.sin(angle)
    return [first @ turn, *weights[1:]]


def random_horizon(settings: Settings, problem: Task, depth: int) -> float:
    """Time by which random starts have learned every mode: some times that of gradient flow from a typical strength.

    The deeper the network, the more its product of random matrices scatters, and with it the time.
    """
    width = settings.hidden_width
    typical = width ** (-settings.init_exponent * depth / 2 + (depth - 1) / 2)
    smallest = problem.followed[-1]
    typical = min(max(typical, 1e-200), 0.5 * smallest)
    return (1 + depth / 2) * float(flow_time(typical, 0.97 * smallest, smallest, depth))


def _relaxation_time(problem: Task, depth: int) -> float:
    """Relaxation time of the slowest mode that is followed."""
    return 1 / float(relaxation_rate(depth, problem.followed[-1]))


def _slowest_time(problem: Task, depth: int) -> float:
    """Relaxation time of the slowest entry of W: from a learned direction to one without a mode only one layer acts."""
    spare = max(problem.inputs, problem.outputs) > problem.modes
    return _relaxation_time(problem, depth) * (depth if spare else 1)


def random_experiments(settings: Settings, problem: Task) -> Iterator[Experiment]:
    """SGD and descent from the same small random weights, and from large ones as a control."""
    for depth in settings.depth:
        widths = layer_widths(problem.inputs, problem.outputs, depth, settings.hidden_width)
        make = partial(network_experiment, settings, problem, members=settings.random_runs, widths=widths)
        # Learning times spread over orders of magnitude in s: equal steps in log time resolve each rise alike.
        grid = np.concatenate([[0.0], np.geomspace(1 / 300, 1, 1499 if problem.data is None else 399)])
        small = {
            "weights": partial(random_starts, settings.seed, widths, settings.init_exponent),
            "times": random_horizon(settings, problem, depth) * grid,
        }
        large = {
            "weights": partial(random_starts, settings.seed, widths, LAZY_EXPONENT),
            "times": 8 * _relaxation_time(problem, depth) * grid,
            "control": True,
        }
        descent = {"step": GradientDescent(), "observer": _observer(problem, _LEARNING), "labels": "clean"}
        sampled = {"step": sgd(settings, problem), "observer": _observer(problem, _LEARNING + _NOISE)}
        yield make(name=f"random_depth{depth}_descent", **small, **descent)
        for labels in ("clean", "noisy"):
            yield make(name=f"random_depth{depth}_{labels}", labels=labels, **small, **sampled)
        yield make(name=f"lazy_depth{depth}_descent", **large, **descent)
        yield make(name=f"lazy_depth{depth}_clean", labels="clean", **large, **sampled)


def random_starts(seed: int, widths: Sequence[int], exponent: float, start: int, stop: int) -> list[np.ndarray]:
    """Random weights of the members ``start .. stop - 1``, each layer ``(n, d_l, d_{l-1})``."""
    runs = [random_weights(np.random.default_rng([seed, len(widths), m]), widths, exponent) for m in range(start, stop)]
    return [np.stack(layer) for layer in zip(*runs, strict=True)]


def stationary_experiments(settings: Settings, problem: Task) -> Iterator[Experiment]:
    """Runs with label noise from the solution, long enough to forget it."""
    teacher = Teacher.diagonal(problem.followed, problem.inputs, problem.outputs)
    for depth in settings.depth:
        widths = layer_widths(problem.inputs, problem.outputs, depth, problem.modes)
        weights = aligned_balanced_weights(teacher, widths, problem.followed)
        # Equilibrate for 8 relaxation times of the slowest mode, then 40 snapshots one apart.
        times = np.arange(8, 48) * _relaxation_time(problem, depth)
        yield network_experiment(
            settings, problem, f"stationary_depth{depth}", 4 * settings.aligned_runs, widths, times,
            step=sgd(settings, problem),
            observer=NetworkObserver(("strength_matrix", "loss", "layer_norms"), problem.modes),
            weights=lambda _a, _b, w=weights: w, labels="noisy",
        )  # fmt: skip
