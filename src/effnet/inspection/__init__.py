"""What is wrong with a data set, before a network learns it: found, counted, and shown on a page."""
