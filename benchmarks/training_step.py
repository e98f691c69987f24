"""How long is an optimiser step of `fit`, over a bare loop of loss, gradient and update of the same network?

Both loops train the same network on batches of the same size with AdamW in float32. The bare loop is one compiled
jax.lax.fori_loop that gathers a batch, draws uniform log snr and noise, takes the gradient of the denoising loss, and
updates the parameters. It has no average of the parameters, no clipping and no stratified times. The compiled block of
`fit` is timed: the measurements of the held-out loss and checkpoints come on top. Both loops take turns.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.harness import command_line, records
from benchmarks.harness.environment import environment
from benchmarks.harness.timing import interleaved
from jaxdiff import networks, tables
from jaxdiff.processes import forward, ou
from jaxdiff.training.loop import compiled_block
from jaxdiff.training.losses import path_kl_weight
from jaxdiff.training.optimiser import Settings, State, optimiser_of, optimiser_step
from jaxdiff.training.sharding import OneDevice
from jaxdiff.training.times import times_of

NAME = "training_step"
QUESTION = "How long is an optimiser step of fit, over a bare loop of loss, gradient and update of the same network?"
MOST = 1.05  # times the bare loop
ROWS, LEARNING_RATE, WEIGHT_DECAY = 1000, 2e-3, 1e-2
ENDS = 5.0, 1e-3
STEPS = {"quick": 20, "full": 200}
COLUMNS = ("network", "parameters", "batch_size", "method", "ms_per_step", "spread_ms", "over_bare")


def mlp(width, depth):
    """A residual MLP of 64 columns, as jaxdiff train builds it."""
    return lambda: networks.ResidualMLP(64, width=width, depth=depth, dropout=0.1, rngs=nnx.Rngs(0))


# Name, the network, the shape of a row, rows in a batch.
CASES = (
    ("MLP 192 x 3", mlp(192, 3), (64,), 256),
    ("MLP 512 x 4", mlp(512, 4), (64,), 256),
)


def split(make):
    """(function parameters -> network, parameters)."""
    graph, params, others = nnx.split(make(), nnx.Param, ...)
    return lambda params: nnx.merge(graph, params, others), params


def of_fit(make, data, batch_size, steps):
    """A function that runs `steps` compiled steps of `fit`."""
    network_of, params = split(make)
    optimiser = optimiser_of("adamw", int(np.prod(data.shape[1:])), steps, LEARNING_RATE, WEIGHT_DECAY)
    times, layout = times_of("log_snr", *ENDS), OneDevice()
    settings = Settings(batch_size, 1, 0.999, times, path_kl_weight, 0.1, None, layout)
    step = optimiser_step(optimiser, network_of, jax.random.key(1), settings)
    state = State(params, optimiser.init(params), params, ())
    carried = jax.tree.map(jnp.copy, (state, jnp.zeros(steps, jnp.float32)))
    block = compiled_block(step, carried, (data, None), layout)
    kept = [carried]

    def run():
        kept[0] = block(kept[0], (data, None), np.int32(0), (np.int32(0), np.int32(steps)))
        return kept[0]

    return run


def bare(make, data, batch_size, steps):
    """A function that runs `steps` steps of the bare loop."""
    network_of, params = split(make)
    optimiser = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    low, high = np.log(ou.snr(np.array(ENDS))).astype(np.float32)
    key = jax.random.key(1)

    def loss(params, x0, keys):
        t = ou.time(jnp.exp(jax.random.uniform(keys[0], (len(x0),), minval=low, maxval=high)))
        z = jax.random.normal(keys[1], x0.shape)
        found = network_of(params)(forward(x0, t.reshape(-1, *[1] * (x0.ndim - 1)), z), t, key=keys[2])
        return jnp.mean(path_kl_weight(t) * jnp.sum((x0 - found) ** 2, tuple(range(1, x0.ndim))))

    def body(index, carried):
        params, moments, _ = carried
        keys = jax.random.split(jax.random.fold_in(key, index), 4)
        x0 = data[jax.random.randint(keys[3], (batch_size,), 0, len(data))]
        value, gradient = jax.value_and_grad(loss)(params, x0, keys)
        update, moments = optimiser.update(gradient, moments, params)
        return optax.apply_updates(params, update), moments, value

    block = jax.jit(lambda carried, steps: jax.lax.fori_loop(0, steps, body, carried), donate_argnums=0)
    kept = [jax.tree.map(jnp.copy, (params, optimiser.init(params), jnp.zeros((), jnp.float32)))]

    def run():
        kept[0] = block(kept[0], np.int32(steps))
        return kept[0]

    return run


def measured(name, make, event, batch_size, steps, repeats):
    """The rows of one network."""
    data = jax.random.normal(jax.random.key(0), (ROWS, *event), jnp.float32)
    given = make, data, batch_size, steps
    timings = interleaved({"fit": of_fit(*given), "bare loop": bare(*given)}, repeats)
    size = sum(leaf.size for leaf in jax.tree.leaves(split(make)[1]))
    about = {"network": name, "parameters": size, "batch_size": batch_size, "repeats": repeats, "steps": steps}
    return [
        about
        | {
            "method": method,
            "ms_per_step": 1e3 * timing.median / steps,
            "spread_ms": 1e3 * timing.spread / steps,
            "over_bare": timing.median / timings["bare loop"].median,
        }
        for method, timing in timings.items()
    ]


def verdict_of(rows):
    """The step time of fit over that of the bare loop, by network, and whether each is at most MOST."""
    found = {row["network"]: row["over_bare"] for row in rows if row["method"] == "fit"}
    said = "; ".join(f"{name} {ratio:.3f}" for name, ratio in found.items())
    met = sum(ratio <= MOST for ratio in found.values())
    return f"A step of fit takes times a bare step: {said}. At most {MOST} in {met} of {len(found)} networks."


def main(argv=None):
    options = command_line.parsed(command_line.parser(QUESTION), argv)
    about, steps = environment(("flax", "optax")), STEPS["quick" if options.quick else "full"]
    rows = [row for case in (CASES[:1] if options.quick else CASES) for row in measured(*case, steps, options.repeats)]
    verdict = verdict_of(rows)
    print(f"\n{tables.table(rows, COLUMNS)}\n\n{verdict}")
    if options.json or not options.quick:
        print(f"written: {records.write_rows(NAME, rows, QUESTION, verdict, about, options.json).name}")


if __name__ == "__main__":
    main()
