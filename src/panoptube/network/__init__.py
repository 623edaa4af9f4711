"""Frame -> tensors: weights only, nothing about a video."""
