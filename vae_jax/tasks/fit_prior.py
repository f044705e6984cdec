"""Fits a density to the codes of a run after training, and draws images from it (ex-post density estimation)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from vae_jax import prng, spaces
from vae_jax.errors import InputError, command, nearest, option
from vae_jax.evaluation import decode_all, density_files, encode_all, expost
from vae_jax.evaluation.expost import ExPost
from vae_jax.metrics.estimate import Estimate
from vae_jax.options.typed import conform
from vae_jax.runs import config as configs
from vae_jax.runs.run import Run
from vae_jax.runs.training_data import DataGone
from vae_jax.tasks import given
from vae_jax.train import TrainState


def fit_prior(
    run: Run | Path | str,
    kind: str = "gmm",
    *,
    components: int = 10,
    steps: int = 3000,
    limit: int = 100_000,
    split: str | None = None,
    source: Path | str | None = None,
    seed: int = 0,
    step: int | Literal["best"] | None = None,
    out: Path | str | None = None,
    report: Callable[[int, int], None] = lambda seen, total: None,
) -> tuple[Path, dict[str, Any]]:
    """Fits a density to the codes of a run's training images, writes it, and returns (its .json, what it says).

    Codes are drawn from q(z|x), one per example; a deterministic model has only one each. Then
    `sample(run, prior=kind)` draws from the density.

    Args:
      run: a finished run, or the path of its folder.
      kind: "gmm", "flow" or "two-stage".
      components: Gaussians of "gmm".
      steps: updates of "flow" and "two-stage".
      limit: most images of a split that are encoded, drawn at random; 0 for all.
      split: whose codes score the density; None for the one that the run evaluates.
      source: the file or folder where the data of the run are now; None for where they were in training.
      seed: of everything random.
      step: checkpoint; None for the newest.
      out: folder to write into; None for RUN/prior.
      report: called with (images done, images).

    Returns:
      the path of the .json, and its content: how the density was fitted, and its mean log density in nats.

    Raises:
      InputError: an unknown kind, a run without real codes, components or steps out of range, no such split.
    """
    run, kind = given.opened(run), conform(kind, str, "kind", "gmm")
    if kind not in expost.KINDS:
        raise InputError(f"{option('kind', kind)}: no such density of codes; {nearest(kind, expost.KINDS)}")
    components, steps = given.at_least("components", components), given.at_least("steps", steps)
    limit, seed = given.at_least("limit", limit, 0), given.seed(seed)
    _check_codes(run)
    if source is not None:
        run = moved(run, str(source))
    held = given.shown_split(run, split)
    run.source(held)  # an unknown split is said before any work is done
    folder = run.path / "prior" if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{option('out')}: {folder} is a file; name a folder")
    state = given.restored(run, step)
    codes = {name: _codes(run, state, name, limit, seed, report) for name in ("train", held)}
    density = expost.fit(kind, codes["train"], components=components, steps=steps, seed=seed)

    def scored(name: str) -> dict[str, Any]:
        found = Estimate.of(density.log_prob(codes[name], seed))
        return {"value": found.value, "stderr": found.stderr, "n": found.n}

    density.about.update(
        experiment=run.experiment,
        step=int(state.step),
        seed=seed,
        split=held,
        codes=len(codes["train"]),
        drawn="one draw of q(z|x) per image" if _stochastic(run) else "one code per image",
        exact=density.exact,
        log_density={"held_out": scored(held), "train": scored("train")},
    )
    try:
        path = density_files.save(density, folder)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror or error}); choose another {option('out')}"
        ) from error
    return path, density.about


def moved(run: Run, source: str) -> Run:
    """Returns a run whose data are elsewhere now.

    Raises:
      InputError: they cannot be read there, or are not those that it was trained on.
    """
    found = dataclasses.replace(run, config=configs.put(run.config, "data.source", source))
    try:
        changed = found.data_change("train")
    except DataGone as error:
        raise InputError(
            f"{option('source', source)}: cannot be read as the data of {run.path} ({error.__cause__}); name the file "
            "or folder that holds them"
        ) from error
    if changed is not None:
        raise InputError(
            f"{option('source', source)}: not the data that {run.path} was trained on ({changed}); name those"
        )
    return found


def fitted(run: Run, state: TrainState, name: str) -> ExPost:
    """Returns the density that `--prior` names: a kind, fitted into RUN/prior, or the path of a KIND.json.

    Raises:
      InputError: no such kind, not fitted, or fitted to the codes of another checkpoint or model.
    """
    path = Path(name) if name.endswith(".json") else run.path / "prior" / f"{name}.json"
    what = option("prior", name)
    if not name.endswith(".json") and name not in expost.KINDS:
        raise InputError(f"{what}: no such density of codes; {nearest(name, expost.KINDS)}")
    kind = path.stem if path.stem in expost.KINDS else "gmm"
    if not path.is_file():
        again = command("fit_prior", run.path, kind=kind)
        raise InputError(f"{what}: not fitted yet ({path} does not exist); run {again} first")
    density, now = density_files.load(path), int(state.step)
    if density.about.get("step") != now:
        again = command("fit_prior", run.path, kind=kind, step=now)
        raise InputError(
            f"{what}: fitted to the codes of step {density.about.get('step')}, but the checkpoint is step {now}; "
            f"run {again}"
        )
    size = spaces.size(run.model.about.latents)
    if len(density.shift) != size:
        raise InputError(f"{what}: {path} has codes of width {len(density.shift)}, but the model's are {size}")
    return density


def draw_images(
    run: Run, state: TrainState, name: str, key: jax.Array, n: int, *, temperature: float, pixels: Any
) -> np.ndarray:
    """Returns n images float32 [n, H, W, C] decoded from draws of a fitted density of codes.

    Args:
      run: with a density that `fit_prior` wrote.
      state: weights that decode.
      name: of the density, such as "gmm".
      key: of codes and pixels.
      n: how many.
      temperature: scales the standard deviation of the density's Gaussians.
      pixels: "mean" is E[x|z], "mode" the most probable x, "sample" a draw from p(x|z).

    Returns:
      on the host, in [0, 1] where the data are.

    Raises:
      InputError: as `fitted`, or the temperature makes codes that are not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # codes beyond float32 are refused by decode_all
        z = fitted(run, state, name).sample(prng.site_key(key, "prior"), n, temperature)
    scaled_by = ("temperature", temperature) if temperature > 1 else None
    return decode_all(run.model, state, z, pixels=pixels, key=prng.site_key(key, "pixels"), scaled_by=scaled_by)


def _codes(
    run: Run, state: TrainState, split: str, limit: int, seed: int, report: Callable[[int, int], None]
) -> np.ndarray:
    source, size = run.source(split), run.config.evaluation.batch_size
    key = prng.site_key(jax.random.key(seed), f"codes/{split}") if _stochastic(run) else None
    if limit and limit < source.size:
        # At random: data with factors come in the order of the factors, and their first images are much alike.
        rows, total = np.sort(np.random.default_rng(seed).permutation(source.size)[:limit]), limit
        batches = run.chunks(split, rows, size)
    else:
        batches, total = run.batches(split, size), source.size
    found = encode_all(run.model, state, batches, key=key, report=lambda seen: report(seen, total))
    return found.mean if found.z is None else found.z


def _stochastic(run: Run) -> bool:
    return run.model.prior is not None


def _check_codes(run: Run) -> None:
    """Raises InputError for a model whose latents are no real vectors, or go with a condition."""
    if run.model.condition is not None:
        raise InputError(
            f"{run.path}: its codes go with a condition, which a density of codes alone would lose; "
            f"use a run with {option('model.condition.on', 'none')}"
        )
    latents = run.model.about.latents
    if not spaces.is_euclidean(latents):
        raise InputError(
            f"{run.path}: its latents are {spaces.words(latents)}, to which no density on R^n can be fitted; "
            "use a run with a posterior over real vectors"
        )
