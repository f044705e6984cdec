"""`vae-jax eval RUN`: the numbers of a run, with the protocol that made them, into eval.json and a table."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vae_jax.errors import release_notes
from vae_jax.evaluation.settings import Settings
from vae_jax.options.ranges import SAMPLES, SEED, AtLeast


@dataclass(frozen=True)
class Evaluate(Settings):
    """Measure a run: ELBO, rate, distortion, importance-weighted bounds, reconstruction error, active units."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: tuple[str, ...] = ()
    """Your own examples in place of a split: images, a folder, .npy, .npz, a table, or a data set name. Their numbers
    are written to --out alone."""
    metrics: str = ""
    """Comma-separated metrics to keep, e.g. elbo,rate,iwae; all of them if empty (see `vae-jax list metrics`)."""
    split: str | None = None
    """train, validation or test (default: the one in the run's config); of --input, where that holds splits."""
    limit: Annotated[int | None, AtLeast(0)] = None
    """Only so many examples, 0 for all (default: the run's config); evenly spread if the split is sorted by class."""
    batch_size: Annotated[int | None, AtLeast(1)] = None
    """Examples at a time (default: the run's config). No number depends on it."""
    seed: Annotated[int, SEED] = 0
    """Seed of the posterior samples."""
    step: int | Literal["best"] | None = None
    """Checkpoint to evaluate (default: the newest)."""
    others: tuple[Path, ...] = ()
    """Further run folders, for metrics that compare several (udr)."""
    out: Path | None = None
    """JSON file to add the numbers to (default: RUN/eval.json; of --input none)."""

    def __call__(self) -> None:
        from vae_jax.cli.output import counting, destination
        from vae_jax.runs.run import Run
        from vae_jax.tasks.measuring import evaluate_run, refusal

        metrics = tuple(name for name in re.split(r"[,\s]+", self.metrics.strip()) if name)
        if self.k and not any(map(SAMPLES.holds, self.k)):
            from vae_jax.evaluation import measures

            if not measures.expand(metrics):  # measures made on request are not lost to a k that they do not read
                self.check("k")
        out = destination(self.out, self.run / "eval.json", (".json",))
        x = self.input or None
        run = Run.load(self.run)
        with counting("evaluating") as report:
            result = evaluate_run(
                run,
                x,
                metrics=metrics,
                split=self.split,
                k=self.k,
                limit=self.limit,
                batch_size=self.batch_size,
                seed=self.seed,
                step=self.step,
                settings={f.name: getattr(self, f.name) for f in dataclasses.fields(Settings) if f.name != "k"},
                others=tuple(Run.load(path) for path in self.others),
                out=out if x is None else self.out,
                report=report,
            )
        release_notes()  # what is refused after this was measured beside what is written
        print_result(result)
        if x is None or self.out is not None:
            print(f"written to {out}")
        else:
            print("not written; name a file with --out to keep these numbers")
        if refused := result.get("refused"):
            # The rest is written; the exit code still says that not all of it could be done.
            raise refusal(refused)


def print_result(result: dict[str, Any]) -> None:
    """Prints what an evaluation measured as a table, with its protocol and the verdicts on the targets."""
    from rich.console import Console
    from rich.table import Table

    from vae_jax.evaluation.measures import MEASURES
    from vae_jax.evaluation.reading import digits
    from vae_jax.runs.targets import target_text
    from vae_jax.tasks.measuring import INPUT

    p = result["protocol"]
    shape = "x".join(map(str, p["image_shape"]))
    title = f"{result['experiment']}, step {result['step']:,}: {result['data']} {shape}"
    title += ", given with --input" if result["split"] == INPUT else f", {result['split']} split"
    elsewhere = result.get("targets_of")
    table = Table()
    table.add_column("metric")
    for name in ("value", "± stderr", "expected"):
        table.add_column(name, justify="right")
    for name, m in result["metrics"].items():
        want = None if elsewhere else result["expected"].get(name)
        verdict = ""
        if want is not None:
            text = target_text(want["value"], want["tolerance"], want.get("direction", ""))
            verdict = f"{text} {'ok' if want['pass'] else 'MISSED'}"
        table.add_row(name, digits(name, m["value"]), "" if m["stderr"] is None else f"{m['stderr']:.2g}", verdict)
    # Only data that are not images say what their examples are called.
    what = f"{p['examples']}, {p['pixels']}" if "examples" in p else f"images, pixels {p['pixels']}"
    note = f"{p['n']:,} {what}, {p['likelihood']} likelihood, {p['weights']} weights"
    console = Console(highlight=False, markup=False, emoji=False)  # names such as [red] are to be read as they are
    console.print(title, style="bold", soft_wrap=True)
    console.print(table)
    note += f", {p['data_protocol']} protocol, seed {p['seed']}"
    note += f", k {', '.join(map(str, p['importance_samples']))}" if p["importance_samples"] else ""
    console.print(note, style="dim", soft_wrap=True)
    if "labels" in p:
        console.print(f"labels: {p['labels']}", style="dim", soft_wrap=True)
    if "data_now" in p:
        console.print(f"data: {p['data_now']}", style="dim", soft_wrap=True)
    for name in [n for n in MEASURES if n in p]:
        about = p[name]
        if isinstance(about, Mapping):
            about = ", ".join(f"{key} {f'{v:.4g}' if isinstance(v, float) else v}" for key, v in about.items())
        console.print(f"{name}: {about}", style="dim", soft_wrap=True)
    if elsewhere:
        said = {True: "ok", False: "MISSED", None: "not measured"}
        verdicts = ", ".join(f"{name} {said[want['pass']]}" for name, want in result["expected"].items())
        console.print(f"targets are judged on the {elsewhere}: {verdicts}", style="dim", soft_wrap=True)
    elif unseen := [name for name, want in result["expected"].items() if want["pass"] is None]:
        # Some are made only on request: whoever wants the verdict must know what to ask for.
        console.print(f"targets not measured: {', '.join(unseen)}", style="dim", soft_wrap=True)
