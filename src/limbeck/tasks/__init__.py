"""What the student is for: supervised loss, metrics, prediction."""
