"""What clients see while domains move: load on a guest, probes from outside, and the arithmetic on what they saw."""
