"""Train a network: state, loop, checkpoints and what a run leaves behind."""
