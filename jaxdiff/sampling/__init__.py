"""Runs of a kernel along a grid, the reverse ODE, likelihoods and prediction-correction."""
