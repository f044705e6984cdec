"""One group of members: trained as one program, each left behind as a run folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from vae_jax import config as configs
from vae_jax import train
from vae_jax.data import Source
from vae_jax.data.fingerprint import fingerprint
from vae_jax.data.pipeline import make_batch_fn
from vae_jax.resuming import check_data
from vae_jax.rundata import facts_of
from vae_jax.runs import Run, optimizer_of
from vae_jax.sweeps.plan import Member, program_of
from vae_jax.train import TrainState
from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.metrics import MetricsWriter
from vae_jax.train.population import (
    Strategy,
    init_population,
    make_population_step,
    member_mesh,
    member_states,
)
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
        text = configs.to_json(configs.put(member.config, "seed", 0))
        if text not in checked:
            checked[text] = check(member.config)
        source, model = checked[text]
        key = configs.to_json(program_of(member.config, model))
        groups.setdefault(key if source.pipeline == "device" else f"{number}", []).append(number)
    return list(groups.values())


def open_member(path: Path, experiment: str, config: configs.Config, source: Source, lead: Run | None) -> Run:
    """Returns the run folder of a member, made if it is not there.

    Raises:
      InputError: it is there, but of other data.
    """
    shape, facts, sha256 = source.info.image_shape, facts_of(source), fingerprint(source)
    if (path / "config.json").is_file():
        check_data(Run.load(path), source)
    else:
        Run.create(path, experiment, config, shape, facts, data_sha256=sha256)
    return Run(path, experiment, config, shape, facts, lead, data_sha256=sha256)


def train_group(
    runs: Sequence[Run],
    folder: Path,
    *,
    strategy: Strategy = "vmap",
    report: Callable[[int, dict[str, Any]], None],
    say: Callable[[str], None],
) -> Trained:
    """Trains members of one program; goes on from the population's newest checkpoint where there is one.

    Args:
      runs: the members; the first is the lead of the others.
      folder: for checkpoints of the population; it is removed when each member has its own.
      strategy: how members of one device are computed.
      report: progress: the step, and means over the members.
      say: takes sentences for people.

    Raises:
      Interrupted: SIGTERM or SIGINT; a checkpoint of the population is saved.
    """
    lead, c = runs[0], runs[0].config
    source, model, groups = lead.source("train"), lead.model, lead.optimizers
    mesh = member_mesh(len(runs), list(lead.mesh.devices.flat))
    split = NamedSharding(mesh, PartitionSpec("member"))
    hypers = [dict(run.model.hyper) for run in runs]
    seeds = [run.config.seed for run in runs]
    ema = c.ema_decay or None
    states = init_population(model, lead.optimizer, seeds, hypers, lead.example_batch(), mesh=mesh, ema=ema is not None)
    rates = {name: jnp.asarray([optimizer_of(run.config, name).lr for run in runs], jnp.float32) for name in groups}

    def make_step(own: dict[str, jax.Array]) -> TrainStep:
        tx = train.make_optimizer(groups, c.steps, model.gates, own)
        return train.make_train_step(model, tx, ema_decay=ema, accumulate=c.accumulate)

    step = make_population_step(make_step, make_batch_fn(source, c.data), mesh, strategy)
    devices = f" on {mesh.size} devices" if mesh.size > 1 else ""
    say(f"{len(runs)} member(s) as one program ({strategy}){devices}, {source.size:,} training images")
    for note in source.info.notes:
        say(f"note: {note}")
    checkpoints = Checkpoints(folder, keep=c.logging.keep)
    population = Population(states)
    if checkpoints.steps():
        population = Population.restore(states, checkpoints, lambda text: say(f"warning: {text}"))
        say(f"resuming at step {population.step}")
    # A member that diverged made its last line before that.
    writers = [MetricsWriter(run.path, resume_step=population.step, tensorboard=c.logging.tensorboard) for run in runs]
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
            report=report,
            say=say,
        )
    finally:
        for writer in writers:
            writer.close()
        checkpoints.close()
    own = member_states(population.states)
    for run, state in zip(runs, own):
        single = run.checkpoints(create=True)
        single.save(state, {})
        single.close()
    return Trained(own, population.diverged)
