"""The Python face of the commands: configure, train, measure, sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_jax import config as configs
from vae_jax import data, experiments_index, training
from vae_jax.cli.progress import Progress
from vae_jax.cli.sweep import run_sweep
from vae_jax.config import Config
from vae_jax.errors import InputError, nearest
from vae_jax.measuring import check_names, evaluate_run
from vae_jax.runs import Run
from vae_jax.sweeps import plan
from vae_jax.sweeps.record import Sweep
from vae_jax.train.population import Strategy

__all__ = ["evaluate_run", "experiment", "sweep", "train_run"]


def experiment(name: str, **options: Any) -> Config:
    """Returns the config of an experiment, with options replaced as on the command line.

    `experiment("beta_vae", steps=500, **{"model.network": "mlp", "model.objective.beta": 6.0})`. Components are named
    by their registry names and are applied before the options inside them. `data="photos/"` (or "x.npz", "digits") is
    the command line's `--data`: the data set is chosen by what the path is.

    Raises:
      InputError: unknown experiment, option or component; a value out of range.
    """
    written = config = experiments_index.load(experiments_index.find(name))
    names = {key.replace("-", "_"): value for key, value in options.items()}
    if isinstance(names.get("data"), str | Path):  # first, as on the command line: data options come on top
        config = configs.put(config, "data", data.choose(config.data, str(names.pop("data"))))
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


def sweep(
    name: str,
    *,
    seeds: Sequence[int] = (0,),
    vary: Mapping[str, Sequence[Any]] | None = None,
    workdir: Path | str | None = None,
    metrics: Sequence[str] = (),
    strategy: Strategy = "vmap",
    resume: bool = False,
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Trains every combination of values with every seed, members of equal shape as one program; returns sweep.json.

    `sweep("beta_vae", seeds=range(8), vary={"model.objective.beta": (1, 4, 16)})["table"]` has a row for each
    combination and metric: `values`, `metric`, `n`, `mean`, `sd`, `best`, `best_seed`, `diverged`.

    Args:
      name: of the experiment.
      seeds: of every combination.
      vary: option -> its values.
      workdir: the sweep's folder, its members are run folders in it; None takes `runs/NAME-sweep`, or the next free
        number after it (with `resume` the newest).
      metrics: measured at the end, as `--metrics` of `vae-jax eval` names them; () for the standard ones.
      strategy: "vmap" for one operation for all members of a device, "map" for one member after the other.
      resume: continue the sweep in `workdir`.
      quiet: print nothing.
      options: as for `experiment`, the same for all members.

    Raises:
      InputError: bad input; nothing was written.
      Interrupted: SIGTERM or SIGINT; a checkpoint is saved.
    """
    path = experiments_index.find(name)
    known = {
        option.replace("-", "_"): {" ".join(map(str, v)) if isinstance(v, tuple | list) else str(v): v for v in values}
        for option, values in (vary or {}).items()
    }

    def configure(written: dict[str, str]) -> Config:
        return experiment(name, **options, **{option: known[option][text] for option, text in written.items()})

    check_names(tuple(metrics))
    texts = {option: tuple(values) for option, values in known.items()}
    members = tuple(plan.make_members(tuple(seeds), texts, configure))
    what = Sweep(path.stem, members, tuple(seeds), texts, tuple(metrics), strategy)
    return run_sweep(what, Path(workdir) if workdir else None, resume=resume, quiet=quiet)[0]
