"""Where the time of a network goes, layer kind by layer kind, beside what the device could do."""
