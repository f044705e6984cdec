"""What each experiment should reach and what it reached: `make reproduce` writes results/README.md.

Run: python -m benchmarks.reproduce [EXP ...] [--seeds 0:3] [--steps N] [--metrics mig,dci]. Without EXP nothing is
trained: the table is made anew from the files under results/. With it, each seed is trained in runs/reproduce (or
continued where it stopped: what is finished is not done again), measured with the evaluation settings of its config,
and written to results/, in the topic folder of EXP, in the form of eval.json; before a second stage the first one that
its command names is trained with the same seed. With several seeds a metric's value is
the mean over them and its standard error theirs; `seeds` lists the numbers of each.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import studies
from benchmarks.jobs import ROOT
from benchmarks.studies import first_paragraph
from vae_jax.errors import InputError
from vae_jax.pages.page import headlines
from vae_jax.runs import config as configs
from vae_jax.runs import experiments as experiments_index
from vae_jax.runs.config import Config
from vae_jax.runs.targets import judge, meets, target_text

RESULTS = ROOT / "results"
# Measurements whose module has another name than their file.
MODULES = {"bench": "__main__", "gradient_variance": "gradients", "linear_mnist": "linear", "semi_supervised": "semi"}


class Experiment(NamedTuple):
    """An experiment.

    Attributes:
      config: its config.
      published: the number of a paper that its docstring gives under `Published:`.
      topic: the folder of its file below `experiments/`, and of its result below `results/`.
      first: the experiment whose run is the first stage of this one, as the command of its docstring has it.
    """

    config: Config
    published: str
    topic: Path = Path()
    first: str | None = None


def experiments(folder: Path = ROOT / "experiments") -> dict[str, Experiment]:
    """Returns every experiment of a folder by name."""
    return {
        path.stem: Experiment(
            experiments_index.load(path),
            published(path.read_text()),
            path.parent.relative_to(folder),
            first_stage(path.read_text()),
        )
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.stem)
    }


def published(source: str) -> str:
    """Returns the text after `Published:` in the docstring of an experiment, in one line; "" without one."""
    found = re.search(r"^Published:\s*(.+?)(?=^\w+:|\Z)", ast.get_docstring(ast.parse(source)) or "", re.M | re.S)
    return " ".join(found[1].split()) if found else ""


def first_stage(source: str) -> str | None:
    """Returns the experiment that the command in the docstring of another names as its first stage, if it does."""
    found = re.search(r"--stage1 runs/(\w+)", ast.get_docstring(ast.parse(source)) or "")
    return found[1] if found else None


def held(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Returns the content of each results file by name; its place below the folder is added as `file`."""
    paths = sorted(folder.rglob("*.json"), key=lambda path: path.stem)
    return {path.stem: json.loads(path.read_text()) | {"file": str(path.relative_to(folder))} for path in paths}


def is_of_experiment(name: str, result: Mapping[str, Any]) -> bool:
    """Returns whether a results file holds the evaluation of the experiment that it is named after."""
    return result.get("experiment") == name and "metrics" in result


def rows(name: str, experiment: Experiment, result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the lines of the table for one experiment: one a target, or its headline number where it has none."""
    metrics, training = result["metrics"], result.get("training", {})
    seeds = result.get("seeds") or [training.get("seed", "?")]
    steps, whole = result["step"], experiment.config.steps
    commit = re.sub(r"^(\w{7})\w*", r"\1", training.get("commit") or "?")
    machine = f"{training.get('processor') or '?'}, {', '.join(training.get('devices') or ['?'])}"
    rest = (
        str(len(seeds)),
        f"{steps:,}" if steps == whole else f"{steps:,} of {whole:,}",
        f"{result['split']}, {result['protocol']['n']:,}",
        machine,
        commit,
    )
    targets = experiment.config.expected
    if not targets:
        name_of = next((n for n in (*headlines(metrics), *metrics) if n not in ("rate", "distortion")), "")
        seen = value_text(metrics[name_of]) if name_of else "-"
        return [(name, name_of, experiment.published or "-", seen, "-", *rest)]
    return [(name, metric, *_judged(target, metrics.get(metric)), *rest) for metric, target in targets.items()]


def _judged(target: configs.Target, metric: Mapping[str, Any] | None) -> tuple[str, str, str]:
    value, tolerance, source, *direction = target
    wanted = f"{target_text(value, tolerance, *direction)} ({source})"
    if metric is None:
        return wanted, "-", "not measured"
    good = metric["value"] is not None and meets(target, metric["value"])
    return wanted, value_text(metric), "met" if good else "**missed**"


def value_text(metric: Mapping[str, Any]) -> str:
    """Returns a number with its standard error."""
    if metric["value"] is None:
        return "not finite"
    error = f" ± {metric['stderr']:.2g}" if metric.get("stderr") is not None else ""
    return f"{metric['value']:.5g}{error}"


def markdown(known: Mapping[str, Experiment], results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns results/README.md."""
    done = {name: results[name] for name in known if name in results and is_of_experiment(name, results[name])}
    head = ("experiment", "metric", "paper or target", "obtained", "verdict", "seeds", "steps", "images", "machine")
    lines = [
        "# Results",
        "",
        "Made by `make reproduce` from the files under `results/` and `experiments/`; edit those, not this file.",
        'Repeat a line with `make reproduce ARGS="EXPERIMENT"`, with more seeds by `ARGS="EXPERIMENT --seeds 0:3"`.',
        "The error is that of the mean over images for one seed, over seeds for several. Nats unless the metric says",
        "otherwise (`vae-jax list metrics`); each file holds its whole protocol. A published number next to a shorter",
        "run is there for comparison; it is not a target. `+changes` marks a measurement on a tree with uncommitted",
        "changes: its commit alone does not repeat it, and README.md does not quote it.",
        "",
        *studies.table((*head, "commit"), [row for name in done for row in rows(name, known[name], done[name])]),
        "",
        "## No result yet",
        "",
    ]
    missing = [(name, _wanted(e), f"{e.config.steps:,}") for name, e in known.items() if name not in done]
    lines += studies.table(("experiment", "paper or target", "steps"), missing) if missing else ["None: all are above."]
    rest = [name for name in results if name not in done]
    lines += ["", "## Other measurements", ""]
    lines += [f"- `{results[name].get('file', f'{name}.json')}`: {what(name, results[name])}" for name in rest]
    return "\n".join(lines) + "\n"


def what(name: str, result: Mapping[str, Any]) -> str:
    """Returns what a measurement is that is no experiment's: the file's own word, or its module's first line."""
    module = ROOT / "benchmarks" / f"{MODULES.get(name, name)}.py"
    if "what" in result or not module.is_file():
        return result.get("what", "see the file")
    return first_paragraph(ast.get_docstring(ast.parse(module.read_text())))


def _wanted(experiment: Experiment) -> str:
    targets = [
        f"{metric} {target_text(value, tolerance, *direction)} ({source})"
        for metric, (value, tolerance, source, *direction) in experiment.config.expected.items()
    ]
    return "; ".join(targets) or experiment.published or "-"


def run_seed(
    name: str, config: Config, folder: Path, metrics: tuple[str, ...], first: Path | None = None
) -> dict[str, Any]:
    """Trains one seed, or what is left of it, and returns its evaluation.

    Args:
      name: of the experiment.
      config: what to train.
      folder: of the run.
      metrics: to measure besides the standard ones.
      first: run folder of its first stage, where it is a second one.

    Returns:
      the content of eval.json.

    Raises:
      InputError: unknown metric, or a folder that holds another run.
    """
    import vae_jax
    from vae_jax.evaluation import eval_file as evaluations
    from vae_jax.runs.run import Run

    if not (folder / "config.json").is_file():
        run = vae_jax.train_run(config, folder, name=name, stage1=first)
    else:
        run = Run.load(folder)
        checkpoints = run.checkpoints()
        newest = max(checkpoints.steps(), default=0)
        checkpoints.close()
        if newest < config.steps:
            run = vae_jax.train_run(config, folder, name=name, resume=True)
    file = folder / "eval.json"
    held = evaluations.read(file) if file.is_file() else {"evaluations": []}
    mine = [e for e in held["evaluations"] if e["step"] == config.steps and evaluations.is_own(e, config)]
    if not mine:
        vae_jax.evaluate_run(run)
    if missing := tuple(m for m in metrics if not any(m in e.get("asked", ()) for e in mine)):
        vae_jax.evaluate_run(run, metrics=missing)
    # Numbers of other protocols, which somebody measured in this folder, are not those of the experiment.
    mine = [e for e in evaluations.read(file)["evaluations"] if evaluations.is_own(e, config)]
    return evaluations.view(name, config, mine, config.steps)


def merge(evaluations: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns one result of several seeds: the mean of each metric and the standard error of that mean.

    s / sqrt(S) with s the standard deviation (ddof = 1) over S seeds. A metric that some seed lacks, or that is not
    finite for one, has no mean: its value is None.

    Args:
      evaluations: seed -> content of its eval.json.
    """
    first = dict(next(iter(evaluations.values())))
    first.pop("evaluations", None)
    if len(evaluations) == 1:
        return first
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(n for e in evaluations.values() for n in e["metrics"]):
        values = [e["metrics"].get(name, {}).get("value") for e in evaluations.values()]
        whole = [v for v in values if v is not None]
        complete = len(whole) == len(values)
        merged[name] = {
            "value": statistics.fmean(whole) if complete else None,
            "stderr": statistics.stdev(whole) / len(whole) ** 0.5 if complete else None,
            "n": next(e["metrics"][name]["n"] for e in evaluations.values() if name in e["metrics"]),
        }
    first.pop("latents", None)
    return first | {
        "protocol": first["protocol"] | {"over_seeds": "mean over seeds, standard error of that mean"},
        "metrics": merged,
        "seeds": {
            str(seed): {name: metric["value"] for name, metric in e["metrics"].items()}
            for seed, e in evaluations.items()
        },
        "training": first["training"] | {"seed": list(evaluations)},
    }


def judged(result: dict[str, Any], config: Config) -> dict[str, Any]:
    """Returns the result with the verdicts on the targets of its config."""
    from types import SimpleNamespace

    seen = {n: SimpleNamespace(value=m["value"]) for n, m in result["metrics"].items() if m["value"] is not None}
    return result | judge(config.expected, seen)


def seeds_of(words: Sequence[str]) -> tuple[int, ...]:
    """Returns the seeds that "0:3" or "0 4" stand for.

    Raises:
      InputError: it is neither.
    """
    found: list[int] = []
    for word in words:
        if not re.fullmatch(r"\d+(:\d+)?", word):
            raise InputError(f"--seeds {word}: give numbers, or a range as 0:3")
        first, _, end = word.partition(":")
        found += range(int(first), int(end)) if end else [int(first)]
    if words and not found:
        raise InputError(f"--seeds {' '.join(words)}: no seed in it")
    return tuple(dict.fromkeys(found))


def reproduce(args: argparse.Namespace, known: Mapping[str, Experiment]) -> None:
    """Trains, measures and writes what was requested, one results file per experiment."""
    from vae_jax.files.atomic import write_json

    metrics = tuple(name for name in re.split(r"[,\s]+", args.metrics) if name)
    if args.steps is not None and args.steps < 1:
        raise InputError(f"--steps: {args.steps} is out of range; it must be 1 or more")
    for name in args.experiments:
        experiments_index.find(name)  # an unknown name is refused before any hour is spent
    for name in args.experiments:
        config = known[name].config
        evaluations = {
            seed: _measured(name, seed, known, args, metrics) for seed in seeds_of(args.seeds) or (config.seed,)
        }
        folder = args.results / known[name].topic
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{name}.json", judged(merge(evaluations), config))


def _measured(
    name: str, seed: int, known: Mapping[str, Experiment], args: argparse.Namespace, metrics: tuple[str, ...]
) -> dict[str, Any]:
    """Returns the evaluation of one seed of an experiment, and trains its first stage of that seed before, if any."""
    (config, _, _, first), tail = known[name], "" if args.steps is None else f"-steps{args.steps}"
    if first is not None:
        _measured(first, seed, known, args, ())
    one = dataclasses.replace(config, seed=seed, steps=args.steps or config.steps)
    below = None if first is None else args.workdir / f"{first}-seed{seed}{tail}"
    return run_seed(name, one, args.workdir / f"{name}-seed{seed}{tail}", metrics, below)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns 2 for bad input, as `vae-jax` does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="*", help="experiments to train and measure (default: none)")
    parser.add_argument("--seeds", nargs="+", default=[], help="0:3 or 0 1 2 (default: that of the config)")
    parser.add_argument("--steps", type=int, help="fewer steps than the experiment has; the table says so")
    parser.add_argument("--metrics", default="", help="metrics to measure besides the standard ones, by commas")
    parser.add_argument("--workdir", type=Path, default=Path("runs/reproduce"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are written")
    args = parser.parse_args(argv)
    known = experiments()
    try:
        reproduce(args, known)
    except InputError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 2
    results = held(args.results)
    (args.results / "README.md").write_text(markdown(known, results))
    missing = [name for name in known if not is_of_experiment(name, results.get(name, {}))]
    print(f"{args.results / 'README.md'}: {len(known) - len(missing)} of {len(known)} experiments have a result")
    print("no result yet: " + (", ".join(missing) or "none"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
