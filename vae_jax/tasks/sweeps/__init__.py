"""Sweeps: many runs of one experiment, those of equal shape as one program."""
