"""The depleted-sign task: ``y = sign(x_1)`` with few samples near the boundary.

``x_perp`` is standard Gaussian, ``|x_1|`` has a density proportional to ``r^chi exp(-r^2 / 2)``, which vanishes at the
boundary for chi > 0. Source: Sclocchi, Geiger, Wyart 2023 (arXiv 2301.13703), the perceptron's data.
"""

import numpy as np
from jaxtyping import Float


def depleted_samples(
    rng: np.random.Generator, samples: int, dimension: int, chi: float
) -> tuple[Float[np.ndarray, "P d"], Float[np.ndarray, " P"]]:
    """Inputs and labels +-1.

    Parameters
    ----------
    rng
        Generator; the same generator gives the same samples.
    samples, dimension
        P and d, at least 1 each.
    chi
        Exponent of the depletion, above -1; 0 gives standard Gaussian inputs.

    Raises
    ------
    ValueError
        If chi is not above -1, or P or d is below 1.
    """
    if not chi > -1 or samples < 1 or dimension < 1:
        raise ValueError(
            f"chi must be above -1, samples and dimension at least 1, got {chi}, {samples} and {dimension}"
        )
    x = rng.standard_normal((samples, dimension))
    labels = np.where(rng.random(samples) < 0.5, -1.0, 1.0)
    # r^2 / 2 has a Gamma law
    x[:, 0] = labels * np.sqrt(2 * rng.gamma((1 + chi) / 2, size=samples))
    return x, labels
