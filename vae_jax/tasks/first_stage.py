"""The first stage of a second one: which run may be one, and what the second stage takes from it before step 0."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from vae_jax import spaces
from vae_jax.data import Source, limit
from vae_jax.errors import InputError, either, option, options
from vae_jax.evaluation import encode_all
from vae_jax.evaluation.code_usage import CodeCounts, by_level
from vae_jax.evaluation.likelihood import term_names
from vae_jax.files import trees
from vae_jax.model import ModelConfig
from vae_jax.models.stage2.build import FIRST, STATS
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.runs.run import Run
from vae_jax.runs.stage1 import Stage1
from vae_jax.spaces import Latents
from vae_jax.spec import DataSpec
from vae_jax.train import TrainState
from vae_jax.train.sharding import placed

LOOK = 2048  # training examples whose codes are looked at


def is_second(config: Config) -> bool:
    """Says whether a config is of a second stage, which needs a first one."""
    return hasattr(config.model, "first")


def within(config: Config, stage1: Run | None, init_from: Run | None = None) -> Config:
    """Returns the config of a new run with its first stage in place.

    Args:
      config: of the new run.
      stage1: the run that is the first stage; None where there is none, or the weights of `init_from` hold it.
      init_from: the run whose weights the new one starts with.

    Raises:
      InputError: a second stage without a first one, a first stage for something else, or classes of two files.
    """
    if stage1 is None:
        if not is_second(config):
            return config
        if init_from is not None and is_second(init_from.config):
            return _with_first(config, configs.get(init_from.config, configs.FIRST))
        made = either("`vae-jax train vq_vae_digits`", '`vj.train_run(vj.experiment("vq_vae_digits"))`')
        raise InputError(
            f"{option('stage1')}: a second stage is trained on the codes of a trained run; train one, as with {made}, "
            f"and name its folder: {option('stage1', 'runs/vq_vae_digits')}"
        )
    if not is_second(config):
        raise InputError(
            f"{option('stage1', str(stage1.path))}: {configs.kind('model', config.model)} has no first stage; leave it "
            f"out, or choose {option('model', 'second-stage')}"
        )
    if is_second(stage1.config):
        raise InputError(
            f"{option('stage1', str(stage1.path))}: is a second stage itself; name its own first stage"
            + (f", {stage1.stage1.path}" if stage1.stage1 else "")
        )
    return _with_first(config, stage1.config.model)


def _with_first(config: Config, first: ModelConfig) -> Config:
    """Returns the config with this first stage."""
    # Checked anew: each of them is right alone, but may not go with the other.
    return configs.check(configs.put(config, configs.FIRST, first))


def as_in(config: Config, folder: Path) -> Config:
    """Returns the config to continue a run with, with the first stage that it has; the config itself of other runs."""
    if not is_second(config) or not (folder / "config.json").is_file():
        return config
    held = Run.load(folder).config
    return configs.put(config, configs.FIRST, configs.get(held, configs.FIRST)) if is_second(held) else config


def advice(run: Run, generator: str = "") -> str:
    """Returns how to train a second stage on the codes of a run, with the generator of this name if one is named."""
    stage1 = option("stage1", str(run.path))
    command = either(f"`vae-jax train EXP {stage1}`", f"`vj.train_run(config, {stage1})`")
    chosen = {"model": "second-stage"} | ({"model.generator": generator} if generator else {})
    return f"train a second stage on its codes, as with {command}, where the config has {options(chosen)}"


def check_data(stage1: Run, spec: DataSpec) -> None:
    """Checks that a second stage's data are of the form that its first stage takes.

    Raises:
      InputError: another kind, shape, range or other columns.
    """
    named = option("stage1", str(stage1.path))
    old = stage1.spec
    if old.x != spec.x:
        raise InputError(
            f"{named}: was trained on {old.x.kind}s {old.x.shape}, but these data are {spec.x.kind}s {spec.x.shape}; "
            f"give the data of that run with {option('data', stage1.config.data.shown)}, or another first stage"
        )
    if (old.units, old.columns) != (spec.units, spec.columns):
        raise InputError(
            f"{named}: was trained on data with other units or columns; give the data of that run, or another first "
            "stage"
        )


def initial(run: Run, stage1: Run, found: TrainState, source: Source) -> TrainState:
    """Brings a trained first stage into the state of a second one.

    Args:
      run: the second stage; its folder need not exist.
      stage1: the run of the first stage.
      found: the state of its checkpoint.
      source: the training split of the second stage.

    Returns:
      the state at step 0: the second stage's own first weights, and the first stage's trained ones.

    Raises:
      InputError: fewer than two codes are in use, so that there is nothing to model.
    """
    state = run.init()
    given = {"params": found.eval_params} | ({"state": found.model_state} if found.model_state else {})

    # What the end of the run needs is tried now: the density of some generators needs a package of its own.
    term_names(run.model, run.spec)
    kept = {**state.model_state, FIRST: placed(given, state.model_state[FIRST])}
    z = _latents(stage1, found, run, source)
    if spaces.is_nominal(stage1.model.about.latents):
        used = _least_used(stage1.model.about.latents, z)
        if used < 2:
            raise InputError(
                f"{option('stage1', str(stage1.path))}: uses {used} code for {len(z)} training examples, so that its "
                "codes say nothing; train one that uses more, for example with "
                f"{option('model.quantizer', 'fsq')}"
            )
    if STATS in kept:
        kept[STATS] = placed({"mean": np.float32(z.mean(0)), "std": np.float32(z.std(0))}, kept[STATS])
    return dataclasses.replace(state, model_state=kept)


def stage1_of(stage1: Run, found: TrainState) -> Stage1:
    """Returns what a run keeps of where its first stage comes from."""
    taken = {"params": found.eval_params, "state": found.model_state}
    return Stage1(str(stage1.path.absolute()), int(found.step), trees.sha256(taken))


def again(run: Run) -> TrainState:
    """Returns the state at step 0 of a second stage that was stopped before its first checkpoint.

    Raises:
      InputError: the run of its first stage is gone, or its weights are not those that it was given.
    """
    assert run.stage1 is not None
    try:
        origin = Run.load(run.stage1.path)
        found = origin.restore(run.stage1.step)
    except InputError as error:
        raise InputError(
            f"{run.path}: was stopped before its first checkpoint, and its first stage cannot be read ({error}); "
            "restore that run, or start a new one in another folder"
        ) from error
    if stage1_of(origin, found).sha256 != run.stage1.sha256:
        raise InputError(
            f"{run.path}: its first stage {run.stage1.path} has other weights at step {run.stage1.step:,} than those "
            f"that it was given (SHA-256 {run.stage1.sha256[:12]}); restore them, or start a new run"
        )
    return initial(run, origin, found, run.source("train"))


def _latents(stage1: Run, found: TrainState, run: Run, source: Source) -> np.ndarray:
    """Returns the latents [N, n] of training examples that stand for all, one draw of q(z|x) each where it is one."""
    batches = run.with_source("train", source).chunks("train", limit.mixed(source, LOOK), 256)
    codes = encode_all(stage1.model, found, batches, key=jax.random.key(run.config.seed))
    return codes.mean if codes.z is None else codes.z


def _least_used(latents: Latents, z: np.ndarray) -> int:
    """Returns how many codes vectors [N, n] use of the codebook of which they use the fewest."""
    counts = CodeCounts(latents)
    counts.add(by_level(spaces.shaped(latents, z)))
    return min(len(used.codes) for used in counts.used().values())
