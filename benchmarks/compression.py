"""Bytes of test images as codes of two stages, against PNG and WebP without loss.

Writes `results/studies/compression.json` and a section of docs/second-stage.md.

Run: python -m benchmarks.compression --run RUN2 [--images 1000] [--split test] [--only codes PNG WebP] [--out FILE]
[--page FILE]. RUN2 is the run of a second stage that draws one code after another, over the codes of gray or RGB
images. What the results file holds is not done again.

`codes` is the .vjc file of all images together, as `vae-jax compress` writes it, beside what the prior says that they
need (-log2 p(z)) and what equally likely codes would. The weights of both stages, which decompression needs, are not
counted. Codes come back bit for bit, which is checked, but images do not: PSNR and SSIM are those of the images that
come back, means over images. PNG (optimized) and WebP (its slowest setting) are without loss; each takes the images
one file each, sizes summed, and as one picture of all of them side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import vae_jax as vj
from benchmarks import jobs, studies
from vae_jax.errors import InputError
from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.image_pairs import ssim_of_any

PAGE, HEADING = Path("docs") / "second-stage.md", "## Bytes of codes"
LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {"optimize": True},
    "WebP": {"lossless": True, "quality": 100, "method": 6},
}
METHODS = ("codes", *LOSSLESS)


def images_of(run: vj.OpenRun, split: str, count: int) -> np.ndarray:
    """Returns the first images of a split, or all where there are fewer, uint8 [N, H, W, C]."""
    rows = np.arange(min(count, run.source(split).size))
    return np.rint(255 * np.asarray(run.examples(split, rows)["x"])).astype(np.uint8)


def tiled(images: np.ndarray) -> np.ndarray:
    """Returns one picture of images [N, H, W, C], as nearly square as N without a gap allows: [h H, w W, C]."""
    n, height, width, channels = images.shape
    down = max(k for k in range(1, math.isqrt(n) + 1) if n % k == 0)
    grid = images.reshape(down, n // down, height, width, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(down * height, -1, channels)


def size(image: np.ndarray, kind: str) -> int:
    """Returns the bytes of a picture uint8 [H, W, C] in a format without loss."""
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(held, kind, **LOSSLESS[kind])
    return held.tell()


def lossless(images: np.ndarray, kind: str) -> dict[str, Any]:
    """Returns the sizes of images [N, H, W, C] in a format without loss."""
    return {"bytes": sum(size(image, kind) for image in images), "bytes_tiled": size(tiled(images), kind)}


def coded(run: vj.OpenRun, images: np.ndarray) -> dict[str, Any]:
    """Returns the size of the codes of images [N, H, W, C], what the prior says of it, and what is lost.

    Raises:
      RuntimeError: other codes come back than went in.
    """
    start = time.perf_counter()
    packed = vj.compress(run, images)
    middle = time.perf_counter()
    back = vj.decompress(run, packed.data)
    end = time.perf_counter()
    if not np.array_equal(back.codes, packed.codes):
        raise RuntimeError("other codes came back than went in")
    # As the metrics of the library have them: of each image, then the mean.
    psnr = -10 * np.log10(np.maximum(packed.mse, 1e-12))
    similar = ssim_of_any(images.astype(np.float32) / 255, back.pictures.images)
    return {
        "bytes": len(packed.data),
        "bits_of_the_prior": dataclasses.asdict(Estimate.of(packed.bits)),
        "bits_of_equal_codes": studies.equal_codes(run) / math.log(2),
        "mse": dataclasses.asdict(Estimate.of(packed.mse)),
        "psnr": dataclasses.asdict(Estimate.of(psnr)),
        "ssim": dataclasses.asdict(Estimate.of(similar)),
        "compress_seconds": round(middle - start, 1),
        "decompress_seconds": round(end - middle, 1),
    }


def tables(result: Mapping[str, Any]) -> list[str]:
    """Returns the section of the page."""
    protocol, runs, rows = result["protocol"], result["runs"], []
    n, pixels = protocol["images"], math.prod(protocol["shape"])

    def row(what: str, total: float, psnr: str = "no loss", similar: str = "1") -> list[str]:
        return [what, f"{total:,.0f}", f"{8 * total / n:,.1f}", f"{8 * total / n / pixels:.3f}", psnr, similar]

    if (own := runs.get("codes")) is not None:
        psnr, similar = (f"{own[key]['value']:.{digits}f}" for key, digits in (("psnr", 2), ("ssim", 3)))
        rows += [
            row("codes in one .vjc file", own["bytes"], psnr, similar),
            row("the same, -log2 p(z) of the prior", n * own["bits_of_the_prior"]["value"] / 8, psnr, similar),
            row("the same, all codes equally likely", n * own["bits_of_equal_codes"] / 8, psnr, similar),
        ]
    for name in LOSSLESS:
        if name in runs:
            rows += [row(f"{name}, one file per image", runs[name]["bytes"])]
            rows += [row(f"{name}, one picture of all images", runs[name]["bytes_tiled"])]
    head = (f"{n:,} images", "bytes", "bits per image", "bits per dimension", "PSNR, dB", "SSIM")
    return [
        HEADING,
        "",
        "What the codes of images take (`python -m benchmarks.compression --run RUN2`):",
        f"`{protocol['experiment']}` at step {protocol['step']:,}, {protocol['split']} split of {protocol['data']}; "
        "weights are not counted.",
        "**The codes lose what the first stage loses** (PSNR and SSIM of what comes back), PNG and WebP nothing: the",
        "sizes say what two stages need, not that they replace a format without loss",
        f"(`results/studies/compression.json`; {studies.made_on(runs.values())}).",
        "",
        *studies.table(head, rows),
    ]


def options() -> argparse.ArgumentParser:
    """Returns the options of the command."""
    parser = studies.options("compression", __doc__, PAGE)
    parser.add_argument("--run", type=Path, required=True, help="run folder of a second stage")
    parser.add_argument("--images", type=int, default=1000, help="the first so many images of the split (1000)")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measures what is missing and writes file and page; returns 2 for bad input."""
    args = options().parse_args(argv)
    page = args.page or (jobs.ROOT / PAGE if studies.own(args, "compression") else None)
    try:
        run = vj.load(args.run)
        images = images_of(run, args.split, args.images)
        protocol = {
            **studies.identity(run),
            "data": run.config.data.shown,
            "split": args.split,
            "images": len(images),
            "shape": images.shape[1:],
        }
        held = studies.finished(args.out, protocol)
        if page:
            studies.between(page, "compression")
        wanted = (
            (name, partial(coded, run, images) if name == "codes" else partial(lossless, images, name))
            for name in args.only
        )
        training = run.provenance()
        save = partial(studies.write, args.out, __doc__, protocol, order=METHODS, training=training)
        studies.measure(held, wanted, save)
    except InputError as error:
        print(f"compression: {error}", file=sys.stderr)
        return 2
    if page:
        studies.put(page, "compression", tables(json.loads(args.out.read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
