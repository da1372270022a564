"""Systems that learn features."""
