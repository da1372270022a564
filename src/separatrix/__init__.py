"""Separatrix: a laboratory for the dynamics of learning.

Theory predicts, simulation and measurement answer, and every claim is a command.
"""

__version__ = "0.1.0"
