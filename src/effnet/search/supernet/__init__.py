"""One network that holds the weights of every network of a space: trained once, it ranks thousands."""
