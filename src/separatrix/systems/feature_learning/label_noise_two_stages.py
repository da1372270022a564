"""Study: the role of label noise in feature learning (Han et al., ICML 2025, arXiv 2505.18909).

The argument: what is asked, what is simulated, what is claimed and in which control each claim must fail. The parts
are in `two_stages/`, one module for each subject; the mathematics stands in the other modules of this folder.
"""

from separatrix.lab import Claim, Experiment, Study
from separatrix.systems.feature_learning.two_stages import image_training
from separatrix.systems.feature_learning.two_stages.figures import figures
from separatrix.systems.feature_learning.two_stages.networks import network_experiments
from separatrix.systems.feature_learning.two_stages.quantities import quantities
from separatrix.systems.feature_learning.two_stages.reduced import (
    courses_collapse,
    decomposition_is_exact,
    follows_reduced_dynamics,
    identity_experiment,
    reduced_experiments,
    unflipped_course,
)
from separatrix.systems.feature_learning.two_stages.retraining import retraining_experiments, selection_pays
from separatrix.systems.feature_learning.two_stages.selection import (
    as_good_as_confident_learning,
    log_two_separates,
    ranking_separates,
)
from separatrix.systems.feature_learning.two_stages.settings import Settings, check, images, input_files
from separatrix.systems.feature_learning.two_stages.stages import nothing_without_flips, stage_one, stage_two
from separatrix.systems.feature_learning.two_stages.stopping import overfitting_costs, stopping_saves

QUESTION = """A part of the training labels is wrong. Does a network learn the features first and reject the wrong
labels, and memorise them only later? When do these two stages exist, when does the second begin, what does it cost,
and how well do the two usual remedies work that live on the first: stopping early, and dropping the samples of large
loss?"""


def experiments(settings: Settings) -> list[Experiment]:
    """What is simulated and trained, subject by subject."""
    return [
        *network_experiments(settings),
        *retraining_experiments(settings),
        identity_experiment(settings),
        *reduced_experiments(settings),
        *image_training.image_experiments(settings),
    ]


def claims(settings: Settings) -> list[Claim]:
    """What is claimed, each with the control in which it must fail; two more with images."""
    both = ("main", "strong")
    with_images = settings.data != "none"
    claimed = [
        Claim(
            "L1",
            "Signal and noise coefficients give the weights exactly, at every step.",
            "paper; updates derived",
            decomposition_is_exact,
            lambda s, r: decomposition_is_exact(s, r, "difference_without_cross_products"),
            "products of different data vectors are neglected",
            needs=("identity",),
            control_needs=("identity",),
        ),
        Claim(
            "L2",
            "In Stage I all clean samples are fitted, flipped ones are given their true label, and fresh samples are "
            "classified rightly, if the signal is strong: kappa (1 - 2 tau) well above 2.",
            "paper; condition derived",
            stage_one,
            lambda s, r: stage_one(s, r, weak=True),
            "networks with a weaker signal",
            needs=("grid_*",),
            control_needs=("grid_*",),
        ),
        Claim(
            "L3",
            "The loss log 2 separates flipped from clean samples where the signal is strong, and not where "
            "kappa (1 - 2 tau) is below 2.",
            "paper; condition derived",
            log_two_separates,
            lambda s, r: log_two_separates(s, r, at_end=True),
            "selected at the end of training",
            needs=("grid_*",),
            control_needs=("grid_*",),
        ),
        Claim(
            "L4",
            "In Stage II the flipped samples are memorised: all are fitted, by more memory than signal.",
            "paper",
            stage_two,
            lambda s, r: stage_two(s, r, early=True),
            "measured in Stage I",
            needs=("grid_*",),
            control_needs=("grid_*",),
        ),
        Claim(
            "L5",
            "Overfitting the flipped labels costs generalization.",
            "paper; with true test labels derived",
            overfitting_costs,
            lambda s, r: overfitting_costs(s, r, "no_noise"),
            "no label is flipped",
            needs=both,
            control_needs=("no_noise",),
        ),
        Claim(
            "L6",
            "Signal and memory grow as in the reduced dynamics of kappa and tau.",
            "derived",
            follows_reduced_dynamics,
            lambda s, r: follows_reduced_dynamics(s, r, unflipped_course),
            "theory without flipped labels",
            needs=("reduced",),
            control_needs=("reduced",),
        ),
        Claim(
            "L7",
            "Courses of networks with equal kappa and tau collapse when time is measured in "
            "n m / (learning_rate sigma^2 d) steps.",
            "paper, time scale of Stage I; derived",
            courses_collapse,
            lambda s, r: courses_collapse(s, r, rescaled=False),
            "time measured as learning_rate * step",
            needs=("reduced", "collapse_*"),
            control_needs=("reduced", "collapse_*"),
        ),
        Claim(
            "L8",
            "Without flipped labels there is no second stage: clean samples are fitted and the error of fresh ones "
            "does not rise.",
            "paper",
            nothing_without_flips,
            lambda s, r: nothing_without_flips(s, r, "strong"),
            "with flipped labels",
            needs=("no_noise",),
            control_needs=("strong",),
        ),
        Claim(
            "L10",
            "Stopping by validation, with clean or with noisy labels, by the theory or by the share of rejected "
            "samples avoids most of the overfitting.",
            "paper, abstract; rules derived",
            stopping_saves,
            lambda s, r: stopping_saves(s, r, trained_on=True),
            "trained to the end",
            needs=both,
            control_needs=both,
        ),
        Claim(
            "L11",
            "Dropping the samples of loss above log 2 in Stage I and training again beats training to the end.",
            "paper, abstract",
            selection_pays,
            lambda s, r: selection_pays(s, r, "random"),
            "as many samples dropped at random",
            needs=(*both, "selected_*", "oracle_*"),
            control_needs=(*both, "random_*", "oracle_*"),
        ),
        Claim(
            "L12",
            "In Stage I the loss log 2 finds wrong labels as well as confident learning does from the same outputs.",
            "derived",
            as_good_as_confident_learning,
            lambda s, r: as_good_as_confident_learning(s, r, at_end=True),
            "log 2 applied at the end of training",
            needs=(*both, "images") if with_images else both,
            control_needs=(*both, "images") if with_images else both,
        ),
    ]
    claimed.append(
        Claim(
            "L14",
            "If the share of wrong labels is known, the samples of smallest loss in Stage I are the clean ones, also "
            "where log 2 does not separate.",
            "derived",
            ranking_separates,
            lambda s, r: ranking_separates(s, r, ranked=False),
            "log 2 instead of the rank",
            needs=both,
            control_needs=both,
        )
    )
    if with_images:
        claimed += [
            Claim(
                "L9",
                "On images wrong labels are fitted later than right ones, and the test accuracy peaks before the end.",
                "paper, experiments",
                image_training.images_have_two_stages,
                lambda s, r: image_training.images_have_two_stages(s, r, "images_clean"),
                "all labels are right, and random samples are taken for the wrong ones",
                needs=("images",),
                control_needs=("images_clean",),
            ),
            Claim(
                "L13",
                "On images training again without the samples of loss above log 2 in Stage I beats training to the "
                "end.",
                "paper, abstract",
                image_training.images_selection_pays,
                lambda s, r: image_training.images_selection_pays(s, r, "random"),
                "as many samples dropped at random",
                needs=("images", "images_selected"),
                control_needs=("images", "images_random"),
            ),
        ]
    return sorted(claimed, key=lambda claim: int(claim.id[1:]))


def notes(settings: Settings) -> str:
    """What a reader of the report should know."""
    text = (
        "theta is the number of steps over n m / (learning_rate sigma^2 d); tau is the share of flipped labels, exact "
        "in each class. The initial outputs are nearly zero, so that every loss begins at log 2. Errors of fresh "
        "samples are with respect to true labels unless said otherwise; an output of zero counts as wrong. An "
        "interval covers its claim's conditions together at 95 % (Bonferroni), over networks with data of their own. "
        "Where a statement is exact the interval runs over all networks. The paper bounds the test error of Stage II "
        "from below by tau / 2: with flipped test labels that is so in any case, with true ones it is not if there "
        "are many more dimensions than samples."
    )
    data = images(settings)
    if data is None:
        return text
    own = "its own labels" if data.true_labels is not None else f"{settings.image_noise:g} of the labels flipped"
    return f"{text} Images: {data.description.rstrip('.')}; {own}; random balanced splits into training and test set."


STUDY = Study(
    slug="label-noise-two-stages",
    title="Label noise: two stages of feature learning",
    reference="Han, Huang, Zhou, Niu, Chen, Yan, Takeda, Suzuki (2025), ICML, arXiv:2505.18909",
    question=" ".join(QUESTION.split()),
    topics=("label noise", "feature learning", "early stopping", "sample selection", "memorisation"),
    settings=Settings,
    presets={
        "smoke": {
            "members": 24,
            "samples": 80,
            "dimension": 320,
            "large_dimension": 800,
            "learning_rate": 0.25,
            "kappas": (6.0, 8.0),
            "theory_dimension": 4800,
            "theory_width": 16,
            "theory_members": 12,
            "image_samples": 300,
            "image_tests": 300,
            "image_width": 50,
            "image_steps": 300,
            "image_members": 8,
        },
        "paper": {
            "members": 64,
            "samples": 1000,
            "dimension": 4000,
            "large_dimension": 20_000,
            "width": 50,
            "start_scale": 5e-4,
            "theory_dimension": 60_000,
            "theory_width": 50,
            "kappas": (1.0, 2.0, 4.0, 8.0),
            "noises": (0.1, 0.2, 0.3, 0.4),
            "data": "fashion-mnist",
            "negative_class": 2,
            "positive_class": 4,
            "image_samples": 8000,
            "image_tests": 4000,
            "image_width": 1000,
            "image_steps": 3000,
            "image_members": 10,
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
