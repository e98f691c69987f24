"""Plans horizon, grid and kernel for an accuracy or a budget of evaluations."""
