"""Diffusion in PyTorch: the compact receiver and the paper's own network (needs `spic[train]`)."""
