"""From a config to a trained run folder: the wiring of data, model, loop, figures and evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from vae_jax import config as configs
from vae_jax import data, preflight, prng, train
from vae_jax.config import Config
from vae_jax.data import Source
from vae_jax.data.pipeline import make_batch_fn, make_transform
from vae_jax.errors import InputError
from vae_jax.model import NO_FACTS, Facts, Model
from vae_jax.runs import Run, data_range, facts_of
from vae_jax.train import TrainState
from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.feed import DeviceFeed, Feed, StreamFeed
from vae_jax.train.loop import Event, fit
from vae_jax.train.metrics import MetricsWriter, collapse_warning

logger = logging.getLogger(__name__)
Report = Callable[[int, dict[str, Any]], None]


def free_folder(experiment: str, base: Path = Path("runs")) -> Path:
    """Returns runs/EXP, or runs/EXP-2, -3, ... if that is taken: a new run never touches an old one."""
    path, number = base / experiment, 2
    while path.exists():
        path, number = base / f"{experiment}-{number}", number + 1
    return path


def newest_folder(experiment: str, base: Path = Path("runs"), file: str = "config.json") -> Path:
    """Returns the newest of runs/EXP, runs/EXP-2, ... that holds `file`.

    Raises:
      InputError: there is none.
    """
    numbered = (p for p in base.glob(f"{experiment}-*") if p.name.removeprefix(f"{experiment}-").isdigit())
    found = [p for p in (base / experiment, *numbered) if (p / file).is_file()]
    if not found:
        raise InputError(f"{base / experiment}: no run to resume; train without --resume, or name one with --workdir")
    return max(found, key=lambda p: (p / file).stat().st_mtime)


def prepare(config: Config) -> tuple[Source, tuple[int, int, int]]:
    """Loads the training split and checks that data, model and devices fit together; writes nothing.

    Raises:
      InputError: they do not.
    """
    configs.check(config)
    source = data.load(config.data, "train")
    shape = source.info.image_shape
    check_later(config, source, check_fit(config, source))
    mesh = train.make_mesh(config.mesh)
    micro = config.data.batch_size // config.accumulate
    if micro % mesh.size:
        raise InputError(
            f"data.batch_size: {config.data.batch_size} in {config.accumulate} microbatch(es) does not divide over "
            f"{mesh.size} devices; choose a multiple of {mesh.size * config.accumulate}"
        )
    return source, shape


def check_fit(config: Config, source: Source) -> Model:
    """Returns the model of these data, built to check that the two fit together.

    Raises:
      InputError: they do not.
    """
    model = config.model.build(source.info.image_shape, facts_of(source))
    check_pixels(config, source)
    return model


def check_later(config: Config, source: Source, model: Model, load: preflight.Load = data.load) -> None:
    """Checks what the end of the run needs: its held-out splits, their pixels, and the bounds that are asked for.

    Raises:
      InputError: it cannot be done (see `preflight.check`).
    """
    for held_out in preflight.check(config, source, model, load):
        check_pixels(config, held_out)


def check_pixels(config: Config, source: Source) -> None:
    """Checks that the likelihood can score these data.

    Raises:
      InputError: values outside its support, on an open end of it, or between the levels that have a mass.
    """
    likelihood, c = config.model.likelihood, config.data
    name = configs.kind("model.likelihood", likelihood)
    (low, high), seen = likelihood.support, data_range(source)
    if seen[0] < low or seen[1] > high:
        raise InputError(
            f"data: values from {seen[0]:.4g} to {seen[1]:.4g} were seen, but the {name} "
            f"likelihood takes [{low:g}, {high:g}]; rescale the data, or use --model.likelihood gaussian"
        )
    # What the model will see: noise between the grey levels keeps clear of both ends, binarisation goes to both.
    dequantized, binary = c.dequantize and c.binarize == "none", c.binarize != "none"
    if not likelihood.closed and not dequantized and (binary or seen[0] == low or seen[1] == high):
        raise InputError(
            f"data: values of exactly {low:g} or {high:g} were seen, but the {name} likelihood takes "
            f"({low:g}, {high:g}) without its ends; spread grey levels with --data.dequantize True --data.binarize none"
        )
    if likelihood.levels == 256 and dequantized:
        raise InputError(
            f"data.dequantize: the {name} likelihood gives masses to the 256 grey levels v / 255 themselves; use "
            "--data.dequantize False"
        )
    if likelihood.levels == 256 and source.info.values == "float" and not binary:
        raise InputError(
            f"data: the {name} likelihood gives masses to the 256 grey levels v / 255, but the images are real "
            "numbers; store them as uint8, or use a density such as --model.likelihood gaussian-learned"
        )


def open_run(
    config: Config, experiment: str, path: Path, shape: tuple[int, int, int], resume: bool, facts: Facts = NO_FACTS
) -> Run:
    """Returns a new run, or the existing one with the stored config checked against this one.

    Raises:
      InputError: the folder exists (new) or does not (resume), or what may not change did.
    """
    if not resume:
        return Run.create(path, experiment, config, shape, facts)
    old = Run.load(path)
    changed = [d for d in configs.diff(old.config, config) if not d.startswith(FREE_ON_RESUME)]
    if changed:
        raise InputError(f"{path}: cannot resume with a changed config ({'; '.join(changed)}); start a new run")
    if tuple(old.image_shape) != tuple(shape):
        raise InputError(
            f"{path}: was trained on images {old.image_shape}, the data now gives {shape}; start a new run"
        )
    return Run(path, old.experiment, config, shape, old.facts)


# What may differ when a run is continued: none of these changes the next update.
FREE_ON_RESUME = (
    "steps:",
    "logging.",
    "evaluation.",
    "mesh.",
    "expected:",
    "data.source:",
    "data.workers:",
)


def make_feed(run: Run, source: Source, state: TrainState) -> Feed:
    """Returns the device feed for data in memory, the stream feed for data on disk."""
    c = run.config
    step = train.make_train_step(run.model, run.optimizer, ema_decay=c.ema_decay or None, accumulate=c.accumulate)
    if source.pipeline == "device":
        return DeviceFeed(step, make_batch_fn(source, c.data), dict(source.arrays), state, run.mesh)
    from vae_jax.data.stream import GrainStream

    stream = GrainStream(source, c.data, prng.site_key(state.key, "data"))
    return StreamFeed(step, make_transform(source, c.data), stream, state, run.mesh)


def train_run(
    config: Config,
    experiment: str = "custom",
    workdir: Path | str | None = None,
    *,
    resume: bool = False,
    report: Report = lambda step, metrics: None,
    say: Callable[[str], None] = lambda text: None,
) -> Run:
    """Trains a config into a run folder and evaluates it.

    Args:
      config: what to train.
      experiment: its name, written into the folder.
      workdir: the folder; None takes `runs/EXPERIMENT`, or the next free number after it.
      resume: continue the run in `workdir` (None: the newest of this experiment) from its last good checkpoint.
      report: called with (step, metrics) a few times a second.
      say: called with sentences for people.

    Returns:
      the run.

    Raises:
      InputError: bad input; nothing was written.
      NonFinite: training diverged.
      Interrupted: SIGTERM or SIGINT; the checkpoint is saved.
    """
    config = configs.check(config)
    source, shape = prepare(config)
    path = Path(workdir) if workdir else (newest_folder(experiment) if resume else free_folder(experiment))
    run = open_run(config, experiment, path, shape, resume, facts_of(source))
    with log_to(run.path / "log.txt"):
        checkpoints = run.checkpoints(create=True)
        try:
            return _train(run, source, checkpoints, resume, report, say)
        except BaseException as error:
            # A full disk or a signal needs no traceback on the terminal, but the log keeps it.
            logger.exception("stopped: %s", error)
            raise
        finally:
            checkpoints.close()


def _train(run: Run, source: Source, checkpoints: Checkpoints, resume: bool, report: Report, say) -> Run:
    c = run.config
    state = run.init()
    feed = make_feed(run, source, state)
    if resume and checkpoints.steps():
        newest = checkpoints.steps()[-1]
        state, position = checkpoints.restore(state)
        feed.seek(position)
        if int(state.step) != newest:
            say(f"checkpoint of step {newest} cannot be read; falling back to step {int(state.step)}")
        say(f"resuming {run.path} at step {int(state.step)}")
    count = sum(x.size for x in jax.tree.leaves(state.params))
    say(
        f"{run.experiment}: {count:,} parameters, {source.size:,} training images {run.image_shape}, "
        f"run folder {run.path}"
    )
    writer = MetricsWriter(run.path, resume_step=int(state.step), tensorboard=c.logging.tensorboard)
    events = [Event(lambda s, n: _figures(run, s, n), minutes=c.logging.figures_minutes)]
    held_out = "validation" if "validation" in source.info.sizes else c.evaluation.split
    if c.logging.eval_every:
        events.append(
            Event(lambda s, n: _evaluate(run, s, n, held_out, writer), every=c.logging.eval_every, final=False)
        )
    latest: dict[str, Any] = {}

    def watch(step: int, metrics: dict[str, Any]) -> None:
        latest.update(metrics)
        report(step, metrics)

    start = time.perf_counter()
    try:
        state = fit(
            feed,
            state,
            steps=c.steps,
            batch_size=c.data.batch_size,
            log_every=c.logging.log_every,
            writer=writer,
            checkpoints=checkpoints,
            checkpoint_every=c.logging.checkpoint_every,
            events=events,
            report=watch,
        )
    finally:
        writer.close()
    say(f"trained to step {int(state.step)} in {time.perf_counter() - start:.0f} s")
    warning = collapse_warning(latest["kl_per_dim"], latest["active_units"]) if "kl_per_dim" in latest else None
    if warning:
        logger.warning(warning)
        say(f"warning: {warning}")
    return run


def _figures(run: Run, state: TrainState, step: int) -> None:
    try:
        from vae_jax import figures

        batch = next(iter(run.batches(_split_to_show(run), 256)))
        title = f"{run.experiment}, step {step:,}"
        figures.write_all(run.path, run.model, state, batch, title, prior=run.prior_unit)
    except Exception:  # a picture must never cost the run; the log says why it is missing
        logger.exception("figures at step %d failed", step)


def _split_to_show(run: Run) -> str:
    sizes = run.source("train").info.sizes
    return run.config.evaluation.split if run.config.evaluation.split in sizes else "train"


def _evaluate(run: Run, state: TrainState, step: int, split: str, writer: MetricsWriter) -> None:
    from vae_jax.evaluation import evaluate

    e = run.config.evaluation
    result = evaluate(run.model, state, run.batches(split, e.batch_size), key=jax.random.key(0), limit=e.limit)
    writer.write(step, split, {name: estimate.value for name, estimate in result.metrics.items()})


class log_to:
    """Sends this package's log records to a file while the block runs."""

    def __init__(self, path: Path):
        self._handler = logging.FileHandler(path)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def __enter__(self) -> None:
        package = logging.getLogger("vae_jax")
        self._old = package.level, package.propagate
        package.addHandler(self._handler)
        package.setLevel(logging.INFO)
        # Tracebacks belong in the log file; the terminal gets one line from the command.
        package.propagate = False

    def __exit__(self, *exc: object) -> None:
        package = logging.getLogger("vae_jax")
        package.removeHandler(self._handler)
        package.level, package.propagate = self._old
        self._handler.close()
