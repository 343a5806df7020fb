"""All results of the benchmarks as one page."""
