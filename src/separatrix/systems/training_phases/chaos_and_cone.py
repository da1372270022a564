"""Study: chaos and cone, two effects of one transition in training (Zhou, Yang, Sugiyama, Yan 2025, arXiv 2505.13900).

The argument: what is asked, what is simulated, what is claimed and in which control each claim must fail. The parts
are in `chaos/`, one module for each subject; `separatrix.probes.chaos` perturbs and compares any training.
"""

from separatrix.lab import Claim, Experiment, Study
from separatrix.systems.training_phases.chaos.basins import basins, peaks, predictions, turning
from separatrix.systems.training_phases.chaos.confinement import confined
from separatrix.systems.training_phases.chaos.figures import figures
from separatrix.systems.training_phases.chaos.kernel_cone import narrow_cone, same_transition
from separatrix.systems.training_phases.chaos.quantities import quantities
from separatrix.systems.training_phases.chaos.runs import run_experiments
from separatrix.systems.training_phases.chaos.settings import Settings, check, describe, problem
from separatrix.systems.training_phases.chaos.sharpness import BATCHES, MOST_SAMPLES
from separatrix.systems.training_phases.chaos.stability import edges, growth_beyond
from separatrix.systems.training_phases.chaos.tangents import tangent_agreement
from separatrix.systems.training_phases.chaos.transition import chaos_effect, determinism, transition
from separatrix.systems.training_phases.task import describe_data, input_files

QUESTION = """Perturb a network imperceptibly at step t0 of its training and go on with the very same batches: does it
end elsewhere? Early in training it does (chaos effect), after some step it does not any more. When is that step, is it
the one at which the tangent kernel settles into a narrow cone of directions (cone effect), do early copies end in other
basins and predict differently, is the growth that of the tangent map, so that it could be told without copies, and is
it time spent beyond the edge of stability?"""


def experiments(settings: Settings) -> list[Experiment]:
    """What is simulated."""
    return run_experiments(settings)


def claims(settings: Settings) -> list[Claim]:  # noqa: ARG001
    """What is claimed, each with the control in which it must fail."""
    copies, both, slow = ("copies",), ("copies", "identical"), ("slow", "copies", "identical")
    return [
        Claim(
            "D1",
            "An unperturbed copy keeps every bit of its run.",
            "derived; without it nothing else may be concluded",
            determinism,
            lambda s, r: determinism(s, r, "copies"),
            "perturbed copies",
            needs=("identical",),
            control_needs=copies,
        ),
        Claim(
            "D2",
            "Chaos effect: perturbations at the start grow a hundred times more than late ones.",
            "paper, abstract; statistic derived",
            chaos_effect,
            lambda s, r: chaos_effect(s, r, "slow"),
            "a tenth of the learning rate",
            needs=both,
            control_needs=slow,
        ),
        Claim(
            "D3",
            "There is a transition before half of the training after which perturbations are forgotten.",
            "paper, abstract; statistic derived",
            transition,
            lambda s, r: transition(s, r, "reordered"),
            "copies that see the batches in another order",
            needs=both,
            control_needs=("reordered", "identical"),
        ),
        Claim(
            "D4",
            "Copies perturbed before the transition end in other basins, those perturbed after it in the same.",
            "paper, section on the chaos effect",
            basins,
            lambda s, r: basins(s, r, "reordered"),
            "copies that see the batches in another order, of which late ones must part too",
            needs=copies,
            control_needs=("reordered", "copies"),
        ),
        Claim(
            "D5",
            "Copies perturbed at the start end with other predictions.",
            "paper, section on the chaos effect",
            predictions,
            lambda s, r: predictions(s, r, "slow"),
            "a tenth of the learning rate",
            needs=copies,
            control_needs=("slow",),
        ),
        Claim(
            "D6",
            "The dissimilarity of early copies peaks at one step, the same for all of them.",
            "paper, section on the chaos effect",
            peaks,
            lambda s, r: peaks(s, r, "reordered"),
            "copies that see the batches in another order and drift apart to the end",
            needs=copies,
            control_needs=("reordered", "copies"),
        ),
        Claim(
            "D7",
            "A run changes its direction in parameter space mostly before the transition.",
            "paper, reading of its figure; statistic derived",
            turning,
            lambda s, r: turning(s, r, backwards=True),
            "the run read backwards",
            needs=copies,
            control_needs=copies,
        ),
        Claim(
            "D8",
            "Chaos ends when the tangent kernel settles, within a factor of two.",
            "paper, abstract; statistic derived",
            same_transition,
            lambda s, r: same_transition(s, r, "reordered"),
            "the transition of copies that see the batches in another order",
            needs=copies,
            control_needs=("reordered", "copies"),
        ),
        Claim(
            "D9",
            "Cone effect: once chaos has ended the tangent kernel stays within a narrow cone.",
            "paper, abstract; statistic derived",
            narrow_cone,
            lambda s, r: narrow_cone(s, r, from_start=True),
            "the cone of all kernels from the start on",
            needs=copies,
            control_needs=copies,
        ),
        Claim(
            "D10",
            "As long as a perturbation is small it grows as the tangent map says, if the activation is smooth.",
            "derived",
            tangent_agreement,
            lambda s, r: tangent_agreement(s, r, "kinked"),
            "a ReLU network",
            needs=("smooth",),
            control_needs=("kinked",),
        ),
        Claim(
            "D11",
            "Perturbations grow while mini-batch sharpness is above the edge of a frozen Hessian, and only then.",
            "derived; edge 2 (1 + mu) / eta - w",
            lambda s, r: growth_beyond(s, r, edges(s).frozen),
            lambda s, r: growth_beyond(s, r, edges(s).frozen, evenly=True),
            "the same growth spread evenly over the training",
            needs=copies,
            control_needs=copies,
        ),
        Claim(
            "D12",
            "They grow while it is above the edge for curvature that changes from batch to batch, and only then.",
            "derived; edge 2 (1 - mu) / eta - w",
            lambda s, r: growth_beyond(s, r, edges(s).fluctuating),
            lambda s, r: growth_beyond(s, r, edges(s).fluctuating, evenly=True),
            "the same growth spread evenly over the training",
            needs=copies,
            control_needs=copies,
        ),
        Claim(
            "D13",
            "Once chaos has ended the tangent kernel is confined: its cone hardly widens with time.",
            "derived; the paper judges by eye",
            confined,
            lambda s, r: confined(s, r, walk=True),
            "a random walk with steps of the same size",
            needs=copies,
            control_needs=copies,
        ),
    ]


def notes(settings: Settings) -> str:
    """What a reader of the report should know."""
    noise = f" {settings.label_noise:.0%} of the training labels are drawn anew." if settings.label_noise else ""
    return (
        f"{describe_data(settings, problem(settings))}{noise} {describe(settings)} A perturbation has the norm sigma = "
        f"{settings.sigma:g} times that of all parameters together; the paper does not say how large its own is. "
        "Copies share momentum and batches. Learning rates are constant. A(t0, t1) saturates when copies are as far "
        "apart as their attractor is wide, so that the transition depends on sigma logarithmically. Barriers are those "
        "of the test loss along the first random direction, with the statistics of normalised layers taken anew at "
        f"every point. Curvature is that of the next {BATCHES} mini-batches and of "
        f"{min(len(problem(settings).labels), MOST_SAMPLES)} training samples. Intervals are "
        "taken over independent runs on one split of the data and cover the conditions of a claim together at 95 % "
        "(Bonferroni)."
    )


STUDY = Study(
    slug="chaos-and-cone",
    title="Chaos and cone: two phases of training",
    reference="Zhou, Yang, Sugiyama, Yan (2025), arXiv:2505.13900",
    question=" ".join(QUESTION.split()),
    topics=("chaos", "Lyapunov exponents", "linear mode connectivity", "neural tangent kernel", "training phases"),
    settings=Settings,
    presets={
        "smoke": {
            "samples": 600,
            "hidden_widths": (32, 32, 32, 32),
            "batch_size": 48,
            "learning_rate": 0.045,
            "steps": 480,
            "record_every": 40,
            "spawn_steps": (0, 40, 80, 160, 200, 240, 360),
            "sigma": 1e-5,
            "directions": 1,
            "examples": 16,
        },
        "text": {
            "data": "plays",
            "network": "transformer",
            "samples": 800,
            "test_share": 0.1,
            "context": 16,
            "learning_rate": 0.4,
            "batch_size": 16,
            "steps": 240,
            "record_every": 20,
            "spawn_steps": (0, 20, 40, 80, 120),
            "directions": 1,
            "examples": 4,
            "runs": 4,
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
            "record_every": 250,
            "spawn_steps": (0, 250, 500, 1000, 1500, 2000, 2500, 5000),
            "runs": 3,
            "directions": 3,
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
