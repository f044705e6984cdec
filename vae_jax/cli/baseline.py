"""`vae-jax baseline DATA`: a density with an exact likelihood, fitted and measured as VAEs are, for `compare`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from vae_jax.errors import InputError
from vae_jax.files.bounded import read_json

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.data.source import Info


@dataclass(frozen=True)
class Baseline:
    """Fit a mixture of Gaussians or pPCA to pixels and measure log p(x) of held-out images, in a folder of its own."""

    data: tyro.conf.Positional[str]
    """Data set (see `vae-jax data list`): grey levels, not binary ones."""
    kind: str = "mog"
    """mog (mixture of Gaussians, EM) or ppca (probabilistic PCA, exact)."""
    components: int = 10
    """Gaussians of the mixture, or principal components."""
    covariance: Literal["full", "diag"] = "full"
    """Covariance of each Gaussian of the mixture."""
    floor: float = 1e-6
    """Added to the variances of the mixture; it matters where data are not dequantised and a pixel is constant."""
    iterations: int = 100
    """EM iterations at most."""
    dequantize: bool = True
    """Add uniform noise of one grey level, (v + u) / 256; without it grey levels have no bits per pixel."""
    source: str | None = None
    """Folder or file with the data, as --data.source."""
    protocol: str = "standard"
    """Named split, as --data.protocol."""
    split: Literal["validation", "test"] = "test"
    """Held-out split that is measured."""
    limit: int | None = None
    """Fit only the first N training examples."""
    seed: int = 0
    """Seed of the start of EM, of the noise in training pixels and of the samples."""
    workdir: Path | None = None
    """Folder to write (default: runs/baseline-KIND-DATA, or the next free number after it)."""

    def __call__(self) -> None:
        from vae_jax.cli import unread
        from vae_jax.cli.evaluate import print_result

        if self.kind == "ppca":
            unread.refuse(self, "--kind mog", "covariance", "floor", "iterations")
        path, result = fit_baseline(self)
        print_result(result)
        if not result["protocol"]["converged"]:
            print(f"warning: EM stopped after {self.iterations} iterations, not converged; raise --iterations")
        print(f"written to {path}")


def fit_baseline(options: Baseline) -> tuple[Path, dict[str, Any]]:
    """Fits, measures and writes baseline.json, env.json, eval.json and figures/samples.png.

    Returns:
      the folder and the content of its eval.json.

    Raises:
      InputError: bad input; nothing was written.
    """
    import jax
    import numpy as np

    from vae_jax import data, figures, prng
    from vae_jax.data.pipeline import eval_batches
    from vae_jax.evaluation.baselines import fit
    from vae_jax.files.atomic import jsonable, write_json
    from vae_jax.runs.run import environment

    o = options
    path = _folder(o)
    config = data.DataConfig(
        o.data, o.source, batch_size=1, protocol=o.protocol, dequantize=o.dequantize, limit=o.limit
    )
    train, held = data.load(config, "train"), data.load(config, o.split)
    _check(o, train.info.values)

    def rows(source: data.Source, key: jax.Array | None) -> np.ndarray:
        parts = [np.asarray(batch["x"]) for batch in eval_batches(source, config, 1000, key=key)]
        return np.concatenate(parts).reshape(source.size, -1).astype(np.float64)

    # Held-out pixels get the noise that `vae-jax eval` gives them, training pixels other noise.
    pixels = rows(train, prng.site_key(jax.random.key(o.seed), "baseline"))
    how: dict[str, Any] = {"covariance": o.covariance, "floor": o.floor, "iterations": o.iterations}
    density = fit(o.kind, pixels, o.components, **how, seed=o.seed)
    log_prob = density.log_prob(rows(held, None))
    if not np.all(np.isfinite(log_prob)):
        raise InputError(f"{o.kind}: the likelihood of {o.split} images is not finite; use fewer --components")
    name, env = f"baseline-{o.kind}-{o.data}", environment()
    result = _result(o, name, train.info, density, log_prob, env)
    images = density.sample(64, o.seed).reshape(64, *train.info.shape)
    try:
        (path / "figures").mkdir(parents=True, exist_ok=True)
        write_json(path / "baseline.json", described(o, name))
        write_json(path / "env.json", env)
        picture = figures.grid(figures.fold(images, 8), title=f"{name}: samples, cut to [0, 1] for display")
        figures.save(picture, path / "figures" / "samples.png")
        write_json(path / "eval.json", result)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another --workdir") from error
    return path, jsonable(result)


def _result(
    o: Baseline, name: str, info: Info, density: Any, log_prob: np.ndarray, env: dict[str, Any]
) -> dict[str, Any]:
    """Returns the content of eval.json, as that of a run: `log_prob` float64 [N] in nats, and its bits/dim."""
    import math

    from vae_jax.evaluation import Estimate

    metrics = {"log_prob": Estimate.of(log_prob)}
    if o.dequantize:
        nats = -log_prob / math.prod(info.shape) + math.log(256.0)
        metrics["bits_per_dim"] = Estimate.of(nats / math.log(2.0))
    return {
        "experiment": name,
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


def described(o: Baseline, name: str) -> dict[str, Any]:
    """Returns the options under the names that runs use, so that `compare` sets them side by side."""
    model: dict[str, Any] = {"kind": o.kind, "components": o.components}
    if o.kind == "mog":
        model |= {"covariance": o.covariance, "floor": o.floor, "iterations": o.iterations}
    data = {"name": o.data, "source": o.source, "protocol": o.protocol, "dequantize": o.dequantize, "limit": o.limit}
    return {"experiment": name, "model": model, "data": data, "evaluation": {"split": o.split}, "seed": o.seed}


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
        raise InputError(f"{file}: cannot be read ({error}); make it again with vae-jax baseline") from error


def _folder(o: Baseline) -> Path:
    from vae_jax.errors import nearest
    from vae_jax.evaluation.baselines import BASELINES
    from vae_jax.tasks.training import free_folder

    if o.kind not in BASELINES:
        raise InputError(f"--kind: no baseline {o.kind!r}; {nearest(o.kind, BASELINES)}")
    path = o.workdir or free_folder(f"baseline-{o.kind}-{o.data}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: already there; choose another --workdir")
    return path


def _check(o: Baseline, values: str) -> None:
    if values == "binary":
        raise InputError(
            f"baseline: the pixels of {o.data} are binary, for which a Gaussian density means nothing; use grey data "
            "such as digits or mnist"
        )
    if values == "float" and o.dequantize:
        raise InputError(f"--dequantize: the images of {o.data} are real numbers, without gaps; use --dequantize False")
    for name, value, ok, words in (
        ("seed", o.seed, 0 <= o.seed < 2**31, "in [0, 2^31)"),
        ("iterations", o.iterations, o.iterations >= 1, "1 or more"),
        ("floor", o.floor, o.floor >= 0, "zero or more"),
        ("components", o.components, o.components >= 1, "1 or more"),
    ):
        if not ok:
            raise InputError(f"--{name}: {value} is out of range; it must be {words}")
