"""Sweeps: a study over a grid of settings, on one machine or on a cluster, as one labelled dataset."""

from separatrix.lab.sweep.axes import Axis, axis
from separatrix.lab.sweep.driver import sweep
from separatrix.lab.sweep.grid import Grid, seed_axis
from separatrix.lab.sweep.results import Sweep, locate_sweep, open_sweep

__all__ = ["Axis", "Grid", "Sweep", "axis", "locate_sweep", "open_sweep", "seed_axis", "sweep"]
