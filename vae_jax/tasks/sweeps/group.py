"""One group of members: trained as one program, each left behind as a run folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from vae_jax import train
from vae_jax.data import Source
from vae_jax.data.fingerprint import fingerprint
from vae_jax.data.pipeline import make_batch_fn
from vae_jax.runs import config as configs
from vae_jax.runs import config_json, splits
from vae_jax.runs.run import Run
from vae_jax.runs.training_data import spec_of
from vae_jax.tasks.resuming import check_data, set_aside_lost
from vae_jax.tasks.sweeps.plan import Member, program_of
from vae_jax.train import TrainState
from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.metrics import MetricsWriter
from vae_jax.train.population import Strategy, init_population, make_population_step, member_mesh, member_states
from vae_jax.train.population_loop import Population, fit_population
from vae_jax.train.step import TrainStep


@dataclass(frozen=True)
class Trained:
    """What came of a group.

    Attributes:
      states: of each member, on the first device.
      diverged: member of the group -> (step, names of what was not finite).
    """

    states: list[TrainState]
    diverged: dict[int, tuple[int, list[str]]]


def grouped(members: Sequence[Member], check: Callable[[configs.Config], tuple[Source, Any]]) -> list[list[int]]:
    """Returns the members by program, in the order of each group's first.

    Members of data that are streamed from disk, or that share their program with nobody, are groups of one.

    Args:
      members: of the sweep.
      check: config -> (training split, model), which refuses a config that does not fit its data.
    """
    groups: dict[str, list[int]] = {}
    checked: dict[str, tuple[Source, Any]] = {}
    for number, member in enumerate(members):
        text = config_json.to_json(configs.put(member.config, "seed", 0))
        if text not in checked:
            checked[text] = check(member.config)
        source, model = checked[text]
        key = config_json.to_json(program_of(member.config, model))
        groups.setdefault(key if source.pipeline == "device" else f"{number}", []).append(number)
    return list(groups.values())


def open_member(path: Path, experiment: str, config: configs.Config, source: Source, lead: Run | None) -> Run:
    """Returns the run folder of a member, made if it is not there.

    Args:
      path: of the member's folder.
      experiment: its name.
      config: of the member.
      source: the training split that all members share.
      lead: the run whose model is shared; None for the lead itself.

    Returns:
      the run; a folder that was there is left as it is.

    Raises:
      InputError: it is there, but of other data.
    """
    spec, sha256 = spec_of(source), fingerprint(source)
    if (path / "config.json").is_file():
        check_data(Run.load(path), source)
    else:
        Run.create(path, experiment, splits.within(config, path), spec, data_sha256=sha256)
        splits.store(path, source)
    return Run(path, experiment, config, spec, lead, data_sha256=sha256)


def train_group(
    runs: Sequence[Run],
    folder: Path,
    *,
    strategy: Strategy = "vmap",
    report: Callable[[int, dict[str, Any]], None],
    say: Callable[[str], None],
) -> Trained:
    """Trains members of one program; continues from the population's newest checkpoint where there is one.

    Args:
      runs: the members; the first is the lead of the others.
      folder: for checkpoints of the population; it is removed when each member has its own.
      strategy: how members of one device are computed.
      report: progress: the step, and means over the members.
      say: takes sentences for people.

    Returns:
      the last states of the members, and which of them diverged.

    Raises:
      Interrupted: SIGTERM or SIGINT; a checkpoint of the population is saved.
    """
    lead, c = runs[0], runs[0].config
    source, model, options = lead.source("train"), lead.model, lead.optimizer_options
    mesh = member_mesh(len(runs), list(lead.mesh.devices.flat))
    split = NamedSharding(mesh, PartitionSpec("member"))
    hypers = [dict(run.model.training.hyper) for run in runs]
    seeds = [run.config.seed for run in runs]
    batch, ema = lead.example_batch(), c.ema_decay > 0
    states = init_population(model, lead.optimizer, seeds, hypers, batch, mesh=mesh, ema=ema)
    rates = {
        group: jnp.asarray([getattr(run.config, option).lr for run in runs], jnp.float32)
        for group, option in options.items()
    }
    step = make_population_step(partial(_make_step, lead), make_batch_fn(source, c.data), mesh, strategy)
    examples = lead.spec.x.examples
    devices = f" on {mesh.size} devices" if mesh.size > 1 else ""
    say(f"{len(runs)} member(s) as one program ({strategy}){devices}, {source.size:,} training {examples}")
    for note in source.info.notes:
        say(f"note: {note}")
    checkpoints = Checkpoints(folder, keep=c.logging.keep)
    population = _opened(states, checkpoints, runs, say)
    writers = _writers(runs, population.step, say)
    try:
        population = fit_population(
            step,
            population,
            jax.device_put(rates, split),
            jax.device_put(dict(source.arrays), NamedSharding(mesh, PartitionSpec())),
            steps=c.steps,
            batch_size=c.data.batch_size,
            log_every=c.logging.log_every,
            writers=writers,
            checkpoints=checkpoints,
            checkpoint_every=c.logging.checkpoint_every,
            report=lambda step, metrics: report(step, metrics | {"examples": examples}),
            say=say,
        )
    finally:
        for writer in writers:
            writer.close()
        checkpoints.close()
    own = member_states(population.states)
    for run, state in zip(runs, own):
        _save(run, state)
    return Trained(own, population.diverged)


def _save(run: Run, state: TrainState) -> None:
    """Saves the last state of a member in a folder of its own."""
    single = run.checkpoints(create=True)
    single.save(state, {})
    single.close()


def _make_step(lead: Run, rates: dict[str, jax.Array]) -> TrainStep:
    """Returns the training step of one member of the lead's program, with learning rates of its own by group."""
    c = lead.config
    tx = train.make_optimizer(lead.optimizers, c.steps, lead.model.training.gates, rates)
    return train.make_train_step(lead.model, tx, ema_decay=c.ema_decay or None, accumulate=c.accumulate)


def _opened(
    states: TrainState, checkpoints: Checkpoints, runs: Sequence[Run], say: Callable[[str], None]
) -> Population:
    """Returns the population to train: that of its newest checkpoint, or without any the initial states."""
    if checkpoints.steps():
        population = Population.restore(states, checkpoints, lambda text: say(f"warning: {text}"))
        say(f"resuming at step {population.step}")
        return population
    for run in runs:
        if lost := set_aside_lost(run.path):
            say(f"warning: {lost}")
    return Population(states)


def _writers(runs: Sequence[Run], step: int, say: Callable[[str], None]) -> list[MetricsWriter]:
    """Returns the writer of each member's metrics.jsonl, without lines after the step to continue from.

    A member that diverged made its last line before that.
    """
    board = runs[0].config.logging.tensorboard

    def warn(text: str) -> None:
        say(f"warning: {text}")

    return [MetricsWriter(run.path, resume_step=step, tensorboard=board, say=warn) for run in runs]
