"""The same work done by several libraries, each in a process of its own, turn by turn."""
