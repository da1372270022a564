"""All races, one after the other, each on a quiet machine; then a table of the ratios.

Exit code: 0, 1 if candidates disagree, 2 if the machine is too busy.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness

NAMES = (
    "sgd_ensemble",
    "diffusion_observable",
    "scalar_sde",
    "exact_solutions",
    "linear_regression_path",
    "early_stopped_sgd",
    "benign_oscillation",
    "label_noise_training",
    "curvature",
    "tangent_kernel",
    "chaos_grid",
    "sweeps",
)
MOST_WAITING = 300.0  # seconds for the load average to forget the race before


def main() -> None:
    """Run every benchmark in a process of its own."""
    chosen = harness.parser(__doc__).parse_args()
    keep = chosen.out or (None if chosen.quick or chosen.allow_load else harness.RESULTS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = keep or Path(scratch)
        given = ("--quick", chosen.quick), ("--full", chosen.full), ("--allow-load", chosen.allow_load)
        flags = [flag for flag, on in given if on]
        for i, name in enumerate(NAMES):
            waited_since = time.monotonic()
            while (
                i and not chosen.allow_load and harness.too_loaded() and time.monotonic() - waited_since < MOST_WAITING
            ):
                time.sleep(5)
            command = [
                sys.executable,
                "-m",
                f"benchmarks.{name}",
                *flags,
                f"--rounds={chosen.rounds}",
                f"--out={folder}",
            ]
            code = subprocess.run(command, check=False).returncode
            if code:
                raise SystemExit(code)
        print("\nAll ratios (peer's time over ours)")
        for name in NAMES:
            for race in json.loads((folder / f"{name}.json").read_text())["races"]:
                print(f"{name}: {race['title']}")
                harness.print_ratios(race)


if __name__ == "__main__":
    main()
