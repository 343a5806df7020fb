"""Find a network for one's own data and device: spaces, strategies, studies and what comes of them."""
