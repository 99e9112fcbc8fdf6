"""What is trained: a module for each network and stage, whose `run` is given its options."""
