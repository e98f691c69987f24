"""jaxdiff train: fit a denoiser to data and write the run folder."""

import csv
import dataclasses
import pathlib
import sys
import warnings

from jaxdiff.app.commands import train_options
from jaxdiff.app.commands.options import check_seed

# The options that decide the bits of a training. The others say where it goes, and what is shown of it.
OF_THE_BITS = (
    "source", "header", "columns", "key", "labels", "no_labels", "network", "width", "depth", "dropout", "steps",
    "batch_size", "accumulate", "optimiser", "learning_rate", "ema_decay", "weight", "times", "horizon", "early_stop",
    "seed",
)  # fmt: skip


def add(commands):
    """Declare the command and its arguments."""
    train_options.add(commands).set_defaults(command=run)


def run(options):
    """Fit a denoiser and write the run folder."""
    import orbax.checkpoint  # noqa: F401  # imported now, so that an interrupted run is saved without delay

    from jaxdiff import files
    from jaxdiff.app import networks
    from jaxdiff.app.training_folder import TrainingFolder
    from jaxdiff.processes.default_times import check_ends

    check_seed(options.seed)
    check_ends(options.horizon, options.early_stop)
    if options.watch_every < 0:
        raise ValueError(f"watch_every must be a number of steps, or 0 for never: watch_every = {options.watch_every}.")
    files.check_folder(options.out or "runs")
    place = options.out or pathlib.Path("runs") / pathlib.Path(options.source).stem
    folder = TrainingFolder(place, {name: getattr(options, name) for name in OF_THE_BITS})
    folder.check(resume=options.resume, overwrite=options.overwrite)
    if options.resume and folder.is_finished():
        print(f"{place} is finished: its {options.steps} steps are done. Continue with jaxdiff plan {place}.")
        return None
    dataset = _dataset(options)
    record = networks.record_of(options, dataset)
    network = networks.build(dataset, record)
    _print_data(dataset, network, record)
    return _train(options, folder, dataset, network, record)


def _print_data(dataset, network, record):
    from jaxdiff.app import records
    from jaxdiff.training.networks import describe

    sizes = ", ".join(f"{len(getattr(dataset, name))} {name.replace('_', '-')}" for name in records.SPLITS)
    constant = f", {dataset.constant} of them constant, which are kept and not scaled" if dataset.constant else ""
    shape = dataset.event_shape
    of = f"rows of {dataset.dim} columns{constant}" if len(shape) == 1 else f"images of shape {shape}"
    print(f"{dataset.name}: {sizes} {of}")
    classes = "" if record["n_classes"] is None else f", conditional on {record['n_classes']} classes"
    print(f"{describe(network, shape)}{classes}")


def _train(options, folder, dataset, network, record):
    """Train, write the run, and print the result; returns an exit code where a signal ended the training."""
    from jaxdiff.app.cli import OF_SIGNALS
    from jaxdiff.app.saving import save

    trained, stopped = _fitted(options, folder, dataset, network, record)
    model = {"horizon": options.horizon, "early_stop": options.early_stop, "seed": options.seed}
    model |= {"source": options.source, "network": record, "history": trained.history, "settings": folder.settings}
    model["image_shape"] = _image_shape(options, dataset)
    model["reading"] = dataclasses.asdict(dataset.reading)
    model["stopped_at"] = None if stopped is None else stopped.step
    if stopped is None or not _has_finished_model(folder):
        save(folder.run, model, dataset, trained.network)
    losses = [row["held_out_loss"] for row in trained.history]
    if losses:
        first, rows = trained.history[0]["step"], f"{trained.held_out_rows} of {len(dataset.held_out)} held-out rows"
        print(
            f"held-out loss {min(losses):.4g} at best, {losses[0]:.4g} after {first} steps, on {rows} at "
            f"{trained.held_out_levels} noise levels each; model in {folder.run}"
        )
    if stopped is None:
        return None
    print(
        f"jaxdiff: interrupted after {stopped.step} of {options.steps} steps. {folder.run} holds a checkpoint: go on "
        f"with the same command and --resume.",
        file=sys.stderr,
    )
    return OF_SIGNALS + stopped.signal


def _has_finished_model(folder):
    """Whether the run folder holds the model of a training that was finished, as an overwritten run's."""
    from jaxdiff.app.run_folder import read_json
    from jaxdiff.files import UNREADABLE

    try:
        return read_json(folder.run / "model.json").get("stopped_at") is None
    except (OSError, AttributeError, *UNREADABLE):
        return False


def _image_shape(options, dataset):
    """The shape with which rows are shown as images; None for other rows."""
    from jaxdiff.app import data

    shape = dataset.event_shape
    if len(shape) == 1:
        return data.IMAGE_SHAPES.get(options.source)
    return None if shape[2] not in (1, 3) else shape


def _fitted(options, folder, dataset, network, record):
    """The Fit, and the Interrupted that ended training; None if it was not interrupted."""
    import jax

    from jaxdiff.app.saving import kept_rows
    from jaxdiff.app.watching import Watcher
    from jaxdiff.training.fit import Interrupted, fit, path_kl_weight

    labels = dataset.labels if record["n_classes"] else None
    known = {} if labels is None else {"labels": labels.train, "held_out_labels": labels.held_out}
    devices = jax.device_count()
    mesh = jax.make_mesh((devices,), ("batch",)) if devices > 1 else None
    in_rows = kept_rows(dataset)
    if labels is None:
        in_rows = dataclasses.replace(in_rows, labels=None)
    with folder.start(resume=options.resume) as checkpoints:
        ends, started = (options.horizon, options.early_stop), max(checkpoints.steps(), default=0)
        image_shape = _image_shape(options, dataset)
        watcher = Watcher(folder, in_rows, dataset.event_shape, image_shape, ends, options.watch_every, started)
        try:
            trained = fit(
                network,
                dataset.train,
                jax.random.key(options.seed),
                **known,
                steps=options.steps,
                batch_size=options.batch_size,
                accumulate=options.accumulate,
                optimiser=options.optimiser,
                learning_rate=options.learning_rate,
                ema_decay=options.ema_decay,
                weight=options.weight or path_kl_weight,
                times=options.times,
                horizon=options.horizon,
                early_stop=options.early_stop,
                held_out=dataset.held_out,
                mesh=mesh,
                checkpoints=checkpoints,
                resume=started > 0,
                on_measure=watcher,
                progress=True,
            )
        except Interrupted as interrupted:
            return interrupted.fit, interrupted
        except (ValueError, TypeError):
            folder.forget()
            raise
        finally:
            watcher.close()
    return trained, None


def _dataset(options):
    """The data of the train command. The reader's assumptions about the file are printed on standard error."""
    from jaxdiff.app import data

    columns = None if options.columns is None else next(csv.reader([options.columns], skipinitialspace=True), [])
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        how = {"header": options.header, "columns": columns, "key": options.key, "labels": options.labels}
        dataset = data.load(options.source, seed=options.seed, **how)
    for note in dataset.reading.notes:
        print(f"{options.source}: {note}", file=sys.stderr)
    return dataset
