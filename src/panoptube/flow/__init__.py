"""Optical flow behind one small interface, and warping by it.

Networks stand apart, in flownet2.py and learned.py; the rest never imports torch.
"""
