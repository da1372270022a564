"""Parts of the study `label-noise-two-stages`, one module for each subject."""
