"""Continuing a run: what may change, the data it must be, and `history.jsonl`, the record of its starts.

A run folder is the source of its options. Whoever continues it gives only what shall be different; what may not be
different is refused by name, the rest is written back, so that the folder always says how its newest step was made.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae_jax.data import Source
from vae_jax.data.fingerprint import fingerprint
from vae_jax.errors import InputError, command, either, option, quoted
from vae_jax.files.atomic import no_link, write_json
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.runs.run import HISTORY, Run, check_free, commit, environment, history
from vae_jax.runs.training_data import spec_of
from vae_jax.spec import DataSpec
from vae_jax.tasks import first_stage
from vae_jax.train import Optimizer, TrainState
from vae_jax.train.metrics import read_lines
from vae_jax.train.sharding import placed

# What may differ when a run is continued: none of these changes the next update.
FREE_ON_RESUME = (
    "steps:",
    "patience:",
    "logging.",
    "evaluation.",
    "mesh.",
    "expected:",
    "data.source:",
    "data.workers:",
    "data.max_bytes:",
)
# What may differ when it is given on purpose: it changes every later update, and the history says so.
LEARNING_RATES = ("optimizer.lr:", "critic_optimizer.lr:")

Changes = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Start:
    """A run that is about to train, with all that could be refused checked.

    Attributes:
      run: as it will train.
      old: as its folder has it; None for a new run.
      state: at step 0 of a new run that starts with another's weights; they were read to check that they fit.
    """

    run: Run
    old: Run | None = None
    state: TrainState | None = field(default=None, compare=False, repr=False)

    def create(self) -> Run:
        """Makes the folder of a new run."""
        r = self.run
        more: dict[str, Any] = {"data_sha256": r.data_sha256, "init_from": r.init_from, "stage1": r.stage1}
        return Run.create(r.path, r.experiment, r.config, r.spec, **more)

    def initial(self) -> TrainState | None:
        """Returns the state at step 0 of a run that starts with another's weights; None for one that does not."""
        if self.state is not None:
            return self.state
        if self.run.init_from is None:
            return None if self.run.stage1 is None else first_stage.again(self.run)
        path, step = self.run.init_from
        origin = Run.load(path)
        return initial(self.run, origin, origin.restore(step))

    def notes(self, step: int) -> Iterator[str]:
        """Yields what a person should know of a run that is continued at this step, a line each."""
        assert self.old is not None
        old, new = self.old.config, self.run.config
        changed = {name: values for name, values in changes(old, new).items() if name != "expected"}
        if changed:
            yield "changed: " + "; ".join(f"{name}: {_text(a)} -> {_text(b)}" for name, (a, b) in changed.items())
        if old.expected and not new.expected:
            yield "note: the targets of the experiment hold for its own options only, and are dropped"
        yield from rate_notes(old, new, self.run.optimizer_options.values(), step)
        if self.old.data_sha256 is None:
            yield (
                f"note: {self.run.path} is of a version that kept no hash of the training data; these are taken for "
                "the same, and their hash is kept from now on"
            )
        failed = failed_ahead(self.run, step)
        if failed:
            yield failed

    def write_back(self, step: int) -> None:
        """Writes what changed into `config.json`, and the start into `history.jsonl`."""
        assert self.old is not None
        changed = changes(self.old.config, self.run.config)
        if changed or self.run.data_sha256 != self.old.data_sha256:
            self.run.write_config()
        if not (self.run.path / "env.json").is_file():  # killed between the first two files
            write_json(self.run.path / "env.json", environment())
        note_start(self.run, "resume", step, changed)


def begin(
    path: Path, experiment: str, config: Config, source: Source, init_from: Run | None, stage1: Run | None = None
) -> Start:
    """Returns a new run; writes nothing.

    A run that starts with the weights of another one has no targets: those are of a run from scratch.

    Args:
      path: of the run folder, not yet there.
      experiment: its name.
      config: complete.
      source: the training split.
      init_from: a run whose weights the new one starts with; None initializes them.
      stage1: the run that is the first stage of a second one.

    Returns:
      the run, whose folder `create` makes; with its state at step 0 where `init_from` gives the weights.

    Raises:
      InputError: the folder is taken, or the weights to start from do not fit.
    """
    check_free(path)
    sha256, spec = fingerprint(source), spec_of(source)
    config = config if init_from is None else dataclasses.replace(config, expected={})
    run = Run(path, experiment, config, spec, data_sha256=sha256)
    if stage1 is not None:
        first_stage.check_data(stage1, spec)
        found = stage1.restore()
        run = dataclasses.replace(run, stage1=first_stage.stage1_of(stage1, found))
        return Start(run, state=first_stage.initial(run, stage1, found, source))
    if init_from is None:
        return Start(run)
    found = init_from.restore()  # the newest that can be read
    # Absolute: the run must find it from any folder if it is killed before its first checkpoint.
    origin = (str(init_from.path.absolute()), int(found.step))
    run = dataclasses.replace(run, init_from=origin, stage1=init_from.stage1)
    return Start(run, state=initial(run, init_from, found))


def reopen(path: Path, config: Config, source: Source, *, retune: bool = False) -> Start:
    """Returns a run that is continued; writes nothing.

    Args:
      path: the run folder.
      config: the complete config to continue with.
      source: the training split that this config loads.
      retune: another learning rate was given on purpose, and is allowed.

    Returns:
      the run as it will train, beside the one that its folder has.

    Raises:
      InputError: no run, other data, an option that may not change, or fewer steps than were made.
    """
    old = Run.load(path)
    check_changes(old, config, retune=retune)
    check_data(old, source)
    return Start(dataclasses.replace(old, config=config, data_sha256=fingerprint(source)), old)


def changes(old: Config, new: Config) -> Changes:
    """Returns {option: (old value, new value)} of every option that differs, components included."""
    a, b = configs.options(old), configs.options(new)
    names = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    return {name: (a.get(name), b.get(name)) for name in names}


def check_changes(run: Run, config: Config, *, retune: bool = False) -> None:
    """Checks that a run may be continued with this config.

    Raises:
      InputError: an option that may not change does, or the run has already made more steps.
    """
    changed = changes(run.config, config)
    free = FREE_ON_RESUME + (LEARNING_RATES if retune else ())
    refused = {name: values for name, values in changed.items() if not f"{name}:".startswith(free)}
    if refused:
        what = "; ".join(f"{name}: {_text(a)} -> {_text(b)}" for name, (a, b) in refused.items())
        fix = "leave it as it was, or start a new run in another folder"
        if all(f"{name}:".startswith(LEARNING_RATES) for name in refused):
            rates = {name: float(f"{b:g}") for name, (_, b) in refused.items()}
            fix = f"another learning rate is given on purpose, as in {command('resume', run.path, **rates)}"
        raise InputError(f"{run.path}: cannot resume with a changed config ({what}); {fix}")
    made = run.newest_step
    if config.steps < made:
        raise InputError(
            f"steps: {config.steps} is fewer than the {made} steps that {run.path} has made; use "
            f"{option('steps', made)} or more"
        )


def check_data(run: Run, source: Source) -> None:
    """Checks that these are the data that the run was trained on; where they lie does not matter.

    Raises:
      InputError: other content, or another shape.
    """
    shape, where = tuple(source.info.shape), run.path
    words = _data_words(run, source)
    afresh = either(f"`vae-jax train --init-from {quoted(where)}{words}`", f"{option('init_from', str(where))}")
    fix = f"restore them, or train on these from its weights with {afresh}"
    if run.spec.x.shape != shape:
        raise InputError(
            f"{where}: was trained on {run.spec.x.kind}s {run.spec.x.shape}, the data now gives {shape}; start a new "
            f"run{either(f' with `vae-jax train {quoted(run.experiment)}{words}`', ' in another folder')}"
        )
    # Runs of before have no hash: what is known of their data has to do. Version 0.1 knew nothing.
    spec = spec_of(source)
    if run.data_sha256 is None and run.spec.examples and _counts(run.spec) != _counts(spec):
        raise InputError(f"{where}: was trained on {_said(run.spec)}, the data now has {_said(spec)}; {fix}")
    if run.data_sha256 is not None and run.data_sha256 != fingerprint(source):
        raise InputError(
            f"{where}: the training data ({source.info.name}, {source.info.where}) are not those that it was trained "
            f"on (SHA-256 {fingerprint(source)[:12]} now, {run.data_sha256[:12]} then); {fix}"
        )


def _data_words(run: Run, source: Source) -> str:
    """Returns " --data ..." for data that a run's own options do not name, else ""."""
    own, info = run.config.data, source.info
    if own.shown == info.name and (own.source is None or Path(own.source).expanduser() == Path(info.where)):
        return ""
    return f" --data {quoted(info.where if Path(info.where).exists() else info.name)}"


def _counts(spec: DataSpec) -> tuple[Any, ...]:
    """Returns the facts that every version stored; others that a run does not know are no difference."""
    return spec.examples, spec.classes, spec.factors, spec.cond


def _said(spec: DataSpec) -> str:
    extra = [f"{spec.classes} classes"] if spec.classes else []
    extra += [f"{len(spec.factors)} factors"] if spec.factors else []
    return f"{spec.examples} examples" + (f" ({', '.join(extra)})" if extra else "")


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def initial(run: Run, origin: Run, found: TrainState) -> TrainState:
    """Returns the state at step 0 of a new run, with the weights that another run is evaluated with.

    Those are its moving average where it keeps one. The model's own state (running variances, exemplars) comes along;
    the optimizer starts afresh.

    Args:
      run: the new one; its folder need not exist.
      origin: the run whose weights are taken.
      found: the state of its checkpoint.

    Raises:
      InputError: weights that do not fit; the first that does not is named.
    """
    ours = jax.eval_shape(run.init)
    wanted = {"params": ours.params, "model_state": ours.model_state}
    given = {"params": found.eval_params, "model_state": found.model_state}
    theirs, mine = _leaves(given), _leaves(wanted)
    every = either(": leave EXP out", f' from vj.load("{origin.path}").config')
    for name in dict.fromkeys([*mine, *theirs]):
        if theirs.get(name) != mine.get(name):
            raise InputError(
                f"{option('init_from', origin.path)}: {name} is {theirs.get(name, 'not there')}, this model wants "
                f"{mine.get(name, 'none')}; give the model options of that run, or take all of them{every}"
            )
    state = run.init()

    params, kept = placed(given["params"], state.params), placed(given["model_state"], state.model_state)
    # The average starts at the weights, in buffers of its own: the state is donated, and no buffer may be twice in it.
    ema = None if state.ema is None else placed(given["params"], state.ema)
    return dataclasses.replace(state, params=params, model_state=kept, ema=ema)


def _leaves(tree: Any) -> dict[str, str]:
    """Returns name -> "type [shape]" of every array of a tree."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{x.dtype} {list(x.shape)}"
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def rate_notes(old: Config, new: Config, optimizers: Iterable[str], step: int) -> Iterator[str]:
    """Yields a line for each optimizer whose learning rate at this step is not what it would have been.

    The length of a cosine is that of the run: one that ran to its end starts again from a higher rate when the run is
    made longer. Learning rates are those of the next update.

    Args:
      old: the config that the run had.
      new: the config that it continues with.
      optimizers: options that hold the optimizers of the parameter groups.
      step: updates made so far.

    Yields:
      sentences for the user.
    """
    for name in dict.fromkeys(optimizers):
        before, after = getattr(old, name), getattr(new, name)
        a, b = _rate(before, old.steps, step), _rate(after, new.steps, step)
        follows_length = old.steps != new.steps and "cosine" in after.schedule.kind
        if before.lr == after.lr and not follows_length:
            continue
        length = f", whose {after.schedule.kind} schedule now ends at step {new.steps:,}, not {old.steps:,}"
        yield (
            f"note: {name}: the learning rate at step {step:,} was {a:.3g} and becomes {b:.3g}"
            f"{length if follows_length else ''}"
        )


def _rate(optimizer: Optimizer, steps: int, step: int) -> float:
    return float(np.asarray(optimizer.schedule.build(optimizer.lr, steps)(step)))


def note_start(run: Run, event: str, step: int, changed: Changes | None = None, **more: Any) -> None:
    """Appends a start to `history.jsonl`: time, event, step, what changed as {option: [old, new]}, commit.

    Args:
      run: whose folder it is.
      event: what happened, such as "resume".
      step: updates made so far.
      changed: option -> (old value, new value).
      more: further entries of the line.
    """
    what = {name: list(values) for name, values in (changed or {}).items()}
    _append(run.path, {"event": event, "step": step, "changes": what, "commit": commit(), **more})


def note_failure(run: Run, step: int, names: list[str]) -> None:
    """Appends to `history.jsonl` that training became NaN or Inf at this step."""
    _append(run.path, {"event": "not finite", "step": step, "metrics": names})


def failed_ahead(run: Run, step: int) -> str | None:
    """Returns a sentence on a failure of this run at a step that lies ahead, with the learning rates to lower."""
    ahead = [line for line in history(run.path) if line.get("event") == "not finite" and line["step"] > step]
    if not ahead:
        return None
    names = " and ".join(ahead[-1].get("metrics", ["loss"]))
    return (
        f"note: this run failed at step {ahead[-1]['step']} before ({names} became NaN or Inf); if it fails again, "
        f"lower the learning rate: {lower_rate(run)}"
    )


def lower_rate(run: Run) -> str:
    """Returns the command that continues a run with a third of its learning rates."""
    options = dict.fromkeys(run.optimizer_options.values())
    rates = {f"{name}.lr": float(f"{getattr(run.config, name).lr / 3:.1g}") for name in options}
    return command("resume", run.path, **rates)


def set_aside_lost(path: Path) -> str | None:
    """Renames the numbers of a run that has no checkpoint and is about to start at step 0 again.

    Else the lines of metrics.jsonl would be dropped as those of steps that are about to be made again, and eval.json
    would count as an evaluation of weights that no longer exist.

    Returns:
      a sentence that says so; None if there are no numbers of a step past 0.
    """
    found = read_lines(path / "metrics.jsonl")
    made = max((line["step"] for line in found.lines), default=0)
    # A torn line alone is the trace of a kill in the first interval: there is nothing in it to keep.
    holds = made > 0 or len(found.damaged) > found.torn
    # metrics.jsonl comes last: after a kill in between, the next start still sees that there is something to do.
    names = ["eval.json"] * (path / "eval.json").is_file() + ["metrics.jsonl"] * holds
    if not names:
        return None
    number = next(n for n in itertools.count(1) if not any((path / _lost(name, n)).exists() for name in names))
    for name in names:
        (path / name).rename(path / _lost(name, number))
    kept = " and ".join(f"{name} is kept as {_lost(name, number)}" for name in reversed(names))
    return f"{path}: has no checkpoint, so that it starts at step 0 again; {kept}"


def _lost(name: str, number: int) -> str:
    """Returns metrics-lost-1.jsonl for metrics.jsonl."""
    return f"{Path(name).stem}-lost-{number}{Path(name).suffix}"


def _append(path: Path, values: dict[str, Any]) -> None:
    file = path / HISTORY
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **values})
    torn = file.is_file() and file.read_bytes()[-1:] not in (b"", b"\n")
    with open(file, "a", encoding="utf-8", opener=no_link) as out:
        # A line that a kill cut short is ended, so that it does not swallow this one.
        out.write(("\n" if torn else "") + line + "\n")
