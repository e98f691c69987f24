"""The rounds of dynamic programming that find a shortest path over candidate times."""

import numpy as np
from jaxtyping import Float64, Int

ROWS_AT_ONCE = 64  # candidates whose sums of costs are formed together: half a megabyte for 1,000 candidates


def rounds_of_least_costs(
    cost: Float64[np.ndarray, "ends starts"], least: Float64[np.ndarray, " starts"], n_rounds: int
) -> list[tuple[Float64[np.ndarray, " ends"], Int[np.ndarray, " ends"]]]:
    """The least cost of reaching each candidate in 1, 2, ..., n_rounds steps, and the candidate before it on that path.

    cost: that of the step from each candidate (column) to each later one (row); inf on and above the diagonal.
    least: the cost of starting at each candidate.

    A candidate is reached from earlier ones alone. Blocks of ROWS_AT_ONCE candidates leave out most of the pairs that
    cost inf, and their sums stay in the processor's cache.
    """
    n, rounds = len(least), []
    blocks = [(first, min(first + ROWS_AT_ONCE, n)) for first in range(0, n, ROWS_AT_ONCE)]
    costs = [np.ascontiguousarray(cost[first:end, :end]) for first, end in blocks]
    for _ in range(n_rounds):
        reached, before = np.empty(n), np.empty(n, np.intp)
        for (first, end), block in zip(blocks, costs, strict=True):
            total = block + least[:end]
            before[first:end] = total.argmin(axis=1)
            reached[first:end] = total[np.arange(end - first), before[first:end]]
        least = reached
        rounds.append((least, before))
    return rounds
