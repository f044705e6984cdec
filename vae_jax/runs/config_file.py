"""The content of a run's config.json, checked.

People edit config.json. What they break is found here, in one line that names the entry, before a model is built that
no checkpoint fits.
"""

from __future__ import annotations

import functools
import json
import re
import typing
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vae_jax.errors import InputError, nearest
from vae_jax.files import code as codes
from vae_jax.files.bounded import read_json
from vae_jax.files.columns import KINDS, Column, width
from vae_jax.options.typed import conform
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.runs.config_json import from_dict
from vae_jax.runs.stage1 import Stage1
from vae_jax.spec import AXES, ArraySpec, DataSpec, Units

# Without these the defaults of another model would take their place. Later versions add options, never these.
REQUIRED = ("steps", "seed", "data", "model", "optimizer", "data.name", "data.batch_size", "model.kind")
# Where a run of before `data_spec` has its data.
OLD_SPEC = ("image_shape", "facts")
CODE = "code_sha256"  # the entry with the SHA-256 of each copy of the user's own code
# Number of the form of config.json, its entry `format`. Files of before it have none and count as 0; they are read as
# they are, through `_old_spec` and the defaults of later options, and written in today's form when they are resumed.
FORMAT = 1
REQUIRED_OF_MODEL = ("latent_dim", "network", "likelihood")


class RunFile(NamedTuple):
    """The content of a config.json, checked.

    Attributes:
      experiment: name of the experiment.
      config: the complete configuration.
      data_spec: the training data.
      data_sha256: content of the training data; None where the run is older than this entry.
      init_from: (folder, step) of the run whose weights it started with, or None.
      stage1: where the first stage of a second one comes from, or None.
    """

    experiment: str
    config: Config
    data_spec: DataSpec
    data_sha256: str | None = None
    init_from: tuple[str, int] | None = None
    stage1: Stage1 | None = None


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
        _check_format(values.pop("format", 0))
        return _checked(values, file.parent)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _checked(values: dict[str, Any], folder: Path) -> RunFile:
    known = (*RunFile._fields, *OLD_SPEC, CODE)
    own = {name: values.pop(name) for name in known if name in values and name != "config"}
    # Of before `data_spec`, or of today: never both, or one of them would be passed over in silence.
    old = [name for name in OLD_SPEC if name in own]
    if old and "data_spec" in own:
        raise InputError(f"{old[0]}: describes the data, and so does data_spec; remove it")
    for name in ("experiment", "image_shape" if old else "data_spec"):
        if name not in own:
            raise InputError(f"{name} is missing; restore the file, or train again")
    _check_required(values)
    sums = conform(own.get(CODE, {}), dict[str, str], CODE, {codes.MAIN: "0" * 64}, json=True)
    if sums:
        codes.check_sums(sums)
    # The copies are executed only where an entry names one of their classes.
    code = functools.cache(lambda: codes.restore(folder, sums) if sums else None)
    config = configs.check(from_dict(values, code=code), json=True)
    sha256 = conform(own.get("data_sha256"), str | None, "data_sha256", json=True)
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise InputError(f"data_sha256: {sha256!r} is not a SHA-256 of 64 digits; restore the file, or train again")
    return RunFile(
        conform(own["experiment"], str, "experiment", "custom", json=True),
        config,
        _old_spec(own["image_shape"], own.get("facts", {})) if old else _spec(own["data_spec"]),
        sha256,
        conform(own.get("init_from"), tuple[str, int] | None, "init_from", json=True),
        _stage1(own.get("stage1")),
    )


def _stage1(value: Any) -> Stage1 | None:
    """Returns the entry `stage1`, checked."""
    if value is None:
        return None
    held = conform(value, dict[str, Any], "stage1", {"path": "runs/a", "step": 100, "sha256": "0" * 64}, json=True)
    hints = typing.get_type_hints(Stage1)
    for name in held:
        if name not in hints:
            raise InputError(f"stage1.{name}: no such entry; {nearest(name, hints)}")
    for name in hints:
        if name not in held:
            raise InputError(f"stage1.{name} is missing; restore the file, or train again")
    return Stage1(**{name: conform(v, hints[name], f"stage1.{name}", json=True) for name, v in held.items()})


def _check_format(number: Any) -> None:
    """Raises InputError for the form of a version that came after this one, whose options may mean something else."""
    number = conform(number, int, "format", FORMAT, json=True)
    if number < 0:
        raise InputError(f"format: {number} is out of range; restore the file, or train again")
    if number > FORMAT:
        raise InputError(
            f"format: {number} is of a newer version of vae_jax, and this one ({metadata.version('vae_jax')}) reads up "
            f"to {FORMAT}; use the version in env.json, or a newer one"
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


def spec_to_json(spec: DataSpec) -> dict[str, Any]:
    """Returns the entry `data_spec` of a config.json."""
    held = {**spec._asdict(), "x": spec.x._asdict()}
    # Of data that have them alone: all other files stay what they were.
    del held["units"], held["columns"]
    held |= {} if spec.units is None else {"units": spec.units._asdict()}
    return held | ({"columns": [column._asdict() for column in spec.columns]} if spec.columns else {})


def _spec(value: Any) -> DataSpec:
    """Returns the entry `data_spec`, checked."""
    held = conform(value, dict[str, Any], "data_spec", {"x": {"shape": [28, 28, 1]}}, json=True)
    x = conform(held.get("x"), dict[str, Any], "data_spec.x", {"shape": [28, 28, 1]}, json=True)
    for name in x:
        if name not in ArraySpec._fields:
            raise InputError(f"data_spec.x.{name}: no such entry; {nearest(name, ArraySpec._fields)}")
    kind = conform(x.get("kind", "image"), Literal[tuple(AXES)], "data_spec.x.kind", json=True)
    dtype = conform(x.get("dtype", "float32"), Literal["float32", "int32"], "data_spec.x.dtype", json=True)
    shape = _shape(x.get("shape"), "data_spec.x.shape", AXES[kind])
    mask = conform(held.get("mask", False), bool, "data_spec.mask", json=True)
    units = _units(held["units"], shape) if "units" in held else None
    columns = _columns(held["columns"], shape) if "columns" in held else ()
    facts = {name: v for name, v in held.items() if name not in ("x", "mask", "units", "columns")}
    return DataSpec(ArraySpec(shape, kind, dtype), mask, **_facts(facts, "data_spec"), units=units, columns=columns)


def _units(value: Any, shape: tuple[int, ...]) -> Units:
    """Returns the user's units of data of a shape, checked."""
    held = conform(
        value, dict[str, tuple[float, ...]], "data_spec.units", {"offset": [0.0], "scale": [255.0]}, json=True
    )
    if set(held) != set(Units._fields):
        raise InputError("data_spec.units: its entries are not offset and scale; restore the file, or train again")
    for name, numbers in held.items():
        if len(numbers) not in (1, shape[-1]) or (name == "scale" and min(numbers) <= 0):
            raise InputError(
                f"data_spec.units.{name}: {json.dumps(numbers)} is not one number, or one for each of {shape[-1]} "
                "channels, and positive for scale; restore the file, or train again"
            )
    return Units(**held)


def _columns(value: Any, shape: tuple[int, ...]) -> tuple[Column, ...]:
    """Returns the columns of a table, checked."""
    hints = {**typing.get_type_hints(Column), "kind": Literal[KINDS]}
    found = []
    for i, given in enumerate(conform(value, tuple[dict[str, Any], ...], "data_spec.columns", json=True)):
        where = f"data_spec.columns[{i}]"
        for name in given:
            if name not in hints:
                raise InputError(f"{where}.{name}: no such entry; {nearest(name, hints)}")
        if "name" not in given:
            raise InputError(f"{where}.name is missing; restore the file, or train again")
        column = Column(**{name: conform(v, hints[name], f"{where}.{name}", json=True) for name, v in given.items()})
        if not column.std > 0:
            raise InputError(f"{where}.std: {column.std} is out of range; restore the file, or train again")
        found.append(column)
    if (width(found),) != shape:
        raise InputError(
            f"data_spec.columns: take {width(found)} numbers, and data_spec.x.shape is {list(shape)}; restore the "
            "file, or train again"
        )
    return tuple(found)


def _old_spec(shape: Any, facts: Any) -> DataSpec:
    """Returns the data of a run of before `data_spec`: images, described by the entries of `OLD_SPEC`."""
    held = conform(facts, dict[str, Any], "facts", {"examples": 100}, json=True)
    return DataSpec(ArraySpec(_shape(shape, "image_shape", 3)), **_facts(held, "facts"))


def _shape(value: Any, name: str, axes: int) -> tuple[int, ...]:
    """Returns a shape, checked."""
    try:
        shape = conform(value, tuple[int, ...], name)
    except ValueError:  # of a wrong type
        shape = ()
    if len(shape) != axes or min(shape) < 1:
        what = "[height, width, channels] of the training images, three" if axes == 3 else f"the training data, {axes}"
        raise InputError(
            f"{name}: {json.dumps(value)} is not {what} whole numbers of 1 or more; restore the file, or train again"
        )
    return shape


def _facts(held: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the facts besides the shape, checked."""
    wanted: dict[str, Any] = {"examples": int, "classes": int, "factors": tuple[int, ...], "cond": int}
    wanted |= {"label_names": tuple[str, ...]}
    for name in held:
        if name not in wanted:
            raise InputError(f"{where}.{name}: no such fact; {nearest(name, wanted)}")
    facts = {name: conform(v, wanted[name], f"{where}.{name}", json=True) for name, v in held.items()}
    for name, number in facts.items():
        if name != "label_names" and min((number,) if isinstance(number, int) else number, default=0) < 0:
            raise InputError(f"{where}.{name}: {json.dumps(number)} is out of range; it must be 0 or more")
    return facts
