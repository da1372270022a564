"""Real data sets, read from what is installed and never downloaded."""
