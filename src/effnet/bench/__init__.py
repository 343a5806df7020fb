"""Measurements of this project beside others, on the user's own machine and data."""
