"""Runs side by side: options that differ, metrics, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vae_jax.errors import InputError, command
from vae_jax.evaluation import eval_file as evaluations
from vae_jax.evaluation.reading import digits
from vae_jax.runs.config_json import to_dict
from vae_jax.runs.run import Run
from vae_jax.tasks import baseline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SAME = "Runs compare only on the same data, pixels and likelihood."


class Comparison(NamedTuple):
    """Runs side by side; every row has one entry per run, in the order of `names`.

    Attributes:
      names: a short name for each run.
      options: option -> its value in each run as text, for the options that differ ("-" where a run does not have it).
      metrics: name of the run -> {metric: {"value": ..., "stderr": ...}}, of its eval.json, else of the last line of
        its training.
      sources: name of the run -> where its metrics come from, as a sentence.
      paths: the folders.
      warning: a sentence where their data differ, else "".
    """

    names: tuple[str, ...]
    options: dict[str, list[str]]
    metrics: dict[str, dict[str, Mapping[str, Any]]]
    sources: dict[str, str]
    paths: tuple[Path, ...]
    warning: str = ""

    def rows(self) -> dict[str, list[str]]:
        """Returns metric -> its text in each run, with as many digits as its error supports."""
        return rows_of({name: {"metrics": held} for name, held in self.metrics.items()})

    def figure(self) -> Figure:
        """Returns the training curves of all runs."""
        from vae_jax.figures import curves, read_metrics

        return curves({name: read_metrics(path) for name, path in zip(self.names, self.paths)}, title="compare")


def compare(runs: Sequence[Run | Path | str]) -> Comparison:
    """Compares runs, and baselines: options that differ, metrics of their eval.json, and curves.

    Args:
      runs: two or more runs or paths of their folders.

    Raises:
      InputError: fewer than two, the same one twice, or a folder that is neither a run's nor a baseline's.
    """
    if isinstance(runs, str | Path | Run) or len(runs) < 2:
        count = 1 if isinstance(runs, str | Path | Run) else len(runs)
        raise InputError(f"compare: {count} run{'s' * (count != 1)}; give two or more")
    paths = tuple(run.path if isinstance(run, Run) else Path(run) for run in runs)
    names = labels(paths)
    numbers = {name: measured(path) for name, path in zip(names, paths)}
    return Comparison(
        tuple(names),
        differences({name: options_of(path) for name, path in zip(names, paths)}),
        {name: held["metrics"] for name, held in numbers.items()},
        {name: held["from"] for name, held in numbers.items()},
        paths,
        _warning(paths),
    )


def labels(paths: Sequence[Path], command: str = "compare") -> list[str]:
    """Returns a short name for each folder: its last part, or more of it where that is not unique."""
    for depth in range(1, max(len(p.absolute().parts) for p in paths) + 1):
        names = ["/".join(p.absolute().parts[-depth:]) for p in paths]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"{command}: the same run twice; give different ones")


def options_of(path: Path) -> dict[str, Any]:
    """Returns the options of a run, or of a baseline's folder.

    Raises:
      InputError: it is neither.
    """
    found = baseline.options_of(path)
    return to_dict(Run.load(path).config) if found is None else found


def differences(options: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Returns option -> its value in each run, for the options whose values differ ("-" where there is none)."""
    flat = [_flatten(values) for values in options.values()]
    found = {}
    for option in dict.fromkeys(o for values in flat for o in values):
        row = [_text(values[option]) if option in values else "-" for values in flat]
        if len(set(row)) > 1:
            found[option] = row
    return found


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "kind":
            flat[prefix.rstrip(".")] = value
        elif isinstance(value, dict) and key != "expected":
            flat |= _flatten(value, f"{prefix}{key}.")
        elif key != "expected":
            flat[prefix + key] = value
    return flat


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def measured(path: Path) -> dict[str, Any]:
    """Returns the metrics of a run or baseline with their origin: eval.json, else the last training line."""
    from vae_jax.figures import read_metrics

    file = path / "eval.json"
    if file.is_file():
        held = evaluations.read(file)
        examples = held["protocol"].get("examples", "images")
        origin = f"eval.json: {held['data']}, {held['split']} split, {held['protocol']['n']:,} {examples}"
        origin = "; ".join([f"{origin}, step {held['step']:,}", *evaluations.notes(held["metrics"], examples)])
        origin += _outdated(path, held["step"])
        return {"from": origin, "metrics": held["metrics"]}
    lines = [line for line in read_metrics(path) if line.get("split") == "train"]
    if not lines:
        return {"from": "no numbers yet", "metrics": {}}
    kept = {
        name: {"value": value, "stderr": None}
        for name, value in lines[-1].items()
        if isinstance(value, int | float) and name not in ("step", "images_per_s")
    }
    return {
        "from": f"training, not held out, step {lines[-1]['step']:,}; run {command('evaluate_run', path)}",
        "metrics": kept,
    }


def _outdated(path: Path, step: int) -> str:
    """Returns words for an eval.json of another step than the newest checkpoint, "" where they agree.

    Args:
      path: of a run, or of a baseline, which has no steps.
      step: of the eval.json.
    """
    if not (path / "checkpoints").is_dir():
        return ""
    run = Run.load(path)
    now = run.newest_step or step
    if now == step:
        return ""
    # A run that was stopped is measured only at a step that is named.
    at = {} if now >= run.last_step else {"step": now}
    again = command("evaluate_run", path, **at)
    return f"; eval.json is of step {step:,}, the run is at step {now:,}; measure it again with {again}"


def _data_of(path: Path) -> tuple[Any, ...]:
    """Returns what runs must have in common to be compared: the data set, and the spec of its examples.

    A baseline says the name and nothing of the spec.
    """
    held = baseline.options_of(path)
    if held is not None:
        return (held.get("data", {}).get("name"),)
    run = Run.load(path)
    return run.config.data.shown, run.spec


def _warning(paths: Sequence[Path]) -> str:
    """Returns a sentence where the data of two runs differ, else ""."""
    known = [_data_of(path) for path in paths]
    names = len({data[0] for data in known}) > 1
    specs = len({repr(data[1]) for data in known if len(data) > 1}) > 1
    return SAME if names or specs else ""


def rows_of(numbers: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Returns metric -> its text in each run."""

    def text(name: str, metric: dict[str, Any] | None) -> str:
        if metric is None:
            return "-"
        error = "" if metric["stderr"] is None else f" ± {metric['stderr']:.2g}"
        return digits(name, metric["value"]) + error

    every = dict.fromkeys(name for held in numbers.values() for name in held["metrics"])
    return {name: [text(name, held["metrics"].get(name)) for held in numbers.values()] for name in every}
