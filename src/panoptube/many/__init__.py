"""Many videos: what is done with one of them, and who does it."""
