"""The Python face of the commands: configure, train, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vae_jax import config as configs
from vae_jax import experiments_index, training
from vae_jax.cli.progress import Progress
from vae_jax.config import Config
from vae_jax.errors import InputError, nearest
from vae_jax.measuring import evaluate_run
from vae_jax.runs import Run

__all__ = ["evaluate_run", "experiment", "train_run"]


def experiment(name: str, **options: Any) -> Config:
    """Returns the config of an experiment, with options replaced as on the command line.

    `experiment("beta_vae", steps=500, **{"model.network": "mlp", "model.objective.beta": 6.0})`. Components are named
    by their registry names and are applied before the options inside them.

    Raises:
      InputError: unknown experiment, option or component; a value out of range.
    """
    written = config = experiments_index.load(experiments_index.find(name))
    names = {key.replace("-", "_"): value for key, value in options.items()}
    for option in sorted((n for n in names if n in configs.REGISTRIES), key=lambda n: n.count(".")):
        if isinstance(names[option], str):
            config = configs.choose(config, option, names.pop(option))
    for option, value in names.items():
        known = configs.flatten(config)
        if option not in known and option not in configs.REGISTRIES:
            raise InputError(f"{option}: no such option; {nearest(option, known)}")
        config = configs.put(config, option, value)
    return configs.check(configs.keep_targets(config, written))


def train_run(
    config: Config,
    workdir: Path | str | None = None,
    *,
    name: str = "custom",
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains a config into a run folder, with a progress display, and returns the run.

    Args:
      config: what to train.
      workdir: the run folder; None takes `runs/NAME`, or the next free number after it.
      name: the experiment's name, written into the folder.
      resume: continue the run in `workdir`.
      quiet: print nothing.

    Raises:
      InputError: bad input; nothing was written.
      NonFinite: training diverged; the message names step, metric and last good checkpoint.
      Interrupted: SIGTERM or SIGINT; the checkpoint is saved.
    """
    with Progress(config.steps, quiet=quiet) as progress:
        return training.train_run(config, name, workdir, resume=resume, report=progress.report, say=progress.say)
