"""The distributed hash table as a sans-I/O machine. Level 2."""
