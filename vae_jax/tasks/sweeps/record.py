"""`sweep.json`: what a sweep is, how far each member has come, and the table at the end."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_jax.errors import InputError, either, option
from vae_jax.files.atomic import jsonable, write_json
from vae_jax.files.bounded import read_json
from vae_jax.runs import config as configs
from vae_jax.runs import config_json, kinds
from vae_jax.runs.run import Run, with_old_protocol
from vae_jax.tasks.sweeps.plan import Member
from vae_jax.tasks.training import FREE_ON_RESUME
from vae_jax.train.population import Strategy

FILE = "sweep.json"
# What a sweep that was killed before its first `sweep.json` leaves.
_LEFT = re.compile(r"\.lock|\.sweep\.[0-9a-f]+\.json")
# What may differ when a sweep is continued: where it runs, and where its data lie.
_FREE = tuple(option for option in FREE_ON_RESUME if option.startswith(("mesh.", "data.")))


@dataclass(frozen=True)
class Sweep:
    """A sweep to be made.

    Attributes:
      experiment: name of the experiment.
      members: its runs, combinations of values outermost.
      seeds: of every combination.
      vary: option -> values as written.
      metrics: requested at the end; () for the standard ones.
      strategy: how members of one device are computed (see `vae_jax.train.population`).
    """

    experiment: str
    members: tuple[Member, ...]
    seeds: tuple[int, ...]
    vary: Mapping[str, tuple[str, ...]]
    metrics: tuple[str, ...] = ()
    strategy: Strategy = "vmap"


class Record:
    """The content of `sweep.json`, written whole at every change."""

    def __init__(self, path: Path, values: dict[str, Any]):
        self.path, self.values = path, values

    @classmethod
    def create(cls, path: Path, sweep: Sweep, groups: Sequence[Sequence[int]]) -> Record:
        """Makes the folder of a new sweep.

        Raises:
          InputError: it exists and is not empty, or cannot be written.
        """
        check_free(path)
        group_of = {number: g for g, members in enumerate(groups) for number in members}
        rows = [
            {
                "name": member.name,
                "seed": member.config.seed,
                "values": dict(member.values),
                "group": group_of[number],
                "state": "waiting",
                "step": 0,
                "diverged": None,
                "metrics": {},
            }
            for number, member in enumerate(sweep.members)
        ]
        record = cls(path, {**_identity(sweep), "groups": [{} for _ in groups], "members": rows})
        try:
            path.mkdir(parents=True, exist_ok=True)
            record.write()
        except OSError as error:
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); choose another {option('workdir')}"
            ) from error
        return record

    @classmethod
    def resume(cls, path: Path, sweep: Sweep) -> Record:
        """Opens the record of a sweep that is continued.

        Raises:
          InputError: there is none, it cannot be read, or the sweep is another one.
        """
        values = read(path)
        new = jsonable(_identity(sweep))
        changed = [
            f"{name}: {_text(values.get(name))} -> {_text(new[name])}"
            for name in ("experiment", "seeds", "vary", "metrics", "strategy")
            if values.get(name) != new[name]
        ]
        # What `experiment:` means in the file is the experiment that is swept now; its hash is compared below.
        code = functools.partial(kinds.code_of, sweep.members[0].config)
        try:
            old = configs.check(config_json.from_dict(values["config"], code=code), json=True)
        except InputError as error:
            raise InputError(f"{path / FILE}: config.{error}") from error
        if (held := _split_of(path, sweep)) is not None:
            old = configs.put(old, "data.protocol", held)
        here = configs.put(sweep.members[0].config, "seed", old.seed)
        varied = tuple(f"{option}:" for option in sweep.vary) if changed else ()
        changed += [d for d in configs.diff(old, here) if not d.startswith((*_FREE, *varied))]
        if changed:
            raise InputError(f"{path}: cannot resume with other options ({'; '.join(changed)}); start a new sweep")
        return cls(path, values)

    def write(self) -> None:
        """Writes the file."""
        write_json(self.path / FILE, self.values)

    @property
    def members(self) -> list[dict[str, Any]]:
        """The rows of the members, in the sweep's order."""
        return self.values["members"]

    def update(self, number: int, **values: Any) -> None:
        """Changes the row of one member and writes the file."""
        self.members[number].update(values)
        self.write()


def check_free(path: Path) -> None:
    """Checks that a new sweep may be written into a folder.

    Raises:
      InputError: it holds something that a sweep killed at its start did not leave.
    """
    if path.exists() and not (path.is_dir() and all(_LEFT.fullmatch(entry.name) for entry in path.iterdir())):
        raise InputError(
            f"{path}: already there; continue it with {either('--resume', 'resume=True')}, or choose another "
            f"{option('workdir')}"
        )


def keep_split(path: Path, sweep: Sweep) -> Sweep:
    """Returns a continued sweep with its data split as they were: version 0.1 had another rule of the same name."""
    file = path / FILE
    if not file.is_file() or _split_of(path, sweep) != "random-tenth":
        return sweep
    if read(path)["config"].get("data", {}).get("protocol", "standard") != "standard":
        return sweep  # requested by name
    members = (dataclasses.replace(m, config=with_old_protocol(m.config)) for m in sweep.members)
    return dataclasses.replace(sweep, members=tuple(members))


def _split_of(path: Path, sweep: Sweep) -> str | None:
    """Returns the protocol of the first member's data, None before it is made; `sweep.json` has its config."""
    member = path / sweep.members[0].name
    return Run.load(member).config.data.protocol if (member / "config.json").is_file() else None


def read(path: Path) -> dict[str, Any]:
    """Returns the content of a sweep's `sweep.json`.

    Raises:
      InputError: there is none, or it cannot be read.
    """
    file = path / FILE
    if not file.is_file():
        what = "no such folder" if not path.exists() else f"no {FILE} in it"
        raise InputError(f"{path}: not a sweep's folder ({what}); sweep without {either('--resume', 'resume=True')}")
    try:
        values = read_json(file)
        if not isinstance(values["config"], dict):
            raise ValueError("config is not an object")
        for row in values["members"]:
            _ = [row[name] for name in ("name", "state", "step", "metrics", "values")]  # what every reader of it uses
        return values
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{file}: cannot be read ({reason}); restore it, or sweep again") from error


def _identity(sweep: Sweep) -> dict[str, Any]:
    return {
        "experiment": sweep.experiment,
        "seeds": sweep.seeds,
        "vary": {option: list(values) for option, values in sweep.vary.items()},
        "metrics": sweep.metrics,
        "strategy": sweep.strategy,  # the other one gives the same numbers, but not the same bits
        "config": config_json.to_dict(sweep.members[0].config),
    }


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{option}={','.join(values)}" for option, values in value.items()) or "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
