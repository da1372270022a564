"""Study: benign oscillation of SGD with large learning rates (Lu, Wu, Yang, Zou 2023, arXiv 2310.17074).

The argument: what is asked, what is simulated, what is claimed and in which control each claim must fail. The parts
are in `oscillation/`, one module for each subject; the mathematics stands in the other modules of this folder.
"""

from functools import partial

from separatrix.lab import Claim, Experiment, Study
from separatrix.systems.feature_learning.oscillation import accuracy, maps, residuals
from separatrix.systems.feature_learning.oscillation.figures import figures
from separatrix.systems.feature_learning.oscillation.image_runs import image_experiments, image_gain
from separatrix.systems.feature_learning.oscillation.networks import network_experiments
from separatrix.systems.feature_learning.oscillation.quantities import quantities
from separatrix.systems.feature_learning.oscillation.settings import Settings, check, images, input_files
from separatrix.systems.feature_learning.oscillation_map import second_order_bias

QUESTION = """Every point carries a weak feature, most points carry a strong one besides, and all carry noise. A network
trained with small steps fits the strong feature, memorises the rest and never learns the weak one. With a step beyond
the stability limit of the strong feature the residual of these points keeps oscillating. Its mean is then positive, of
second order in its size, and drives the weak feature until this has taken over enough of the fit to restore stability.
Is it so, how large must and may the step be, how fast does the weak feature grow and where does it stop, and what
happens outside of this window and on real images?"""


def experiments(settings: Settings) -> list[Experiment]:
    """What is simulated: the map on grids, networks on noise, networks on images."""
    return [*maps.map_experiments(settings), *network_experiments(settings), *image_experiments(settings)]


def claims(settings: Settings) -> list[Claim]:
    """What is claimed, each with the control in which it must fail; two more on images."""
    return [*_claims(), *(_image_claims() if images(settings) is not None else [])]


def _claims() -> list[Claim]:
    return [
        Claim(
            "L1",
            "A large step learns the weak feature: points that show it alone are classified correctly.",
            "paper, abstract",
            accuracy.large_steps_learn,
            lambda s, r: accuracy.large_steps_learn(s, r, s.small[-1:]),
            "the largest small step instead of large ones",
            needs=("network_*",),
            control_needs=("network_*",),
        ),
        Claim(
            "L2",
            "A small step does not, although both fit the training set.",
            "paper, abstract",
            accuracy.small_steps_do_not,
            lambda s, r: accuracy.small_steps_do_not(s, r, s.large),
            "large steps instead of small ones",
            needs=("network_*",),
            control_needs=("network_*",),
        ),
        Claim(
            "L3",
            "The weak feature grows by 1 + k (1 - k) (eta_v - 1) in two visits, until it contributes "
            "(eta_v - 1) / (eta_v - eta_u).",
            "derived",
            residuals.growth_and_end,
            lambda s, r: maps.growth_on_the_cycle(s, r, maps.first_order_growth, maps.strong_only_share),
            "growth by the mean residual alone, and a share that forgets the weak feature's own step",
            needs=("cycles", "ends", "network_*"),
            control_needs=("cycles", "ends"),
        ),
        Claim(
            "L4",
            "Small steps conserve B A^-k, so that the weak feature stays as small as it starts.",
            "derived",
            maps.small_steps_conserve,
            lambda s, r: maps.small_steps_conserve(s, r, "stepped"),
            "a step beyond the limit of stability",
            needs=("small",),
            control_needs=("stepped",),
        ),
        Claim(
            "L5",
            "The oscillating residual has a positive mean: sum l / sum l^2 = eta_v / (1 + eta_v) on the 2-cycle.",
            "paper (mechanism); derived",
            residuals.bias_is_positive,
            lambda _, r: maps.bias_on_the_cycle(r, second_order_bias),
            "theory to second order in the residual, eta_v / 2",
            needs=("cycles", "network_*"),
            control_needs=("cycles",),
        ),
        Claim(
            "L6",
            "Before the weak feature saturates the residual oscillates at most visits, as the paper assumes; "
            "afterwards less and less.",
            "paper, assumption",
            residuals.residual_oscillates,
            lambda s, r: residuals.residual_oscillates(s, r, s.small[-1:]),
            "the largest small step instead of those beyond the limit of stability",
            needs=("network_*",),
            control_needs=("network_*",),
        ),
        Claim(
            "L7",
            "The switch lies at the limit of stability of the strong feature.",
            "derived",
            accuracy.switch_at_the_limit,
            partial(accuracy.switch_at_the_limit, name="quiet"),
            "so little noise that plain points teach the weak feature at any step",
            needs=("network_*",),
            control_needs=("quiet_*",),
        ),
        Claim(
            "L8",
            "What was learned persists when the learning rate is dropped tenfold.",
            "derived",
            accuracy.accuracy_persists,
            partial(accuracy.accuracy_persists, name="decayed_early"),
            "dropped before the weak feature has grown",
            needs=("decayed",),
            control_needs=("decayed_early",),
        ),
        Claim(
            "L9",
            "Outside of the window a large step does not help: a faint feature grows too slowly, too large a step "
            "diverges, and with little noise a small step learns as well.",
            "derived",
            accuracy.outside_of_the_window,
            partial(accuracy.outside_of_the_window, inside=True),
            "the same statistics inside the window",
            needs=("faint", "edge_*", "quiet_step0", "network_*"),
            control_needs=("network_*",),
        ),
    ]


def _image_claims() -> list[Claim]:
    return [
        Claim(
            "L10",
            "With real images for noise a large step raises the accuracy on test images with the weak feature alone.",
            "paper (real data); measured",
            partial(image_gain, shown="weak_and_image"),
            partial(image_gain, shown="weak_and_image", small_only=True),
            "from the smallest to the largest small step",
            needs=("images_*",),
            control_needs=("images_*",),
        ),
        Claim(
            "L11",
            "It also teaches what the images themselves say of their class: the accuracy rises without any patch.",
            "measured",
            partial(image_gain, shown="image_only"),
            partial(image_gain, shown="image_only", small_only=True),
            "from the smallest to the largest small step",
            needs=("images_*",),
            control_needs=("images_*",),
        ),
    ]


def notes(settings: Settings) -> str:
    """What a reader of the report should know."""
    text = (
        "Steps are given as effective steps eta_v = 2 eta nv^2 / m of the strong feature; that of the weak one is k "
        "eta_v with the feature ratio k = (nu / nv)^2. Networks are trained on one point at a time, drawn with "
        "replacement; all steps use the same data, starts and visits. A and B are contributions to y f, means over "
        "the two labels. Intervals run over independent networks; where a statement is about the deterministic map "
        "there is none. Runs that diverge are counted, not replaced."
    )
    found = images(settings)
    if found is None:
        return text
    return text + (
        f" Images: {found.description} Centred on the mean of the training images, each scaled to squared norm "
        f"{settings.image_power:g}."
    )


STUDY = Study(
    slug="benign-oscillation",
    title="Benign oscillation of SGD with large learning rates",
    reference="Lu, Wu, Yang, Zou (2023), arXiv:2310.17074; ICLR 2024",
    question=" ".join(QUESTION.split()),
    topics=("large learning rates", "edge of stability", "feature learning", "stochastic gradient descent"),
    settings=Settings,
    presets={
        "smoke": {
            "strong_steps": (0.2, 0.8, 0.9, 1.1, 1.2),
            "runs": 16,
            "most_steps": 6000,
            "map_visits": 8000,
            "map_points": 12,
        },
        "paper": {
            "strong_steps": (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3),
            "runs": 256,
            "most_steps": 80_000,
            "map_visits": 100_000,
            "map_points": 200,
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
