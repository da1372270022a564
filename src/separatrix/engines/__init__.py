"""The compiled numerics that several systems share."""
