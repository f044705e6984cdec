"""The file eval.json: every evaluation of a run by protocol, and one view of the newest step on top.

A call of `vae-jax eval` adds to the file and never empties it. Two calls are one entry of `evaluations` when step,
split and protocol are equal; the metrics of the later one then replace those of the same name. The content hash of the
measured split is part of the protocol (`data_sha256`); versions before 0.2 wrote none, and nothing is merged with what
they measured, on images that nobody can name now. The keys above it are
for readers that want one number per metric: the value measured under the run's own protocol (`evaluation.split`,
`evaluation.limit`, seed 0) where there is one, else the latest. A value that another protocol gave says so itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vae_jax.errors import InputError, option, quoted
from vae_jax.evaluation.measures import MEASURES, expand
from vae_jax.files.atomic import jsonable, write_json
from vae_jax.files.bounded import read_json
from vae_jax.files.lock import alone
from vae_jax.runs.targets import judge

if TYPE_CHECKING:
    from vae_jax.runs.config import Config

Entry = dict[str, Any]
# What an entry takes over from the result of a call, besides its metrics.
KEPT = ("step", "data", "split", "protocol", "metrics", "latents", "training", "refused")


def read(file: Path) -> dict[str, Any]:
    """Returns the content of an eval.json; one of before 0.2 gets its single evaluation under `evaluations`.

    Raises:
      InputError: it cannot be read, or is not an eval.json.
    """
    try:
        values = read_json(file)
        entries = values.get("evaluations")
        # Before 0.2 the file was a single evaluation.
        if entries is None:
            values["evaluations"] = entries = [{k: values[k] for k in KEPT if k in values}]
        for entry in (values, *entries):
            _check(entry)
        if not isinstance(values["data"], str):
            raise ValueError(f"data {values['data']!r}")
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise InputError(
            f"{file}: cannot be read ({what}); write it again with `vae-jax eval {quoted(file.parent)}`, which moves "
            "it aside"
        ) from error
    return values


def _check(entry: Entry) -> None:
    """Raises KeyError, TypeError or ValueError if an entry lacks what every reader of it uses."""
    step, split, protocol, metrics = (entry[name] for name in ("step", "split", "protocol", "metrics"))
    # By `type`: True would pass as an int.
    if type(step) is not int or not isinstance(split, str):
        raise ValueError(f"step {step!r}, split {split!r}")
    if not isinstance(protocol, dict) or not isinstance(metrics, dict):
        raise ValueError("protocol and metrics are not objects")
    if type(protocol["n"]) is not int:
        raise ValueError(f"protocol.n {protocol['n']!r}")
    # Optional: entries of earlier versions lack some of these.
    bounds, refused, asked = protocol.get("importance_samples", []), entry.get("refused", {}), entry.get("asked", [])
    if not isinstance(bounds, list) or any(type(k) is not int for k in bounds):
        raise ValueError(f"protocol.importance_samples {bounds!r} is not a list of integers")
    if not isinstance(refused, dict) or any(not isinstance(why, str) for why in refused.values()):
        raise ValueError(f"refused {refused!r} does not give a reason per metric")
    if not isinstance(asked, list) or any(not isinstance(name, str) for name in asked):
        raise ValueError(f"asked {asked!r} is not a list of metrics")
    for name, metric in metrics.items():
        if not {"value", "stderr", "n"} <= metric.keys():
            raise ValueError(f"metrics.{name} has no value, stderr and n")
        # null stands for what was not finite, or has no error; a truth value is no number.
        numbers = all(metric[key] is None or type(metric[key]) in (int, float) for key in ("value", "stderr"))
        if not numbers or type(metric["n"]) is not int:
            raise ValueError(f"metrics.{name} holds what is no number")
        if not isinstance(metric.get("protocol", {}), dict):
            raise ValueError(f"metrics.{name}.protocol is not an object")


def is_own(entry: Mapping[str, Any], config: Config) -> bool:
    """Returns whether an evaluation was made as the run's config says, which is what targets are judged on."""
    # Protocols that do not record limit or seed used the default, 0.
    e, protocol = config.evaluation, entry["protocol"]
    return entry["split"] == e.split and protocol.get("limit", 0) == e.limit and protocol.get("seed", 0) == 0


def _data(entry: Entry) -> Any:
    """Returns the content hash of the measured split, None for an entry of a version that kept none."""
    return entry["protocol"].get("data_sha256")


def _base(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a protocol that all of its metrics share.

    Sections of single measures and the list of k are left out: `iw_10` says its k itself.
    """
    return {name: value for name, value in protocol.items() if name not in MEASURES and name != "importance_samples"}


def _same(old: Entry, new: Entry) -> bool:
    """Returns whether two evaluations are of one protocol: `ais` with other temperatures is not."""
    a, b = old["protocol"], new["protocol"]
    # Only sections that both have: what one call did not measure is no difference.
    sections = MEASURES.keys() & a.keys() & b.keys()
    return (
        (old["step"], old["split"]) == (new["step"], new["split"])
        and _base(a) == _base(b)
        and all(a[name] == b[name] for name in sections)
    )


def merged(entries: Sequence[Entry], result: Mapping[str, Any], asked: Sequence[str] = ()) -> list[Entry]:
    """Returns the evaluations with the result of one more call, which is the last of them.

    Args:
      entries: of the file, oldest first.
      result: of the call.
      asked: requested metrics; () for the standard metrics.
    """
    # In the form that the file has: tuples would differ from the lists that are read back.
    new = jsonable({name: result[name] for name in KEPT if name in result}) | {"asked": list(asked)}
    # 1. Find the entry of the same protocol.
    old = next((entry for entry in reversed(entries) if _same(entry, new)), None)
    if old is None:
        return [*entries, new]
    # 2. Join the two: the later numbers win, and the lists of k are united.
    bounds = [*old["protocol"].get("importance_samples", ()), *new["protocol"].get("importance_samples", ())]
    whole = old | new
    whole["metrics"] = old["metrics"] | new["metrics"]
    whole["protocol"] = old["protocol"] | new["protocol"] | {"importance_samples": list(dict.fromkeys(bounds))}
    whole["asked"] = list(dict.fromkeys([*old.get("asked", ()), *asked]))
    # 3. A metric that was requested again has a number or a new refusal; the old refusal goes.
    again = {*asked, *expand(tuple(asked))}
    refused = {name: why for name, why in old.get("refused", {}).items() if name not in again}
    whole["refused"] = refused | new.get("refused", {})
    return [*(entry for entry in entries if entry is not old), whole]


def view(experiment: str, config: Config, entries: Sequence[Entry], step: int | None = None) -> dict[str, Any]:
    """Returns the content of eval.json: one value per metric of one step (None: the newest), and all evaluations.

    A metric whose protocol differs from the one on top carries the differences under `protocol`.

    Args:
      experiment: its name.
      config: of the run, whose protocol comes before all others.
      entries: all evaluations of the run, the latest last.
      step: the step to show; None for the newest that was measured.

    Returns:
      what is written as JSON; `evaluations` are the entries themselves.
    """
    step = max(entry["step"] for entry in entries) if step is None else step
    # The latest first.
    here = [entry for entry in reversed(entries) if entry["step"] == step]
    own = [entry for entry in here if is_own(entry, config)]
    # A verdict is on one data set: the one measured last. Entries of before may be of it.
    judged = [entry for entry in own if _data(entry) in (None, _data(own[0]))]
    # The run's own protocol before all others.
    order = [*own, *(entry for entry in here if entry not in own)]
    top = order[0]
    metrics: dict[str, Any] = {}
    protocol: dict[str, Any] = dict(top["protocol"])
    bounds: list[int] = []
    refused: dict[str, str] = {}
    # The first entry that has a metric gives its value; those after it only add what is missing.
    for entry in order:
        about = _differences(entry, top)
        fresh = [name for name in entry["metrics"] if name not in metrics]
        metrics |= {name: entry["metrics"][name] | ({"protocol": about} if about else {}) for name in fresh}
        # The section of a measure belongs to its first entry, as the values of its metrics do.
        protocol = {**entry["protocol"], **protocol} if fresh else protocol
        bounds += entry["protocol"].get("importance_samples", ()) if fresh else ()
        # As with values, the first entry decides.
        refused = {**entry.get("refused", {}), **refused}
    protocol["importance_samples"] = list(dict.fromkeys(bounds))
    kept = {name: top[name] for name in ("latents", "training") if name in top}
    return {
        "experiment": experiment,
        "step": step,
        # In a file of one's own examples they are what is measured, not the run's data.
        "data": top.get("data", config.data.shown),
        "split": top["split"],
        "protocol": protocol,
        "metrics": metrics,
        **verdicts(config, judged),
        **kept,
        **({"refused": refused} if refused else {}),
        "evaluations": list(entries),
    }


def verdicts(config: Config, own: Sequence[Entry]) -> dict[str, Any]:
    """Returns `expected` and `pass`, judged on evaluations of the run's own protocol, the latest first."""
    seen: dict[str, Any] = {}
    for entry in own:
        for name, metric in entry["metrics"].items():
            value = float("nan") if metric["value"] is None else metric["value"]
            # null in the file was a value that is not finite, which no target accepts.
            seen.setdefault(name, SimpleNamespace(value=value))
    return judge(config.expected, seen)


def _differences(entry: Entry, top: Entry) -> dict[str, Any]:
    """Returns what a protocol has that the one on top does not have; `n` is part of each metric."""
    a, b = ({"split": e["split"], **_base(e["protocol"])} for e in (entry, top))
    # Another split has other images anyway.
    known = {"n"} if a["split"] == b["split"] else {"n", "data_sha256"}
    names = dict.fromkeys([*a, *b])
    return {name: a.get(name) for name in names if name not in known and a.get(name) != b.get(name)}


def notes(metrics: Mapping[str, Any], examples: str = "images") -> list[str]:
    """Returns one line for each protocol besides the one on top: "iw_1, iw_10: limit 500, 500 images"."""
    groups: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        # Metrics of the protocol on top carry none.
        if about := metric.get("protocol"):
            text = ", ".join(difference(key, value, examples) for key, value in about.items())
            # Metrics of one protocol share a line.
            groups.setdefault(f"{text}, {metric['n']:,} {examples}", []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in groups.items()]


def difference(name: str, value: Any, examples: str = "images") -> str:
    """Returns one difference between two protocols in words, a hash by its first 12 digits."""
    if name == "data_sha256":
        return (
            f"other {examples} (SHA-256 {value[:12]})" if isinstance(value, str) else f"{examples} of unknown SHA-256"
        )
    return f"{name} {value}"


def check_out(file: Path, run: Path) -> None:
    """Checks, before anything is measured, that a file named with --out can take the numbers of this run.

    Raises:
      InputError: it is there and is not an eval.json, or holds the numbers of another run.
    """
    # In the run's own folder a file that cannot be read is moved aside by `update`.
    if not file.exists() or file.parent.resolve() == run.resolve():
        return
    try:
        held = read(file)
    except InputError as error:
        raise InputError(
            f"{option('out', file)}: is there and not a file of vae-jax eval; choose another file"
        ) from error
    if held.get("run", str(run.resolve())) != str(run.resolve()):
        raise InputError(
            f"{option('out', file)}: holds the numbers of {held['run']}; choose another file for those of {run}"
        )


def update(file: Path, run: Path, experiment: str, config: Config, result: Mapping[str, Any], asked: Sequence[str] = ()
           ) -> tuple[dict[str, Any], Path | None]:  # fmt: skip
    """Merges the result of a call into a file; returns its new content, and where an unreadable one was moved to.

    Args:
      file: the eval.json; made where it is not there.
      run: the run folder; a file elsewhere notes it.
      experiment: its name.
      config: of the run.
      result: the new evaluation: its step, split, protocol and metrics.
      asked: names of metrics that were requested; their old refusals are dropped.

    Returns:
      the content as `view` gives it, and the path that an unreadable file was renamed to, or None.
    """
    with alone(file.parent):  # of two calls at a time neither loses the other's numbers
        entries, aside = [], None
        if file.exists():
            try:
                entries = read(file)["evaluations"]
            except InputError:
                # Renamed, not overwritten: somebody may still want to read the numbers in it.
                aside = _free(file)
                os.rename(file, aside)
        values = view(experiment, config, merged(entries, result, asked))
        if file.parent.resolve() != run.resolve():
            # A file elsewhere says whose numbers it holds, for `check_out`.
            values["run"] = str(run.resolve())
        write_json(file, values)
    return values, aside


def _free(file: Path) -> Path:
    """Returns eval.damaged.json, or eval.damaged-2.json, ... where that is taken."""
    path, number = file.with_name(f"{file.stem}.damaged{file.suffix}"), 2
    while path.exists():
        path, number = file.with_name(f"{file.stem}.damaged-{number}{file.suffix}"), number + 1
    return path
