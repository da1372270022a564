"""Deep linear networks: theory, simulation and the studies of their papers."""
