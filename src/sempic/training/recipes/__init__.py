"""A module for each training, with a `Recipe` whose `run(options)` is the command."""
