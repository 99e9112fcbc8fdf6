"""The networks as PyTorch modules, and their weights in files; nothing here trains or samples."""
