"""Networks that learn features: noise of SGD, label noise and step size between the lazy and the feature regime."""
