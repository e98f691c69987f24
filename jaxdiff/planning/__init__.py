"""Horizon, grid and kernel for an accuracy or a budget."""
