"""The study from end to end with the smoke preset: verdicts, controls, figures; and its parts."""

import json

import numpy as np
import pytest
import xarray as xr
from exact_results import tiny

from separatrix.lab import run as lab_run
from separatrix.lab import store
from separatrix.systems.deep_linear.deep_linear_exact_solutions import STUDY
from separatrix.systems.deep_linear.gradient_noise import layer_product
from separatrix.systems.deep_linear.starts import decoupled_weights
from separatrix.systems.deep_linear.teacher import Teacher

pytestmark = pytest.mark.slow

SMOKE = STUDY.resolve("smoke", {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return lab_run.run(STUDY, SMOKE, out=tmp_path_factory.mktemp("runs"))


def test_every_claim_holds_and_every_control_fails(finished):
    claims = finished.document["claims"]
    assert [claim["id"] for claim in claims] == [f"A{k}" for k in range(1, 10)]
    assert {claim["id"]: claim["verdict"] for claim in claims if claim["verdict"] != "holds"} == {}
    assert {claim["id"]: claim["control_verdict"] for claim in claims if claim["control_verdict"] != "fails"} == {}


def test_every_figure_is_written_and_in_the_report(finished):
    names = sorted(figure.name for figure in STUDY.figures(SMOKE))
    assert sorted(path.stem for path in (finished.folder / "figures").iterdir()) == names
    report = (finished.folder / "report.html").read_text()
    assert all(claim.statement.split("'")[0] in report for claim in STUDY.claims(SMOKE))
    assert json.loads((finished.folder / "claims.json").read_text())["settings"]["runs"] == SMOKE.runs


class Asked(dict):
    """Results that remember which were asked for."""

    def __init__(self, content):
        super().__init__(content)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


def test_every_experiment_is_of_use_and_only_controls_need_control_experiments(finished):
    data = {path.stem: store.read_dataset(path) for path in (finished.folder / "data").iterdir()}
    claims, controls = Asked(data), Asked(data)
    for claim in STUDY.claims(SMOKE):
        claim.measure(SMOKE, claims)
        claim.control(SMOKE, controls)
    for figure in STUDY.figures(SMOKE):
        figure.draw(SMOKE, claims)
    control = {one.name for one in STUDY.experiments(SMOKE) if one.control}
    assert claims.names == set(data) - control
    assert control <= controls.names


def test_curves_are_the_scalar_recursion(finished):
    """At an aligned start descent on matrices is descent on one number for each mode, exactly."""
    data = store.read_dataset(finished.folder / "data" / "modes_depth3.zarr")
    time, s = data["time"].values, data["singular_value"].values
    rate = SMOKE.learning_rate * s[0] / (3 * s[0] ** (4 / 3))
    steps = np.rint(time / rate).astype(int)
    roots, path = np.full(s.size, SMOKE.depth_strength ** (1 / 3)), []
    for _ in range(steps[-1] + 1):
        path.append(roots**3)
        roots = roots + rate * roots**2 * (s - roots**3)
    np.testing.assert_allclose(data["strength"].values[1], np.array(path)[steps], atol=1e-11)


@pytest.mark.parametrize(
    "name",
    ["small_tanh", "pairs", "unaligned", "scan_gaussian_depth2",
     "spectra_orthogonal"],
)  # fmt: skip
def test_results_do_not_depend_on_the_parts_but_on_the_seed(name):
    table = {one.name: one for one in STUDY.experiments(tiny())}
    whole = table[name].simulate(0, 3)
    parts = [table[name].simulate(0, 1), table[name].simulate(1, 3)]
    along = [variable for variable in whole.data_vars if "member" in whole[variable].dims]
    for variable in along:
        joined = np.concatenate([part[variable].values for part in parts], axis=whole[variable].get_axis_num("member"))
        if variable == "steps":  # a race that is over elsewhere goes on in another part; its winner is the same
            best = [np.where(v >= 0, v, 10**9).min(axis=1) for v in (joined, whole[variable].values)]
            np.testing.assert_array_equal(*best)
        else:
            np.testing.assert_array_equal(joined, whole[variable].values, err_msg=variable)
    xr.testing.assert_identical(parts[0].drop_dims("member"), whole.drop_dims("member"))
    if name != "pairs":  # these begin with fixed cases
        other = {one.name: one for one in STUDY.experiments(tiny(seed=1))}[name].simulate(0, 3)
        assert any(not np.array_equal(other[variable], whole[variable]) for variable in along)


def test_without_controls_nothing_else_changes():
    names = {one.name for one in STUDY.experiments(tiny()) if one.control}
    assert names == {"single_layer", "large_linear", "loud_linear", "loud_tanh", "unbalanced",
                     "scan_layerwise_depth2", "scan_layerwise_depth4"}  # fmt: skip


def test_on_a_data_set_the_modes_are_learned_in_order(tmp_path):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(80, 6))
    y = x[:, :4] * np.array([4.0, 2.0, 1.0, 0.5]) + 0.1 * rng.normal(size=(80, 4))
    np.savez(tmp_path / "linear.npz", x=x, y=y)
    settings = tiny(data=str(tmp_path / "linear.npz"), modes=3)
    table = {one.name: one for one in STUDY.experiments(settings)}
    results = {name: table[name].simulate(0, table[name].members) for name in ("modes_rate1", "small_linear")}
    claim = next(one for one in STUDY.claims(settings) if one.id == "A2")
    assert {str(one.verdict) for one in claim.measure(settings, results)} == {"holds"}


def test_hidden_frames_do_not_matter():
    teacher = Teacher.diagonal([2.0, 1.0])
    products = [
        layer_product(decoupled_weights(np.random.default_rng(k), teacher, (2, 5, 5, 2), np.array([0.1, 0.2])))
        for k in range(2)
    ]
    np.testing.assert_allclose(*products, atol=1e-15)
