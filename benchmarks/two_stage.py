"""Samples and likelihood of a model of two stages, beside those of models with a single latent vector.

Writes `results/studies/two_stage.json`, a section of docs/second-stage.md and docs/images/two_stage_classes.png.

Run: python -m benchmarks.two_stage --run RUN2 --plain RUN --features RUN [--seeds 0 1 2] [--images 0] [--split test]
[--only samples likelihood] [--out FILE] [--page FILE] [--figure FILE]. RUN2 is the run of a second stage conditioned on
labels, `--plain` that of a plain VAE of the same images, and `--features` that of a classifier of them:
`vae-jax train features_mnist --data.name fashion_mnist`. What the results file holds is not done again.

Frechet distance: as many samples E[x|z], z ~ p(z), as the split has images, against these images, in the last hidden
layer of the classifier; one set of samples per seed. The labels of the second stage's samples are those of the split,
at guidance 1. Its error is that of the mean over the sets: the images of the split are the same for all. Likelihood:
one posterior sample per image; bits per dimension are those of masses of the 256 gray levels. `first stage` has the
codes equally likely, which is what the second one improves on. The picture has ten samples per label at guidance 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import vae_jax as vj
from benchmarks import jobs, studies
from vae_jax.errors import InputError
from vae_jax.evaluation.generation import measure_frechet
from vae_jax.evaluation.settings import Settings
from vae_jax.evaluation.subject import Subject

HEADING = "## Two stages beside one"
PAGE, FIGURE = Path("docs") / "second-stage.md", Path("docs") / "images" / "two_stage_classes.png"
MODELS = {"two stages": "run", "plain VAE": "plain"}
PARTS = ("samples", "likelihood")
SINGLE = jobs.ROOT / "results" / "likelihoods" / "logistic_mixture_fashion.json"
KEPT = ("elbo", "distortion", "rate", "bits_per_dim")
COLUMNS, GUIDANCE = 10, 2.0


def frechet(run: vj.OpenRun, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Returns the Frechet distance of one set of samples from the images of the split."""
    subject = Subject(run, run.state, args.split, args.images, 500, seed, Settings(features=str(args.features)))
    found = measure_frechet(subject)["frechet_distance"]
    return {"seed": seed, **dataclasses.asdict(found), "protocol": subject.protocol["frechet_distance"]}


def likelihood(run: vj.OpenRun, args: argparse.Namespace) -> dict[str, Any]:
    """Returns ELBO, its parts and bits per dimension of both stages, and the same with equally likely codes.

    Raises:
      InputError: the pixels of the first stage have a density, of which there are no bits.
    """
    found = vj.evaluate_run(run, split=args.split, limit=args.images, write=False)["metrics"]
    if "bits_per_dim" not in found:
        raise InputError(
            f"--run: {args.run} does not have bits because the pixels of its first stage have a density; train one of "
            "256 gray levels, as with `vae-jax train vq_vae_fashion`, and a second stage on it"
        )
    uniform, bits = studies.equal_codes(run), 1 / (math.prod(run.spec.x.shape) * math.log(2))
    nats, error = (found["distortion"][part] for part in ("value", "stderr"))
    first = {
        "elbo": {"value": -nats - uniform, "stderr": error},
        "distortion": found["distortion"],
        "rate": {"value": uniform, "stderr": 0.0},
        "bits_per_dim": {"value": bits * (nats + uniform), "stderr": bits * error},
    }
    return {"both": {name: found[name] for name in KEPT}, "first": first, "n": found["elbo"]["n"]}


def parts(runs: Mapping[str, vj.OpenRun], args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yields (name, what measures it) of everything that is measured."""
    if "likelihood" in args.only:
        yield "likelihood", partial(likelihood, runs["two stages"], args)
    for seed in args.seeds if "samples" in args.only else ():
        for name, run in runs.items():
            yield f"samples/{name}/{seed}", partial(frechet, run, seed, args)


def picture(run: vj.OpenRun, path: Path) -> None:
    """Writes ten samples of each label, a row per label."""
    from vae_jax import figures

    info = run.source("train").info
    names = info.label_names or [str(label) for label in range(info.num_classes or 0)]
    rows = [run.sample(COLUMNS, label=label, guidance=GUIDANCE) for label in range(info.num_classes or 0)]
    title = f"{run.experiment}: {COLUMNS} samples of each label, guidance {GUIDANCE:g}"
    found = figures.grid(np.stack(rows), title=title, rows=names, ylabel="label")
    path.parent.mkdir(parents=True, exist_ok=True)
    figures.save(found, path)


def tables(result: Mapping[str, Any]) -> list[str]:
    """Returns the section of the page."""
    protocol, runs, sets, rows = result["protocol"], result["runs"], [], []
    for name, key in MODELS.items():
        found = [run for place, run in runs.items() if place.startswith(f"samples/{name}/")]
        if found:
            about, value = protocol[key], studies.mean([run["value"] for run in found])
            what = f"{name} (`{about['experiment']}`, step {about['step']:,})"
            sets.append([what, studies.number(value, 2), str(len(found)), f"{found[0]['n']:,}"])

    def row(what: str, metrics: Mapping[str, Any], n: int) -> list[str]:
        cells = [studies.number((metrics[k]["value"], metrics[k]["stderr"]), 3 if "bits" in k else 1) for k in KEPT]
        return [what, *cells, f"{n:,}"]

    if (own := runs.get("likelihood")) is not None:
        single = json.loads(SINGLE.read_text())
        rows += [
            row("both stages", own["both"], own["n"]),
            row("first stage, codes equally likely", own["first"], own["n"]),
        ]
        # Numbers of other images say nothing about these.
        if all(single[key] == protocol[key] for key in ("data", "split")):
            what = f"one latent vector (`{single['experiment']}`, {single['step']:,} steps)"
            rows += [row(what, single["metrics"], single["protocol"]["n"])]
    lines = [
        HEADING,
        "",
        "Samples of two stages beside those of one, and the likelihood of both",
        "(`python -m benchmarks.two_stage --run RUN2 --plain RUN --features RUN`).",
        f"On the {protocol['split']} split of {protocol['data']} (`results/studies/two_stage.json`;",
        f"{studies.made_on(runs.values())}):",
    ]
    if sets:
        lines += ["", *studies.table(("samples", "Frechet distance", "sets", "samples per set"), sets)]
    if rows:
        lines += [
            "",
            *studies.table(("likelihood", "ELBO", "distortion", "rate", "bits per dimension", "images"), rows),
        ]
    return lines


def options() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = studies.options("two_stage", __doc__, PAGE)
    parser.add_argument("--run", type=Path, required=True, help="run folder of a second stage")
    parser.add_argument("--plain", type=Path, required=True, help="run folder of a plain VAE of the same images")
    parser.add_argument("--features", type=Path, required=True, help="run folder of a classifier of the same images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="sets of samples (0 1 2)")
    parser.add_argument("--images", type=int, default=0, help="images of the split, and samples per set; 0 for all")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--figure", type=Path, help="picture (docs/images/two_stage_classes.png, as for --page)")
    return parser


def measure(runs: Mapping[str, vj.OpenRun], args: argparse.Namespace, page: Path | None) -> None:
    """Measures what is missing and writes the results file.

    Raises:
      InputError: the results file is of other runs, or a run cannot be measured.
    """
    protocol = {key: studies.identity(runs[name]) for name, key in MODELS.items()}
    protocol |= {"features": studies.identity(vj.load(args.features))}
    protocol |= {"data": runs["two stages"].config.data.shown, "split": args.split, "images": args.images}
    held = studies.finished(args.out, protocol)
    if page:
        studies.between(page, "two_stage")
    training = {name: run.provenance() for name, run in runs.items()}
    studies.measure(held, parts(runs, args), partial(studies.write, args.out, __doc__, protocol, training=training))


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing and writes file, page and picture; returns 2 for bad input."""
    args = options().parse_args(argv)
    own = studies.own(args, "two_stage")
    page = args.page or (jobs.ROOT / PAGE if own else None)
    figure = args.figure or (jobs.ROOT / FIGURE if own else None)
    try:
        runs = {name: vj.load(getattr(args, key)) for name, key in MODELS.items()}
        measure(runs, args, page)
        if figure:
            picture(runs["two stages"], figure)
    except InputError as error:
        print(f"two_stage: {error}", file=sys.stderr)
        return 2
    if page:
        studies.put(page, "two_stage", tables(json.loads(args.out.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
