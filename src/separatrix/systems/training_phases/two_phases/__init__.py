"""Parts of the study `entk-two-phases`, one module for each subject."""
