"""The papers' ablations as tables of runs on one's own data."""
