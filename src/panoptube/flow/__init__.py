"""Optical flow behind one small interface, and warping by it. NumPy and OpenCV only."""
