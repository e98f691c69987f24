"""Runs of a kernel down a grid, the reverse ODE, likelihoods and prediction-correction."""
