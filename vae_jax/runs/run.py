"""Run folders: made once, never overwritten, and enough to rebuild everything from."""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from vae_jax import train
from vae_jax.data import Source, labels
from vae_jax.data import limit as part
from vae_jax.data.pipeline import eval_batches, examples
from vae_jax.errors import InputError, command, either, option
from vae_jax.files.atomic import write_json
from vae_jax.files.bounded import read_json
from vae_jax.model import Model
from vae_jax.runs import builds, config_file, config_json, kinds, own_data, training_data
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.runs.stage1 import Stage1
from vae_jax.spec import DataSpec
from vae_jax.train import TrainState
from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.metrics import read_lines
from vae_jax.train.step import TrainStep

HISTORY, BEST = "history.jsonl", "best"
PACKAGES = ("vae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "grain", "numpy")


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
      path: the folder.
      experiment: name of the experiment it came from.
      config: its complete configuration.
      spec: the data that it was made for.
      lead: another run of the same program (members of a sweep): its model and its data serve this one as well, so
        that nothing is compiled or loaded twice. Data and model must be equal but for the model's traced scalars.
      data_sha256: content of its training data (`data.fingerprint`); None where the run is older than this entry.
      init_from: (folder, step) of the run whose weights it started with, or None.
      stage1: where the first stage of a second one comes from, or None.
    """

    path: Path
    experiment: str
    config: Config
    spec: DataSpec
    lead: Run | None = field(default=None, compare=False, repr=False)
    data_sha256: str | None = field(default=None, kw_only=True)
    init_from: tuple[str, int] | None = field(default=None, kw_only=True)
    stage1: Stage1 | None = field(default=None, kw_only=True)
    # Splits that were read: training hands on those that it checked, so that none is read twice.
    loaded: dict[str, Source] = field(default_factory=dict, init=False, compare=False, repr=False)
    # Shapes of its states by mesh: tracing them takes as long as reading a small checkpoint.
    shapes: dict[jax.sharding.Mesh, TrainState] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    def create(
        cls,
        path: Path,
        experiment: str,
        config: Config,
        spec: DataSpec,
        **more: Any,
    ) -> Run:
        """Makes the folder with `config.json` and `env.json`; `more` are further fields of the run.

        Args:
          path: of the folder; missing parents are made.
          experiment: name of the experiment.
          config: complete.
          spec: of the training data.
          more: further fields of the run, such as `data_sha256`.

        Returns:
          the run, without a checkpoint.

        Raises:
          InputError: it exists and is not empty, or cannot be written.
        """
        check_free(path)
        run = cls(path, experiment, config, spec, **more)
        about = environment()  # takes a moment: not between the folder and its config
        try:
            path.mkdir(parents=True, exist_ok=True)
            # First of all files: a run that is killed from here on can be resumed.
            run.write_config()
            if (code := kinds.code_of(config)) is not None:
                code.copy(path)
            (path / "figures").mkdir(exist_ok=True)
            write_json(path / "env.json", about)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); choose another {option('workdir')}"
            ) from error
        return run

    def write_config(self) -> None:
        """Writes `config.json`, whole or not at all."""
        about: dict[str, Any] = {"format": config_file.FORMAT, "experiment": self.experiment}
        about |= {"data_spec": config_file.spec_to_json(self.spec)}
        about |= {"data_sha256": self.data_sha256} if self.data_sha256 else {}
        about |= {"init_from": list(self.init_from)} if self.init_from else {}
        about |= {"stage1": self.stage1._asdict()} if self.stage1 else {}
        code = kinds.code_of(self.config)
        about |= {"code_sha256": code.sums} if code is not None else {}
        write_json(
            self.path / "config.json", {**about, **config_json.to_dict(own_data.portable(self.config, self.path))}
        )

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
            if not path.exists() and (Path("runs") / path / "config.json").is_file():
                raise InputError(f"{path}: not a run folder ({what}); did you mean '{Path('runs') / path}'?")
            made = either("`vae-jax train EXP`", '`vj.train_run(vj.experiment("vae_digits"))`, for example')
            raise InputError(f"{path}: not a run folder ({what}); runs are made by {made}")
        held = config_file.read(file)
        config = held.config if held.data_sha256 else with_old_protocol(held.config)
        config = own_data.located(config, path)
        more: dict[str, Any] = {name: getattr(held, name) for name in ("data_sha256", "init_from", "stage1")}
        return cls(path, held.experiment, config, held.data_spec, **more)

    @functools.cached_property
    def model(self) -> Model:
        """The model's pure functions."""
        if self.lead is not None:
            # The lead's functions, so that nothing is compiled twice, with the strengths of this member.
            return self.lead.model._replace(training=self.config.build(self.spec).training)
        return builds.shared(self.config.model, self.spec)

    @functools.cached_property
    def optimizer(self) -> Any:
        """The optax transformation of the run."""
        return builds.optimizer(self.model, self.optimizers, self.config.steps)

    @property
    def train_step(self) -> TrainStep:
        """The train step of the run, pure."""
        c = self.config
        return builds.train_step(self.model, self.optimizer, c.ema_decay or None, c.accumulate)

    @functools.cached_property
    def optimizer_options(self) -> dict[str, str]:
        """The option that holds the optimizer of each parameter group: `critic_optimizer` for adversaries."""
        shapes = jax.eval_shape(self.model.init, jax.random.key(0), self.example_batch())[0]
        adversaries = self.model.training.adversaries
        return {group: "critic_optimizer" if group in adversaries else "optimizer" for group in shapes}

    @property
    def optimizers(self) -> dict[str, train.Optimizer]:
        """The optimizer of each parameter group."""
        return {group: getattr(self.config, option) for group, option in self.optimizer_options.items()}

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The device mesh of the run's config."""
        return train.make_mesh(self.config.mesh)

    @property
    def prior_unit(self) -> tuple[float, float] | None:
        """Mean and standard deviation of the prior, the same in all dimensions; None where it has no such unit."""
        return self.model.about.unit

    @property
    def trained_on(self) -> training_data.TrainedOn:
        """The form and the hash of the training data."""
        return training_data.TrainedOn(self.spec, self.data_sha256)

    def data_change(self, split: str) -> str | None:
        """Returns what changed in its training data since training, None for nothing.

        Raises:
          InputError: then `split` is held out no more.
        """
        known = self.source("train" if self.data_sha256 else split)
        changed = training_data.change(self.trained_on, known)
        training_data.check_held_out(self.path, changed, self.source(split))
        return changed

    def provenance(self) -> dict[str, Any]:
        """Returns what made this run: seed, commit, machine and versions; None where `env.json` cannot be read."""
        env = read_environment(self.path)
        kept = {name: env.get(name) for name in ("commit", "processor", "cpus", "devices")}
        return {"seed": self.config.seed, **kept, "jax": env["packages"].get("jax")}

    def example_batch(self) -> dict[str, jax.Array]:
        """Returns a batch of one blank example, for shapes, with every entry that the data have."""
        return self.spec.blank()

    def init(self, mesh: jax.sharding.Mesh | None = None) -> TrainState:
        """Returns the state at step 0, placed on the mesh."""
        key = jax.random.key(self.config.seed)
        ema = self.config.ema_decay > 0
        mesh = mesh or self.mesh
        return train.init_state(self.model, self.optimizer, key, self.example_batch(), mesh=mesh, ema=ema)

    def _shapes(self, mesh: jax.sharding.Mesh) -> TrainState:
        if mesh not in self.shapes:
            key, ema, batch = jax.random.key(self.config.seed), self.config.ema_decay > 0, self.example_batch()
            self.shapes[mesh] = train.state_shapes(self.model, self.optimizer, key, batch, mesh=mesh, ema=ema)
        return self.shapes[mesh]

    def checkpoints(self, *, create: bool = False) -> Checkpoints:
        """Returns the checkpoints of the run."""
        return Checkpoints(self.path / "checkpoints", keep=self.config.logging.keep, create=create)

    def restore(
        self, step: int | Literal["best"] | None = None, say: Callable[[str], None] | None = None
    ) -> TrainState:
        """Returns the state of a checkpoint, on this machine's first device (whatever mesh made it).

        Args:
          step: of the checkpoint; None takes the newest that can be read, "best" the best by `logging.best`.
          say: takes the sentence that says which checkpoints were passed over; None logs it as a warning.

        Raises:
          InputError: no checkpoint, or none that can be read.
        """
        single = train.make_mesh(train.MeshConfig(data=1, fsdp=1))
        checkpoints, number = (self.best(), None) if step == "best" else (self.checkpoints(), step)
        try:
            return checkpoints.restore(self._shapes(single), number, say)[0]
        finally:
            checkpoints.close()

    def best(self) -> Checkpoints:
        """Returns the checkpoint that was the best by `logging.best`.

        Raises:
          InputError: none was kept.
        """
        if not (self.path / BEST).is_dir():
            kept = either("--logging.best elbo --logging.eval-every N", "logging.best and logging.eval_every")
            raise InputError(f"{option('step', 'best')}: {self.path} keeps no best checkpoint; train it with {kept}")
        return Checkpoints(self.path / BEST, keep=1, create=False)

    def source(self, split: str) -> Source:
        """Returns one split of the run's data.

        Raises:
          InputError: they cannot be read, or are of another form than those that the run was trained on.
        """
        if split not in self.loaded:
            if self.lead is not None:
                return self.lead.source(split)
            if own_data.is_own(self.config, self.path):
                own_data.check(self.path)
            self.loaded[split] = training_data.load(self.path, self.config.data, self.trained_on, split)
        return self.loaded[split]

    def with_source(self, split: str, source: Source) -> Run:
        """Returns this run with one more split, of data that are not its own; what it has made and read is shared."""
        again = copy.copy(self)
        again.__dict__["loaded"] = {**self.loaded, split: source}
        return again

    def batches(self, split: str, batch_size: int | None = None, limit: int = 0) -> Iterator[dict[str, Any]]:
        """Yields the split once (or `limit` examples of it), as the model saw it in training; no batch is dropped."""
        return eval_batches(self.source(split), self.config.data, batch_size, limit=limit)

    def rows(self, split: str, limit: int = 0) -> np.ndarray:
        """Returns the rows int32 [N], ascending, of the examples that `batches` yields."""
        return part.rows(self.source(split), limit)

    def mixing(self, split: str, size: int) -> np.ndarray:
        """Returns an order int [size] of measured examples of which every beginning stands for all (`limit.mixing`)."""
        return part.mixing(self.source(split), size)

    def examples(self, split: str, index: np.ndarray) -> dict[str, Any]:
        """Returns the examples `index` int [B] of a split, as `batches` yields them."""
        return examples(self.source(split), self.config.data, index)

    def chunks(self, split: str, rows: np.ndarray, batch_size: int) -> Iterator[dict[str, Any]]:
        """Yields the examples `rows` int [N] of a split, in this order, `batch_size` at a time."""
        for start in range(0, len(rows), batch_size):
            yield self.examples(split, rows[start : start + batch_size])

    def labeled(self, batch_size: int) -> Iterator[dict[str, Any]]:
        """Yields the labeled training examples (`data.labels`); of more than 1,000 known ones, as many of each class.

        Raises:
          InputError: the data have no labels.
        """
        source, config = self.source("train"), self.config.data
        rows = source.labeled
        known = source.size if rows is None else len(rows)
        if config.labels is None and known > 1000:
            rows = labels.attach(source, dataclasses.replace(config, labels=1000)).labeled
        if rows is not None and not len(rows):
            raise InputError(
                f"{self.path}: no training example has a known label, which this learns from; leave it out"
            )
        rows = np.arange(source.size) if rows is None else rows
        return (examples(source, config, rows[i : i + batch_size]) for i in range(0, len(rows), batch_size))

    @property
    def last_step(self) -> int:
        """The step that ends its training: the last of its config, or where `patience` ended it."""
        lines = history(self.path)
        return lines[-1]["step"] if lines and lines[-1].get("event") == "early stop" else self.config.steps

    @property
    def newest_step(self) -> int:
        """Step of the newest checkpoint by its folder's name, whether or not it can be read; 0 without any."""
        return max((int(p.name) for p in (self.path / "checkpoints").glob("*") if p.name.isdigit()), default=0)

    def __repr__(self) -> str:
        step = f"step {self.newest_step:,} of {self.config.steps:,}"
        return f"{type(self).__name__}({str(self.path)!r}, {self.experiment!r}, {step})"

    def __hash__(self) -> int:
        return hash(str(self.path))


def history(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's `history.jsonl`; none for a run of before it."""
    return read_lines(path / HISTORY).lines


def with_old_protocol(config: Config) -> Config:
    """Returns the config of a run without `data_sha256` under the name that its split has today.

    The user's own data were split by their number of rows when that run was made. Only then are its test images ones
    that it never trained on. A prepared folder has its split inside and keeps the protocol's name.
    """
    c = config.data
    if c.name not in ("npz", "image_folder") or c.protocol != "standard":
        return config
    prepared = c.source is not None and (Path(c.source).expanduser() / "dataset_info.json").is_file()
    return config if prepared else configs.put(config, "data.protocol", "random-tenth")


# What a run that was killed before its config.json was written may have left: all of it is made anew.
_TORSO = re.compile(r"\.lock|\.config\..*|\.env\..*|env\.json|log\.txt|figures")


_LOOK = 4096  # bytes of a file that say whose it is


def is_torso(path: Path) -> bool:
    """Says whether a folder holds only what a run leaves that is killed before its options are written.

    An empty one is none: no run was ever started there.
    """
    if not path.is_dir() or (path / "config.json").exists():
        return False
    entries = list(path.iterdir())
    return bool(entries) and all(_TORSO.fullmatch(entry.name) and _is_ours(entry) for entry in entries)


def _is_ours(entry: Path) -> bool:
    """Says whether a file of one of our names looks as we write it: others may have an env.json, too."""
    if entry.is_dir():
        return entry.name == "figures" and not any(entry.iterdir())
    if not entry.is_file():  # a pipe of this name would be waited for
        return False
    if entry.name not in ("env.json", "log.txt"):
        return entry.name != "figures"
    with entry.open("rb") as file:
        text = file.read(_LOOK).decode(errors="replace")
    if entry.name == "env.json":
        return '"packages"' in text and '"vae_jax"' in text
    return not text or re.match(r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ vae_jax", text) is not None


def check_free(path: Path) -> None:
    """Checks that a new run may be written into a folder: there is none, or it is empty but for a torso.

    Raises:
      InputError: it holds a run, or something else, or its checkpoints could not be read back.
    """
    if set("[]") & set(str(path.absolute())):
        # Orbax takes its own path for a glob pattern when it merges the files of a checkpoint, and finds none.
        raise InputError(
            f"{path}: checkpoints under a path with [ or ] cannot be read back; choose a "
            f"{option('workdir')} without them"
        )
    if not path.exists() or is_torso(path) or (path.is_dir() and not any(path.iterdir())):
        return
    if (path / "config.json").is_file():
        raise InputError(
            f"{path}: already there; continue it with {command('resume', path)}, or choose another {option('workdir')}"
        )
    raise InputError(f"{path}: already there, and it is not a run; choose another {option('workdir')}")


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


def read_environment(folder: Path) -> dict[str, Any]:
    """Returns the content of `env.json`, on which no number depends; empty `packages` alone if it cannot be read."""
    try:
        held = read_json(folder / "env.json")
    except (OSError, ValueError):
        held = None
    held = held if isinstance(held, dict) else {}
    return {**held, "packages": packages if isinstance(packages := held.get("packages"), dict) else {}}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def commit() -> str | None:
    """Returns the git commit of the source tree, with `+changes` if it is not clean; None outside git."""
    package = Path(__file__).resolve().parents[1]

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *args], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != package.parent:
            return None  # installed inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def data_range(source: Source) -> tuple[float, float]:
    """Returns the (min, max) of what is observed of a split that is in memory; (0, 1) where it is not."""
    images = source.arrays.get("image", source.arrays.get("x"))
    if images is None:
        return (0.0, 1.0)
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    if "mask" in source.arrays and source.arrays["mask"].any():
        images = images[source.arrays["mask"]]  # what is missing is kept as 0, which may lie outside the range
    return float(images.min()) / scale, float(images.max()) / scale
