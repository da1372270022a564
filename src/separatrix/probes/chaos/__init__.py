"""Does training forget or amplify a small perturbation? Perturbed copies and tangent maps of any training step."""
