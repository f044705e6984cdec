"""From a config to a trained run folder: the wiring of data, model, loop, figures and evaluation."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from vae_jax import data, prng, train
from vae_jax.data import Source, memory, unlabeled, whole
from vae_jax.data.pipeline import make_batch_fn, make_transform
from vae_jax.errors import InputError, either, option, options
from vae_jax.files.lock import locked
from vae_jax.model import Model
from vae_jax.runs import config as configs
from vae_jax.runs import own_data, splits
from vae_jax.runs.config import Config
from vae_jax.runs.log import log_to
from vae_jax.runs.run import Run, data_range, is_torso
from vae_jax.runs.training_data import spec_of
from vae_jax.spec import DataSpec
from vae_jax.tasks import first_stage, kept_samples, preflight, rehearsal, resuming, starts, warmups
from vae_jax.tasks.held_out import HeldOut, curve_split
from vae_jax.tasks.resuming import FREE_ON_RESUME, Start
from vae_jax.train import TrainState
from vae_jax.train.alarms import Alarms
from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.feed import DeviceFeed, Feed, StreamFeed
from vae_jax.train.loop import Event, NonFinite, fit
from vae_jax.train.metrics import MetricsWriter, collapse_warning
from vae_jax.train.sharding import infer_sharding

__all__ = ["FREE_ON_RESUME", "free_folder", "log_to", "newest_folder", "prepare", "train_run"]

logger = logging.getLogger(__name__)
Report = Callable[[int, dict[str, Any]], None]
# Examples whose codes a figure counts: a few on the way, at the end of the run all of the usual held-out splits.
FEW, COUNTED = 1_000, 10_000


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
        raise InputError(
            f"{base / experiment}: no run to resume; train without {option('resume')}, or name one with "
            f"{option('workdir')}"
        )
    # Of two that were made within the clock's resolution, the one with the higher number.
    return max(found, key=lambda p: ((p / file).stat().st_mtime_ns, int(p.name.removeprefix(experiment)[1:] or 1)))


def prepare(config: Config) -> tuple[Source, DataSpec]:
    """Loads the training split and checks that data, model and devices fit together; writes nothing.

    Raises:
      InputError: they do not.
    """
    source = load_fitting(configs.check(config))
    return source, spec_of(source)


def load_fitting(config: Config, load: preflight.Load | None = None) -> Source:
    """Returns the training split of a config that `config.check` returned, as `prepare` does.

    Args:
      config: what will be trained.
      load: reads a split, as `data.load` does, which None stands for.

    Raises:
      InputError: data, model and devices do not fit together.
    """
    load = load or data.load
    starts.check(config)
    source = load(config.data, "train")
    model = check_fit(config, source)
    check_later(config, source, model, load)
    check_devices(config, model)
    return source


def check_devices(config: Config, model: Model) -> None:
    """Checks that batches and codebooks divide over the devices of a run.

    Raises:
      InputError: they do not, or there are not so many devices.
    """
    mesh = train.make_mesh(config.mesh)
    micro = config.data.batch_size // config.accumulate
    if micro % mesh.size:
        raise InputError(
            f"data.batch_size: {config.data.batch_size} in {config.accumulate} microbatch(es) does not divide over "
            f"{mesh.size} devices; choose a multiple of {mesh.size * config.accumulate}"
        )
    if config.mesh.fsdp > 1:
        # Shapes alone, for the sizes of codebooks.
        params, state = jax.eval_shape(model.init, jax.random.key(0), model.about.spec.blank())
        infer_sharding({"params": params, "state": state}, mesh)


def check_fit(config: Config, source: Source) -> Model:
    """Returns the model of these data, built to check that the two fit together.

    Raises:
      InputError: they do not.
    """
    model = rehearsal.built(config, spec_of(source))
    check_labels(source, model)
    if source.weights is not None and not model.about.takes_weight:
        raise InputError(
            "data.class_weights: the loss of this model is no mean of losses of single examples, which alone can be "
            f"weighed; use {option('data.class_weights', 'none')}, or with it {option('data.balance', 'draws')}"
        )
    check_pixels(config, source, model)
    return model


def check_labels(source: Source, model: Model) -> None:
    """Checks that a model can do without the labels that are unknown.

    Raises:
      InputError: it is conditioned on them, or learns from them and none is known.
    """
    on = model.condition
    if on is None or on.on != "label":
        return
    if on.is_required:
        fix = f"remove these examples, or use {option('model', 'm2')}"
        unlabeled.refuse(source.info, "model.condition.on: label reads the label of every example", fix)
    unlabeled.refuse_none_known(source.labeled, source.info)


def check_later(config: Config, source: Source, model: Model, load: preflight.Load = data.load) -> None:
    """Checks what the end of the run needs: its held-out splits, their pixels, and the requested bounds.

    Args:
      config: of the run.
      source: its training split.
      model: built for these data.
      load: reads another split.

    Raises:
      InputError: it cannot be done (see `preflight.check`).
    """
    for held_out in preflight.check(config, source, model, load):
        check_pixels(config, held_out, model)


def check_pixels(config: Config, source: Source, model: Model) -> None:
    """Checks that the likelihood of a model can score these data.

    Raises:
      InputError: values outside its support, on an open end of it, or between those that have a mass.
    """
    likelihood, c = model.about.likelihood, config.data
    name = configs.kind("model.likelihood", likelihood)
    if hasattr(likelihood, "of_columns") and not source.info.columns:
        other = "bernoulli" if source.info.kind == "image" else "gaussian-learned"
        raise InputError(
            f"model.likelihood: {name} scores the columns of a table, and {source.info.name!r} is none; use "
            f"{option('model.likelihood', other)}"
        )
    if likelihood.counts:
        whole.check(source, name)
        return
    (low, high), seen = likelihood.support, data_range(source)
    if seen[1] > high and source.info.values == "count":
        raise InputError(
            f"data: they are counts up to {seen[1]:.0f}, but the {name} likelihood takes [{low:g}, {high:g}]; use "
            f"{option('model.likelihood', 'negative-binomial')}"
        )
    if (seen[0] < low or seen[1] > high) and source.info.kind == "sequence":
        raise InputError(
            f"data: standardized series go from {seen[0]:.4g} to {seen[1]:.4g}, but the {name} likelihood takes "
            f"[{low:g}, {high:g}]; use {option('model.likelihood', 'gaussian-learned')}"
        )
    if seen[0] < low or seen[1] > high:
        raise InputError(
            f"data: values from {seen[0]:.4g} to {seen[1]:.4g} were seen, but the {name} "
            f"likelihood takes [{low:g}, {high:g}]; rescale the data to that range"
        )
    # What the model will see: noise between the gray levels keeps clear of both ends, binarization goes to both.
    dequantized, binary = c.dequantize and c.binarize == "none", c.binarize != "none"
    if not likelihood.closed and not dequantized and (binary or seen[0] == low or seen[1] == high):
        raise InputError(
            f"data: values of exactly {low:g} or {high:g} were seen, but the {name} likelihood takes "
            f"({low:g}, {high:g}) without its ends; spread gray levels with {option('data.dequantize', True)} "
            f"{option('data.binarize', 'none')}"
        )
    if likelihood.levels == 256 and dequantized:
        raise InputError(
            f"data.dequantize: the {name} likelihood gives masses to the 256 gray levels v / 255 themselves; use "
            f"{option('data.dequantize', False)}"
        )
    if likelihood.levels == 256 and source.info.values == "float" and not binary:
        stored = "store numpy.rint(images * 255).astype('uint8'), or " if source.info.kind == "image" else ""
        raise InputError(
            f"data: the {name} likelihood gives masses to the 256 gray levels v / 255, but the data are real numbers; "
            f"{stored}use a density such as {option('model.likelihood', 'gaussian-learned')}"
        )


def make_feed(run: Run, source: Source, state: TrainState) -> Feed:
    """Returns the device feed for data in memory, the stream feed for data on disk."""
    c = run.config
    if source.pipeline == "device":
        return DeviceFeed(run.train_step, make_batch_fn(source, c.data), dict(source.arrays), state, run.mesh)
    from vae_jax.data.stream import GrainStream

    stream = GrainStream(source, c.data, prng.site_key(state.key, "data"))
    return StreamFeed(run.train_step, make_transform(source, c.data), stream, state, run.mesh)


def train_run(
    config: Config,
    experiment: str = "custom",
    workdir: Path | str | None = None,
    *,
    resume: bool = False,
    retune: bool = False,
    init_from: Run | None = None,
    stage1: Run | None = None,
    given: memory.Given | None = None,
    report: Report = lambda step, metrics: None,
    say: Callable[[str], None] = lambda text: None,
) -> Run:
    """Trains a config into a run folder.

    Args:
      config: what to train.
      experiment: its name, written into the folder.
      workdir: the folder; None takes `runs/EXPERIMENT`, or the next free number after it.
      resume: continue the run in `workdir` (None: the newest of this experiment) from its last good checkpoint.
      retune: with `resume`, the learning rate may differ from that of the run.
      init_from: start with the weights of this run.
      stage1: the trained first stage of a second one.
      given: data in memory, in place of those of the config; they are kept in the run folder (`runs.own_data`).
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
    path = Path(workdir) if workdir else (newest_folder(experiment) if resume else free_folder(experiment))
    if resume and is_torso(path):
        say(f"{path}: was stopped before its options were written; it starts anew")
        resume = False
    # A run that is continued has its first stage; a new one is given one.
    config = first_stage.as_in(config, path) if resume else first_stage.within(config, stage1, init_from)
    if given is not None:
        # A run that is continued was divided before: its protocol stays.
        old = Run.load(path).config.data.protocol if resume and (path / "config.json").is_file() else None
        config = configs.keep_targets(own_data.within(config, path, given, old), config)
    elif own_data.is_own(config, path):
        own_data.check(path)
    loaded: dict[str, Source] = {}
    source = load_fitting(config, _reader(given, loaded, config.data.protocol if resume else None))
    if resume:
        start = resuming.reopen(path, config, source, retune=retune)
    else:
        start = resuming.begin(path, experiment, splits.within(config, path), source, init_from, stage1)
    # All that can be refused was refused: from here on the folder is written. One process does it where there are more.
    with locked(path) if jax.process_index() == 0 else contextlib.nullcontext():
        if resume:  # again: until now another process may have trained here
            start = resuming.reopen(path, config, source, retune=retune)
        run = start.run if resume else start.create()
        start.run.loaded.update(loaded)  # the run that trains, and is returned
        if given is not None:
            own_data.store(run.path, given.arrays)
        splits.store(run.path, source)
        with log_to(run.path / "log.txt"):
            checkpoints = run.checkpoints(create=True)
            try:
                return _train(start, source, checkpoints, report, say)
            except BaseException as error:
                # A full disk or a signal needs no traceback on the terminal, but the log keeps it.
                logger.exception("stopped: %s", error)
                if isinstance(error, NonFinite):
                    resuming.note_failure(run, error.step, error.names)
                    say(f"to continue with a lower learning rate: {resuming.lower_rate(run)}")
                raise
            finally:
                checkpoints.close()


def _reader(given: memory.Given | None, loaded: dict[str, Source], protocol: str | None) -> preflight.Load:
    """Returns `data.load`, which remembers in `loaded` what it read; of data in memory where there are some.

    Args:
      given: data in memory.
      loaded: to which sources are added by their split.
      protocol: the one that is read; None for any.
    """
    read = None if given is None else memory.read(given)

    def load(options: data.DataConfig, split: str) -> Source:
        if protocol not in (None, options.protocol):
            # Messages try other protocols, and must not advise one that a run that is continued cannot have.
            raise InputError(f"data.protocol: {options.protocol!r} is not that of the run; use {protocol!r}")
        loaded[split] = data.load(options, split, read)
        return loaded[split]

    return load


def _train(start: Start, source: Source, checkpoints: Checkpoints, report: Report, say: Callable[[str], None]) -> Run:
    run, c = start.run, start.run.config
    state = run.init()
    feed = make_feed(run, source, state)
    state = _first_state(start, state, feed, checkpoints, say)
    first = int(state.step)
    _introduce(run, state, source, say)

    def warn(text: str) -> None:
        logger.warning(text)
        say(f"warning: {text}")

    # Damaged lines are in the log already.
    writer = MetricsWriter(
        run.path, resume_step=first, tensorboard=c.logging.tensorboard, say=lambda text: say(f"warning: {text}")
    )
    split = curve_split(source.info) or c.evaluation.split
    held_out = HeldOut(run, split, writer, lambda now: checkpoints.save(now, feed.position()), say)
    alarms = Alarms(_more_information(c), f"lower the learning rate: {resuming.lower_rate(run)}", _more_entries(c))
    latest: dict[str, Any] = {}

    def watch(step: int, metrics: dict[str, Any]) -> None:
        latest.update(metrics)
        report(step, metrics | {"examples": run.spec.x.examples})
        if step % c.logging.log_every == 0 or step == c.steps:  # the line that is about to be written
            for text in alarms.read(step, metrics):
                warn(text)

    clock = time.perf_counter()
    try:
        held_out.catch_up(state, first)
        state = fit(
            feed,
            state,
            steps=c.steps,
            batch_size=c.data.batch_size,
            log_every=c.logging.log_every,
            writer=writer,
            checkpoints=checkpoints,
            checkpoint_every=c.logging.checkpoint_every,
            events=[
                Event(lambda s, n: _figures(run, s, n, held_out.ended), minutes=c.logging.figures_minutes),
                Event(lambda s, n: kept_samples.keep(run, s, n), at=c.logging.samples_at, final=False),
                *held_out.event(),
            ],
            report=watch,
            done=lambda: held_out.ended,
        )
    finally:
        writer.close()
        held_out.close()
    if first == c.steps:
        # Stopped after its last step: what comes after it may be missing.
        more = either("--steps N", "steps=N")
        say(f"{run.path}: nothing to train, it has made its {c.steps:,} steps; {more} makes more")
        _figures(run, state, first)
    else:
        say(f"trained to step {int(state.step)} in {time.perf_counter() - clock:.0f} s")
    held_out.summary(int(state.step))
    kl = latest.get("kl_per_dim")
    if kl is not None and (warning := collapse_warning(kl, latest.get("active_units"), _more_information(c))):
        warn(warning)
    return run


def _introduce(run: Run, state: TrainState, source: Source, say: Callable[[str], None]) -> None:
    """Says what trains, on what, and what is to be known of the data."""
    count = sum(x.size for x in jax.tree.leaves(state.params))
    say(
        f"{run.experiment}: {count:,} parameters, {source.size:,} training examples {run.spec.x.shape}, "
        f"run folder {run.path}"
    )
    line = devices(run)
    logger.info(line)
    say(line)
    for note in (*source.info.notes, *warmups.notes(run.config)):
        say(f"note: {note}")


def devices(run: Run) -> str:
    """Returns a line on the devices that a run trains on, the version of jax, and the precision of its products."""
    used = list(run.mesh.devices.flat)
    kind = used[0].device_kind
    what = used[0].platform + ("" if kind == used[0].platform else f" ({kind})")
    precision = getattr(run.config.model, "precision", "float32")
    chosen = jax.config.values["jax_default_matmul_precision"]
    # On GPUs and TPUs float32 alone does not say how its products are made: in TF32 or bfloat16 passes by default.
    passes = f", {chosen or 'default'} passes" if chosen or used[0].platform != "cpu" else ""
    return f"device: {len(used)} x {what}, jax {jax.__version__}, matrix products in {precision}{passes}"


def _more_information(config: Config) -> str:
    """Returns what to do about latent dimensions that carry no information, as options of a new run."""
    schedule = getattr(getattr(config.model, "objective", None), "schedule", None)
    known = configs.flatten(config)
    beta = next((name for name in ("model.objective.beta", "model.beta") if known.get(name)), None)
    ways = [f"a lower {option(beta)} than {known[beta]:g}"] if beta else []
    if schedule is not None and configs.kind("model.objective.schedule", schedule) == "constant":
        # As long a warm-up as is usual; the default would outlast a short run.
        rise = {"model.objective.schedule": "linear", "model.objective.schedule.steps": max(1, config.steps // 5)}
        ways.append(f"an annealed weight with {options(rise)}")
    if not ways:
        return "a smaller latent says as much"
    return f"{' or '.join(ways)} makes the code use more of them"


def _more_entries(config: Config) -> str:
    """Returns what to do about entries of a codebook that nothing chooses, as options of a new run."""
    ways = [option("model.quantizer", "fsq")]
    # Entries that are chosen less often than once in ten batches.
    if configs.flatten(config).get("model.quantizer.revive") == 0:
        ways.insert(0, option("model.quantizer.revive", 0.1))
    return f"{' or '.join(ways)} uses more of them"


def _first_state(
    start: Start, state: TrainState, feed: Feed, checkpoints: Checkpoints, say: Callable[[str], None]
) -> TrainState:
    """Returns the state to train from, says where that is, and writes down what changed."""
    run, old = start.run, start.old
    if old is not None and checkpoints.steps():
        state, position = checkpoints.restore(state, say=lambda text: say(f"warning: {text}"))
        feed.seek(position)
    else:
        initial = start.initial()
        if old is not None and jax.process_index() == 0 and (lost := resuming.set_aside_lost(run.path)):
            logger.warning(lost)
            say(f"warning: {lost}")
        if initial is not None:
            # Saved at once: after a kill the run continues with these weights, whatever became of the other run.
            state = initial
            checkpoints.save(state, feed.position())
    if old is None:
        resuming.note_start(run, "start", 0, init_from=run.init_from)
        return state
    step = int(state.step)
    say(f"resuming {run.path} at step {step}")
    for note in start.notes(step):
        say(note)
    # Only now, when there is something to continue from.
    start.write_back(step)
    return state


def _counted(run: Run, split: str, most: int, size: int) -> Iterator[dict[str, Any]]:
    """Yields the examples whose codes a figure counts, `size` at a time; models without codes read none."""
    yield from run.chunks(split, data.limit.mixed(run.source(split), most), size)


def _figures(run: Run, state: TrainState, step: int, ended: bool = False) -> None:
    """Writes the figures of a run; `ended` says that patience has run out, so that these are its last ones."""
    try:
        from vae_jax import figures

        split = _split_to_show(run)
        batch = run.examples(split, data.limit.mixed(run.source(split), 256))
        title = f"{run.experiment}, step {step:,}"
        counted = _counted(run, split, COUNTED if ended or step >= run.config.steps else FEW, len(batch["x"]))
        figures.write_all(run.path, run.model, state, batch, title, prior=run.prior_unit, split=counted)
    except Exception:  # a picture must never cost the run; the log says why it is missing
        logger.exception("figures at step %d failed", step)


def _split_to_show(run: Run) -> str:
    sizes = run.source("train").info.sizes
    return run.config.evaluation.split if run.config.evaluation.split in sizes else "train"
