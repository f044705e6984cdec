"""The Python face: every command is one call here, and the commands stand on these calls.

| command | call | returns |
|---|---|---|
| `train EXP` | `train_run(experiment("EXP"))` | an open run |
| `train --resume RUN` | `resume(RUN)` | an open run |
| `sweep EXP` | `sweep("EXP", seeds=..., vary=...)` | the content of sweep.json |
| `eval RUN` | `evaluate_run(RUN)` | the content of eval.json |
| `fit-prior RUN` | `fit_prior(RUN, "gmm")` | (its file, what it says) |
| `baseline DATA` | `fit_baseline("DATA")` | (its folder, the content of eval.json) |
| `sample`, `decode`, `reconstruct` | `sample(RUN, 64)`, `decode(RUN, z)`, `reconstruct(RUN, x)` | an array |
| `encode RUN` | `encode(RUN, x)` | `Codes` |
| `score RUN` | `score(RUN, x)` | `Scores`, one of each kind per example |
| `compress RUN`, `decompress RUN` | `compress(RUN, x)`, `decompress(RUN, data)` | `Compressed`, `Decompressed` |
| `impute RUN` | `impute(RUN, x)` | `Imputed`: x with its missing values filled in |
| `interpolate`, `traverse`, `arithmetic` | the same names | arrays by name, and `figure()` |
| `compare RUN RUN`, `report RUN` | `compare([RUN, RUN])`, `report(RUN)` | rows by name, the file |

RUN is an open run (`load`), a `Run`, or the path of a run folder.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_jax import data as data_lib
from vae_jax.data import memory
from vae_jax.errors import InputError
from vae_jax.options import registry
from vae_jax.options.typed import conform, items
from vae_jax.runs import config as configs
from vae_jax.runs import experiments as experiments_index
from vae_jax.runs import hints, idle, kinds
from vae_jax.runs.config import Config
from vae_jax.runs.run import Run
from vae_jax.tasks import training
from vae_jax.tasks.baseline import fit_baseline
from vae_jax.tasks.codes import decode, encode
from vae_jax.tasks.compare import compare
from vae_jax.tasks.compressing import compress, decompress
from vae_jax.tasks.fit_prior import fit_prior
from vae_jax.tasks.imputing import impute
from vae_jax.tasks.measuring import check_names, evaluate_run
from vae_jax.tasks.opened import OpenRun, load
from vae_jax.tasks.paths import arithmetic, interpolate
from vae_jax.tasks.progress import Progress
from vae_jax.tasks.reconstruction import reconstruct
from vae_jax.tasks.report import report
from vae_jax.tasks.sampling import sample
from vae_jax.tasks.scoring import score
from vae_jax.tasks.sweeps import plan
from vae_jax.tasks.sweeps.record import Sweep
from vae_jax.tasks.sweeps.run import run_sweep
from vae_jax.tasks.traversal import traverse
from vae_jax.train.population import Strategy

__all__ = [
    "OpenRun",
    "arithmetic",
    "compare",
    "compress",
    "decode",
    "decompress",
    "encode",
    "evaluate_run",
    "experiment",
    "fit_baseline",
    "fit_prior",
    "impute",
    "interpolate",
    "load",
    "reconstruct",
    "report",
    "resume",
    "sample",
    "score",
    "sweep",
    "train_run",
    "traverse",
]


def experiment(name: str | Path, **options: Any) -> Config:
    """Returns the config of an experiment, with options replaced as on the command line.

    `experiment("beta_vae", steps=500, **{"model.network": "mlp", "model.objective.beta": 6.0})`. Components are named
    by their registry names and are applied before the options inside them. `data="photos/"` (or "x.npz", "digits") is
    the command line's `--data`: the data set is chosen by what the path is.

    Raises:
      InputError: unknown experiment, option or component; a value out of range.
    """
    written = experiments_index.load(experiments_index.find(name))
    config = _with_options(written, options)
    idle.refuse([config], written, _names(options))
    return config


def _names(options: Mapping[str, Any]) -> list[str]:
    return [name.replace("-", "_") for name in options]


def _with_options(written: Config, options: Mapping[str, Any]) -> Config:
    """Returns a config with options replaced and checked, without its targets where they no longer apply."""
    config = written
    names = {key.replace("-", "_"): value for key, value in options.items()}
    if memory.is_arrays(names.get("data")):
        raise InputError(
            "data: arrays are given to train_run, as in vj.train_run(vj.experiment('vae_digits'), data=images); a "
            "sweep reads them from a file: numpy.savez('data.npz', images=images), then data='data.npz'"
        )
    if isinstance(names.get("data"), str | Path):  # first, as on the command line: data options come on top
        given = registry.internal(str(names.pop("data")), functools.partial(kinds.code_of, written))
        config = configs.put(config, "data", data_lib.choose(config.data, given))
    for option in sorted((n for n in names if n in configs.REGISTRIES), key=lambda n: n.count(".")):
        if isinstance(names[option], str):
            config = configs.choose(config, option, names.pop(option))
    for option, value in names.items():
        kinds.refuse_first(option)
        known = configs.flatten(config)
        if option not in known and option not in configs.REGISTRIES:
            every = [*known, *kinds.components(config)]
            raise InputError(f"{option}: {hints.unknown_option(option, value, every, config)}")
        config = configs.put(config, option, value)
    config = kinds.with_code(config, kinds.code_of(written))
    return configs.check(configs.keep_targets(config, written))


def train_run(
    config: Config,
    workdir: Path | str | None = None,
    *,
    data: Any = None,
    name: str = "custom",
    resume: bool = False,
    init_from: Path | str | None = None,
    stage1: Path | str | None = None,
    quiet: bool = False,
) -> OpenRun:
    """Trains a config into a run folder, with a progress display, and returns the run.

    Args:
      config: what to train.
      workdir: the run folder; None takes `runs/NAME`, or the next free number after it.
      data: arrays in memory, in place of the data of the config: images [N, H, W] or [N, H, W, C] (uint8 0..255, or
        floats in [0, 1], NaN where a value is missing), or a dict with `images` and, where there are any, `labels` [N],
        `factors` [N, F], `cond` [N, F], `mask` (bool, True where observed), or with splits of its own (`train_images`,
        `test_images`, ...). Series are floats [N, T, C] or a dict with `series`, rows of numbers a dict with `vectors`
        or `counts` [N, D], a table is a data frame. An array [N, D], or one [N, H, W] that may be series, is what the
        config's `data.name` says: table, vectors, series or npz. They are read as from a file, and kept in the run
        folder (data.npz), so that the run can be resumed and measured from another shell.
      name: the experiment's name, written into the folder.
      resume: continue the run in `workdir` with this config: complete, and that of the run but for what changes no
        update (`steps`, `logging`, `evaluation`, ...), which is written into the folder. To give only what changes, or
        another learning rate, call `resume`.
      init_from: a run folder; training starts at step 0 with the weights that it is evaluated with.
      stage1: a run folder, the first stage of a config with `model="second-stage"`; its weights stay as they are.
      quiet: print nothing.

    Returns:
      the run, opened at its last checkpoint.

    Raises:
      InputError: bad input; nothing was written.
      NonFinite: training diverged; the message names step, metric and last good checkpoint.
      Interrupted: SIGTERM or SIGINT; the checkpoint is saved.
    """
    config = configs.check(config)
    workdir, name = _folder(workdir), _name(name)
    resume, quiet = conform(resume, bool, "resume"), conform(quiet, bool, "quiet")
    if resume and init_from is not None:
        raise InputError("init_from: a run that is resumed has its own weights; leave out resume or init_from")
    if stage1 is not None and (resume or init_from is not None):
        raise InputError("stage1: the run's weights hold their first stage; leave stage1 out")
    given = None if data is None else memory.taken(data, config.data.name)
    origin = None if init_from is None else Run.load(init_from)
    with Progress(config.steps, quiet=quiet) as progress:
        run = training.train_run(
            config,
            name,
            workdir,
            resume=resume,
            init_from=origin,
            stage1=None if stage1 is None else Run.load(stage1),
            given=given,
            report=progress.report,
            say=progress.say,
        )
    return load(run)


def resume(path: Path | str, *, quiet: bool = False, **options: Any) -> OpenRun:
    """Continues a run with its own options, as `vae-jax train --resume PATH` does, and returns the run.

    `resume("runs/beta_vae", steps=40_000)` trains on to step 40,000; `resume(path, **{"optimizer.lr": 1e-4})` continues
    with another learning rate. What changes is written into the folder, and noted in its `history.jsonl`.

    Args:
      path: the run folder.
      quiet: print nothing.
      options: as for `experiment`, on top of the run's own.

    Raises:
      InputError: no such run, an option that may not change, other data, fewer steps than were made.
      NonFinite: training diverged; the message names step, metric and last good checkpoint.
      Interrupted: SIGTERM or SIGINT; the checkpoint is saved.
    """
    run = Run.load(path)
    config = _with_options(run.config, options)
    idle.refuse([config], run.config, _names(options))
    with Progress(config.steps, quiet=quiet) as progress:
        new = training.train_run(
            config, run.experiment, run.path, resume=True, retune=True, report=progress.report, say=progress.say
        )
    return load(new)


def sweep(
    name: str | Path,
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
      name: of the experiment, or the path of its file.
      seeds: of every combination.
      vary: option -> its values.
      workdir: the sweep's folder, its members are run folders in it; None takes `runs/NAME-sweep`, or the next free
        number after it (with `resume` the newest).
      metrics: measured at the end, as `--metrics` of `vae-jax eval` names them; () for the standard ones.
      strategy: "vmap" for one operation for all members of a device, "map" for one member after the other.
      resume: continue the sweep in `workdir`.
      quiet: print nothing.
      options: as for `experiment`, the same for all members.

    Returns:
      the content of `sweep.json`: `members` with the metrics of each, and the `table` described above.

    Raises:
      InputError: bad input; nothing was written.
      Interrupted: SIGTERM or SIGINT; a checkpoint is saved.
    """
    path = experiments_index.find(name)
    base = experiments_index.load(path)
    folder, metrics = _folder(workdir), items(metrics, str, "metrics")
    resume, quiet = conform(resume, bool, "resume"), conform(quiet, bool, "quiet")
    strategy = conform(strategy, Strategy, "strategy", "vmap")
    seeds = items(seeds, int, "seeds")
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise InputError(f"seeds: {twice[0]} is listed twice, which would count one run as two; give each once")
    known = _values(vary or {})

    def configure(written: dict[str, str]) -> Config:
        return _with_options(base, {**options, **{option: known[option][text] for option, text in written.items()}})

    check_names(metrics)
    texts = {option: tuple(values) for option, values in known.items()}
    members = tuple(plan.make_members(seeds, texts, configure))
    idle.refuse([member.config for member in members], base, _names(options))
    what = Sweep(path.stem, members, seeds, texts, metrics, strategy)
    return run_sweep(what, folder, resume=resume, quiet=quiet)[0]


def _folder(workdir: Any) -> Path | None:
    found = conform(workdir, str | None, "workdir")
    if found == "":
        raise InputError("workdir: '' is no folder; name one, or leave it out for the next free one under runs/")
    return None if found is None else Path(found)


def _name(name: Any) -> str:
    found = conform(name, str, "name", "custom")
    if not found:
        raise InputError("name: '' is no name; write 'custom', for example")
    return found


def _values(vary: Any) -> dict[str, dict[str, Any]]:
    """Returns option -> {a value as it is written on the command line: the value}.

    Raises:
      InputError: not a mapping of options to lists, an option or a value twice, the seed.
    """
    if not isinstance(vary, Mapping):
        raise InputError(f"vary: {vary!r} is not a dict; write {{'model.objective.beta': (1.0, 4.0)}}, for example")
    known: dict[str, dict[str, Any]] = {}
    for given, held in vary.items():
        option = conform(given, str, "vary").replace("-", "_")
        if option == "seed":
            raise InputError("vary: seed is not varied but listed apart; write seeds=range(8), for example")
        values = items(held, Any, f"vary[{given!r}]")
        texts = [" ".join(map(str, v)) if isinstance(v, tuple | list) else str(v) for v in values]
        twice = [text for text in texts if texts.count(text) > 1]
        if not values:
            raise InputError(f"vary[{given!r}]: there are no values; give one or more, or leave the option out")
        if option in known or twice:
            what = twice[0] if twice else "the option"
            raise InputError(f"vary[{given!r}]: {what} is listed twice; give each value once, in one list")
        known[option] = dict(zip(texts, values))
    return known
