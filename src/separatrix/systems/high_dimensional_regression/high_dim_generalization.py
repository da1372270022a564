"""Study: dynamics of generalization error in high dimensions (Advani, Saxe 2017, arXiv 1710.03667).

The argument: what is asked, what is simulated, what is claimed and in which control each claim must fail. The parts
are in `generalization/`, one module for each subject; the mathematics stands in the other modules of this folder.
"""

from separatrix.lab import Claim, Experiment, Study
from separatrix.systems.high_dimensional_regression.generalization import dataset
from separatrix.systems.high_dimensional_regression.generalization.deep import deep_experiments, product_equation
from separatrix.systems.high_dimensional_regression.generalization.descent import descent_experiments, frozen_subspace
from separatrix.systems.high_dimensional_regression.generalization.features import feature_experiments
from separatrix.systems.high_dimensional_regression.generalization.figures import figures
from separatrix.systems.high_dimensional_regression.generalization.linear import (
    curve_agreement,
    linear_experiments,
    mean_eigenvalue_spectrum,
    square_root_growth,
    start_dependence,
    stopping_against_ridge,
)
from separatrix.systems.high_dimensional_regression.generalization.overtraining import (
    large_networks_need_no_stopping,
    place_of_largest,
)
from separatrix.systems.high_dimensional_regression.generalization.settings import (
    Settings,
    check,
    input_files,
    problem,
)
from separatrix.systems.high_dimensional_regression.generalization.trained import (
    larger_is_no_worse,
    trained_experiments,
)

QUESTION = """A linear student learns from noisy samples by gradient descent. How do its test and training error move
in time when it has about as many parameters as there are samples, when should training stop, and when is it safe not
to stop? The Marchenko-Pastur law of the data gives exact curves: overtraining is worst where parameters and samples
are equal in number and fades for smaller and for larger networks, because the directions that the data leave
undetermined are frozen and the others are well determined again. Low error then asks for small initial weights. Does
the same picture hold for random features, for trained ReLU networks, for deep linear ones and on real data?"""


def experiments(settings: Settings) -> list[Experiment]:
    """What is simulated, subject by subject."""
    return [
        *linear_experiments(settings),
        *descent_experiments(settings),
        *feature_experiments(settings),
        *trained_experiments(settings),
        *deep_experiments(settings),
        *dataset.dataset_experiments(settings),
    ]


def claims(settings: Settings) -> list[Claim]:
    """What is claimed, each with the control in which it must fail; three more on a data set."""
    return [*_claims(), *(_dataset_claims() if settings.data != "gaussian" else [])]


def _claims() -> list[Claim]:
    return [
        Claim(
            "B1",
            "Test and training error follow the learning curves of the Marchenko-Pastur law.",
            "paper, section 2",
            curve_agreement,
            lambda s, r: curve_agreement(s, r, mean_eigenvalue_spectrum),
            "theory in which all positive eigenvalues have their mean",
        ),
        Claim(
            "B2",
            "Overtraining is worst where parameters and samples are equal in number, also with random features.",
            "paper, abstract",
            place_of_largest,
            lambda s, r: place_of_largest(s, r, repeated=True),
            "each sample appears twice, so that only half of them count",
        ),
        Claim(
            "B3",
            "Networks much larger than the data need no early stopping.",
            "paper, abstract",
            large_networks_need_no_stopping,
            lambda s, r: large_networks_need_no_stopping(s, r, size="worst"),
            "networks of the worst size instead of the largest",
        ),
        Claim(
            "B4",
            "With fewer samples than parameters the final error rises with the variance of the start, by 1 - alpha; "
            "with more it does not.",
            "paper, section 2",
            start_dependence,
            lambda s, r: start_dependence(s, r, error="spanned_final_error"),
            "a start within the span of the data, without frozen components",
        ),
        Claim(
            "B5",
            "Early stopping is almost as good as the best ridge penalty, and never better.",
            "paper, section 2",
            stopping_against_ridge,
            lambda s, r: stopping_against_ridge(s, r, stopped="late_error"),
            "stopped at four times the best time",
        ),
        Claim(
            "B6",
            "Training moves no weight outside the span of the data, of as many dimensions as samples at most, and is "
            "exact mode by mode.",
            "paper, section 2; derived",
            frozen_subspace,
            lambda s, r: frozen_subspace(s, r, experiment="descent_decayed"),
            "descent with weight decay",
        ),
        Claim(
            "B7",
            "At alpha = 1 the test error grows as the square root of time.",
            "derived",
            square_root_growth,
            lambda s, r: square_root_growth(s, r, ratio=s.ratios[-1]),
            "many more samples than parameters",
        ),
        Claim(
            "B8",
            "Trained ReLU networks of more hidden units are no worse when they are stopped at their best time.",
            "paper, section 3",
            larger_is_no_worse,
            lambda s, r: larger_is_no_worse(s, r, stopped=False),
            "trained to the end instead of stopped",
        ),
        Claim(
            "B9",
            "A balanced deep linear student follows the equation of its product, and |w_frozen| / |w|^(1 - 1/D) is "
            "constant.",
            "derived",
            product_equation,
            lambda s, r: product_equation(s, r, gap="gap_without_alignment"),
            "the equation without its term along w",
        ),
    ]


def _dataset_claims() -> list[Claim]:
    return [
        Claim(
            "B10",
            "On the data set the test error follows the learning curve of the measured spectrum.",
            "derived",
            dataset.dataset_agreement,
            lambda s, r: dataset.dataset_agreement(s, r, flattened=True),
            "all positive eigenvalues at their mean",
        ),
        Claim(
            "B11",
            "On the data set overtraining is worst where components and samples are equal in number.",
            "paper, abstract",
            dataset.dataset_place_of_largest,
            lambda s, r: dataset.dataset_place_of_largest(s, r, name="repeated_dataset"),
            "each training sample appears twice",
        ),
        Claim(
            "B12",
            "On the data set the stopping time predicted from the spectrum is as good as the best one.",
            "derived",
            dataset.predicted_stopping,
            lambda s, r: dataset.predicted_stopping(s, r, factor=dataset.LATE),
            "stopped at ten times the predicted time",
        ),
    ]


def notes(settings: Settings) -> str:
    """What a reader of the report should know."""
    text = (
        "Loss: half the sum over samples of squared errors (linear students and data sets), half the mean (random "
        "features and ReLU students); inputs of the linear students have variance 1/N. Test errors of linear students "
        "include the noise of the test labels, those of nonlinear students do not. Teachers have variance 1 in each "
        "parameter. An interval covers its claim's conditions together at 95 % (Bonferroni); each is taken over "
        "independent data sets. Where a statement is exact the interval runs over all members."
    )
    data = problem(settings)
    if data is None:
        return text
    return text + (
        f" Data set {settings.data}: {data.inputs.shape[0]} samples, {settings.components} whitened principal "
        f"components of variance 1/N, {data.outputs.shape[1]} outputs, scaled so that the least-squares map has one "
        f"unit of power for each component. It leaves a variance of {data.residual_variance:.3g} unexplained, which "
        "acts as label noise beside the added one. Random splits: training sets of P samples, tested on others."
    )


STUDY = Study(
    slug="high-dim-generalization",
    title="Dynamics of the generalization error in high dimensions",
    reference="Advani, Saxe (2017), arXiv:1710.03667; with Sompolinsky (2020), Neural Networks 132",
    question=" ".join(QUESTION.split()),
    topics=("generalization", "random matrices", "early stopping", "double descent", "random features"),
    settings=Settings,
    presets={
        "smoke": {
            "dimension": 100,
            "ratios": (0.25, 0.5, 1.0, 1.25, 2.0),
            "feature_widths": (75, 110, 150, 300),
            "feature_draws": 16,
            "trained_widths": (3, 8, 100),
            "deep_draws": 4,
        },
        "paper": {
            "dimension": 1000,
            "ratios": (0.125, 0.25, 0.5, 0.66, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0),
            "draws": 100,
            "feature_samples": 500,
            "feature_inputs": 50,
            "teacher_width": 30,
            "feature_widths": (50, 125, 250, 375, 450, 500, 550, 650, 1000, 2000, 5000),
            "feature_draws": 50,
            "trained_widths": (3, 8, 20, 60, 200, 600, 2000, 5000),
            "trained_draws": 50,
            "trained_steps": 20_000,
            "depth": (1, 2, 3, 4),
            "deep_draws": 50,
        },
    },
    experiments=experiments,
    claims=claims,
    figures=figures,
    check=check,
    notes=notes,
    inputs=input_files,
)
