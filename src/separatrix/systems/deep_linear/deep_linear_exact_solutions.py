"""Study: exact solutions to the learning dynamics of deep linear networks (Saxe, McClelland, Ganguli 2014).

The argument: what is asked, what is simulated, what is claimed and in which control each claim must fail. The parts
are in `exact_solutions/`, one module for each subject; the mathematics stands in the other modules of this folder.
"""

from separatrix.lab import Claim, Study
from separatrix.systems.deep_linear.exact_solutions.curves import (
    analytic_curves,
    depth_curves,
    inverse_times,
    tanh_alike,
)
from separatrix.systems.deep_linear.exact_solutions.depth import (
    depth_independence,
    finite_delay,
    gaussian_slowdown,
    spectra,
)
from separatrix.systems.deep_linear.exact_solutions.exactness import exactness, wrong_formulas
from separatrix.systems.deep_linear.exact_solutions.experiments import experiments
from separatrix.systems.deep_linear.exact_solutions.figures import figures
from separatrix.systems.deep_linear.exact_solutions.settings import Settings, batch_task, check, input_files

QUESTION = """A deep linear network computes a linear map, yet learns it in plateaus and sudden drops. For white inputs
and a suitable start the singular modes of the input-output correlation decouple, and each follows an equation with an
exact solution: the time to learn a mode is inversely proportional to its singular value. How well do the solutions
describe gradient descent, and how does learning slow down with depth from decoupled, orthogonal and Gaussian starts?"""


def claims(settings: Settings) -> list[Claim]:
    """What is claimed, each with the control in which it must fail."""
    del settings
    return [
        Claim(
            "A1",
            "The exact solution matches gradient descent, with an error linear in the learning rate.",
            "paper, section 1.1",
            analytic_curves,
            lambda s, r: analytic_curves(s, r, pace=0.5),
            "a theory in which only one of the two layers learns",
        ),
        Claim(
            "A2",
            "The time to learn a mode is inversely proportional to its singular value.",
            "paper, section 1.2",
            inverse_times,
            lambda s, r: inverse_times(s, r, decoupled="single_layer", random="large_linear"),
            "a network of one layer, and random starts with large weights",
        ),
        Claim(
            "A3",
            "The solutions for unbalanced modes and for unaligned zero-balanced networks are exact.",
            "paper, appendix A; derived",
            exactness,
            wrong_formulas,
            "the balanced formulas at unbalanced starts",
        ),
        Claim(
            "A4",
            "At every depth the modes follow the flow with the depth's exponent, 2 - 2/L.",
            "paper, section 1.3",
            depth_curves,
            lambda s, r: depth_curves(s, r, extra=1),
            "the exponent of a network one layer deeper",
        ),
        Claim(
            "A5",
            "With the best step size a decoupled start needs a number of steps that stays finite as depth grows.",
            "paper, section 1.3",
            finite_delay,
            lambda s, r: finite_delay(s, r, kind="layerwise"),
            "decoupled starts whose layers, not their product, have the same size at every depth",
        ),
        Claim(
            "A6",
            "Orthogonal starts need a number of steps independent of depth where the hidden layers are wide.",
            "paper, section 3; measured",
            depth_independence,
            lambda s, r: depth_independence(s, r, kind="square"),
            "square networks with a teacher of full rank",
        ),
        Claim(
            "A7",
            "Scaled Gaussian starts need at least ten times as many steps at depth 64 as at depth 4.",
            "paper, section 3",
            gaussian_slowdown,
            lambda s, r: gaussian_slowdown(s, r, kind="orthogonal"),
            "orthogonal starts",
        ),
        Claim(
            "A8",
            "Singular values of Gaussian products collapse with depth, those of orthogonal products stay equal.",
            "paper, section 3; derived",
            spectra,
            lambda s, r: spectra(s, r, exchanged=True),
            "Gaussian and orthogonal products exchanged",
        ),
        Claim(
            "A9",
            "Tanh networks from small weights learn the modes at the same times as linear ones.",
            "paper, section 1.2",
            tanh_alike,
            lambda s, r: tanh_alike(s, r, names=("loud_linear", "loud_tanh")),
            "outputs thirty times as large, so that hidden units saturate",
        ),
    ]


def notes(settings: Settings) -> str:
    """What a reader of the report should know."""
    text = (
        "Loss |y - f(x)|^2 / 2 per sample; time is learning rate times steps. Where a formula is exact the interval is "
        "the whole range over members. Orthogonal starts are free of depth only where the hidden layers are clearly "
        "wider than inputs and outputs: square networks with a teacher of full rank take tens to hundreds of steps, "
        "depending on depth and start; where the determinants of start and teacher differ in sign, gradient flow "
        "cannot reach the teacher, and descent only by leaving a saddle through the error of its finite steps (control "
        "of A6)."
    )
    if settings.synthetic:
        return text
    data = batch_task(settings)
    return text + (
        f" Data set {settings.data}: {len(data.inputs)} samples, {data.inputs.shape[1]} whitened principal components, "
        "outputs scaled so that the leading mode has strength 1. Learning curves and step counts take its singular "
        "values as the teacher, which for a linear network on whitened inputs is exact; random starts descend on the "
        "samples and labels themselves."
    )


STUDY = Study(
    slug="deep-linear-exact-solutions",
    title="Exact solutions to the nonlinear dynamics of learning in deep linear networks",
    reference="Saxe, McClelland, Ganguli (2014), arXiv:1312.6120",
    question=" ".join(QUESTION.split()),
    topics=("deep linear networks", "gradient flow", "initialisation", "dynamical isometry"),
    settings=Settings,
    presets={
        "smoke": {
            "depth": (2, 3),
            "runs": 6,
            "scan_depth": (2, 4, 8, 32, 64),
            "scan_runs": 6,
            "most_steps": 150,
            "exact_draws": 4,
            "matrix_size": 60,
            "factors": (1, 5, 20),
            "matrix_draws": 10,
        },
        "paper": {
            "depth": (2, 3, 4, 5, 6, 8, 12, 16),
            "learning_rate": 0.002,
            "hidden_width": 64,
            "runs": 64,
            "scan_depth": (2, 4, 8, 16, 32, 64, 128),
            "scan_width": 64,
            "scan_runs": 24,
            "most_steps": 10_000,
            "exact_draws": 100,
            "matrix_size": 400,
            "factors": (1, 2, 5, 10, 20, 50, 100),
            "matrix_draws": 50,
        },
    },
    experiments=experiments,
    claims=claims,
    figures=figures,
    check=check,
    notes=notes,
    inputs=input_files,
)
