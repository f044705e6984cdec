"""What the commands and the Python calls do: train, measure, sweep, fit, draw, report."""
