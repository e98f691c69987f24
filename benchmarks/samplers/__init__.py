"""What the benchmarks run: every kernel by name, other libraries' samplers, grids by gradient descent."""
