"""When to stop training on labels of which some are wrong: as soon as the wrong ones begin to be memorised.

A network first gives the samples with a wrong label their true class (Stage I) and memorises them later (Stage II):
Han et al. (ICML 2025, arXiv 2505.18909). The share of samples that the network contradicts falls to the share of wrong
labels and stays there for a while; Stage II takes it to zero. In the reduced dynamics of the paper's network the margin
of the wrong labels returns to zero at :func:`~separatrix.systems.feature_learning.two_stage_theory.stage_two_time`, so
that half of them are contradicted there: that is the rule of :class:`TwoStageDetector`.

Losses may be arrays of NumPy, JAX or PyTorch; inside a compiled loop use :func:`rejected_share`.
"""

from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from array_api_compat import array_namespace

from separatrix.optimizers.sample_selection import LOG_TWO


def rejected_share(losses: Any, threshold: float = LOG_TWO) -> Any:
    """Share of the samples with a loss of the threshold or more: those whose observed label is contradicted.

    An array without dimensions, of the kind of the losses ``(n,)``.
    """
    xp = array_namespace(losses)
    return xp.mean(xp.where(losses < threshold, xp.zeros_like(losses), xp.ones_like(losses)))


@dataclass
class TwoStageDetector:
    """Tells in a training loop when Stage II begins, from the losses of the training samples.

    Call :meth:`update` from time to time, each time with the losses of all training samples or of the same large
    subset. Where there is no Stage I (too weak a signal for so many wrong labels) Stage II begins at once.

    Attributes
    ----------
    noise_rate
        Share of wrong labels, known or guessed, in ``(0, 1/2)``.
    steps, shares
        The steps at which it was updated, and the shares of contradicted samples there.
    stage_two_step
        The first of them with less than ``noise_rate / 2``, None as long as there is none.
    """

    noise_rate: float
    steps: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    stage_two_step: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.noise_rate < 0.5:
            raise ValueError(f"noise_rate must lie in (0, 0.5), got {self.noise_rate}")

    def update(self, step: int, losses: Any) -> bool:
        """Whether Stage II has begun, at this step or before.

        Raises
        ------
        ValueError
            If the step is not later than the last one.
        """
        if self.steps and step <= self.steps[-1]:
            raise ValueError(f"step must be later than {self.steps[-1]}, got {step}")
        share = float(rejected_share(losses))
        self.steps.append(step)
        self.shares.append(share)
        if self.stage_two_step is None and share < self.noise_rate / 2:
            self.stage_two_step = step
        return self.stage_two_step is not None

    @property
    def selection_step(self) -> int:
        """The step so far at which the share of contradicted samples was nearest to the noise rate, the latest if tied.

        The losses of that step are the ones to select by.

        Raises
        ------
        ValueError
            Before the first update.
        """
        if not self.steps:
            raise ValueError("there is no step to select by before the first update")
        return min(zip(self.shares, self.steps, strict=True),
                   key=lambda pair: (abs(pair[0] - self.noise_rate), -pair[1]))[1]  # fmt: skip


@dataclass
class BestValidation:
    """Remembers the step with the smallest validation error, and says when there was none better for long.

    Noisy labels will do for validation: at a noise rate tau the error with respect to them is
    ``tau + (1 - 2 tau) e``, e being the one with respect to the true labels, so that both are smallest together; but it
    takes ``1 / (1 - 2 tau)^2`` times as many samples.

    Attributes
    ----------
    patience
        Stop when the best step is a factor ``patience`` earlier than the present one.
    best_step, best_error
        The first step with the smallest error so far.
    """

    patience: float = 4.0
    best_step: int | None = None
    best_error: float = float("inf")

    def __post_init__(self) -> None:
        if not self.patience > 1:
            raise ValueError(f"patience is a factor above 1, got {self.patience}")

    def update(self, step: int, error: Any) -> bool:
        """Whether to stop: the best step lies a factor ``patience`` back.

        Raises
        ------
        ValueError
            If the error is not finite.
        """
        error = float(error)
        if not isfinite(error):
            raise ValueError(f"the validation error must be finite, got {error} at step {step}")
        if self.best_step is None or error < self.best_error:
            self.best_step, self.best_error = step, error
        return step > self.patience * max(self.best_step, 1)


def clean_error(noisy_error: float, noise_rate: float) -> float:
    """Error with respect to the true labels from that with respect to labels flipped at ``noise_rate``.

    Raises
    ------
    ValueError
        If ``noise_rate`` is not in ``[0, 0.5)``.
    """
    if not 0 <= noise_rate < 0.5:
        raise ValueError(f"noise_rate must lie in [0, 0.5), got {noise_rate}")
    return (noisy_error - noise_rate) / (1 - 2 * noise_rate)
