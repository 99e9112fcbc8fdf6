"""What is trained: a module for each network and stage, each with options and a `main`."""
