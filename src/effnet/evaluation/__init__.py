"""Numbers and answers from a trained network."""
