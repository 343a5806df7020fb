"""A trained network behind HTTP, and the page for people."""
