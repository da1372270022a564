"""Study: SGD in the saddle-to-saddle regime of deep linear networks (Corlouer et al. 2026, arXiv 2604.06366).

The argument: what is asked, what is simulated, what is claimed and in which control each claim must fail. The parts
are in `saddle_to_saddle/`, one module for each subject; the mathematics stands in the other modules of this folder.
"""

from separatrix.lab import Claim, Experiment, Study
from separatrix.systems.deep_linear.saddle_to_saddle.balance import balance_drift, balance_experiments, balance_identity
from separatrix.systems.deep_linear.saddle_to_saddle.chain import chain_experiments
from separatrix.systems.deep_linear.saddle_to_saddle.covariance import covariance_error, covariance_experiments
from separatrix.systems.deep_linear.saddle_to_saddle.endpoints import (
    convergence,
    noisy_convergence,
    stationary_statistics,
)
from separatrix.systems.deep_linear.saddle_to_saddle.escape import collapse_threshold, first_passage
from separatrix.systems.deep_linear.saddle_to_saddle.figures import figures
from separatrix.systems.deep_linear.saddle_to_saddle.networks import (
    aligned_experiments,
    random_experiments,
    stationary_experiments,
)
from separatrix.systems.deep_linear.saddle_to_saddle.noise_peak import (
    lead_scaling,
    loud_peak_precedes_learning,
    peak_position,
    peak_precedes_learning,
)
from separatrix.systems.deep_linear.saddle_to_saddle.quantities import quantities
from separatrix.systems.deep_linear.saddle_to_saddle.settings import Settings, check, input_files, task
from separatrix.systems.deep_linear.saddle_to_saddle.survival import lazy_survival, reduction_error, survival

QUESTION = """A deep linear network learns a teacher matrix from small weights by one-pass mini-batch SGD. Gradient flow
moves from saddle to saddle and picks up the teacher's singular modes one by one, the largest first. What does the noise
of SGD do? Modelled as a Langevin equation with its exact, state-dependent covariance and reduced to one scalar
equation for each mode, it should announce each mode before it is learned, leave the order and the plateaus alone, and
end at the solution itself without label noise, or in a Boltzmann-like law with it. How far does the scalar theory hold
in real, unaligned and unbalanced networks?"""


def experiments(settings: Settings) -> list[Experiment]:
    """What is simulated, subject by subject."""
    problem = task(settings)
    return [
        *covariance_experiments(settings, problem),
        *aligned_experiments(settings, problem),
        *random_experiments(settings, problem),
        *stationary_experiments(settings, problem),
        *chain_experiments(settings),
        *balance_experiments(settings),
    ]


def claims(settings: Settings) -> list[Claim]:
    """What is claimed, each with the control in which it must fail."""
    del settings
    return [
        Claim(
            "C1",
            "The closed forms of the gradient covariance, the mode diffusion and the Ito drift are exact.",
            "paper, appendix B; derived",
            covariance_error,
            lambda s, r: covariance_error(s, r, prediction="without_pairing"),
            "only the first of the two pairings of the Gaussian fourth moment",
            needs=("covariance_*",),
            control_needs=("covariance_*",),
        ),
        Claim(
            "C2",
            "The diffusion of a mode peaks before the mode is learned.",
            "paper, abstract",
            peak_precedes_learning,
            loud_peak_precedes_learning,
            "label noise above critical, where the diffusion has no interior maximum",
            needs=("aligned_*", "random_*_clean", "random_*_noisy"),
            control_needs=("loud_*",),
        ),
        Claim(
            "C3",
            "It peaks at the progress w/s that the scalar theory predicts.",
            "paper, section 4; derived",
            peak_position,
            lambda s, r: peak_position(s, r, observable="weights"),
            "the peak predicted for the weight-space noise instead of the mode's",
            needs=("aligned_*", "random_*_clean", "random_*_noisy"),
            control_needs=("aligned_*", "random_*_clean", "random_*_noisy"),
        ),
        Claim(
            "C4",
            "With label noise each mode ends in the stationary law of the scalar equation, approximately Boltzmann.",
            "paper, section 5",
            stationary_statistics,
            lambda s, r: stationary_statistics(s, r, independent_layers=True),
            "theory that takes the layers' noises as independent",
            needs=("law_*", "stationary_*"),
            control_needs=("law_*", "stationary_*"),
        ),
        Claim(
            "C5",
            "Without label noise SGD ends exactly at the solution, contracting at the predicted rate.",
            "paper, section 5",
            convergence,
            noisy_convergence,
            "the same runs with label noise",
            needs=("aligned_*_clean", "contraction_*"),
            control_needs=("aligned_*_noisy",),
        ),
        Claim(
            "C6",
            "Saddle-to-saddle learning survives the noise: order, plateaus and learning times are those of descent.",
            "paper, abstract",
            survival,
            lazy_survival,
            "large random weights, far from the saddles",
            needs=("random_*_clean", "random_*_descent", "rate_*"),
            control_needs=("lazy_*",),
        ),
        Claim(
            "C7",
            "The error of the scalar reduction is linear in the learning rate.",
            "derived",
            reduction_error,
            lambda s, r: reduction_error(s, r, start="misaligned"),
            "a start that is not aligned with the teacher",
            needs=("rate_*",),
            control_needs=("misaligned_*",),
        ),
        Claim(
            "C8",
            "At depth 2 label noise above a critical strength keeps a weak mode from ever being learned.",
            "derived",
            collapse_threshold,
            lambda s, r: collapse_threshold(s, r, label="collapse_quiet"),
            "no label noise",
            needs=("collapse_rate*",),
            control_needs=("collapse_quiet_*",),
        ),
        Claim(
            "C9",
            "The escape time from the saddle has the mean and the spread of an inverse Gaussian.",
            "derived",
            first_passage,
            lambda s, r: first_passage(s, r, independent_layers=True),
            "theory that takes the layers' noises as independent",
            needs=("passage_*",),
            control_needs=("passage_*",),
        ),
        Claim(
            "C10",
            "The lead of the noise peak over learning scales as the power -(2 - 2/L) of the singular value.",
            "derived",
            lead_scaling,
            lambda s, r: lead_scaling(s, r, shift=-1),
            "the exponent of a network one layer less deep",
            needs=("lead_*",),
            control_needs=("lead_*",),
        ),
        Claim(
            "C11",
            "One step changes the balance of adjacent layers by exactly two second-order terms.",
            "derived",
            balance_identity,
            lambda s, r: balance_identity(s, r, variable="error_without_second_term"),
            "only the first of the two terms",
            needs=("balance_*",),
            control_needs=("balance_*",),
        ),
        Claim(
            "C12",
            "With label noise a network with unequal input and output widths drifts away from balance as predicted.",
            "derived",
            balance_drift,
            lambda s, r: balance_drift(s, r, experiment="unbalanced_square"),
            "equal widths",
            needs=("unbalanced",),
            control_needs=("unbalanced_square",),
        ),
    ]


def notes(settings: Settings) -> str:
    """What a reader of the report should know."""
    text = (
        "Loss |y - W x|^2 / 2 per sample, whitened inputs; time is learning rate times steps. An interval covers its "
        "claim's conditions together at 95 % (Bonferroni); each is taken over independent runs."
    )
    if settings.online:
        return text
    data = task(settings).data
    assert data is not None
    return text + (
        f" Data set {settings.data}: {data.inputs.shape[0]} samples, {data.inputs.shape[1]} whitened principal "
        "components, outputs scaled so that the leading mode has strength 1. Input kurtosis E|x|^4 / (d (d + 2)) = "
        f"{data.kurtosis:.2f} (1 for the Gaussian inputs of the theory). Clean labels are the teacher's output on the "
        "real inputs, noisy labels the data's own; the fixed labels' residuals act as label noise. Theory lines are "
        "those of Gaussian online data, so that a gap between line and dots shows where the idealisation breaks."
    )


STUDY = Study(
    slug="saddle-to-saddle-sgd",
    title="Stochastic gradient descent in the saddle-to-saddle regime of deep linear networks",
    reference="Corlouer, Semler, Strang, Gietelink Oldenziel (2026), arXiv:2604.06366",
    question=" ".join(QUESTION.split()),
    topics=("deep linear networks", "stochastic gradient descent", "saddle-to-saddle", "gradient noise"),
    settings=Settings,
    presets={
        "smoke": {
            "depth": (2, 3),
            "aligned_runs": 200,
            "random_runs": 16,
            "chain_runs": 4000,
            "samples": 200_000,
            "learning_rate": 0.004,
        },
        "paper": {
            "depth": (2, 3, 4, 6),
            "aligned_runs": 4000,
            "random_runs": 1000,
            "chain_runs": 1_000_000,
            "samples": 20_000_000,
            "hidden_width": 50,
            "init_exponent": 1.5,
            "learning_rate": 0.001,
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
