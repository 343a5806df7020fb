"""What a step trains with, as pure functions of the step."""
