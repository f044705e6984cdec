"""`vae-jax report RUN [RUN ...]`: what there is to know of runs, in one HTML file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vae_jax.errors import InputError
from vae_jax.report.plane import Map, check_map

if TYPE_CHECKING:
    from vae_jax.report.views import Entry
    from vae_jax.runs.run import Run
    from vae_jax.train import TrainState


@dataclass(frozen=True)
class Report:
    """One self-contained HTML file on a run, or on several side by side: numbers, curves, images, latent map, config.

    It asks for nothing from outside and needs no script. Metrics are those of eval.json; a run without one, or with
    one of another step, is measured for the report with the evaluation settings of its config. Nothing else is written.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path | None = None
    """HTML file (default: report.html in the first run)."""
    map: Map = "pca"
    """Latent map: pca, tsne, or umap (needs umap-learn)."""
    seed: int = 0
    """Seed of samples, t-SNE and UMAP."""
    step: int | None = None
    """Checkpoint to show (default: the newest of a finished run)."""

    def __call__(self) -> None:
        from vae_jax.cli.compare import labels
        from vae_jax.cli.inspect import seed
        from vae_jax.cli.output import counting, destination
        from vae_jax.files.atomic import replacing
        from vae_jax.runs.run import Run

        if not self.runs:
            raise InputError("report: no run given; name one or more run folders")
        check_map(self.map)
        seed(self.seed)
        out = destination(self.out, self.runs[0] / "report.html", (".html",))
        runs = [Run.load(path) for path in self.runs]
        names = labels(self.runs, "report")
        from vae_jax.cli.listing import metrics
        from vae_jax.report.page import page

        with counting("measuring") as report:
            entries = [gather(name, run, self.map, self.seed, self.step, report) for name, run in zip(names, runs)]
        text = page(entries, {row.name: row.meaning for row in metrics()})
        try:
            with replacing(out) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
        print(f"{out}: {len(text) / 1e6:.1f} MB")


def gather(
    name: str, run: Run, kind: Map, seed: int, step: int | None, report: Callable[[int, int], None] = lambda a, b: None
) -> Entry:
    """Returns everything that a report says of one run.

    Raises:
      InputError: no checkpoint, an unfinished run, or an eval.json that cannot be read.
    """
    from vae_jax.figures import read_metrics
    from vae_jax.report.views import Entry, look
    from vae_jax.tasks.measuring import finished

    state = finished(run, step)
    result, origin = numbers(run, state, report)
    seen = look(run, state, result["split"], (result.get("latents") or {}).get("kl_per_dim"), kind, seed)
    return Entry(name, run, seen, result, origin, read_metrics(run.path))


def numbers(run: Run, state: TrainState, report: Callable[[int, int], None]) -> tuple[dict[str, Any], str]:
    """Returns the content of eval.json, or the same measured now, and a sentence on where it is from.

    Raises:
      InputError: eval.json cannot be read.
    """
    from vae_jax.evaluation import eval_file as evaluations
    from vae_jax.tasks.measuring import evaluate_run

    file, now = run.path / "eval.json", int(state.step)
    why = "there is no eval.json"
    if file.is_file():
        held = evaluations.read(file)
        if held["step"] != now and any(entry["step"] == now for entry in held["evaluations"]):
            held = evaluations.view(run.experiment, run.config, held["evaluations"], now)
        if held["step"] == now:
            origin = f"eval.json, seed {held['protocol'].get('seed', 0)}"
            return held, "; ".join([origin, *evaluations.notes(held["metrics"])])
        why = f"eval.json is of step {held['step']:,}"
    return evaluate_run(run, state=state, write=False, report=report), f"measured for this report: {why}"
