"""What a network looks at: heat maps over its images."""
