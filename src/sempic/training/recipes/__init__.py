"""A module for each training, with a `Recipe` and the command's function `run(options)`."""
