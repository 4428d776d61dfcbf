"""What a teacher is: a live model with its own input adapter, or several."""
