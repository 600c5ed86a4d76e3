"""What is timed, one module for each part of the speed benchmark: each has ``measure``, which gives its rows."""
