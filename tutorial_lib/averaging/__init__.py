"""Averages of weighted gradients. Read `methods`, `smoothing`, `probes`, then `engine`."""
