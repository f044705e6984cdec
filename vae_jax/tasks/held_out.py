"""Evaluations while a run trains: the held-out curve, the best checkpoint, and the end of a run without progress.

The best checkpoint lies in RUN/best, apart from the newest ones, which are rotated. What decides is the validation
split alone: a test split that chose a checkpoint would measure it too well. For the same reason no curve is made of a
test split, by which somebody would choose options: data without a validation split are refused. Where the test split
has the training examples by definition (protocol "full"), nothing is held out that a curve could use up.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from vae_jax import data
from vae_jax.data import DataConfig, Source, split
from vae_jax.data.source import Info
from vae_jax.errors import InputError, choice, command, option, options
from vae_jax.evaluation import METRICS, evaluate
from vae_jax.evaluation.likelihood import term_names
from vae_jax.evaluation.reading import better
from vae_jax.model import Model
from vae_jax.runs.config import Config
from vae_jax.runs.run import Run, history
from vae_jax.runs.training_data import spec_of
from vae_jax.tasks import resuming
from vae_jax.train import TrainState
from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.loop import Event
from vae_jax.train.metrics import MetricsWriter, logged, read_lines

_SHARE = 20  # evaluations of a run in the advice for one that makes none
# Changes on resume after which earlier values do not compare with later ones.
_APART = ("logging.best", "evaluation.limit")


def curve_split(info: Info) -> str | None:
    """Returns the split that is measured while a run trains; None where only examples of the end are held out."""
    if "validation" in info.sizes:
        return "validation"
    same = info.protocol == "full" and info.sizes.get("test") == info.sizes["train"]  # `data.limit` tests on others
    return "test" if same else None


def check(config: Config, source: Source, model: Model, load: Callable[[DataConfig, str], Source] = data.load) -> None:
    """Checks that a run can be evaluated while it trains, and its best checkpoint chosen, as its config says.

    Args:
      config: of the run.
      source: its training split.
      model: built for these data.
      load: reads another split.

    Raises:
      InputError: patience without a metric, no evaluations, no validation split, or a metric that does not decide.
    """
    metric, every = config.logging.best, config.logging.eval_every
    # The split first: no metric and no number of steps helps where there is nothing to measure.
    if metric is not None and "validation" not in source.info.sizes:
        says = f"logging.best: {metric!r} decides by the validation split"
    elif config.patience and "validation" not in source.info.sizes:
        says = f"patience: {config.patience} counts evaluations of the validation split"
    elif every and curve_split(source.info) is None:
        says = f"logging.eval_every: {every} measures the validation split while the run trains"
    else:
        _check_metric(config, source, model)
        return
    without = {"logging.eval_every": 0} if every and curve_split(source.info) is None else {}
    without |= {"logging.best": None} if metric is not None else {}
    without |= {"patience": 0} if config.patience else {}
    protocols = validated(config.data, source, load)
    fix = f"{choice('data.protocol', protocols)}, or " if protocols else ""
    raise InputError(
        f"{says}, but {config.data.shown!r} does not have one under protocol {source.info.protocol!r}; use {fix}"
        f"{option(*next(iter(without.items()))) if len(without) == 1 else options(without)}"
    )


def _check_metric(config: Config, source: Source, model: Model) -> None:
    """Checks what chooses the best checkpoint, where anything does.

    Raises:
      InputError: patience without a metric, no evaluations, or a metric that does not decide.
    """
    metric, every = config.logging.best, config.logging.eval_every
    if metric is None and not config.patience:
        return
    if metric is None:
        raise InputError(
            f"patience: {config.patience} counts evaluations that do not improve a metric, but none is named; add "
            f"{option('logging.best', decisive(source, model)[0])}"
        )
    known = decisive(source, model)
    if metric not in known:
        raise InputError(
            f"logging.best: {metric!r} is not a metric of this run's evaluations of which more or less is better; use "
            f"{choice('logging.best', known)}"
        )
    if not every:
        raise InputError(
            f"logging.best: {metric!r} is measured while the run trains, but no evaluations are made; add "
            f"{option('logging.eval_every', max(1, config.steps // _SHARE))}"
        )


def decisive(source: Source, model: Model) -> list[str]:
    """Returns the metrics of an evaluation while training of which more or less is better."""
    found = term_names(model, spec_of(source))
    return [name for name in METRICS if name in found and better(name) is not None]


def validated(config: DataConfig, source: Source, load: Callable[[DataConfig, str], Source]) -> list[str]:
    """Returns the protocols under which these data have a validation split, and can be read with the other options.

    Args:
      config: of the data.
      source: their training split.
      load: reads another split.
    """
    found = []
    for protocol in data.entry(config.name).validated or split.validated(source):
        # Some protocols need other options as well, and few examples do not make three splits.
        with contextlib.suppress(InputError):
            load(dataclasses.replace(config, protocol=protocol), "validation")
            found.append(protocol)
    return found


class HeldOut:
    """The evaluations of one run while it trains.

    Best value and patience are read off metrics.jsonl, whose lines survive a kill, so that a resumed run decides as
    one that was never stopped. An evaluation that improves saves a checkpoint of the run as well, before its line is
    written: no run continues from before its best step.

    Args:
      run: that trains.
      split: to measure.
      writer: of its metrics.jsonl, which holds no line of a step that is still to be made.
      save: saves a checkpoint of the run; takes the state.
      say: takes sentences for people.
    """

    def __init__(
        self,
        run: Run,
        split: str,
        writer: MetricsWriter,
        save: Callable[[TrainState], object],
        say: Callable[[str], None],
    ):
        self._run, self._split, self._writer, self._save, self._say = run, split, writer, save, say
        self._metric, self._checkpoints = run.config.logging.best, None
        self.best: tuple[int, float] | None = None  # (step, value)
        self._since = 0  # evaluations after the best one
        self._measured = -1
        if self._metric is None:
            return
        start = _counted_from(run)
        for line in read_lines(writer.path).lines:
            if line.get("split") == split and line["step"] > start:
                self._count(line["step"], line.get(self._metric))

    @property
    def ended(self) -> bool:
        """Says whether patience has run out."""
        return 0 < self._run.config.patience <= self._since

    def event(self) -> list[Event]:
        """Returns what the loop fires; the last state is measured where it may be the best."""
        every = self._run.config.logging.eval_every
        return [Event(self.measure, every=every, final=self._metric is not None)] if every else []

    def catch_up(self, state: TrainState, first: int) -> None:
        """Makes the evaluation of the step to start from, where a kill came between its checkpoint and its line."""
        every = self._run.config.logging.eval_every
        last = self._metric is not None and first == self._run.config.steps
        if every and first and (first % every == 0 or last) and not self._writer.has(first, self._split):
            self.measure(state, first)

    def measure(self, state: TrainState, step: int) -> None:
        """Evaluates a state, keeps it if it is the best, and writes the line."""
        if step == self._measured:  # at the end, which may be that of an interval
            return
        self._measured = step
        e = self._run.config.evaluation
        batches = self._run.batches(self._split, e.batch_size, e.limit)
        result = evaluate(self._run.model, state, batches, key=jax.random.key(0))
        values = {name: estimate.value for name, estimate in result.metrics.items()}
        # As the line holds it: rounded, so that a resumed run compares the same numbers.
        if self._metric is not None and self._count(step, logged(values.get(self._metric))):
            self._save(state)
            self._keep(state, step)
        self._writer.write(step, self._split, values)

    def _count(self, step: int, value: Any) -> bool:
        """Counts one evaluation and returns whether it is the best; NaN, which a line holds as null, never is."""
        more = better(self._metric or "") == "more"
        if value is not None and (self.best is None or (value > self.best[1] if more else value < self.best[1])):
            self.best, self._since = (step, value), 0
            return True
        self._since += 1
        return False

    def _keep(self, state: TrainState, step: int) -> None:
        """Saves the best state in place of the one before."""
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self._run.path / "best", keep=1)
        # Of a run whose newest checkpoints were lost: these steps are made again, and orbax never saves backwards.
        self._checkpoints.forget(step)
        self._checkpoints.save(state, {})

    def summary(self, step: int) -> None:
        """Says where the best checkpoint is, and writes down why a run ended before its last step."""
        if self._metric is None or self.best is None:
            return
        run, (at, value) = self._run, self.best
        if self.ended and step < run.config.steps:
            resuming.note_start(run, "early stop", step, metric=self._metric, best=[at, value])
            more = command("resume", str(run.path), patience=2 * run.config.patience)
            self._say(
                f"ended at step {step:,} of {run.config.steps:,}: {self._since} evaluations in a row did not improve "
                f"{self._metric} (patience {run.config.patience}); {more} continues"
            )
        held = command("evaluate_run", str(run.path), step="best")
        self._say(f"best {self._metric} {value:.4g} on the {self._split} split at step {at:,}: {held}")

    def close(self) -> None:
        """Releases the folder of the best checkpoint."""
        if self._checkpoints is not None:
            self._checkpoints.close()


def _counted_from(run: Run) -> int:
    """Returns the step from which on evaluations compare; -1 for all of them."""
    changed = [line["step"] for line in history(run.path) if set(_APART) & set(line.get("changes") or {})]
    return max(changed, default=-1)
