"""Diffusion in PyTorch: the compact receiver and the paper's network (the extra `train`)."""
