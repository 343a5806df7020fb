"""Runs of several ways to grow the images, each in a process of its own, and what their curves say."""
