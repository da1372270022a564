from pathlib import Path

import pytest

from separatrix.lab import discovery, runtime

STUDIES = Path(__file__).parent / "studies"


@pytest.fixture(autouse=True)
def own_studies(monkeypatch):
    """The studies of these tests are found; JAX is left as the test session has configured it."""
    monkeypatch.setenv(discovery.PATH_VARIABLE, str(STUDIES))
    monkeypatch.setattr(runtime, "configure", lambda: None)


@pytest.fixture
def study():
    return discovery.import_study(discovery.locate("logged-walk"))
