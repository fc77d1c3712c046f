"""The command line. Level 6."""
