"""Run folders: made once, never overwritten, and enough to rebuild everything from."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import config as configs
from vae_jax import runfile, train
from vae_jax.atomic import write_json
from vae_jax.config import Config
from vae_jax.data import Source, labels
from vae_jax.data.pipeline import eval_batches, examples
from vae_jax.errors import InputError
from vae_jax.model import NO_FACTS, Facts, Model
from vae_jax.train import TrainState
from vae_jax.train.checkpoint import Checkpoints

PACKAGES = ("vae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "numpy")


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
      path: the folder.
      experiment: name of the experiment it came from.
      config: its complete configuration.
      image_shape: (H, W, C) of the data it was made for.
      facts: what else was known of the training data.
      lead: another run of the same program (members of a sweep): its model and its data serve this one as well, so
        that nothing is compiled or loaded twice. Data and model must be equal but for the model's traced scalars.
    """

    path: Path
    experiment: str
    config: Config
    image_shape: tuple[int, int, int]
    facts: Facts = NO_FACTS
    lead: Run | None = field(default=None, compare=False, repr=False)

    @classmethod
    def create(
        cls, path: Path, experiment: str, config: Config, image_shape: tuple[int, int, int], facts: Facts = NO_FACTS
    ) -> Run:
        """Makes the folder with `config.json` and `env.json`.

        Raises:
          InputError: it exists and is not empty, or cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path}: already there; continue it with --resume, or choose another --workdir")
        run = cls(path, experiment, config, image_shape, facts)
        try:
            (path / "figures").mkdir(parents=True, exist_ok=True)
            about = {"experiment": experiment, "image_shape": list(image_shape), "facts": facts._asdict()}
            values = {**about, **configs.to_dict(config)}
            write_json(path / "env.json", environment())
            write_json(path / "config.json", values)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --workdir") from error
        return run

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Opens an existing run.

        Raises:
          InputError: it is no run folder, or its `config.json` cannot be read.
        """
        path = Path(path)
        file = path / "config.json"
        if not file.is_file():
            what = "no such folder" if not path.exists() else "no config.json in it"
            if inner := sorted(file.parent for file in path.glob("*/config.json")):
                raise InputError(f"{path}: not a run folder, but it holds {len(inner)}; name one, as in {inner[0]}")
            raise InputError(f"{path}: not a run folder ({what}); runs are made by `vae-jax train EXP`")
        held = runfile.read(file)
        return cls(path, held.experiment, held.config, held.image_shape, held.facts)

    @functools.cached_property
    def model(self) -> Model:
        """The model's pure functions."""
        if self.lead is not None:
            return self.lead.model._replace(hyper=self.config.model.build(self.image_shape, self.facts).hyper)
        return self.config.model.build(self.image_shape, self.facts)

    @functools.cached_property
    def optimizer(self) -> Any:
        """The optax transformation of the run."""
        return train.make_optimizer(self.optimizers, self.config.steps, self.model.gates)

    @functools.cached_property
    def optimizers(self) -> dict[str, train.Optimizer]:
        """The optimizer's options for each parameter group."""
        shapes = jax.eval_shape(lambda: self.model.init(jax.random.key(0), self.example_batch()))[0]
        return {group: optimizer_of(self.config, group) for group in shapes}

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The device mesh of the run's config."""
        return train.make_mesh(self.config.mesh)

    @property
    def prior_unit(self) -> tuple[float, float] | None:
        """Mean and standard deviation of the prior, the same in all dimensions; None where it has no such unit."""
        prior = getattr(self.config.model, "prior", None)
        return prior.unit() if prior is not None else None

    def provenance(self) -> dict[str, Any]:
        """Returns what made this run: seed, commit, machine and versions; None where `env.json` is gone."""
        try:
            env = json.loads((self.path / "env.json").read_text())
        except (OSError, json.JSONDecodeError):
            env = {}
        kept = {name: env.get(name) for name in ("commit", "processor", "cpus", "devices")}
        return {"seed": self.config.seed, **kept, "jax": env.get("packages", {}).get("jax")}

    def example_batch(self) -> dict[str, jax.Array]:
        """Returns a batch of one blank image, for shapes, with a label and factors where the data have them."""
        return blank_batch(self.image_shape, self.facts)

    def init(self, mesh: jax.sharding.Mesh | None = None) -> TrainState:
        """Returns the state at step 0, placed on the mesh."""
        key = jax.random.key(self.config.seed)
        ema = self.config.ema_decay > 0
        mesh = mesh or self.mesh
        return train.init_state(self.model, self.optimizer, key, self.example_batch(), mesh=mesh, ema=ema)

    def _shapes(self, mesh: jax.sharding.Mesh) -> TrainState:
        key, ema = jax.random.key(self.config.seed), self.config.ema_decay > 0
        return train.state_shapes(self.model, self.optimizer, key, self.example_batch(), mesh=mesh, ema=ema)

    def checkpoints(self, *, create: bool = False) -> Checkpoints:
        """Returns the checkpoints of the run."""
        return Checkpoints(self.path / "checkpoints", keep=self.config.logging.keep, create=create)

    def restore(self, step: int | None = None) -> TrainState:
        """Returns the state of a checkpoint, on this machine's first device (whatever mesh made it).

        Raises:
          InputError: no checkpoint, or none that can be read.
        """
        single = train.make_mesh(train.MeshConfig(data=1, fsdp=1))
        checkpoints = self.checkpoints()
        try:
            return checkpoints.restore(self._shapes(single), step)[0]
        finally:
            checkpoints.close()

    @functools.cache  # noqa: B019 - a Run is small, immutable and lives as long as the process that looks at it
    def source(self, split: str) -> Source:
        """Returns one split of the run's data.

        Raises:
          InputError: they cannot be read, or are of another form than those that the run was trained on.
        """
        if self.lead is not None:
            return self.lead.source(split)
        return runfile.load_source(self, split)

    def batches(self, split: str, batch_size: int | None = None) -> Iterator[dict[str, Any]]:
        """Yields the split once, as the model saw it in training; the last batch is smaller, never dropped."""
        return eval_batches(self.source(split), self.config.data, batch_size)

    def examples(self, split: str, index: np.ndarray) -> dict[str, Any]:
        """Returns the examples `index` int [B] of a split, as `batches` yields them."""
        return examples(self.source(split), self.config.data, index)

    def labelled(self, batch_size: int) -> Iterator[dict[str, Any]]:
        """Yields the labelled training examples (`data.labels`); where all are, 1,000 of them, as many of each class.

        Raises:
          InputError: the data have no labels.
        """
        source, config = self.source("train"), self.config.data
        rows = source.labelled
        if rows is None and source.size > 1000:
            rows = labels.attach(source, dataclasses.replace(config, labels=1000)).labelled
        rows = np.arange(source.size) if rows is None else rows
        return (examples(source, config, rows[i : i + batch_size]) for i in range(0, len(rows), batch_size))

    def __hash__(self) -> int:
        return hash(str(self.path))


def optimizer_of(config: Config, group: str) -> train.Optimizer:
    """Returns the optimizer's options for one parameter group."""
    return config.critic_optimizer if group == "critic" else config.optimizer


def blank_batch(image_shape: tuple[int, int, int], facts: Facts) -> dict[str, jax.Array]:
    """Returns a batch of one example of zeros, of the shapes that a model built for these facts may read."""
    batch = {"image": jnp.zeros((1, *image_shape))}
    if facts.classes:
        batch["label"] = jnp.zeros((1,), jnp.int32)
    if facts.factors:
        batch["factors"] = jnp.zeros((1, len(facts.factors)), jnp.int32)
    if facts.cond:
        batch["cond"] = jnp.zeros((1, facts.cond))
    return batch


def facts_of(source: Source) -> Facts:
    """Returns what a model may know of the training data, from any of its splits."""
    info = source.info
    return Facts(int(info.sizes["train"]), info.num_classes or 0, tuple(info.factor_sizes), info.cond_size)


def environment() -> dict[str, Any]:
    """Returns what a number depends on besides the config: versions, devices, commit."""

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "commit": commit(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def commit() -> str | None:
    """Returns the git commit of the source tree, with `+changes` if it is not clean; None outside git."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here.parent:
            return None  # installed inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def data_range(source: Source, limit: int = 10_000) -> tuple[float, float]:
    """Returns the (min, max) of the first images of a split that is in memory; (0, 1) where it is not."""
    images = source.arrays.get("image")
    if images is None:
        return (0.0, 1.0)
    part = np.asarray(images[:limit])
    scale = 255.0 if part.dtype == np.uint8 else 1.0
    return float(part.min()) / scale, float(part.max()) / scale
