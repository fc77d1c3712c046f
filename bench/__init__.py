"""Benchmarks beside other programs, as ratios; ``python -m bench`` or ``make bench``."""
