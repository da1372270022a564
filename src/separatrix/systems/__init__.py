"""The worlds under study, one folder for each family."""
