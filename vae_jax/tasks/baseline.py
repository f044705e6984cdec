"""Fits a density with an exact likelihood to pixels, and measures it as VAEs are, in a folder for `compare`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from vae_jax import data as data_lib
from vae_jax import prng
from vae_jax.data.pipeline import eval_batches
from vae_jax.data.source import Info
from vae_jax.errors import InputError, command, nearest, option
from vae_jax.evaluation import Estimate
from vae_jax.evaluation.baselines import BASELINES, fit
from vae_jax.files.atomic import jsonable, write_json
from vae_jax.files.bounded import read_json
from vae_jax.options.typed import conform, conform_fields
from vae_jax.runs.run import environment
from vae_jax.tasks import given
from vae_jax.tasks.training import free_folder

HELD_OUT = Literal["validation", "test"]


@dataclass(frozen=True)
class Baseline:
    """What `fit_baseline` fits, and to which data; its fields are described there."""

    data: str
    kind: str = "mog"
    components: int = 10
    covariance: Literal["full", "diag"] = "full"
    floor: float = 1e-6
    iterations: int = 100
    dequantize: bool = True
    source: str | None = None
    protocol: str = "standard"
    split: HELD_OUT = "test"
    limit: int | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """What the folder and its numbers are called."""
        return f"baseline-{self.kind}-{self.data}"


def fit_baseline(data: str, *, workdir: Path | str | None = None, **options: Any) -> tuple[Path, dict[str, Any]]:
    """Fits a mixture of Gaussians or pPCA to pixels and measures log p(x) of held-out images.

    Args:
      data: a data set with gray levels or real numbers, not binary ones, or the path of images.
      workdir: the folder to write; None takes `runs/baseline-KIND-DATA`, or the next free number after it.
      options: any of
        kind: "mog" (mixture of Gaussians, EM) or "ppca" (probabilistic PCA, exact);
        components: Gaussians of the mixture, or principal components (10);
        covariance: "full" or "diag", of each Gaussian of the mixture;
        floor: added to the variances of the mixture (1e-6); it matters where a pixel is constant;
        iterations: EM iterations at most (100);
        dequantize: add uniform noise of one gray level, (v + u) / 256 (True);
        source, protocol: folder or file with the data, and named split, as `data.source` and `data.protocol`;
        split: "test" or "validation", which is measured;
        limit: fit only the first N training examples;
        seed: of the start of EM, of the noise in training pixels and of the samples.

    Returns:
      the folder, with baseline.json, env.json, eval.json and figures/samples.png, and the content of its eval.json.

    Raises:
      InputError: bad input; nothing was written.
    """
    if not isinstance(data, str):
        raise InputError(
            f"data: {type(data).__name__} is not the name of a data set; write vj.fit_baseline('digits'), for example; "
            "arrays are read from a file: numpy.savez('data.npz', images=images), then vj.fit_baseline('npz', "
            "source='data.npz')"
        )
    fields = Baseline.__dataclass_fields__
    for name in options:
        if name not in fields:
            raise InputError(f"{name}: no such option; {nearest(name, fields)}")
    o = _located(conform_fields(Baseline(data, **options), {}))
    path = _folder(o, conform(workdir, str | None, "workdir"))
    config = data_lib.DataConfig(
        o.data, o.source, batch_size=1, protocol=o.protocol, dequantize=o.dequantize, limit=o.limit
    )
    try:
        train, held = data_lib.load(config, "train"), data_lib.load(config, o.split)
    except InputError as error:
        raise InputError(_renamed(str(error))) from None
    if train.info.kind != "image":
        raise InputError(
            f"baseline: {o.data} holds {train.info.kind}s, and its density is one of images; use images such as digits"
        )
    if train.info.mask:
        raise InputError(
            f"{o.source or o.data}: has missing values, which the density of a baseline does not leave out; keep the "
            "examples of which everything is observed"
        )
    _check(o, train.info.values)

    def rows(source: data_lib.Source, key: jax.Array | None) -> np.ndarray:
        parts = [np.asarray(batch["x"]) for batch in eval_batches(source, config, 1000, key=key)]
        return np.concatenate(parts).reshape(source.size, -1).astype(np.float64)

    # Held-out pixels get the noise that an evaluation gives them, training pixels other noise.
    pixels = rows(train, prng.site_key(jax.random.key(o.seed), "baseline"))
    how: dict[str, Any] = {"covariance": o.covariance, "floor": o.floor, "iterations": o.iterations}
    density = fit(o.kind, pixels, o.components, **how, seed=o.seed)
    log_prob = density.log_prob(rows(held, None))
    if not np.all(np.isfinite(log_prob)):
        raise InputError(
            f"{o.kind}: the likelihood of {o.split} images is not finite; use fewer {option('components')}"
        )
    env = environment()
    result = jsonable(_result(o, train.info, density, log_prob, env))
    images = density.sample(64, o.seed).reshape(64, *train.info.shape)
    _write(o, path, env, result, images)
    return path, result


def _write(o: Baseline, path: Path, env: dict[str, Any], result: dict[str, Any], images: np.ndarray) -> None:
    from vae_jax import figures

    try:
        (path / "figures").mkdir(parents=True, exist_ok=True)
        write_json(path / "baseline.json", described(o))
        write_json(path / "env.json", env)
        picture = figures.grid(figures.fold(images, 8), title=f"{o.name}: samples, cut to [0, 1] for display")
        figures.save(picture, path / "figures" / "samples.png")
        write_json(path / "eval.json", result)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another {option('workdir')}") from error


def _result(o: Baseline, info: Info, density: Any, log_prob: np.ndarray, env: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of eval.json, as that of a run: `log_prob` float64 [N] in nats, and its bits/dim."""
    metrics = {"log_prob": Estimate.of(log_prob)}
    if o.dequantize:
        nats = -log_prob / math.prod(info.shape) + math.log(256.0)
        metrics["bits_per_dim"] = Estimate.of(nats / math.log(2.0))
    return {
        "experiment": o.name,
        "step": density.iterations,
        "data": o.data,
        "split": o.split,
        "protocol": {
            "data_protocol": o.protocol,
            "splits": info.protocol_text,
            "pixels": "dequantised, (v + u) / 256" if o.dequantize else "in [0, 1]",
            "image_shape": info.shape,
            "n": len(log_prob),
            "limit": 0,
            "likelihood": f"{o.kind}-{o.components}" + (f" ({o.covariance})" if o.kind == "mog" else ""),
            "estimator": "exact log p(x), nats, summed over pixels",
            "importance_samples": (),
            "reconstruction": None,
            "weights": "maximum-likelihood",
            "seed": o.seed,
            "parameters": density.parameters,
            "converged": density.converged,
        },
        "metrics": {key: vars(value) for key, value in metrics.items()},
        "expected": {},
        "pass": None,
        "training": {
            "seed": o.seed,
            **{key: env[key] for key in ("commit", "processor", "cpus", "devices")},
            "jax": env["packages"]["jax"],
        },
    }


def described(o: Baseline) -> dict[str, Any]:
    """Returns the options under the names that runs use, so that `compare` sets them side by side."""
    model: dict[str, Any] = {"kind": o.kind, "components": o.components}
    if o.kind == "mog":
        model |= {"covariance": o.covariance, "floor": o.floor, "iterations": o.iterations}
    data = {"name": o.data, "source": o.source, "protocol": o.protocol, "dequantize": o.dequantize, "limit": o.limit}
    return {"experiment": o.name, "model": model, "data": data, "evaluation": {"split": o.split}, "seed": o.seed}


def options_of(path: Path) -> dict[str, Any] | None:
    """Returns the options of a baseline's folder, None where it is none.

    Raises:
      InputError: its baseline.json cannot be read.
    """
    file = path / "baseline.json"
    if not file.is_file():
        return None
    try:
        values = read_json(file)
        return {name: value for name, value in values.items() if name != "experiment"}
    except (ValueError, AttributeError, OSError) as error:
        raise InputError(f"{file}: cannot be read ({error}); make it again with {command('fit_baseline')}") from error


def _folder(o: Baseline, workdir: str | None) -> Path:
    if o.kind not in BASELINES:
        raise InputError(f"{option('kind')}: no baseline {o.kind!r}; {nearest(o.kind, BASELINES)}")
    path = free_folder(o.name) if workdir is None else Path(workdir)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: already there; choose another {option('workdir')}")
    return path


def _located(o: Baseline) -> Baseline:
    """Returns what to fit, with name and source of the data where these are a path."""
    if o.source is not None or o.data in data_lib.DATASETS or not Path(o.data).expanduser().exists():
        return o
    try:
        found = data_lib.choose(data_lib.DataConfig(), o.data)
    except InputError as error:
        raise InputError(_renamed(str(error))) from None
    return replace(o, data=found.name, source=found.source)


# An option of a config, at the command line or in Python, that a baseline does not have.
_ELSEWHERE = re.compile(r'(--|")data\.(?!(source|protocol|limit|dequantize)\b)')


def _renamed(text: str) -> str:
    """Returns a message about the options of a config with the names that they have here."""
    if "data.binarize" in text:  # some protocols have binary images alone
        fix = f"use {option('protocol', 'standard')} {option('split', 'test')}"
        return (
            f"{option('protocol')}: its held-out images are binary, for which a Gaussian density means nothing; {fix}"
        )
    # Advice about options that are not here: what a file should hold helps as well.
    what, *advice = text.split("; ")
    kept = [part for part in advice if not _ELSEWHERE.search(part)]
    fix = [] if kept or not advice else ["save images of one size, as gray levels 0 to 255 or as floats in [0, 1]"]
    text = "; ".join([what, *kept, *fix])
    text = re.sub(r'\*\*\{"data\.(\w+)": ([^{}]*)\}', r"\1=\2", text)
    text = re.sub(r"--data\.(source|protocol|limit|dequantize)\b", r"--\1", text)
    text = re.sub(r"(?<![\w.-])data\.(source|protocol|limit|dequantize)\b", lambda found: option(found[1]), text)
    return re.sub(r"--data ((?!-)\S+)", r"`vae-jax baseline \1`", text).replace("data.name:", "data:")


def _check(o: Baseline, values: str) -> None:
    if values == "binary":
        raise InputError(
            f"baseline: the pixels of {o.data} are binary, for which a Gaussian density means nothing; use gray data "
            "such as digits or mnist"
        )
    if values == "float" and o.dequantize:
        raise InputError(
            f"{option('dequantize')}: the images of {o.data} are real numbers, without gaps; use "
            f"{option('dequantize', False)}"
        )
    given.seed(o.seed)
    for name, value in (("iterations", o.iterations), ("components", o.components)):
        given.at_least(name, value)
    if o.floor < 0:
        raise InputError(f"{option('floor')}: {o.floor} is out of range; it must be zero or more")
