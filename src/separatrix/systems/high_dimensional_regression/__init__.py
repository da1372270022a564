"""Linear and random-feature regression with as many parameters as samples: spectra, learning curves, simulations."""
