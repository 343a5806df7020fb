"""Trained networks in the forms of other runtimes, each checked against the network that it came from."""
