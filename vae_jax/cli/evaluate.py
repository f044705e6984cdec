"""`vae-jax eval RUN`: the numbers of a run, with the protocol that made them, into eval.json and a table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vae_jax.errors import InputError, nearest
from vae_jax.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.config import Target
    from vae_jax.data import Source
    from vae_jax.runs import Run
    from vae_jax.train import TrainState


@dataclass(frozen=True)
class Evaluate(Settings):
    """Measure a run: ELBO, rate, distortion, importance-weighted bounds, reconstruction error, active units."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    metrics: str = ""
    """Comma-separated metrics to keep, e.g. elbo,rate,iwae; all of them if empty (see `vae-jax list metrics`)."""
    split: str | None = None
    """train, validation or test; default: the one in the run's config."""
    limit: int | None = None
    """Only the first examples of the split, 0 for all (default: the run's config)."""
    batch_size: int | None = None
    """Examples at a time (default: the run's config). No number depends on it."""
    seed: int = 0
    """Seed of the posterior samples."""
    step: int | None = None
    """Checkpoint to evaluate (default: the newest)."""
    others: tuple[Path, ...] = ()
    """Further run folders, for metrics that compare several (udr)."""
    out: Path | None = None
    """JSON file to write (default: RUN/eval.json)."""

    def __call__(self) -> None:
        from vae_jax.cli.output import counting, destination
        from vae_jax.runs import Run

        out = destination(self.out, self.run / "eval.json", (".json",))
        run = Run.load(self.run)
        metrics = tuple(name for name in re.split(r"[,\s]+", self.metrics.strip()) if name)
        with counting("evaluating") as report:
            result = evaluate_run(
                run,
                metrics=metrics,
                split=self.split,
                k=self.k,
                limit=self.limit,
                batch_size=self.batch_size,
                seed=self.seed,
                step=self.step,
                settings={f.name: getattr(self, f.name) for f in dataclasses.fields(Settings) if f.name != "k"},
                others=tuple(Run.load(path) for path in self.others),
                out=out,
                report=report,
            )
        print_result(result)
        print(f"written to {out}")
        if refused := result.get("refused"):
            # The rest is written; the exit code still says that not all of it could be done.
            raise InputError("--metrics: " + "; ".join(refused.values()))


def evaluate_run(
    run: Run,
    *,
    metrics: tuple[str, ...] = (),
    split: str | None = None,
    k: tuple[int, ...] | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    step: int | None = None,
    state: TrainState | None = None,
    settings: Mapping[str, Any] | None = None,
    others: tuple[Run, ...] = (),
    out: Path | None = None,
    write: bool = True,
    report: Callable[[int, int], None] = lambda seen, total: None,
) -> dict[str, Any]:
    """Evaluates a run, writes eval.json (contract.md) and returns its content.

    Args:
      run: an existing run.
      metrics: names to keep; () for all. `iwae` stands for every bound in `k` (50 if there is none), `probe` for every
        classifier on codes; these are trained only when they are asked for.
      split, k, limit, batch_size: None takes the run's config.
      seed: of the posterior samples.
      step: of the checkpoint; None for the newest.
      state: evaluate this state instead of a checkpoint.
      settings: options of single metrics (fields of `settings.Settings`).
      others: further runs, for metrics that compare several.
      out: file to write; None is RUN/eval.json.
      write: False writes nothing.
      report: called with (examples done, examples in all).

    A measure that refuses this run (no factors, say) does not cost the others: its reason stands under `refused`.

    Raises:
      InputError: unknown metric or split, a number out of range, an unfinished run, or a metric that this model does
        not have.
    """
    import jax

    from vae_jax.atomic import jsonable, write_json
    from vae_jax.cli.images import user_batches
    from vae_jax.evaluation import evaluate, measures
    from vae_jax.evaluation.classification import PROBES
    from vae_jax.evaluation.subject import Subject, cell_width

    e = run.config.evaluation
    split, batch_size = split or e.split, e.batch_size if batch_size is None else batch_size
    limit = e.limit if limit is None else limit
    k = e.k if k is None else k
    ks = bounds(metrics, k)
    check_names(metrics)
    options = Settings(**(settings or {}), k=k or ks)
    options.check()
    for name, value, least in (("batch-size", batch_size, 1), ("limit", limit, 0), ("k", min((*ks, *k), default=1), 1)):
        if value < least:
            raise InputError(f"--{name}: {value} is out of range; it must be {least} or more")
    if not 0 <= seed < 2**31:
        raise InputError(f"--seed: {seed} is out of range; it must be in [0, 2^31)")
    if ks and run.model.log_prob_bound is None:
        raise InputError(f"{run.path}: an autoencoder has no bound on log p(x); leave out --k and iwae")
    source = run.source(split)
    if state is None:
        state = finished(run, step)
    total = min(limit, source.size) if limit else source.size
    result = evaluate(
        run.model,
        state,
        run.batches(split, batch_size),
        key=jax.random.key(seed),
        k=ks,
        limit=limit,
        cell_width=cell_width(run, split),
        report=lambda seen: report(seen, total),
    )
    metrics = tuple(n for name in metrics for n in (PROBES if name == "probe" else (name,)))
    everything = not metrics
    learned, unprobed = {}, {}
    if asked := tuple(name for name in metrics if name in PROBES):
        try:
            found, learned = probes(run, state, split, batch_size, limit, asked)
            result.metrics.update(found)
        except InputError as error:
            unprobed = {asked[0]: str(error)}
            metrics = tuple(name for name in metrics if name not in PROBES)

    def foreign(name: str) -> Iterator[dict[str, Any]]:
        return user_batches(run, name, split, batch_size, "--outliers")[0]

    subject = Subject(run, state, split, limit, batch_size, seed, options, others, report, foreign)
    asked = measures.expand(metrics)
    found, refused = measures.measure(asked, subject)
    refused = unprobed | refused
    result.metrics.update(found)
    standard = tuple(name for name in metrics if name not in measures.names())
    names = [*(keep(standard, list(result.metrics), ks, run) if standard or everything else ()), *found]
    if refused and not names:  # nothing to write: what is there stays as it is
        raise InputError("--metrics: " + "; ".join(refused.values()))
    values = {
        "experiment": run.experiment,
        "step": int(state.step),
        "data": run.config.data.name,
        "split": split,
        "protocol": protocol(run, split, ks, limit, result.n, seed, state) | learned | subject.protocol,
        "metrics": {name: vars(result.metrics[name]) for name in names},
        "latents": {"kl_per_dim": result.kl_per_dim, "variance_of_mean": result.mean_variance},
        **judge(run.config.expected, result.metrics),
        "training": run.provenance(),
        **({"refused": refused} if refused else {}),
    }
    if write:
        write_json(out or run.path / "eval.json", values)
    return jsonable(values)


def finished(run: Run, step: int | None = None) -> TrainState:
    """Returns the state of a checkpoint, None for the newest of a run that was trained to its end.

    Raises:
      InputError: no such checkpoint, or the newest is not of the last step.
    """
    state = run.restore(step)
    if step is None and int(state.step) < run.config.steps:
        raise InputError(
            f"{run.path}: unfinished, at step {int(state.step)} of {run.config.steps}; go on with `vae-jax train "
            f"{run.experiment} --workdir {run.path} --resume`, or measure it as it is with --step {int(state.step)}"
        )
    return state


def probes(
    run: Run, state: TrainState, split: str, batch_size: int, limit: int, names: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the accuracies of classifiers on codes, and what they learned from, for the protocol.

    They learn from the labelled training examples (`data.labels`), or from 1,000 of them, as many of each class, where
    all are labelled.
    """
    import dataclasses

    import numpy as np

    from vae_jax.data import labels
    from vae_jax.data.pipeline import examples
    from vae_jax.evaluation.classification import probe

    config, source = run.config.data, run.source("train")
    if not source.info.num_classes:
        raise InputError(f"{names[0]}: the data set {config.name!r} has no labels")
    known = source.labelled
    if known is None and source.size <= 1000:
        known = np.arange(source.size)
    elif known is None:
        known = labels.attach(source, dataclasses.replace(config, labels=1000)).labelled
    assert known is not None
    shown = run.source(split)
    everything = np.arange(min(limit, shown.size) if limit else shown.size)

    def batches(source: Source, rows: np.ndarray) -> Iterator[dict[str, Any]]:
        for start in range(0, len(rows), batch_size):
            yield examples(source, config, rows[start : start + batch_size])

    found, learned = probe(run.model, state, batches(source, known), batches(shown, everything), names=names)
    return found, {"probes": f"learned from the mean codes of {learned:,} labelled training examples"}


def bounds(metrics: tuple[str, ...], ks: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the k of every importance-weighted bound that is asked for."""
    named = tuple(int(m.group(1)) for name in metrics if (m := re.fullmatch(r"iw_(\d+)", name)))
    if "iwae" in metrics and not ks:
        ks = (50,)
    if metrics and "iwae" not in metrics:
        ks = ()
    return tuple(dict.fromkeys((*ks, *named)))


def check_names(metrics: tuple[str, ...]) -> None:
    """Raises InputError for a name that is no metric; the nearest is offered."""
    from vae_jax.evaluation import METRICS, measures

    known = ["iwae", "probe", *METRICS, *measures.names()]
    for name in metrics:
        if name not in known and not re.fullmatch(r"iw_\d+", name):
            raise InputError(f"--metrics: no metric {name!r}; {nearest(name, known)}")


def keep(metrics: tuple[str, ...], found: list[str], ks: tuple[int, ...], run: Run) -> list[str]:
    """Returns the metrics to write, in the order asked for."""
    if not metrics:
        return found
    every = [n for k in ks for n in (f"iw_{k}", f"iw_{k}_bits_per_dim") if n == f"iw_{k}" or n in found]
    wanted = [n for name in metrics for n in (every if name in ("iwae", "iw_<k>") else [name])]
    for name in wanted:
        if name not in found:
            why = (
                "it needs a mass of binary or grey levels, or a density of dequantised ones"
                if name == "bits_per_dim"
                else "the model has none"
            )
            raise InputError(f"--metrics: {run.path} has no {name} ({why}); it has {', '.join(found)}")
    return list(dict.fromkeys(wanted))


def protocol(
    run: Run, split: str, ks: tuple[int, ...], limit: int, n: int, seed: int, state: TrainState
) -> dict[str, Any]:
    """Returns everything that a number depends on besides the weights."""
    info, data = run.source(split).info, run.config.data
    pixels = "binary" if info.values == "binary" else "in [0, 1]"
    if data.binarize != "none":
        pixels = f"binary ({data.binarize} binarisation)"
    elif data.dequantize:
        pixels = "dequantised, (v + u) / 256"
    elif run.config.model.likelihood.levels == 256:
        pixels = "256 grey levels, v / 255"
    estimator = "one posterior sample an example, KL in closed form; sums over pixels and dimensions, nats"
    if not run.config.model.likelihood.normalised:
        estimator += "; the distortion is a loss and no -log p(x|z), so its elbo bounds no likelihood"
    return {
        "data_protocol": data.protocol,
        "splits": info.protocol_text,
        "pixels": pixels,
        "image_shape": run.image_shape,
        "n": n,
        "limit": limit,
        "likelihood": type(run.config.model.likelihood).__name__,
        "estimator": estimator,
        "importance_samples": ks,
        "reconstruction": "mean image of the mean code",
        "weights": "last" if state.ema is None else f"moving average, decay {run.config.ema_decay}",
        "seed": seed,
    }


def judge(expected: Mapping[str, Target], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `expected` with a verdict on each, and `pass`: True if all hold, None if not all could be judged."""
    from vae_jax.config import meets

    verdicts: dict[str, Any] = {}
    for name, target in expected.items():
        value, tolerance, source, *direction = target
        ok = bool(meets(target, metrics[name].value)) if name in metrics else None
        toward = {"direction": direction[0]} if direction else {}
        verdicts[name] = {"value": value, "tolerance": tolerance, **toward, "source": source, "pass": ok}
    judged = [v["pass"] for v in verdicts.values()]
    passed = False if False in judged else (True if judged and None not in judged else None)
    return {"expected": verdicts, "pass": passed}


def print_result(result: dict[str, Any]) -> None:
    """Prints the content of eval.json as a table."""
    from rich.console import Console
    from rich.table import Table

    from vae_jax.config import target_text
    from vae_jax.evaluation import measures

    p = result["protocol"]
    shape = "x".join(map(str, p["image_shape"]))
    title = f"{result['experiment']}, step {result['step']:,}: {result['data']} {shape}, {result['split']} split"
    table = Table()
    table.add_column("metric")
    for name in ("value", "± stderr", "expected"):
        table.add_column(name, justify="right")
    for name, m in result["metrics"].items():
        want = result["expected"].get(name)
        verdict = ""
        if want is not None:
            text = target_text(want["value"], want["tolerance"], want.get("direction", ""))
            verdict = f"{text} {'ok' if want['pass'] else 'MISSED'}"
        table.add_row(name, show(name, m["value"]), "" if m["stderr"] is None else f"{m['stderr']:.2g}", verdict)
    note = f"{p['n']:,} images, pixels {p['pixels']}, {p['likelihood']} likelihood, {p['weights']} weights"
    console = Console(highlight=False)
    console.print(title, style="bold", soft_wrap=True)
    console.print(table)
    note += f", {p['data_protocol']} protocol, seed {p['seed']}"
    note += f", k {', '.join(map(str, p['importance_samples']))}" if p["importance_samples"] else ""
    console.print(note, style="dim", soft_wrap=True)
    for name in [n for n in measures.MEASURES if n in p]:
        about = p[name]
        if isinstance(about, Mapping):
            about = ", ".join(f"{key} {f'{v:.4g}' if isinstance(v, float) else v}" for key, v in about.items())
        console.print(f"{name}: {about}", style="dim", soft_wrap=True, markup=False)  # "E[x|z]" is no markup
    if unseen := [name for name, want in result["expected"].items() if want["pass"] is None]:
        # Some are made only on request: whoever wants the verdict must know what to ask for.
        console.print(f"targets not measured: {', '.join(unseen)}", style="dim", soft_wrap=True)


def show(name: str, value: float | None) -> str:
    """Returns a metric's value with the digits that mean something."""
    if value is None:
        return "not finite"
    return f"{value:.0f}" if name == "active_units" else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
