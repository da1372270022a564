"""What networks learn first and what they only memorise: feature learning, its stages and its regimes."""
