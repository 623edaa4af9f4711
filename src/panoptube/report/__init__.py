"""A result as one page: its video, when each track is seen, and how much there is of each class."""
