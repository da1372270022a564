"""Parts of the study `chaos-and-cone`, one module for each subject."""
