"""Parts of the study `benign-oscillation`, one module for each subject."""
