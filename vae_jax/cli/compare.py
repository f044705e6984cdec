"""`vae-jax compare RUN RUN ...`: options that differ, metrics side by side, and their curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from vae_jax.cli.output import destination, write
from vae_jax.errors import InputError


@dataclass(frozen=True)
class Compare:
    """Runs side by side: options that differ, metrics of their eval.json (else the last training line), curves."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, two or more."""
    out: Path | None = None
    """PNG of the curves (default: figures/compare.png of the first run)."""

    def __call__(self) -> None:
        if len(self.runs) < 2:
            raise InputError(f"compare: {len(self.runs)} run; give two or more")
        out = destination(self.out, self.runs[0] / "figures" / "compare.png", (".png",))
        names = labels(self.runs)
        options = {name: options_of(path) for name, path in zip(names, self.runs)}
        numbers = {name: measured(path) for name, path in zip(names, self.runs)}
        print_table("options that differ", differences(options), names)
        print_table("metrics", rows_of(numbers), names)
        _notes(numbers)

        def figure() -> Any:
            from vae_jax.figures import curves, read_metrics

            return curves({name: read_metrics(path) for name, path in zip(names, self.runs)}, title="compare")

        write(out, {}, figure)


def labels(paths: tuple[Path, ...], command: str = "compare") -> list[str]:
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
    from vae_jax.cli import baseline
    from vae_jax.runs.config_json import to_dict
    from vae_jax.runs.run import Run

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
    from vae_jax.evaluation import eval_file as evaluations
    from vae_jax.figures import read_metrics

    file = path / "eval.json"
    if file.is_file():
        held = evaluations.read(file)
        origin = f"eval.json: {held['data']}, {held['split']} split, {held['protocol']['n']:,} images"
        origin = "; ".join([f"{origin}, step {held['step']:,}", *evaluations.notes(held["metrics"])])
        return {"from": origin, "metrics": held["metrics"]}
    lines = [line for line in read_metrics(path) if line.get("split") == "train"]
    if not lines:
        return {"from": "no numbers yet", "metrics": {}}
    kept = {
        name: {"value": value, "stderr": None}
        for name, value in lines[-1].items()
        if isinstance(value, int | float) and name not in ("step", "images_per_s")
    }
    return {"from": f"training, not held out, step {lines[-1]['step']:,}; run vae-jax eval", "metrics": kept}


def rows_of(numbers: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Returns metric -> its text in each run."""
    from vae_jax.evaluation.reading import digits

    def text(name: str, metric: dict[str, Any] | None) -> str:
        if metric is None:
            return "-"
        error = "" if metric["stderr"] is None else f" ± {metric['stderr']:.2g}"
        return digits(name, metric["value"]) + error

    every = dict.fromkeys(name for held in numbers.values() for name in held["metrics"])
    return {name: [text(name, held["metrics"].get(name)) for held in numbers.values()] for name in every}


def _notes(numbers: dict[str, dict[str, Any]]) -> None:
    for name, held in numbers.items():
        print(f"{name}: {held['from']}")


def print_table(title: str, rows: dict[str, list[str]], names: list[str]) -> None:
    """Prints one row a key and one column a run."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print(f"{title}: none")
        return
    # Names of folders and options are to be read as they are, "[red]" and ":key:" too.
    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for key, row in rows.items():
        table.add_row(key, *row)
    console.print(table)
