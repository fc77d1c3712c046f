"""Sans-I/O protocol machines. Level 2."""
