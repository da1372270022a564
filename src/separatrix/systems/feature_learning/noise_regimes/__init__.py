"""Parts of the study `sgd-noise-regimes`, one module for each subject."""
