"""The study on a data set from a file: heavy-tailed inputs, a linear map, residuals."""

import numpy as np
import pytest
from lazy_generalization import LazyResults, claim, small, verdict

from separatrix import cli
from separatrix.lab import SettingError, runtime
from separatrix.systems.high_dimensional_regression.generalization import dataset
from separatrix.systems.high_dimensional_regression.generalization.settings import check, input_files, problem
from separatrix.systems.high_dimensional_regression.high_dim_generalization import STUDY

pytestmark = pytest.mark.slow

NAMES = ("B10", "B11", "B12")


def arrays(samples=1500):
    rng = np.random.default_rng(3)
    x = rng.standard_t(6, size=(samples, 48)) @ np.diag(np.linspace(2, 0.5, 48))
    return x, x @ rng.normal(size=(48, 6)) + 0.5 * rng.normal(size=(samples, 6))


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "heavy.npz"
    x, y = arrays()
    np.savez(path, x=x, y=y)
    return small(data=str(path), components=40, draws=60)


@pytest.fixture(scope="module")
def results(settings):
    return LazyResults(settings)


@pytest.mark.parametrize("name", NAMES)
def test_the_claim_holds_and_its_control_fails(settings, results, name):
    chosen = claim(name, settings)
    assert verdict(chosen.measure(settings, results)) == "holds"
    assert verdict(chosen.control(settings, results)) == "fails"


def test_forgotten_label_noise_turns_the_verdict(settings, results, monkeypatch):
    clean = dataset.noise_task(settings, 0.0)
    monkeypatch.setattr(dataset, "noise_task", lambda *_: clean)
    assert verdict(claim("B10", settings).measure(settings, results)) == "fails"


def test_claims_experiments_and_figures_come_with_the_data(settings, results):
    assert [one.id for one in STUDY.claims(settings)] == [f"B{k}" for k in range(1, 13)]
    assert [str(path) for path in input_files(settings)] == [settings.data]
    assert check(settings) == []
    assert "1500 samples, 40 whitened principal components" in STUDY.notes(settings)
    figure = next(one for one in STUDY.figures(settings) if one.name == "dataset")
    assert figure.draw(settings, results)
    assert not [one for one in STUDY.experiments(small()) if "dataset" in one.name]


def test_training_and_test_samples_are_disjoint_and_parts_do_not_matter(settings, results):
    experiment = results.experiments["dataset_ratio0"]
    whole, first, second = (experiment.simulate(*ends) for ends in ((0, 4), (0, 1), (1, 4)))
    joined = np.concatenate([first["test_error"].values, second["test_error"].values])
    np.testing.assert_allclose(joined, whole["test_error"].values, rtol=1e-9)
    # with more training samples than parameters and no test sample among them, the test error stays above the floor
    floor = problem(settings).residual_variance + settings.noise_ratios[0]
    assert results[f"dataset_ratio{len(settings.ratios) - 1}"]["test_error"].values[:, 0].min(axis=1).mean() > floor


def test_a_data_set_too_small_for_its_training_sets_is_refused(settings):
    with pytest.raises(SettingError, match=r"components = 40 .* need 2000 samples, and the data have 1500"):
        check(small(data=settings.data, components=40, ratios=(0.25, 1.0, 25.0)))


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"x": np.full((60, 6), np.nan)}, [], "not finite"),
        ({"y": None}, [], "has no array y"),
        ({}, ["--components", "50"], "components must be at most 48"),
        ({"y": np.ones((1500, 2))}, [], "y is constant"),
    ],
)
def test_data_that_cannot_be_used_are_refused_in_one_sentence(change, options, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "configure", lambda: None)
    monkeypatch.chdir(tmp_path)
    x, y = arrays()
    content = {"x": x, "y": y} | change
    if len(content["x"]) == 60:
        content["y"] = y[:60]
    np.savez(tmp_path / "file.npz", **{name: value for name, value in content.items() if value is not None})
    code = cli.main(["run", "high-dim-generalization", "--data", "file.npz", *(options or ["--components", "6"])])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert reason in captured.err
    assert captured.err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.npz"]
