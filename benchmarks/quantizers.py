"""Quantizers under one protocol: use of the codebook, bits and quality, on Fashion-MNIST and CIFAR-10.

Writes `results/studies/quantizers.json` and a section of docs/quantizers.md.

Run: python -m benchmarks.quantizers [--steps N] [--seeds 0 1] [--data NAME ...] [--sizes 512 4096] [--only fsq ...]
[--split test] [--jobs 2] [--out FILE] [--page FILE]. Each run is a process of its own, which takes some four minutes of
a core. What the results file holds is not done again; `--data digits --out FILE` shows that it runs.

Every quantizer has the same encoder, decoder, data order and learning rate: a grid of 7 x 7 (Fashion-MNIST) or 8 x 8
(CIFAR-10) vectors of 32 numbers, batches of 64, and Gaussian pixels of one standard deviation, so that the decoder's
term is a squared error. The last 10,000 or 5,000 training images are for validation; choices (`--lr`, `--revive`) are
made there, with `--split validation`. Usage and perplexity are those of all codes of the split, 490,000 to 640,000 of
them on a test split; bits are those of equally likely codes, which a second stage lowers.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import jobs, studies
from benchmarks.__main__ import commit
from vae_jax.errors import InputError

PAGE, HEADING = Path("docs") / "quantizers.md", "## Side by side"
STEPS, BATCH, WIDTH = 2000, 64, 32
SMALL, LARGE = 512, 4096
# Data set -> training images, the first of its training split; the rest are for validation.
DATA = {"fashion_mnist": 50_000, "cifar10": 45_000, "digits": 1_200}
METRICS = ("elbo", "mse", "psnr", "usage", "perplexity", "bits_per_image", "quantization_error")
EVALUATED = 200  # images at a time; no number depends on it
TIMEOUT_S = 4 * 3600  # of one run


class Options(NamedTuple):
    """What a quantizer is made from: number of codes, steps of the run, and uses per batch that keep an entry alive."""

    codes: int
    steps: int
    revive: float


class Method(NamedTuple):
    """A quantizer of the study: what it is, how it is made, and the numbers of codes that it is measured with."""

    what: str
    make: Callable[[Any, Options], Any]
    sizes: tuple[int, ...] = (SMALL, LARGE)


def bits(o: Options) -> int:
    """Returns log2 of the number of codes."""
    return o.codes.bit_length() - 1


# `q` is `vae_jax.quantizers`: importing it starts jax, which the process that only waits for others does not need.
METHODS: dict[str, Method] = {
    "vq": Method("VQ, codebook by gradient", lambda q, o: q.VQ(o.codes, update="gradient")),
    "vq-ema": Method("VQ, moving averages", lambda q, o: q.VQ(o.codes)),
    "vq-revived": Method(
        "VQ, moving averages, k-means start, revival", lambda q, o: q.VQ(o.codes, kmeans=5, revive=o.revive)
    ),
    "vq-rotation": Method("VQ, moving averages, rotation trick", lambda q, o: q.VQ(o.codes, estimator="rotation")),
    "vq-l2": Method(
        "VQ, codebook by gradient, l2-normalized, 8 numbers",
        lambda q, o: q.VQ(o.codes, update="gradient", normalized=True, inner=8),
    ),
    "simvq": Method("SimVQ", lambda q, o: q.SimVQ(o.codes)),
    "fsq": Method("FSQ, 8 levels per coordinate", lambda q, o: q.FSQ((8,) * (bits(o) // 3))),
    "lfq": Method("LFQ", lambda q, o: q.LFQ(bits(o))),
    "bsq": Method("BSQ", lambda q, o: q.BSQ(bits(o))),
    "residual-vq": Method(
        "residual VQ, two levels of 512",
        lambda q, o: q.ResidualVQ(SMALL, kmeans=5, revive=o.revive, depth=2),
        (LARGE,),
    ),
    # Each step draws a number for every code at every place: too many of them for a CPU at 4,096 codes.
    "gumbel": Method("Gumbel-softmax", lambda q, o: q.Gumbel(o.codes, kl=0.1, anneal_steps=o.steps), (SMALL,)),
}


def configure(data: str, codes: int, method: str, seed: int, args: argparse.Namespace) -> Any:
    """Returns the config of a run."""
    from vae_jax import quantizers
    from vae_jax.data import DataConfig
    from vae_jax.likelihoods import Gaussian
    from vae_jax.models import VQVAE
    from vae_jax.networks import ResidualConv
    from vae_jax.runs.config import Config
    from vae_jax.train import Optimizer

    return Config(
        steps=args.steps,
        seed=seed,
        data=DataConfig(data, batch_size=BATCH, limit=DATA[data]),
        model=VQVAE(
            features=WIDTH,
            network=ResidualConv(hidden=WIDTH, stages=2, blocks=1, block_hidden=16),
            likelihood=Gaussian(std=0.15),
            quantizer=METHODS[method].make(quantizers, Options(codes, args.steps, args.revive)),
        ),
        optimizer=Optimizer(lr=args.lr),
    )


def measure(data: str, codes: int, method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains a run and returns its numbers on the split."""
    from benchmarks.training import train_config

    config = configure(data, codes, method, seed, args)
    model, state, seconds = train_config(config)
    found = numbers(model, state, config, args.split)
    return {
        "data": data,
        "codes": codes,
        "quantizer": method,
        "seed": seed,
        "options": dataclasses.asdict(config.model.quantizer),
        "train_images": config.data.limit,
        "metrics": found,
        "train_seconds": round(seconds, 1),
        "commit": commit(),
    }


def images_of(config: Any, split: str) -> Any:
    """Returns the data of a split; those of validation are what training leaves of its split."""
    from vae_jax import data
    from vae_jax.data.source import from_arrays

    if split != "validation":
        return data.load(config.data, split)
    whole = data.load(dataclasses.replace(config.data, limit=None), "train")
    return from_arrays(whole.info, split, {name: array[config.data.limit :] for name, array in whole.arrays.items()})


def numbers(model: Any, state: Any, config: Any, split: str) -> dict[str, Any]:
    """Returns the metrics of a trained model on a split."""
    import jax
    import numpy as np

    from vae_jax import evaluation
    from vae_jax.data.pipeline import eval_batches
    from vae_jax.metrics.estimate import Estimate
    from vae_jax.metrics.image_pairs import ssim_of_any

    source = images_of(config, split)
    result = evaluation.evaluate(model, state, eval_batches(source, config.data, EVALUATED), key=jax.random.key(0))
    codes = evaluation.encode_all(model, state, eval_batches(source, config.data, EVALUATED)).mean
    # As `vae-jax eval` has it: images against the mean images of their mean codes.
    images = np.concatenate([np.asarray(batch["x"]) for batch in eval_batches(source, config.data, EVALUATED)])
    similar = ssim_of_any(images, evaluation.decode_all(model, state, codes))
    found = {name: value for name, value in result.metrics.items() if name.split("/")[0] in METRICS}
    found["ssim"] = Estimate.of(similar)
    return {name: dataclasses.asdict(value) for name, value in found.items()}


def in_process(data: str, codes: int, method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Returns what `measure` returns in a process of its own."""
    words = ["--steps", str(args.steps), "--lr", str(args.lr), "--revive", str(args.revive), "--split", args.split]
    run = ["--run", data, str(codes), method, str(seed)]
    (line,) = jobs.execute(["-m", "benchmarks.quantizers", *run, *words], TIMEOUT_S).lines
    return line


def place(data: str, codes: int, method: str, seed: int) -> str:
    """Returns the name of a run in the results file."""
    return f"{data}/{codes}/{method}/{seed}"


def plan(args: argparse.Namespace) -> list[tuple[str, int, str, int]]:
    """Returns the runs in their order: seeds in turn, so that a study that is stopped has every quantizer."""
    return [
        (data, codes, method, seed)
        for seed in args.seeds
        for data in args.data
        for codes in args.sizes
        for method in args.only
        if codes in METHODS[method].sizes
    ]


def execute(args: argparse.Namespace, done: Callable[[str, dict[str, Any]], None], held: Iterable[str]) -> list[str]:
    """Makes the runs that are not held, `args.jobs` at a time; returns those that failed."""
    wanted, failed = [run for run in plan(args) if place(*run) not in held], []
    # Threads only wait: the work is in processes.
    with ThreadPoolExecutor(args.jobs) as pool:
        started = {pool.submit(in_process, *run, args): place(*run) for run in wanted}
        for future in as_completed(started):
            try:
                done(started[future], future.result())
            except jobs.Failed as error:
                # At once: the others may take an hour.
                print(f"not measured: {started[future]}: {error}", file=sys.stderr, flush=True)
                failed.append(started[future])
    return failed


def metric(runs: Sequence[studies.Run], name: str, scale: float = 1.0, digits: int = 1) -> str:
    """Returns a metric over the seeds; of several codebooks one number each."""
    metrics = [run["metrics"] for run in runs]
    books = [key for key in metrics[0] if key.split("/")[0] == name]
    values = [studies.mean([scale * m[key]["value"] for m in metrics]) for key in books]
    return ", ".join(studies.number(value, digits) for value in values)


def row(method: str, runs: Sequence[studies.Run]) -> list[str]:
    """Returns the line of a quantizer."""
    return [
        METHODS[method].what,
        metric(runs, "usage", 100),
        metric(runs, "perplexity", digits=0),
        metric(runs, "bits_per_image", digits=0),
        metric(runs, "quantization_error", digits=3),
        metric(runs, "mse", digits=4),
        metric(runs, "psnr", digits=2),
        metric(runs, "ssim", digits=3),
    ]


def tables(result: Mapping[str, Any]) -> list[str]:
    """Returns the section of the page: a table per data set and number of codes, and the protocol before them."""
    protocol, runs = result["protocol"], result["runs"].values()
    seeds = len({run["seed"] for run in runs})
    lines = [
        HEADING,
        "",
        "Each quantizer between the same small encoder and decoder, trained alike (`python -m benchmarks.quantizers`).",
        "The runs are short: read the order, not the level.",
        "",
        f"{protocol['steps']:,} steps of batch {protocol['batch']} with Adam at {protocol['lr']:g}, "
        f"{protocol['split']} split, {'one seed' if seeds == 1 else f'mean of {seeds} seeds and its standard error'};",
        "usage in %, bits per image before any second stage",
        f"(`results/studies/quantizers.json`; {studies.made_on(runs)}).",
    ]
    head = ("quantizer", "usage", "perplexity", "bits", "quantization error", "MSE", "PSNR", "SSIM")
    for data, codes in dict.fromkeys((run["data"], run["codes"]) for run in runs):
        here = [run for run in runs if (run["data"], run["codes"]) == (data, codes)]
        found = {name: [run for run in here if run["quantizer"] == name] for name in METHODS}
        rows = [row(name, each) for name, each in found.items() if each]
        lines += ["", f"{data}, {codes:,} codes:", "", *studies.table(head, rows)]
    return lines


def options() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = studies.options("quantizers", __doc__, PAGE)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"updates of each run ({STEPS})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of each run (0)")
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=["fashion_mnist", "cifar10"])
    parser.add_argument("--sizes", type=int, nargs="+", choices=(SMALL, LARGE), default=[SMALL, LARGE])
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of Adam (0.001)")
    parser.add_argument(
        "--revive", type=float, default=0.1, help="uses per batch below which entries are revived (0.1)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Makes what is missing and writes file and page; returns 1 if a run failed, 2 for bad input."""
    args = options().parse_args(argv)
    if args.run:
        data, codes, method, seed = args.run
        print(json.dumps(measure(data, int(codes), method, int(seed), args)))
        return 0
    protocol = {"steps": args.steps, "batch": BATCH, "lr": args.lr, "revive": args.revive, "split": args.split}
    page = args.page or (jobs.ROOT / PAGE if studies.own(args, "quantizers") else None)
    try:
        held = studies.finished(args.out, protocol)
        if page:
            studies.between(page, "quantizers")
    except InputError as error:
        print(f"quantizers: {error}", file=sys.stderr)
        return 2
    # In the order of the plan, whatever ended first; what earlier calls made beside it comes after.
    order = [place(*run) for run in plan(args)]

    def done(name: str, run: dict[str, Any]) -> None:
        held[name] = studies.stamped(run)
        studies.write(args.out, __doc__, protocol, held, order)
        print(f"{name}: usage {metric([run], 'usage', 100)} %, PSNR {metric([run], 'psnr')} dB", flush=True)

    failed = execute(args, done, tuple(held))
    if page and args.out.is_file():
        studies.put(page, "quantizers", tables(json.loads(args.out.read_text())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
