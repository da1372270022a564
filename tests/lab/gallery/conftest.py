import shutil
from pathlib import Path

import gallery_fakes as fake
import pytest
from gallery_fakes import HOSTILE

from separatrix.lab import discovery, runtime
from separatrix.lab import run as lab_run
from separatrix.lab.gallery import site

STUDIES = Path(__file__).parent.parent / "studies"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture
def notices():
    return []


@pytest.fixture(scope="session")
def gallery(tmp_path_factory):
    """The site of three studies: a real one with two reports and a sweep, one that is not installed, a hostile one."""
    out = tmp_path_factory.mktemp("gallery") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(discovery.PATH_VARIABLE, str(STUDIES))
        patch.setattr(runtime, "configure", lambda: None)
        study = discovery.import_study(discovery.locate("logged-walk"))
        for bias in (0.0, 0.5):
            lab_run.run(study, study.settings(figures=True, bias=bias, diverging=1), out=out)
        fake.sweep(out / "logged-walk" / "sweep-abc")
        fake.run(
            out / "another" / "a1",
            claims=[fake.claim("C1", "fails"), fake.claim("C2", "undecided", "holds")],
            title="Another study",
            report="<html><body><main>hello</main></body></html>",
            data={"walk": fake.walks(1.0)},
            rate=1.0,
        )
        fake.run(
            out / "hostile" / "b1",
            claims=[fake.claim("C1", statement=HOSTILE)],
            title=HOSTILE,
            report="<body><p class='reference'>x</p></body>",
            **{HOSTILE: HOSTILE},
        )
        fake.sweep(out / "hostile" / "sweep-bad", title=HOSTILE, reason=HOSTILE)
        return site.build(out)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Starts pages in headless Chromium: ``browser(width=390, dark=True, touch=True)`` is a new page."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, which is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with playwright.sync_playwright() as driver:
        contexts = {}

        def page(width=1280, dark=False, touch=False):
            kind = (width, dark, touch)
            if kind not in contexts:
                contexts[kind] = driver.chromium.launch_persistent_context(
                    str(tmp_path_factory.mktemp("profile")),
                    executable_path=CHROMIUM,
                    headless=True,
                    args=QUIET,
                    viewport={"width": width, "height": 844},
                    color_scheme="dark" if dark else "light",
                    has_touch=touch,
                )
            return contexts[kind].new_page()

        yield page
        for context in contexts.values():
            context.close()
