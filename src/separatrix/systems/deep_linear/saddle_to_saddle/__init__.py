"""Parts of the study `saddle-to-saddle-sgd`: settings, experiments and measurements by subject, figures."""
