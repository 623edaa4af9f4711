"""Scores from counts: NumPy integers in, small typed results out. Never imports torch."""
