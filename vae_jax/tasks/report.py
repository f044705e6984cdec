"""What there is to know of runs, in one HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vae_jax.errors import InputError, option
from vae_jax.evaluation import eval_file as evaluations
from vae_jax.evaluation.likelihood import METRICS
from vae_jax.evaluation.measures import MEASURES
from vae_jax.files.atomic import replacing
from vae_jax.options.typed import conform
from vae_jax.pages.plane import Map, check_map
from vae_jax.runs.run import Run
from vae_jax.tasks import given
from vae_jax.tasks.compare import labels
from vae_jax.tasks.measuring import evaluate_run, finished
from vae_jax.train import TrainState

if TYPE_CHECKING:
    from vae_jax.pages.views import Entry


def report(
    runs: Run | Path | str | Sequence[Run | Path | str],
    out: Path | str | None = None,
    *,
    map: Map = "pca",
    seed: int = 0,
    step: int | Literal["best"] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes one self-contained HTML file on a run, or on several side by side.

    It has numbers, curves, images, a latent map and the config; it loads nothing from outside and needs no script.
    Metrics are those of eval.json; a run without one, or with one of another step, is measured for the report with the
    evaluation settings of its config. Nothing else is written.

    Args:
      runs: a run or several, or the paths of their folders.
      out: the file; None for report.html in the first run's folder.
      map: the latent map: "pca", "tsne" or "umap" (needs umap-learn).
      seed: of samples, t-SNE and UMAP.
      step: of the checkpoints that are shown; None for the newest of a finished run.
      progress: called with (examples measured, examples in all).

    Returns:
      the path of the file.

    Raises:
      InputError: no run, an unfinished run, or a file that cannot be read or written.
    """
    opened = [given.opened(run, "runs") for run in ([runs] if isinstance(runs, Run | Path | str) else runs)]
    if not opened:
        raise InputError("report: no run given; name one or more run folders")
    map, seed = conform(map, Map, "map", "pca"), given.seed(seed)
    check_map(map)
    path = opened[0].path / "report.html" if out is None else Path(conform(out, str, "out"))
    names = labels([run.path for run in opened], "report")
    from vae_jax.pages.page import page

    entries = [gather(name, run, map, seed, step, progress) for name, run in zip(names, opened)]
    text = page(entries, _meanings())
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another {option('out')}"
        ) from error
    return path


def _meanings() -> dict[str, str]:
    """Returns metric -> one line of meaning."""
    return {name: meaning for name, (meaning, _) in METRICS.items()} | {n: m.meaning for n, m in MEASURES.items()}


def gather(
    name: str,
    run: Run,
    kind: Map,
    seed: int,
    step: int | Literal["best"] | None,
    report: Callable[[int, int], None] = lambda a, b: None,
) -> Entry:
    """Returns everything that a report says of one run.

    Args:
      name: what the run is called on the page.
      run: a finished run.
      kind: the latent map: "pca", "umap" or "tsne".
      seed: of samples and map.
      step: of the checkpoint; None for the newest.
      report: progress of an evaluation, where none was written: (images done, images).

    Returns:
      what `pages` makes the run's part of the page of.

    Raises:
      InputError: no checkpoint, an unfinished run, or an eval.json that cannot be read.
    """
    from vae_jax.figures import read_metrics
    from vae_jax.pages.views import Entry, look

    state = finished(run, step)
    result, origin = numbers(run, state, report)
    seen = look(run, state, result["split"], (result.get("latents") or {}).get("kl_per_dim"), kind, seed)
    return Entry(name, run, seen, result, origin, read_metrics(run.path))


def numbers(run: Run, state: TrainState, report: Callable[[int, int], None]) -> tuple[dict[str, Any], str]:
    """Returns the content of eval.json, or the same measured now, and a sentence on where it is from.

    Raises:
      InputError: eval.json cannot be read.
    """
    file, now = run.path / "eval.json", int(state.step)
    why = "there is no eval.json"
    if file.is_file():
        held = evaluations.read(file)
        if held["step"] != now and any(entry["step"] == now for entry in held["evaluations"]):
            held = evaluations.view(run.experiment, run.config, held["evaluations"], now)
        if held["step"] == now:
            origin = f"eval.json, seed {held['protocol'].get('seed', 0)}"
            return held, "; ".join([origin, *evaluations.notes(held["metrics"], run.spec.x.examples)])
        why = f"eval.json is of step {held['step']:,}"
    return evaluate_run(run, state=state, write=False, report=report), f"measured for this report: {why}"
