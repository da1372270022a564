"""The empirical neural tangent kernel of any differentiable model: exact, estimated, and followed in time."""
