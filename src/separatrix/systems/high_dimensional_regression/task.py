"""The task of a linear student: how strong the teacher, the label noise and the student's start are.

Conventions of the whole folder. Inputs have variance ``1/N`` in each of N directions and are the columns of ``X``
``(N, P)``, labels are ``y = w* X + eps``, and the student follows ``dw/dt = X (y - X^T w)``: gradient flow of *half the
sum* over samples of squared errors. With the mean instead of the sum all times grow by P; with inputs of unit variance
all eigenvalues grow, and all times shrink, by N.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LinearTask:
    """Variances of teacher, label noise and start.

    Attributes
    ----------
    noise_variance
        ``sigma_eps^2``, variance of the label noise.
    signal_variance
        ``sigma_w^2``, variance of one parameter of the teacher.
    initial_variance
        ``sigma_w0^2``, variance of one parameter of the student at the start.

    Raises
    ------
    ValueError
        If a variance is negative or not finite, or neither teacher nor noise says anything.
    """

    noise_variance: float
    signal_variance: float = 1.0
    initial_variance: float = 0.0

    def __post_init__(self) -> None:
        for name in ("noise_variance", "signal_variance", "initial_variance"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if self.noise_variance == 0 and self.signal_variance == 0:
            raise ValueError("noise_variance and signal_variance must not both be zero: all labels would be zero")

    @property
    def inverse_snr(self) -> float:
        """``INR = sigma_eps^2 / sigma_w^2``; infinite without a teacher."""
        return self.noise_variance / self.signal_variance if self.signal_variance > 0 else math.inf
