"""Races against the strongest public peers; see ``python -m benchmarks --help``. JAX is set up as the command does."""

from separatrix.lab.runtime import configure

configure()
