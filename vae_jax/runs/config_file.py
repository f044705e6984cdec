"""The content of a run's config.json, checked.

People edit config.json. What they break is found here, in one line that names the entry, before a model is built that
no checkpoint fits.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from vae_jax.errors import InputError, nearest
from vae_jax.files.bounded import read_json
from vae_jax.model import NO_FACTS, Facts
from vae_jax.options.typed import conform
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config

# Without these the defaults of another model would take their place. Later versions add options, never these.
REQUIRED = ("steps", "seed", "data", "model", "optimizer", "data.name", "data.batch_size", "model.kind")
REQUIRED_OF_MODEL = ("latent_dim", "network", "likelihood")


class RunFile(NamedTuple):
    """The content of a config.json, checked.

    Attributes:
      experiment: name of the experiment.
      config: the complete configuration.
      image_shape: (H, W, C) of the training data.
      facts: what else was known of them; NO_FACTS where the run is older than this entry.
      data_sha256: content of the training data; None where the run is older than this entry.
      init_from: (folder, step) of the run whose weights it started with, or None.
    """

    experiment: str
    config: Config
    image_shape: tuple[int, int, int]
    facts: Facts
    data_sha256: str | None = None
    init_from: tuple[str, int] | None = None


def read(file: Path) -> RunFile:
    """Returns the content of a config.json.

    Raises:
      InputError: it cannot be read, or an entry is missing, unknown, of a wrong type or out of range.
    """
    try:
        values = read_json(file)
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read ({reason}); restore it, or train again") from error
    if not isinstance(values, dict):
        raise InputError(
            f"{file}: holds a {type(values).__name__}, not the options of a run; restore it, or train again"
        )
    try:
        return _checked(values)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _checked(values: dict[str, Any]) -> RunFile:
    own = {name: values.pop(name) for name in RunFile._fields if name in values and name != "config"}
    for name in ("experiment", "image_shape"):
        if name not in own:
            raise InputError(f"{name} is missing; restore the file, or train again")
    _check_required(values)
    config = configs.check(configs.from_dict(values), json=True)
    sha256 = conform(own.get("data_sha256"), str | None, "data_sha256", json=True)
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise InputError(f"data_sha256: {sha256!r} is not a SHA-256 of 64 digits; restore the file, or train again")
    return RunFile(
        conform(own["experiment"], str, "experiment", "custom", json=True),
        config,
        _image_shape(own["image_shape"]),
        _facts(own.get("facts", {})),
        sha256,
        conform(own.get("init_from"), tuple[str, int] | None, "init_from", json=True),
    )


def _check_required(values: dict[str, Any]) -> None:
    """Raises InputError for an entry without which the config would be another one."""
    model = values.get("model")
    kind = model.get("kind") if isinstance(model, dict) else None
    cls = configs.REGISTRIES["model"].get(kind) if isinstance(kind, str) else None
    fields = getattr(cls, "__dataclass_fields__", {})
    wanted = (*REQUIRED, *(f"model.{name}" for name in REQUIRED_OF_MODEL if name in fields))
    for option in wanted:
        group, _, name = option.rpartition(".")
        held = values.get(group) if group else values
        if isinstance(held, dict) and name not in held:
            raise InputError(f"{option} is missing; restore the file, or train again")


def _image_shape(value: Any) -> tuple[int, int, int]:
    try:
        height, width, channels = conform(value, tuple[int, ...], "image_shape")
    except ValueError:  # of a wrong type, or not three
        height = width = channels = 0
    if min(height, width, channels) < 1:
        raise InputError(
            f"image_shape: {json.dumps(value)} is not [height, width, channels] of the training images, three whole "
            "numbers of 1 or more; restore the file, or train again"
        )
    return height, width, channels


def _facts(value: Any) -> Facts:
    wanted: dict[str, Any] = {"examples": int, "classes": int, "factors": tuple[int, ...], "cond": int}
    wanted |= {"label_names": tuple[str, ...]}
    held = conform(value, dict[str, Any], "facts", {"examples": 100}, json=True)
    for name in held:
        if name not in wanted:
            raise InputError(f"facts.{name}: no such fact; {nearest(name, wanted)}")
    facts = {name: conform(v, wanted[name], f"facts.{name}", json=True) for name, v in held.items()}
    for name, number in facts.items():
        if name != "label_names" and min((number,) if isinstance(number, int) else number, default=0) < 0:
            raise InputError(f"facts.{name}: {json.dumps(number)} is out of range; it must be 0 or more")
    return NO_FACTS._replace(**facts)
