"""Parts of the study `high-dim-generalization`, one module for each subject."""
