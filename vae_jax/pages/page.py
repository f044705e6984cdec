"""From what was gathered of each run to the HTML of the whole report."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from vae_jax.evaluation.eval_file import difference
from vae_jax.pages import panels
from vae_jax.pages.views import Entry
from vae_jax.runs import config as configs
from vae_jax.runs.targets import target_text

if TYPE_CHECKING:
    from vae_jax.runs.run import Run

# Section -> heading, in the order of the page.
SECTIONS = {
    "summary": "Summary",
    "metrics": "Metrics",
    "targets": "Targets",
    "curves": "Training",
    "rate-distortion": "Rate and distortion",
    "kl": "KL by dimension",
    "samples": "Samples",
    "reconstructions": "Reconstructions",
    "codes": "Codebooks",
    "traversals": "Traversals",
    "map": "Latent map",
    "config": "Configuration",
    "environment": "Environment",
}
HEADLINES = ("elbo", "rate", "distortion", "accuracy", "mse", "active_units")


def page(entries: Sequence[Entry], meanings: Mapping[str, str] | None = None) -> str:
    """Returns the HTML of a report on one run or more: one file with everything in it.

    Args:
      entries: the runs, in the order of the page; all names differ.
      meanings: metric -> one line, for those that have one.
    """
    import jinja2

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    several = len(entries) > 1
    # Left out of the page where no run has codes.
    coded = any(e.look.codebooks for e in entries)
    return environment.get_template("report.html.j2").render(
        title=f"{len(entries)} runs" if several else entries[0].name,
        several=several,
        style=Markup((here / "report.css").read_text()),
        sections={id: heading for id, heading in SECTIONS.items() if id != "codes" or coded},
        names=[e.name for e in entries],
        cards=[_card(number, e) for number, e in enumerate(entries)],
        metrics=_metrics(entries, meanings or {}),
        protocols=_table([{k: _text(v) for k, v in e.result["protocol"].items()} for e in entries]),
        targets=_targets(entries),
        curves=panels.curves({e.name: e.lines for e in entries}),
        plane=panels.rate_distortion({e.name: (e.result["metrics"], e.lines) for e in entries}),
        kl=[panels.kl_panel(e) for e in entries],
        samples=[panels.sample_panel(e) for e in entries],
        reconstructions=[panels.pair_panel(e) for e in entries],
        codes=[panels.code_panel(e) for e in entries] if coded else [],
        traversals=[panels.walk_panel(e) for e in entries],
        maps=[panels.map_panel(e) for e in entries],
        differences=_options(entries, only_differing=True) if several else [],
        options=_options(entries),
        environments=_table([_environment(e) for e in entries]),
        made=_made(),
    )


def show(value: float | None, stderr: float | None = None) -> str:
    """Returns a number with the digits that its standard error leaves it, or four."""
    if value is None or not math.isfinite(value):
        return "not finite"
    if stderr and math.isfinite(stderr):
        digits = min(6, max(0, 1 - math.floor(math.log10(abs(stderr)))))
        return f"{value:,.{digits}f}"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:,.4g}"


def headlines(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the metrics that say most of a run, first the importance-weighted bound of most samples."""
    bounds = sorted((n for n in metrics if re.fullmatch(r"iw_\d+", n)), key=lambda n: int(n[3:]))
    return bounds[-1:] + [n for n in HEADLINES if n in metrics]


def _card(number: int, entry: Entry) -> dict[str, object]:
    result, run = entry.result, entry.run
    chosen = headlines(result["metrics"])[:4]
    passed = result.get("pass")
    undecided = "not all targets measured" if result.get("expected") else "no targets"
    x = run.spec.x
    return {
        "number": number,
        "name": entry.name,
        "experiment": run.experiment,
        "about": f"step {result['step']:,} of {run.config.steps:,}, seed {run.config.seed}, "
        f"{entry.look.parameters:,} parameters",
        "data": f"{result['data']} {'x'.join(map(str, x.shape))}, {result['split']} split, "
        f"{result['protocol']['n']:,} {x.examples}",
        "parts": ", ".join(_parts(run)),
        "verdict": {True: "targets met", False: "targets missed", None: undecided}[passed],
        "state": {True: "good", False: "bad", None: "open"}[passed],
        "numbers": [(n, *_value(result["metrics"][n])) for n in chosen],
        "origin": entry.origin,
    }


def _parts(run: Run) -> list[str]:
    options = configs.options(run.config)
    return [str(options[o]) for o in configs.REGISTRIES if o in options and o.count(".") < 2]


def _value(metric: Mapping[str, Any]) -> tuple[str, str]:
    error = metric.get("stderr")
    return show(metric["value"], error), f"± {error:.2g}" if error is not None else ""


def _apart(metric: Mapping[str, Any], examples: str) -> str:
    """Returns in what the protocol of one metric differs from that of the page, if it does."""
    about = metric.get("protocol", {})
    shown = {name: value if name == "data_sha256" else _text(value) for name, value in about.items()}
    return "".join(f"; {difference(name, value, examples)}" for name, value in shown.items())


def _entry(name: str) -> str:
    """Returns the entry of the table that describes a metric: `iw_<k>` for iw_50, `kl/<level>` for kl/top."""
    return re.sub(r"^kl/.+$", "kl/<level>", re.sub(r"^iw_\d+$", "iw_<k>", name))


def _metrics(entries: Sequence[Entry], meanings: Mapping[str, str]) -> list[dict[str, object]]:
    every = dict.fromkeys(name for e in entries for name in e.result["metrics"])
    found = []
    for name in every:
        held = [(e.result["metrics"].get(name), e.run.spec.x.examples) for e in entries]
        cells = [(*_value(m), f"{m['n']:,}{_apart(m, examples)}") if m else ("–", "", "") for m, examples in held]
        found.append({"name": name, "meaning": meanings.get(_entry(name), ""), "cells": cells})
    return found


def _targets(entries: Sequence[Entry]) -> list[dict[str, object]]:
    found = []
    for entry in entries:
        for name, target in entry.result.get("expected", {}).items():
            metric = entry.result["metrics"].get(name)
            found.append(
                {
                    "run": entry.name,
                    "metric": name,
                    "want": target_text(target["value"], target["tolerance"], target.get("direction", "")),
                    "seen": " ".join(_value(metric)) if metric else "not measured",
                    "source": target["source"],
                    "verdict": {True: "met", False: "missed", None: "not measured"}[target["pass"]],
                    "state": {True: "good", False: "bad", None: "open"}[target["pass"]],
                }
            )
    return found


def _options(entries: Sequence[Entry], *, only_differing: bool = False) -> list[tuple[str, list[str]]]:
    """Returns (option, its value in each run), components before their own options."""
    rows = _table([{k: _text(v) for k, v in configs.options(e.run.config).items() if k != "expected"} for e in entries])
    rows.sort(key=lambda row: row[0].split("."))
    return [row for row in rows if len(set(row[1])) > 1] if only_differing else rows


def _table(columns: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    every = dict.fromkeys(key for column in columns for key in column)
    return [(key, [column.get(key, "–") for column in columns]) for key in every]


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value)) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_text(v)}" for k, v in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None or value == "" else str(value)


def _environment(entry: Entry) -> dict[str, str]:
    from vae_jax.runs.run import read_environment

    held = read_environment(entry.run.path)
    packages = held.pop("packages")
    if not (held or packages):
        return {"env.json": "not there, or cannot be read"}
    return {k: _text(v) for k, v in held.items()} | {k: _text(v) for k, v in packages.items()}


def _made() -> str:
    from importlib.metadata import version

    from vae_jax.runs.run import commit

    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"vae_jax {version('vae_jax')}, commit {(commit() or 'unknown')[:12]}, {now}"
