"""Each claim's measurement on data made up so that the answer is known: holds, fails, undecided."""

import numpy as np
import pytest
import xarray as xr
from lazy_results import claim, tiny, verdict

from separatrix.systems.deep_linear.balance import balance_time_course
from separatrix.systems.deep_linear.diffusion_peak import peak_progress
from separatrix.systems.deep_linear.learning_times import flow_time, passage_moments
from separatrix.systems.deep_linear.saddle_to_saddle.balance import UNBALANCED
from separatrix.systems.deep_linear.saddle_to_saddle.chain import COLLAPSE, CONTRACTION, PASSAGE
from separatrix.systems.deep_linear.saddle_to_saddle.endpoints import _temperature
from separatrix.systems.deep_linear.saddle_to_saddle.networks import RATE_FACTORS
from separatrix.systems.deep_linear.stationary import boltzmann_temperature, contraction_exponent

S = np.array([2.0, 1.0])
#: Clean labels only, so that one peak belongs to every mode.
SETTINGS = tiny(label_noise=0.0)
ARMS = [f"{start}_depth2_{labels}" for start in ("aligned", "random") for labels in ("clean", "noisy")]
TIME = np.linspace(0, 10, 401)


def measure(name, results, settings=SETTINGS, control=False):
    chosen = claim(name)
    return (chosen.control if control else chosen.measure)(settings, results)


def judged(name, results, settings=SETTINGS, part=""):
    return verdict(measure(name, results, settings), part)


def network(strength, rate=None, loss=None, lost=0, when=100, singular_values=S):
    """Recorded runs ``(n, t, r)`` as the experiments return them; the first ``lost`` runs diverge at ``when``."""
    strength = np.array(strength, float)
    rate = np.zeros_like(strength) if rate is None else np.array(rate, float)
    loss = 0.5 * np.sum((singular_values - strength) ** 2, axis=2) if loss is None else np.array(loss, float)
    diverged = np.full(len(strength), -1)
    if lost:
        diverged[:lost] = when
        for values in (strength, rate, loss):
            values[:lost, when:] = np.nan
    return xr.Dataset(
        {
            "strength": (("member", "time", "mode"), strength),
            "variance_rate": (("member", "time", "mode"), rate),
            "loss": (("member", "time"), loss),
            "diverged_at_step": ("member", diverged),
        },
        {"member": np.arange(len(strength)), "time": TIME, "singular_value": ("mode", singular_values)},
    )


def sigmoids(members, middles=(3.0, 7.0), sharpness=6.0, singular_values=S, delays=None):
    """Modes that rise as a logistic function about these times, ``(n, t, r)``."""
    delays = np.zeros(members) if delays is None else delays
    at = np.asarray(middles)[None, None, :] + delays[:, None, None]
    return singular_values / (1 + np.exp(-sharpness * (TIME[None, :, None] - at)))


def peaked(strength, progress, singular_values=S):
    """A variance rate that is largest where ``w / s`` is closest to ``progress``."""
    return 1 / (0.01 + np.abs(strength / singular_values - progress))


def late_peak(strength, singular_values=S):
    """A variance rate that grows with the strength: largest when the mode is learned."""
    return strength / singular_values


def arms(dataset):
    return dict.fromkeys(ARMS, dataset)


# -- C2 and C3 --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strength():
    return sigmoids(TestPeak.N)


class TestPeak:
    N = 300

    def mixed(self, strength, early):
        """The peak comes before the learned time in a fraction ``early`` of the runs."""
        rate = late_peak(strength)
        count = round(early * len(strength))
        rate[:count] = peaked(strength, 0.5)[:count]
        return network(strength, rate)

    @pytest.mark.parametrize(
        ("early", "expected"), [(1.0, "holds"), (0.5, "fails"), (0.0, "fails"), (0.955, "undecided")]
    )
    def test_fraction_of_peaks_before_learning(self, strength, early, expected):
        measurements = measure("C2", arms(self.mixed(strength, early)))
        assert len(measurements) == 4
        assert verdict(measurements) == expected
        assert measurements[0].estimate == pytest.approx(early, abs=0.5 / self.N)

    def test_the_control_is_the_same_fraction_in_the_loud_runs(self, strength):
        assert verdict(measure("C2", {"loud_depth2": self.mixed(strength, 0.0)}, control=True)) == "fails"
        assert verdict(measure("C2", {"loud_depth2": self.mixed(strength, 1.0)}, control=True)) == "holds"

    @pytest.mark.parametrize(("off", "expected"), [(0.0, "holds"), (0.02, "holds"), (0.1, "fails"), (-0.1, "fails")])
    def test_place_of_the_peak(self, off, expected):
        predicted = float(peak_progress(2, 0.0))
        assert predicted == 0.5
        delays = np.random.default_rng(0).normal(0, 0.05, self.N)
        strength = sigmoids(self.N, delays=delays, sharpness=3.0)
        measurements = measure("C3", arms(network(strength, peaked(strength, predicted + off))))
        assert len(measurements) == 8
        assert verdict(measurements) == expected
        np.testing.assert_allclose([m.estimate for m in measurements], off, atol=0.01)

    def test_a_place_that_scatters_is_undecided(self):
        rng = np.random.default_rng(1)
        strength = sigmoids(40, sharpness=3.0)
        scatter = rng.choice([0.4, 0.6], (40, 1, 1))
        assert judged("C3", arms(network(strength, peaked(strength, scatter)))) == "undecided"

    @pytest.mark.parametrize("name", ["C2", "C3"])
    def test_two_per_cent_of_diverged_runs_leave_it_undecided(self, strength, name):
        rate = peaked(strength, 0.5)
        assert judged(name, arms(network(strength, rate, lost=2))) == "holds"
        measurements = measure(name, arms(network(strength, rate, lost=6)))
        assert verdict(measurements) == "undecided"
        np.testing.assert_allclose([m.excluded for m in measurements], 0.02)

    @pytest.mark.parametrize("name", ["C2", "C3"])
    def test_runs_that_diverge_late_count_as_diverged(self, strength, name):
        runs = network(strength, peaked(strength, 0.5), lost=6, when=390)
        assert judged(name, arms(runs)) == "undecided"

    @pytest.mark.parametrize("name", ["C2", "C3"])
    def test_nothing_learned_is_undecided(self, strength, name):
        assert judged(name, arms(network(0.5 * strength, peaked(strength, 0.5)))) == "undecided"
        assert judged(name, arms(network(strength, peaked(strength, 0.5), lost=self.N))) == "undecided"

    def test_modes_whose_label_noise_hides_the_peak_are_left_out(self, strength):
        # dominant at depth 2 lies between 0.3 and 0.5: the mode with s = 1 is hidden at 0.5, that with s = 2 is not
        measurements = measure("C2", arms(self.mixed(strength, 1.0)), tiny(label_noise=0.5))
        assert [("without mode 2" in m.note) for m in measurements] == [False, True, False, True]
        labels = [m.label for m in measure("C3", arms(self.mixed(strength, 1.0)), tiny(label_noise=0.5))]
        assert len([label for label in labels if "noisy labels" in label]) == 2
        # where no mode is left, the arm is left out
        assert len(measure("C2", arms(self.mixed(strength, 1.0)), tiny(label_noise=1.5))) == 2

    def test_on_a_data_set_its_own_noise_counts(self, strength):
        data = network(strength, late_peak(strength))
        data["dataset_variance_rate"] = data["variance_rate"].copy(data=peaked(strength, 0.5))
        assert judged("C2", arms(data)) == "holds"


# -- C10 --------------------------------------------------------------------------------------------------------------


class TestLead:
    def runs(self, power, members=60, scatter=0.0, singular_values=S):
        """The peak leads by ``s^-power`` on a straight rise, exactly on the recorded times."""
        learned = 8.0
        rng = np.random.default_rng(3)
        lead = singular_values ** -float(power) * np.exp(scatter * rng.normal(size=(members, 1, singular_values.size)))
        strength = 0.95 * singular_values * np.ones((members, 1, 1)) * (TIME[None, :, None] / learned)
        rate = -np.abs(TIME[None, :, None] - (learned - lead))
        return {"lead_depth2": network(strength, rate, singular_values=singular_values)}

    @pytest.mark.parametrize(
        ("power", "scatter", "expected"),
        [(1.0, 0.01, "holds"), (0.0, 0.01, "fails"), (2.0, 0.01, "fails"), (1.0, 0.3, "undecided")],
    )
    def test_power_of_the_singular_value(self, power, scatter, expected):
        assert judged("C10", self.runs(power, scatter=scatter)) == expected

    def test_the_control_expects_no_power_at_depth_two(self):
        assert verdict(measure("C10", self.runs(0.0), control=True)) == "holds"
        assert verdict(measure("C10", self.runs(1.0), control=True)) == "fails"

    def test_one_mode_has_no_power(self):
        one = tiny(singular_values=(1.0,), label_noise=0.0)
        (measurement,) = measure("C10", self.runs(1.0, singular_values=np.array([1.0])), one)
        assert (measurement.verdict, measurement.note) == ("undecided", "needs two modes")

    def test_diverged_runs_leave_it_undecided(self):
        runs = self.runs(1.0, members=100)
        runs["lead_depth2"]["strength"][:3, 100:] = np.nan
        (measurement,) = measure("C10", runs)
        assert (measurement.verdict, measurement.excluded) == ("undecided", pytest.approx(0.03))

    def test_nothing_learned_is_undecided(self):
        runs = self.runs(1.0)
        runs["lead_depth2"]["strength"] *= 0.5
        assert judged("C10", runs) == "undecided"


# -- C4 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "lost", "expected"),
    [(1.05, 0, "holds"), (1.3, 0, "fails"), (0.8, 0, "fails"), (1.15, 0, "undecided"), (1.05, 6, "undecided"),
     (1.05, 300, "undecided")],
)  # fmt: skip
def test_the_variance_of_a_mode_is_its_temperature(factor, lost, expected):
    settings = tiny(label_noise=0.2)
    temperature = boltzmann_temperature(2, S, 0.2, settings.learning_rate)
    rng = np.random.default_rng(11)
    matrix = np.zeros((300, 40, 2, 2))
    for mode in (0, 1):
        matrix[:, :, mode, mode] = S[mode] + np.sqrt(factor * temperature[mode]) * rng.normal(size=(300, 40))
    matrix[:lost] = np.nan
    runs = xr.Dataset({"strength_matrix": (("member", "time", "mode", "right_mode"), matrix)})
    measurements = [
        _temperature(settings, {"stationary_depth2": runs}, 2, mode, independent_layers=False, confidence=0.95)
        for mode in (0, 1)
    ]
    assert verdict(measurements) == expected
    np.testing.assert_allclose([m.excluded for m in measurements], lost / 300)


# -- C5 ---------------------------------------------------------------------------------------------------------------


class TestConvergence:
    def results(self, distance=1e-10, factor=1.0, scatter=0.01, lost=0, members=200):
        rng = np.random.default_rng(0)
        loss = np.full((members, TIME.size), 0.5 * distance**2)
        rate = factor * contraction_exponent(2, 1.0, CONTRACTION["rate"], SETTINGS.batch_size)
        rate = rate * (1 + scatter * rng.normal(size=(members, 1)))
        time = np.linspace(0, 4, 9)
        root = np.sqrt(1 - 1e-3 * np.exp(rate * time))
        diverged = np.full(members, -1)
        if lost:
            root[:lost, 4:], diverged[:lost] = np.nan, 3
        chain = xr.Dataset(
            {"root": (("member", "time"), root), "diverged_at_step": ("member", diverged)}, {"time": time}
        )
        runs = network(sigmoids(members), loss=loss, lost=lost)
        return {"aligned_depth2_clean": runs, "aligned_depth2_noisy": runs, "contraction_depth2": chain}

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, "holds"),
            ({"distance": 1e-7}, "fails"),
            ({"factor": 1.03}, "fails"),
            ({"factor": 0.97}, "fails"),
            ({"scatter": 0.3}, "undecided"),
            ({"lost": 1}, "undecided"),
            ({"lost": 4}, "undecided"),
            ({"lost": 200}, "undecided"),
        ],
    )
    def test_distance_and_rate(self, changes, expected):
        assert judged("C5", self.results(**changes)) == expected

    def test_the_control_wants_the_distance_to_be_large(self):
        assert verdict(measure("C5", self.results(1e-2), control=True)) == "fails"
        assert verdict(measure("C5", self.results(1e-10), control=True)) == "holds"


# -- C6 ---------------------------------------------------------------------------------------------------------------


class TestSurvival:
    N = 200

    def results(self, delay=0.0, swapped=0.0, delay_power=1.0, height=1.0, lost=0, start="random"):
        """Descent in order and with plateaus; SGD later by the share ``delay``, some runs in the wrong order."""
        middles = np.array([3.0, 7.0])
        smooth = sigmoids(self.N, middles, sharpness=20.0)
        noisy = sigmoids(self.N, middles * (1 + delay), sharpness=20.0)
        wrong = sigmoids(self.N, middles[::-1] * (1 + delay), sharpness=20.0)
        count = round(swapped * self.N)
        noisy[:count] = wrong[:count]
        loss = lambda w: height * 0.5 * np.sum((S - w) ** 2, axis=2)  # noqa: E731
        results = {
            f"{start}_depth2_descent": network(smooth),
            f"{start}_depth2_clean": network(noisy, loss=loss(noisy), lost=lost),
        }
        # a straight line through the time at which half of each mode is learned, later by ``rate^power``
        begin = 0.01
        flow = flow_time(begin, 0.5 * S, S, 2)
        rng = np.random.default_rng(4)
        for arm, factor in RATE_FACTORS.items():
            late = 0.04 * factor**delay_power * (1 + 0.1 * rng.normal(size=(self.N, 1, 1)))
            strength = begin + (0.5 * S - begin) * TIME[None, :, None] / (flow * (1 + late))
            results[f"rate_depth2_{arm}"] = network(strength)
        return results

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, "holds"),
            ({"delay": 0.04}, "holds"),
            ({"delay": 0.15}, "fails"),
            ({"delay": -0.1}, "fails"),
            ({"swapped": 0.5}, "fails"),
            ({"swapped": 0.05}, "undecided"),
            ({"height": 1.3}, "fails"),
            ({"delay_power": 0.5}, "fails"),
            ({"delay_power": 2.0}, "fails"),
            ({"lost": 8}, "undecided"),
        ],
    )
    def test_order_plateaus_times_and_their_limit(self, changes, expected):
        assert judged("C6", self.results(**changes)) == expected

    def test_the_control_asks_the_same_of_the_large_start(self):
        assert verdict(measure("C6", self.results(swapped=0.5, start="lazy"), control=True)) == "fails"
        assert verdict(measure("C6", self.results(start="lazy"), control=True)) == "holds"

    def test_nothing_learned_is_undecided(self):
        results = {name: data.copy(deep=True) for name, data in self.results().items()}
        for data in results.values():
            data["strength"] *= 0.2
        measurements = measure("C6", results)
        assert verdict(measurements, "learning time") == "undecided"
        assert verdict(measurements, "power of the learning rate") == "undecided"

    def test_everything_diverged_is_undecided(self):
        measurements = measure("C6", self.results(lost=self.N))
        assert verdict(measurements, "learning time") == "undecided"
        assert verdict(measurements, "SGD minus descent") == "undecided"
        assert verdict(measurements, "in order with SGD") == "undecided"

    def test_one_mode_has_no_order_and_no_plateaus(self):
        results = {name: data.isel(mode=[0]) for name, data in self.results().items()}
        measurements = measure("C6", results, tiny(singular_values=(2.0,), label_noise=0.0))
        assert [m.label.split(", ")[-1] for m in measurements] == [
            "learning time of SGD over descent",
            "power of the learning rate in the delay",
        ]
        assert verdict(measurements) == "holds"


# -- C7 ---------------------------------------------------------------------------------------------------------------


class TestReduction:
    def results(self, power=1.0, scatter=0.2, lost=0, members=200, prefix="rate"):
        rng = np.random.default_rng(5)
        strength = sigmoids(members)
        results = {}
        for arm, factor in RATE_FACTORS.items():
            data = network(strength, lost=lost)
            bump = np.exp(-((TIME - 7) ** 2))[None, :, None] * np.array([0.3, 1.0])
            gap = 0.02 * factor**power * bump * (1 + scatter * rng.normal(size=(members, 1, 1)))
            data["reduced_strength"] = data["strength"] - gap
            results[f"{prefix}_depth2_{arm}"] = data
        return results

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, "holds"),
            ({"power": 0.0}, "fails"),
            ({"power": 2.0}, "fails"),
            ({"scatter": 6.0}, "undecided"),
            ({"lost": 1}, "holds"),
            ({"lost": 6}, "undecided"),
        ],
    )
    def test_power_of_the_learning_rate(self, changes, expected):
        (measurement,) = measure("C7", self.results(**changes))
        assert measurement.verdict == expected
        assert measurement.excluded == pytest.approx(changes.get("lost", 0) / 200)

    def test_the_gap_is_looked_up_where_it_is_largest(self):
        (measurement,) = measure("C7", self.results(scatter=0.0))
        assert measurement.note == "gaps 4.00%, 2.00%, 1.00% in mode 2"
        assert measurement.estimate == pytest.approx(1.0)

    def test_the_control_uses_the_misaligned_runs(self):
        assert verdict(measure("C7", self.results(0.0, prefix="misaligned"), control=True)) == "fails"
        assert verdict(measure("C7", self.results(1.0, prefix="misaligned"), control=True)) == "holds"

    def test_everything_diverged_is_undecided(self):
        assert judged("C7", self.results(lost=200)) == "undecided"


# -- C8 and C9 --------------------------------------------------------------------------------------------------------


class TestCollapse:
    def results(self, growth=(1.0, 1.0, -1.0, -1.0), scatter=1.0, lost=0, label="collapse", members=400):
        rng = np.random.default_rng(6)
        results = {}
        for k, mean in enumerate(growth):
            log = (mean + scatter * rng.normal(size=members)) * COLLAPSE["time"]
            root = 1e-20 * np.exp(np.stack([0 * log, log], axis=1) / 2)
            diverged = np.full(members, -1)
            root[:lost, 1], diverged[:lost] = np.nan, 5
            results[f"{label}_rate{k}"] = xr.Dataset(
                {"root": (("member", "time"), root), "diverged_at_step": ("member", diverged)}
            )
        return results

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, "holds"),
            ({"growth": (1.0, 1.0, 1.0, 1.0)}, "fails"),
            ({"growth": (1.0, -1.0, -1.0, -1.0)}, "fails"),
            ({"growth": (1.0, 0.02, -1.0, -1.0)}, "undecided"),
            ({"lost": 5}, "undecided"),
            ({"lost": 400}, "undecided"),
        ],
    )
    def test_sign_of_the_growth(self, changes, expected):
        measurements = measure("C8", self.results(**changes))
        assert verdict(measurements) == expected
        if not changes:
            assert measurements[0].estimate == pytest.approx(1.0, abs=0.2)

    def test_the_control_grows_always(self):
        quiet = self.results((1.0, 1.0, 1.0, 1.0), label="collapse_quiet")
        assert verdict(measure("C8", quiet, control=True)) == "fails"


class TestPassage:
    def results(self, mean=1.0, spread=1.0, unfinished=0.0, members=40_000):
        rng = np.random.default_rng(8)
        results = {}
        for arm, sigma in (("clean", 0.0), ("noisy", SETTINGS.scalar_label_noise)):
            first, variance = passage_moments(PASSAGE["start"], PASSAGE["end"], 1.0, sigma, PASSAGE["rate"])
            time = mean * first + spread * np.sqrt(variance) * rng.normal(size=members)
            steps = np.rint(time / PASSAGE["rate"]).astype(int)
            steps[: round(unfinished * members)] = -1
            results[f"passage_{arm}"] = xr.Dataset({"passage_step": (("member", "time"), steps[:, None])})
        return results

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({}, "holds"),
            ({"mean": 1.1}, "fails"),
            ({"spread": 1.1}, "fails"),
            ({"spread": 0.9}, "fails"),
            ({"spread": 1.06}, "undecided"),
            ({"unfinished": 0.02}, "undecided"),
        ],
    )
    def test_mean_and_spread(self, changes, expected):
        assert judged("C9", self.results(**changes)) == expected

    def test_the_control_expects_half_the_variance(self):
        assert verdict(measure("C9", self.results(), control=True)) == "fails"
        assert verdict(measure("C9", self.results(spread=0.5**0.5), control=True)) == "holds"

    def test_nobody_escaped_is_undecided(self):
        assert judged("C9", self.results(unfinished=1.0)) == "undecided"


# -- C11 and C12 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (1e-15, "holds"),
        (1e-12, "fails"),
        (np.nan, "undecided"),
    ],
)
def test_the_balance_identity_holds_to_rounding(error, expected):
    errors = np.full(64, 1e-16)
    errors[5] = error
    data = xr.Dataset({"error": ("member", errors), "error_without_second_term": ("member", np.full(64, 0.1))})
    assert judged("C11", {"balance_depth2": data}) == expected
    assert verdict(measure("C11", {"balance_depth2": data}, control=True)) == "fails"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "holds"),
        ({"factor": 1.1}, "fails"),
        ({"factor": 0.9}, "fails"),
        ({"factor": 1.05}, "undecided"),
        ({"lost": 3}, "undecided"),
    ],
)
def test_the_drift_away_from_balance_is_the_predicted_one(changes, expected):
    first, second = balance_time_course(
        UNBALANCED["time"], UNBALANCED["singular_values"], UNBALANCED["outputs"], 2, UNBALANCED["rate"],
        UNBALANCED["label_noise"],
    )  # fmt: skip
    rng = np.random.default_rng(9)
    norms = np.ones((200, 3, 2)) * np.array([first, second * changes.get("factor", 1.0)])
    norms *= 1 + 0.1 * rng.normal(size=(200, 1, 2))
    diverged = np.full(200, -1)
    lost = changes.get("lost", 0)
    norms[:lost, 1:], diverged[:lost] = np.nan, 7
    data = xr.Dataset({"layer_norms": (("member", "time", "layer"), norms), "diverged_at_step": ("member", diverged)})
    assert judged("C12", {"unbalanced": data}) == expected


def test_the_control_of_the_drift_is_a_network_that_stays_balanced():
    norms = 3.0 * (1 + 0.1 * np.random.default_rng(2).normal(size=(200, 3, 2)))
    data = xr.Dataset(
        {"layer_norms": (("member", "time", "layer"), norms), "diverged_at_step": ("member", np.full(200, -1))}
    )
    assert verdict(measure("C12", {"unbalanced_square": data}, control=True)) == "fails"
