"""Training of the bundled models and of the paper's own (needs the extra `train`)."""
