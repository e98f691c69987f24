"""How many particle-coordinate-steps a second does jaxdiff.sample make; how far is that from peers and the hardware?

Fifty steps of exponential Euler in float32, from the same start, with three scores in several dimensions. Every table
is one interleaved run of:

- jaxdiff: `jaxdiff.sample`, with the score of jaxdiff.targets, or the network as a pytree;
- jaxdiff, plain function: the same with the score as one would write it, which the peers get too;
- plain scan: the same step in a jitted lax.scan, noise from jax.random.normal;
- diffrax: Euler, UnsafeBrownianPath, the same times;
- diffusionjax: Euler-Maruyama on a grid of its own, 50 equal steps from 5 to 0;
- score alone: the scan without noise;
- without noise: `jaxdiff.sample` with the kernel of an ODE, so the score in our layout and chunks;
- noise alone: `jaxdiff.sample` with a score of zeros.

In the tables `speedup` is the plain scan's time over a row's time. `over_parts` is the time over the sum of noise alone
and the faster of score alone and without noise. `over_score` is the time over that of score alone. AT_LEAST and AT_MOST
have the requirements on the first row.
"""

import functools

import jax
import jax.numpy as jnp

import jaxdiff
from benchmarks.harness import command_line, records
from benchmarks.harness.environment import environment
from benchmarks.harness.timing import interleaved
from benchmarks.laws.throughput import LAWS, gaussian
from benchmarks.samplers.throughput import EARLY_STOP, HORIZON, N_STEPS, PEERS, functions, importable, particles
from jaxdiff import grids, kernels, tables

NAME = "step_throughput"
QUESTION = (
    "How many particle-coordinate-steps a second does jaxdiff.sample make, and how far is that from peers and from the "
    "hardware's limit?"
)
DIMENSIONS, QUICK_DIMENSIONS = (2, 64, 1024, 16384), (2, 64)
COORDINATES = {"quick": 2**18, "cpu": 2**20, "accelerator": 2**26}
MEMORY_COORDINATES, MEMORY_DIM, MEMORY_STEPS = 2**24, 64, (10, 1000)
BAR_COORDINATES, BAR_STEPS = 2**22, 2000

# How many times as fast as a peer, by score and d.
AT_LEAST = {
    ("gaussian", 2): {"plain scan": 5},
    ("gaussian", 64): {"plain scan": 6, "diffrax": 6},
    ("gaussian", 1024): {"plain scan": 6, "diffrax": 6},
    ("mixture", 2): {"plain scan": 5},
    ("mixture", 64): {"plain scan": 4},
}
# In every dimension. later_s: seconds by which the first call may come after the plain scan's.
AT_MOST = {
    "gaussian": {"over_parts": 1.15, "later_s": 0.3},
    "mixture": {"over_parts": 1.15, "later_s": 0.3},
    "mlp": {"over_score": 1.10, "later_s": 0.3},
}
MOST_MEMORY, MOST_BAR = 64, 1.02  # MiB; a run with a bar over one without

# By device kind: bytes a second of memory, float32 operations a second without tensor cores; from the data sheets. A
# share can exceed 1: steps that are fused move no state between them, and matrix products may run in TF32.
PEAKS = {
    "NVIDIA H200": (4.8e12, 67e12),
    "NVIDIA H100 80GB HBM3": (3.35e12, 67e12),
    "NVIDIA H100 PCIe": (2.0e12, 51e12),
    "NVIDIA A100-SXM4-80GB": (2.039e12, 19.5e12),
    "NVIDIA A100 80GB PCIe": (1.935e12, 19.5e12),
    "NVIDIA A100-SXM4-40GB": (1.555e12, 19.5e12),
    "NVIDIA A100-PCIE-40GB": (1.555e12, 19.5e12),
    "NVIDIA L4": (0.3e12, 30.3e12),
    "Tesla V100-SXM2-16GB": (0.9e12, 15.7e12),
    "Tesla T4": (0.32e12, 8.1e12),
}
BYTES = 8  # a coordinate-step: the float32 state read and written

COLUMNS = ("method", "median_ms", "spread_ms", "first_s", "mega_steps_per_s", "speedup", "over_parts", "over_score")
LIMIT_COLUMNS = ("score", "d", "method", "gb_per_s", "share_of_memory", "tflops", "share_of_flops")
MEMORY_COLUMNS = ("score", "d", "particles", "method", "temporary_mib")
BAR_COLUMNS = ("score", "d", "particles", "method", "median_s", "over_run")


def rows_of(law, d, n, timings, repeats, peaks):
    """A row for every method of one run, from its timings."""
    return [
        {
            "score": law.name,
            "d": d,
            "particles": n,
            "method": method,
            "repeats": repeats,
            "median_ms": 1e3 * timing.median,
            "spread_ms": 1e3 * timing.spread,
            "first_s": timing.first,
            "mega_steps_per_s": n * d * N_STEPS / timing.median / 1e6,
            "speedup": timings["plain scan"].median / timing.median,
            **({"grid": "its own"} if method == "diffusionjax" else {}),
            **(_parts(method, timings) | _limits(law, n, d, timing, peaks) if method.startswith("jaxdiff") else {}),
        }
        for method, timing in timings.items()
    ]


def _parts(method, timings):
    """The times of one of our rows over the times of its parts."""
    own, loop = timings[method].median, timings[method.replace("jaxdiff", "score alone")].median
    score = min(loop, timings[method.replace("jaxdiff", "without noise")].median)
    later = timings[method].first - timings["plain scan"].first
    return {"over_parts": own / (timings["noise alone"].median + score), "over_score": own / loop, "later_s": later}


def _limits(law, n, d, timing, peaks):
    """The bandwidth and rate achieved on an accelerator, over its peaks; nothing on a CPU, where peaks is None."""
    if peaks is None:
        return {}
    memory, arithmetic = peaks
    bandwidth = BYTES * n * d * N_STEPS / timing.median
    found = {"gb_per_s": bandwidth / 1e9, "share_of_memory": _share(bandwidth, memory)}
    if law.flops is None:
        return found
    rate = law.flops * n * N_STEPS / timing.median
    return found | {"tflops": rate / 1e12, "share_of_flops": _share(rate, arithmetic)}


def _share(achieved, peak):
    return "peak unknown" if peak is None else achieved / peak


def memory_row(n_steps):
    """Memory in MiB that the compiled program of a large run uses, without its argument and result."""
    kernel, n = kernels.exponential_euler(gaussian(MEMORY_DIM).score), MEMORY_COORDINATES // MEMORY_DIM
    grid = grids.exponential_then_uniform(HORIZON, EARLY_STOP, n_steps)
    x, key = jax.ShapeDtypeStruct((n, MEMORY_DIM), jnp.float32), jax.eval_shape(lambda: jax.random.key(0))
    compiled = jax.jit(lambda x, key: jaxdiff.sample(kernel, x, grid, key)).lower(x, key).compile()
    mib = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return {
        "score": "gaussian",
        "d": MEMORY_DIM,
        "particles": n,
        "method": f"memory, N = {n_steps}",
        "temporary_mib": mib,
    }


def bar_row(repeats):
    """The ratio of a run's time with and without a progress bar."""
    law, n = gaussian(MEMORY_DIM), BAR_COORDINATES // MEMORY_DIM
    grid = grids.exponential_then_uniform(HORIZON, EARLY_STOP, BAR_STEPS)
    x, key = jnp.zeros((n, MEMORY_DIM), jnp.float32), jax.random.key(0)
    run = functools.partial(jaxdiff.sample, kernels.exponential_euler(law.score), x, grid, key)
    timings = interleaved({"without": run, "with": functools.partial(run, progress=True)}, repeats)
    return {
        "score": "gaussian",
        "d": MEMORY_DIM,
        "particles": n,
        "method": f"bar, N = {BAR_STEPS}",
        "median_s": timings["with"].median,
        "over_run": timings["with"].median / timings["without"].median,
    }


def checks(rows):
    """(requirement and value, whether it was met) for every requirement that the rows cover.

    None if a peer is missing.
    """
    return [check for row in rows for check in _checks(row, rows)]


def _checks(row, rows):
    case = f"{row['score']} d={row['d']}"
    if "temporary_mib" in row:
        mib = row["temporary_mib"]
        yield f"{case} {row['method']} {mib:.1f} MiB (below {MOST_MEMORY})", mib < MOST_MEMORY
    elif "over_run" in row:
        yield (
            f"{case} {row['method']} {row['over_run']:.3g} times the run (at most {MOST_BAR})",
            row["over_run"] <= MOST_BAR,
        )
    elif row["method"] == "jaxdiff":
        median = {other["method"]: other["median_ms"] for other in rows if _same_case(row, other)}
        for peer, bound in AT_LEAST.get((row["score"], row["d"]), {}).items():
            if peer not in median:
                yield f"{case} against {peer}", None
                continue
            faster = median[peer] / row["median_ms"]
            yield f"{case} {faster:.3g} times {peer} (at least {bound})", faster >= bound
        for name, bound in AT_MOST[row["score"]].items():
            yield f"{case} {name} {row[name]:.3g} (at most {bound})", row[name] <= bound


def _same_case(row, other):
    return (row["score"], row["d"]) == (other["score"], other["d"]) and "median_ms" in other


def verdict_of(rows):
    """One line: the number of requirements met, the missed ones with their values, and those not measured."""
    found = checks(rows)
    said = lambda wanted: "; ".join(text for text, met in found if met is wanted)
    counted = [met for _, met in found if met is not None]
    parts = [f"{sum(counted)} of {len(counted)} requirements met"]
    parts += [f"{what}: {said(met)}" for what, met in (("missed", False), ("not measured", None)) if said(met)]
    return "; ".join(parts) + "."


def measured(law, d, n, repeats, peers, peaks):
    """The rows of one case."""
    key_start, key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_start, (n, d), jnp.float32)
    return rows_of(law, d, n, interleaved(functions(law, x, key, peers), repeats), repeats, peaks)


def main(argv=None):
    parser = command_line.parser(QUESTION)
    parser.add_argument(
        "--coordinates",
        type=command_line.count,
        help=f"particles times d (default: {', '.join(f'{n} {where}' for where, n in COORDINATES.items())})",
    )
    options = command_line.parsed(parser, argv)
    about = environment(PEERS)
    on_cpu, peers = about["platform"] == "cpu", importable()
    coordinates = options.coordinates or COORDINATES["quick" if options.quick else "cpu" if on_cpu else "accelerator"]
    peaks = None if on_cpu else PEAKS.get(about["device"], (None, None))
    for name in PEERS.keys() - peers:
        print(f"{name} is not installed: no rows of it.")

    measured(gaussian(4), 4, 256, 1, (), None)  # so that no first call pays for what a process does once
    rows = []
    for make in LAWS:
        for d in QUICK_DIMENSIONS if options.quick else DIMENSIONS:
            law = make(d)
            n = particles(law, d, coordinates)
            case = measured(law, d, n, options.repeats, peers, peaks)
            rows += case
            print(f"\n{law.name}, d = {d}, {n} particles\n\n{tables.table(case, COLUMNS)}", flush=True)

    memory = [memory_row(n_steps) for n_steps in MEMORY_STEPS]
    print(f"\n{tables.table(memory, MEMORY_COLUMNS)}")
    if peaks is not None:
        print(f"\n{tables.table([row for row in rows if 'gb_per_s' in row], LIMIT_COLUMNS)}")
    bar = [] if options.quick else [bar_row(options.repeats)]
    if bar:
        print(f"\n{tables.table(bar, BAR_COLUMNS)}")
    rows += memory + bar
    verdict = verdict_of(rows)
    print(f"\n{verdict}")
    if options.json or not options.quick:
        print(f"written: {records.write_rows(NAME, rows, QUESTION, verdict, about, options.json).name}")


if __name__ == "__main__":
    main()
