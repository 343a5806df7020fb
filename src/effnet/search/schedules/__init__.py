"""A search over the schedule itself: what the paper fixes, at the cost of the paper's."""
