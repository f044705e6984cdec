"""From a sweep's plan to its folder: groups one after the other, each member measured, a table and plots."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_jax import data
from vae_jax.data import DataConfig, Source
from vae_jax.errors import InputError, either, note, option
from vae_jax.figures.curves import read_metrics
from vae_jax.files.lock import locked
from vae_jax.model import Model
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.runs.run import Run
from vae_jax.tasks import first_stage, preflight, starts, training
from vae_jax.tasks.measuring import evaluate_run
from vae_jax.tasks.progress import Progress
from vae_jax.tasks.sweeps import table
from vae_jax.tasks.sweeps.group import Trained, grouped, open_member, train_group
from vae_jax.tasks.sweeps.record import FILE, Record, Sweep, check_free, keep_split
from vae_jax.train import TrainState
from vae_jax.train.loop import NonFinite

logger = logging.getLogger(__name__)
Report = Callable[[int, dict[str, Any]], None]
# Where the plots come from, besides the requested metrics.
ALWAYS = ("elbo", "rate", "distortion")


class Groups(NamedTuple):
    """The members of each program, the training split of each data config, and the sweep with checked configs."""

    members: list[list[int]]
    sources: dict[Any, Source]
    sweep: Sweep


def plan(sweep: Sweep, folder: Path | None = None) -> Groups:
    """Returns which members are one program; loads the data, writes nothing.

    Args:
      sweep: what to make.
      folder: of a sweep that is continued.

    Raises:
      InputError: a member whose data, model or devices do not fit together.
    """
    sources: dict[Any, Source] = {}
    others: dict[Any, Source] = {}
    seen: list[tuple[Source, Model]] = []

    members = (dataclasses.replace(m, config=configs.check(m.config)) for m in sweep.members)
    sweep = dataclasses.replace(sweep, members=tuple(members))
    if every := next((m.config.logging.eval_every for m in sweep.members if m.config.logging.eval_every), 0):
        what = option("logging.eval_every", every)
        note(f"note: {what} is not used, for members of a sweep are not evaluated while they train")
    if folder is not None:
        sweep = keep_split(folder, sweep)

    def load(options: DataConfig, split: str) -> Source:
        if (options, split) not in others:
            others[options, split] = data.load(options, split)
        return others[options, split]

    def check(config: Config) -> tuple[Source, Any]:
        if config.mesh.fsdp != 1:
            raise InputError(
                f"mesh.fsdp: {config.mesh.fsdp} would split a member over devices, but a sweep gives whole members to "
                "each; leave it at 1"
            )
        if config.logging.best is not None or config.patience:
            none = either("--logging.best None --patience 0", '**{"logging.best": None, "patience": 0}')
            raise InputError(f"logging.best: members of a sweep are not evaluated while they train; use {none}")
        if config.logging.samples_at:
            raise InputError(
                "logging.samples_at: members of a sweep keep no samples while they train; leave it out, and draw them "
                "from the members afterwards (`vae-jax sample`)"
            )
        if first_stage.is_second(config):
            alone = either("`vae-jax train EXP --stage1 RUN --seed 0`", '`vj.train_run(config, stage1="RUN")`')
            raise InputError(
                "model: a second stage is trained on the codes of a run, and members of a sweep do not start from one; "
                f"train them one by one, as with {alone}"
            )
        starts.check(config)
        if config.data not in sources:
            sources[config.data] = data.load(config.data, "train")
        source = sources[config.data]
        if source.pipeline != "device":
            training.load_fitting(config)
        model = training.check_fit(config, source)
        training.check_later(config, source, model, load)
        seen.append((source, model))
        return source, model

    groups = Groups(grouped(sweep.members, check), sources, sweep)
    preflight.check_metrics(sweep.metrics, seen)
    return groups


def sweep_run(
    sweep: Sweep,
    workdir: Path,
    groups: Groups | None = None,
    *,
    resume: bool = False,
    report: Report = lambda step, metrics: None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Trains and evaluates every member; returns the content of `sweep.json`.

    Args:
      sweep: what to make.
      workdir: its folder; members are run folders in it.
      groups: of `plan`, where it was made before.
      resume: continue the sweep in `workdir`: what is finished is not repeated.
      report: progress: steps of all groups so far, and metrics.
      say: takes sentences for people.

    Returns:
      `members` with the metrics of each, and the `table` of means over seeds.

    Raises:
      InputError: bad input; nothing was written. A metric that a member refuses stands in its row, under `refused`.
      Interrupted: SIGTERM or SIGINT; a checkpoint is saved.
    """
    groups = groups or plan(sweep, workdir if resume else None)
    sweep = groups.sweep
    # Before the lock, which makes the folder: what is refused writes nothing. Then again, now that nobody else writes.
    Record.resume(workdir, sweep) if resume else check_free(workdir)
    with locked(workdir):
        record = Record.resume(workdir, sweep) if resume else Record.create(workdir, sweep, groups.members)
        with training.log_to(workdir / "log.txt"):
            try:
                _make(sweep, record, groups, report, say)
            except BaseException as error:
                logger.exception("stopped: %s", error)
                raise
            table.write(record.path, record.values)
            record.write()
        return record.values


def _make(
    sweep: Sweep,
    record: Record,
    groups: Groups,
    report: Report,
    say: Callable[[str], None],
) -> None:
    combinations = len(sweep.members) // len(sweep.seeds)
    say(
        f"{sweep.experiment}: {len(sweep.members)} members ({combinations} x {len(sweep.seeds)} seeds) in "
        f"{len(groups.members)} program(s), folder {record.path}"
    )
    before = 0
    for number, group in enumerate(groups.members):
        rows = [record.members[i] for i in group]
        steps = sweep.members[group[0]].config.steps
        if any(row["state"] not in ("done", "diverged") for row in rows):
            _group(
                sweep,
                record,
                number,
                group,
                groups.sources,
                lambda step, metrics, b=before: report(b + step, metrics),
                say,
            )
        before += steps


def _group(
    sweep: Sweep,
    record: Record,
    number: int,
    group: Sequence[int],
    sources: dict[Any, Source],
    report: Report,
    say: Callable[[str], None],
) -> None:
    members = [sweep.members[i] for i in group]
    source = sources[members[0].config.data]
    runs: list[Run] = []
    for member in members:
        lead = runs[0] if runs else None
        runs.append(open_member(record.path / member.name, sweep.experiment, member.config, source, lead))
    runs[0].loaded["train"] = source  # the lead's data serve all members
    states: Sequence[TrainState | None] = [None] * len(group)
    if any(record.members[i]["state"] in ("waiting", "training") for i in group):
        for i in group:
            record.members[i]["state"] = "training"
        record.write()
        start = time.perf_counter()
        folder = record.path / "population" / str(number)
        if source.pipeline == "device":
            with contextlib.ExitStack() as locks:
                for run in runs:
                    locks.enter_context(locked(run.path))
                trained = train_group(runs, folder, strategy=sweep.strategy, report=report, say=say)
        else:
            trained = _alone(runs[0], report, say)
        states = trained.states
        _note(record, group, members, trained)
        record.values["groups"][number] = {
            "members": [member.name for member in members],
            "seconds": round(time.perf_counter() - start, 2),
        }
        record.write()
        remove_population(folder)
    for i, run, state in zip(group, runs, states):
        if record.members[i]["state"] == "trained":
            _evaluate(record, i, run, state, sweep.metrics)


def remove_population(folder: Path) -> None:
    """Removes the checkpoints of a group whose members have their own now, and the folder of all groups if empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def _note(record: Record, group: Sequence[int], members: Sequence[Any], trained: Trained) -> None:
    for position, (i, member) in enumerate(zip(group, members)):
        row = record.members[i]
        if position in trained.diverged:
            step, names = trained.diverged[position]
            row.update(state="diverged", step=step - 1, diverged={"step": step, "what": names})
        else:
            row.update(state="trained", step=member.config.steps)


def _alone(run: Run, report: Report, say: Callable[[str], None]) -> Trained:
    """Trains one member as `vae-jax train` does: its data are streamed, so no program can make the batches."""
    try:
        # Its folder is there, so it is resumed; without a checkpoint in it that begins at step 0.
        training.train_run(run.config, run.experiment, run.path, resume=True, report=report, say=say)
    except NonFinite as error:
        return Trained([], {0: (error.step, error.names)})
    return Trained([run.restore()], {})


def _evaluate(record: Record, number: int, run: Run, state: TrainState | None, metrics: tuple[str, ...]) -> None:
    lines = [line for line in read_metrics(run.path) if line.get("split") == "train"]
    has = tuple(name for name in ALWAYS if lines and name in lines[-1])
    result = evaluate_run(run, metrics=tuple(dict.fromkeys((*metrics, *has))) if metrics else (), state=state)
    record.update(number, state="done", metrics=result["metrics"], refused=result.get("refused", {}))


def run_sweep(sweep: Sweep, workdir: Path | None, *, resume: bool, quiet: bool) -> tuple[dict[str, Any], Path]:
    """Makes a sweep with a progress display.

    Args:
      sweep: what to make.
      workdir: its folder; None takes `runs/EXPERIMENT-sweep`, or the next free number after it (to resume: the newest).
      resume: continue the sweep in `workdir`.
      quiet: print nothing.

    Returns:
      the content of sweep.json, and the folder.

    Raises:
      InputError: bad input; nothing was written.
      Interrupted: SIGTERM or SIGINT; a checkpoint is saved.
    """
    name = f"{sweep.experiment}-sweep"
    folder = workdir or (training.newest_folder(name, file=FILE) if resume else training.free_folder(name))
    groups = plan(sweep, folder if resume else None)
    steps = sum(groups.sweep.members[group[0]].config.steps for group in groups.members)
    with Progress(steps, quiet=quiet) as progress:
        values = sweep_run(sweep, folder, groups, resume=resume, report=progress.report, say=progress.say)
    return values, folder
