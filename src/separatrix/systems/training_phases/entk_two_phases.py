"""Study: two phases of the empirical tangent kernel (Zhou, Yang, Ren, Sugiyama, Yan 2025, arXiv 2503.16316).

The argument: what is asked, what is simulated, what is claimed and in which control each claim must fail. The parts
are in `two_phases/`, one module for each subject; kernels are measured by `separatrix.probes.tangent_kernel`.
"""

from separatrix.lab import Claim, Experiment, Study
from separatrix.systems.training_phases.task import describe_data, input_files
from separatrix.systems.training_phases.two_phases.cone import narrow_cone, narrow_cone_controls
from separatrix.systems.training_phases.two_phases.figures import figures
from separatrix.systems.training_phases.two_phases.phases import (
    frozen_kernel,
    still_moving,
    two_phases,
    two_phases_controls,
)
from separatrix.systems.training_phases.two_phases.quantities import quantities
from separatrix.systems.training_phases.two_phases.runs import run_experiments
from separatrix.systems.training_phases.two_phases.settings import Settings, check, describe, problem
from separatrix.systems.training_phases.two_phases.switching import (
    later_is_better,
    moving_is_better,
    switching_experiments,
)

QUESTION = """The tangent kernel of a network acts on what it learns: if it stood still, training would be that of a
linear model. How does it move in real training? Does it change a lot in a first phase and then stay within a narrow
cone of directions without coming to rest, so that late training is neither lazy nor free? And what is its motion worth:
how much worse does the network end if its kernel is frozen at some step, and training goes on linearised?"""


def experiments(settings: Settings) -> list[Experiment]:
    """What is simulated."""
    return [*run_experiments(settings), *switching_experiments(settings)]


def claims(settings: Settings) -> list[Claim]:  # noqa: ARG001
    """What is claimed, each with the control in which it must fail."""
    return [
        Claim(
            "K1",
            "Training has two phases: kernels of the first are far from those of the second, which are close to each "
            "other.",
            "paper, abstract; statistic derived",
            two_phases,
            two_phases_controls,
            "a lazy network, and the runs read backwards",
            needs=("runs",),
            control_needs=("runs", "lazy"),
        ),
        Claim(
            "K2",
            "In the second phase the kernel keeps evolving.",
            "paper, abstract",
            still_moving,
            frozen_kernel,
            "training linearised from the start",
            needs=("runs",),
            control_needs=("runs", "switching"),
        ),
        Claim(
            "K3",
            "In the second phase it stays within a narrow cone.",
            "paper, abstract; statistic derived",
            narrow_cone,
            narrow_cone_controls,
            "checkpoints in random order, and a learning rate at which training stays chaotic",
            needs=("runs",),
            control_needs=("runs", "chaotic"),
        ),
        Claim(
            "K4",
            "The later training is linearised, the better the network ends.",
            "paper, section on linearised training",
            later_is_better,
            lambda s, r: later_is_better(s, r, "lazy_switching"),
            "a lazy network",
            needs=("switching",),
            control_needs=("lazy_switching",),
        ),
        Claim(
            "K5",
            "Ordinary training ends better than training linearised from the start.",
            "paper, abstract",
            moving_is_better,
            lambda s, r: moving_is_better(s, r, "lazy_switching"),
            "a lazy network",
            needs=("switching",),
            control_needs=("lazy_switching",),
        ),
    ]


def notes(settings: Settings) -> str:
    """What a reader of the report should know."""
    lazy = (
        f"is the difference of two copies of the network, scaled by {settings.lazy_scale:g}, with"
        if settings.network == "transformer"
        else f"has one hidden layer of {settings.lazy_width} units in NTK parametrisation, with"
    )
    return (
        f"{describe_data(settings, problem(settings))} {describe(settings)} The samples are the first of the training "
        "set. Kernels traced or summed over classes rotate by other angles and are recorded beside exact ones; the "
        "error of estimated ones is covered by intervals over runs, each of which has sign vectors of its own. Kernel "
        "distance is one minus a cosine, and ignores the norm, which is drawn apart. Linearised training keeps "
        f"optimiser, batches and weight decay and starts its momentum anew. The lazy control {lazy} no weight decay; "
        "controls of a run take a third of its steps. Learning rates are constant. Intervals are Student's over "
        "independent runs on one split of the data, and cover the conditions of a claim together at 95 % (Bonferroni)."
    )


STUDY = Study(
    slug="entk-two-phases",
    title="Two phases of the tangent kernel",
    reference="Zhou, Yang, Ren, Sugiyama, Yan (2025), arXiv:2503.16316 and arXiv:2505.13900",
    question=" ".join(QUESTION.split()),
    topics=("neural tangent kernel", "lazy and rich training", "linearisation", "training phases"),
    settings=Settings,
    presets={
        "smoke": {
            "hidden_widths": (32, 32, 32),
            "steps": 300,
            "checkpoint_every": 15,
            "examples": 16,
            "runs": 8,
            "switches": (0, 20, 50, 100),
            "lazy_width": 256,
        },
        "text": {
            "data": "plays",
            "network": "transformer",
            "samples": 1500,
            "test_share": 0.2,
            "learning_rate": 0.1,
            "batch_size": 8,
            "steps": 450,
            "checkpoint_every": 25,
            "examples": 8,
            "kernel": "exact",
            "runs": 8,
            "switches": (0, 50, 150, 300),
            "lazy_learning_rate": 0.05,
            "chaotic_factor": 5.0,
        },
        "paper": {
            "data": "fashion-mnist",
            "samples": 60_000,
            "test_share": 1 / 6,
            "network": "cnn",
            "channels": (32, 64, 128, 128),
            "learning_rate": 0.1,
            "batch_size": 128,
            "steps": 10_000,
            "checkpoint_every": 250,
            "switches": (0, 50, 100, 200, 500, 1000, 2000, 5000),
            "lazy_width": 4096,
        },
    },
    experiments=experiments,
    claims=claims,
    figures=figures,
    check=check,
    notes=notes,
    inputs=input_files,
    quantities=quantities,
)
