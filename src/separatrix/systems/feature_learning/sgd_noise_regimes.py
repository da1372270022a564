"""Study: the effects of SGD noise in distinct regimes of deep learning (Sclocchi, Geiger, Wyart 2023, arXiv
2301.13703).

The argument: what is asked, what is simulated, what is claimed and in which control each claim must fail. The parts are
in `noise_regimes/`, one module for each subject; the mathematics stands in the other modules of this folder.
"""

from separatrix.lab import Claim, Experiment, Study
from separatrix.systems.feature_learning.noise_regimes.features import collapse, feature_experiments, uncollapsed
from separatrix.systems.feature_learning.noise_regimes.figures import figures
from separatrix.systems.feature_learning.noise_regimes.invariance import invariance, invariance_experiments
from separatrix.systems.feature_learning.noise_regimes.lazy import (
    QUIET,
    critical_exponent,
    lazy_experiments,
    steps_against_temperature,
    weights_against_temperature,
)
from separatrix.systems.feature_learning.noise_regimes.perceptron import (
    crossover_experiments,
    online_experiments,
    other_density,
    settled_noise,
    signal_growth,
    size_exponents,
    stopped_experiments,
    time_against_temperature,
)
from separatrix.systems.feature_learning.noise_regimes.phase import opposite_effects, phase_experiments
from separatrix.systems.feature_learning.noise_regimes.quantities import quantities
from separatrix.systems.feature_learning.noise_regimes.settings import Settings, check, densities, input_files

QUESTION = """A network is trained by SGD with the hinge loss until every sample is fitted. At small steps the noise has
one knob, the temperature T, learning rate over batch size; the scale alpha of the output decides whether the network is
lazy or learns features. When does the noise change the trained network, and in which direction? A perceptron explains
it: noise adds useless weight, so the informative weight must grow until even the samples nearest to the boundary are
fitted. Training time and weights should then be power laws of T and of the number of samples P, with exponents set by
how many data lie near the boundary; a lazy network should leave its regime at a temperature that falls with P; and a
network that learns features should feel the noise from a power of alpha on."""


def experiments(settings: Settings) -> list[Experiment]:
    """What is simulated, subject by subject."""
    return [
        *online_experiments(settings),
        *crossover_experiments(settings),
        *stopped_experiments(settings),
        *lazy_experiments(settings),
        *feature_experiments(settings),
        *phase_experiments(settings),
        *invariance_experiments(settings),
    ]


def claims(settings: Settings) -> list[Claim]:
    """What is claimed, each with the control in which it must fail."""
    main = (settings.chi,)
    others = tuple(chi for chi, _ in densities(settings)[1:])
    other = f"{other_density(settings.chi):g}"
    return [
        Claim(
            "K1",
            "The noise of the perceptron settles at R_inf, proportional to T and independent of time.",
            "derived, P3",
            settled_noise,
            lambda s, r: settled_noise(s, r, other_density(s.chi)),
            f"R_inf of another density at the boundary, chi = {other}",
            needs=("online_*",),
            control_needs=("online_*",),
        ),
        Claim(
            "K2",
            "The signal follows the equations of the order parameters and grows as the power 1/(chi + 3) of time.",
            "derived, P2, P3",
            signal_growth,
            lambda s, r: signal_growth(s, r, factor=0.25),
            "the equations at a quarter of the temperature",
            needs=("online_*",),
            control_needs=("online_*",),
        ),
        Claim(
            "K3",
            "Training time is proportional to T above the crossover T = 1/alpha, and independent of T below it.",
            "paper",
            time_against_temperature,
            lambda s, r: time_against_temperature(s, r, exchanged=True),
            "the two sides of the crossover are exchanged",
            needs=("crossover_*",),
            control_needs=("crossover_*",),
        ),
        Claim(
            "K4",
            "Training time and signal grow as the powers 1 + 2/(1 + chi) and 1/(1 + chi) of P.",
            "paper; exponents derived, P4",
            lambda s, r: size_exponents(s, r, main),
            lambda s, r: size_exponents(s, r, main, wrong=True),
            f"exponents of another density at the boundary, chi = {other}",
            needs=("stopped_*",),
            control_needs=("stopped_*",),
        ),
        Claim(
            "K5",
            "In a lazy network the change of the weights is proportional to T above the crossover.",
            "paper",
            weights_against_temperature,
            lambda s, r: weights_against_temperature(s, r, QUIET),
            "temperatures below the crossover",
            needs=("lazy_P*",),
            control_needs=("lazy_P*",),
        ),
        Claim(
            "K6",
            "The temperature at which a lazy network's weights change as a whole falls as the power -gamma/delta of P.",
            "authors' talk, a = gamma/delta",
            critical_exponent,
            lambda s, r: critical_exponent(s, r, reverse=True),
            "the numbers of samples are assigned in reverse",
            needs=("lazy_P*",),
            control_needs=("lazy_P*",),
        ),
        Claim(
            "K7",
            "In the feature regime final weights of all alpha collapse against T / alpha^((D-1)/(D+1)).",
            "authors' talk; argument derived, P7",
            collapse,
            uncollapsed,
            "an exponent that is wrong by one half",
            needs=("feature_depth*",),
            control_needs=("feature_depth*",),
        ),
        Claim(
            "K8",
            "The noise of SGD helps in one regime and hurts in the other: its effects on the test error are opposite.",
            "paper, abstract (MNIST, CIFAR10)",
            opposite_effects,
            lambda s, r: opposite_effects(s, r, same_row=True),
            "the regime with the clearer effect is compared with itself",
            needs=("phase",),
            control_needs=("phase",),
        ),
        Claim(
            "K9",
            "Learning rate and batch size matter only through T: both doubled, the trained weights are the same.",
            "paper, derived from P1",
            invariance,
            lambda s, r: invariance(s, r, "larger_batch"),
            "only the batch is doubled",
            needs=("*_plain", "*_doubled"),
            control_needs=("*_plain", "*_larger_batch"),
        ),
        Claim(
            "K10",
            "So they do on data of other densities at the boundary, Gaussian and strongly depleted.",
            "paper; exponents derived, P4",
            lambda s, r: size_exponents(s, r, others),
            lambda s, r: size_exponents(s, r, others, wrong=True),
            "the exponents of the two densities are exchanged",
            needs=("stopped_*",),
            control_needs=("stopped_*",),
        ),
        Claim(
            "K11",
            "Above the crossover a lazy network takes a number of steps that is independent of T, within 30 %.",
            "paper (training time proportional to T)",
            steps_against_temperature,
            lambda s, r: steps_against_temperature(s, r, QUIET),
            "temperatures below the crossover",
            needs=("lazy_P*",),
            control_needs=("lazy_P*",),
        ),
    ]


def notes(settings: Settings) -> str:
    """What a reader of the report should know."""
    text = (
        "Loss (1/alpha - y F)_+ per sample, F the change of the output; training time t* is learning rate times steps "
        "until every sample is fitted, at the step of the last move. Times and weights are geometric means; a run "
        "given up at its cap is censored and enters the fits as a lower bound. A fit reports the p-value of the "
        "straight line: where it is small the exponent is still drifting, and the local exponents say which way. "
        "Intervals cover a claim's conditions together at 95 % (Bonferroni) and are taken over independent runs. The "
        "published exponents for MNIST and CIFAR10 could not be read, so that there is no column for them."
    )
    if settings.data == "sign":
        return text
    return f"{text} The phase diagram is of the data {settings.data}; all other experiments use the depleted-sign task."


STUDY = Study(
    slug="sgd-noise-regimes",
    title="Effects of SGD noise in distinct regimes of deep learning",
    reference="Sclocchi, Geiger, Wyart (2023), arXiv:2301.13703",
    question=" ".join(QUESTION.split()),
    topics=("stochastic gradient descent", "gradient noise", "lazy and feature regime", "perceptron", "phase diagram"),
    settings=Settings,
    presets={
        "smoke": {
            "online_steps": 10_000,
            "samples": (512, 1024),
            "gaussian_samples": (512, 1024),
            "depleted_samples": (512, 1024),
            "stopped_runs": 12,
            "crossover_samples": 256,
            "crossover_dimension": 32,
            "temperatures": (0.03, 0.1, 10.0, 100.0, 1000.0),
            "lazy_samples": (128, 256),
            "lazy_width": 64,
            "lazy_runs": 12,
            "depths": (1,),
            "feature_runs": 8,
            "phase_alphas": 3,
            "phase_temperatures": 7,
            "phase_runs": 6,
            "network_samples": 128,
            "width": 32,
            "network_most_steps": 20_000,
        },
        "paper": {
            "temperatures": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
            "samples": (1024, 2048, 4096, 8192, 16384, 32768),
            "gaussian_samples": (512, 1024, 2048, 4096),
            "most_steps": 200_000_000,
            "lazy_samples": (128, 512, 2048, 8192, 32768),
            "feature_alphas": (1e-5, 1e-4, 1e-3),
            "feature_runs": 24,
            "data": "fashion-mnist",
            "network": "convolutional",
            "hidden_layers": 4,
            "width": 128,
            "network_samples": 8192,
            "test_samples": 10_000,
            "phase_alphas": 12,
            "phase_temperatures": 12,
            "phase_runs": 5,
            "network_most_steps": 1_000_000,
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
