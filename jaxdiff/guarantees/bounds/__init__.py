"""Bounds on the KL or W2 of a run, each a Certificate, float64 on the host.

`from_nodes`: from the mmse at the grid's nodes, for the exact score. `any_grid`: from total variance and dimension
alone, for every law and grid. `benton2024`: Theorem 1 of Benton et al., with our constants and as printed.
`pedrotti2023`: Langevin at a finite horizon, then the reverse ODE, in W2. `lsi` checks the log-Sobolev inequality that
it assumes on known laws.
"""

from jaxdiff.guarantees.bounds import any_grid, benton2024, from_nodes, lsi, pedrotti2023

__all__ = ["any_grid", "benton2024", "from_nodes", "lsi", "pedrotti2023"]
