"""Parts of the study `deep-linear-exact-solutions`: settings, experiments, measurements of the claims, figures."""
