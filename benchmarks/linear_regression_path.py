"""The course of full-batch gradient descent on linear regression: one eigendecomposition against stepping.

N = P = 200, where the smallest eigenvalues make descent slow, step 0.1, 100,000 steps, test and training error at 41
numbers of steps. Ours decomposes the Gram matrix once and evaluates every record exactly (float64, compiled), see
:mod:`separatrix.systems.high_dimensional_regression.mode_dynamics`. The peer steps through all of it in float64 and
records the same errors: in NumPy and compiled by JAX, with the data matrix (two products with X) and with the Gram
matrix formed beforehand (one product with X X^T). It is represented by the fastest.

The first race is for one course, the second for the eight courses that the study needs of a data set, two strengths of
label noise times four of the start: one decomposition serves all, and stepping moves them together in one product.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import harness
from benchmarks.harness import Candidate, Comparison, Options, Race
from separatrix.systems.high_dimensional_regression.mode_dynamics import decompose, descent_courses

OURS, STEPPING = "separatrix, one eigendecomposition", "stepping"
SIZE = 200
RATE = 0.1
STEPS, RECORDS = 100_000, 41
FORMS = ("data", "Gram")

Errors = tuple[np.ndarray, np.ndarray]


class Descent:
    """One data set, K strengths of noise and start, and the ways to follow descent from each."""

    def __init__(self, records: np.ndarray, noise_scale: np.ndarray, start_scale: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        self.X = rng.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)
        self.teacher, self.start, self.noise = rng.normal(size=(3, SIZE))
        self.noise_scale, self.start_scale = noise_scale[:, None], start_scale[:, None]
        self.starts = self.start_scale * self.start
        self.labels = self.teacher @ self.X + self.noise_scale * self.noise
        self.C, self.b = self.X @ self.X.T, self.labels @ self.X.T
        self.records, self.between = records, np.diff(records, prepend=0)
        self._ours = jax.jit(self._exact)
        self._forms = {form: jax.jit(partial(self._scan, form)) for form in FORMS}
        self._arrays = jax.device_put((self.X, self.labels, self.C, self.b, self.starts))

    def errors(self, weights: np.ndarray) -> Errors:
        """Squared distances from the teacher and sums of squared training errors, from weights ``(t, K, N)``."""
        residuals = self.labels - weights @ self.X
        return np.sum((weights - self.teacher) ** 2, axis=2).T, np.sum(residuals**2, axis=2).T

    @staticmethod
    def _exact(X, teacher, start, noise, records, noise_scale, start_scale):
        modes = decompose(X, teacher[None], start[None], noise[None])
        course = descent_courses(modes, records, jnp.asarray(RATE), noise_scale, start_scale)
        return course.distance, course.training

    def ours(self) -> Errors:
        """Exact errors at all records, each ``(K, t)``."""
        distance, training = self._ours(
            self.X, self.teacher, self.start, self.noise, self.records.astype(float), self.noise_scale, self.start_scale
        )  # fmt: skip
        return np.asarray(distance), np.asarray(training)

    def numpy(self, form: str) -> Errors:
        """Steps in a Python loop of NumPy products."""
        w, seen = self.starts.copy(), []
        for count in self.between:
            for _ in range(count):
                w += RATE * ((self.b - w @ self.C) if form == "Gram" else ((self.labels - w @ self.X) @ self.X.T))
            seen.append(w.copy())
        return self.errors(np.stack(seen))

    @staticmethod
    def _scan(form, X, labels, C, b, starts, between):
        def step(_, w):
            return w + RATE * ((b - w @ C) if form == "Gram" else ((labels - w @ X) @ X.T))

        def record(w, count):
            w = jax.lax.fori_loop(0, count, step, w)
            return w, w

        return jax.lax.scan(record, starts, between)[1]

    def compiled(self, form: str) -> Errors:
        """All steps in one compiled program."""
        return self.errors(np.asarray(self._forms[form](*self._arrays, self.between.astype(np.int32))))


def races(options: Options) -> list[Race]:
    """One course, and eight of one data set."""
    jax.config.update("jax_enable_x64", True)
    steps = 2000 if options.quick else STEPS
    noise, start = np.meshgrid(np.sqrt([0.2, 1.0]), np.sqrt([0.0, 0.04, 0.25, 1.0]))
    return [
        _race("One course", steps, np.ones(1), np.ones(1)),
        _race("Eight courses of one data set", steps, noise.ravel(), start.ravel()),
    ]


def _race(title: str, steps: int, noise_scale: np.ndarray, start_scale: np.ndarray) -> Race:
    records = np.unique(np.geomspace(1, steps, RECORDS).round().astype(int))
    descent = Descent(records, noise_scale, start_scale)

    def check() -> dict:
        """Every way of stepping gives the exact courses."""
        exact = descent.ours()
        found = {}
        for form in FORMS:
            for name, run in (("NumPy", descent.numpy), ("compiled", descent.compiled)):
                for what, ours, theirs in zip(("test", "training"), exact, run(form), strict=True):
                    words = f"{name}, {form} matrix, {what} error"
                    found[words] = harness.close(words, ours, theirs, 1e-10)
        return {"largest relative differences": found, "largest of them": max(found.values())}

    limits: list[threadpool_limits] = []

    def threads(count: int) -> None:
        limits[:] = [threadpool_limits(count)]

    # on matrices of this size threads cost more than they bring
    candidates = [Candidate(OURS, descent.ours, 1, prepare=partial(threads, 1))]
    for form in FORMS:
        compiled = partial(descent.compiled, form)
        candidates.append(Candidate(f"JAX compiled, {form} matrix", compiled, 1, STEPPING, partial(threads, 1)))
        for count in harness.thread_counts():
            words = f"NumPy loop, {form} matrix, {count} thread{'s' if count > 1 else ''}"
            candidates.append(Candidate(words, partial(descent.numpy, form), 1, STEPPING, partial(threads, count)))
    return Race(
        f"{title}, {steps} steps of descent, N = P = {SIZE}",
        "data set",
        candidates,
        [Comparison(OURS, STEPPING, 100.0)],
        check,
        {"courses": len(noise_scale), "records": len(records), "step": RATE},
    )


if __name__ == "__main__":
    harness.main("linear_regression_path", __doc__, races)
