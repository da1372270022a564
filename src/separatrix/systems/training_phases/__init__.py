"""Phases of real training: chaos and stability, motion and rest of the tangent kernel."""
