"""Commands: kinds joined into lines; what the command line calls."""
