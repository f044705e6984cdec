"""Options of single metrics; every field is a flag of `vae-jax eval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from vae_jax.errors import InputError
from vae_jax.options.ranges import SAMPLES, AtLeast, Each, ranges


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of the metrics."""

    k: Annotated[tuple[int, ...] | None, Each(SAMPLES, "1 or more, below 2^31")] = None
    """Samples of the importance-weighted bounds, one bound each (default: the run's config)."""

    # Annealed importance sampling; the cost is chains x temperatures x leapfrog gradients per image.
    chains: Annotated[int, AtLeast(1)] = 8
    """Chains per image of annealed importance sampling (ais, bdmc, inference_gap)."""
    temperatures: Annotated[int, AtLeast(2)] = 200
    """Temperatures of annealed importance sampling, prior and joint included: more bring both bounds closer."""
    leapfrog: Annotated[int, AtLeast(1)] = 5
    """Leapfrog steps of a Hamiltonian move of annealed importance sampling."""
    anneal_from: Literal["prior", "posterior"] = "prior"
    """Where annealing starts: p(z), as published, or q(z|x), which needs fewer temperatures."""
    # Optimization of one Gaussian per image.
    local_steps: Annotated[int, AtLeast(1)] = 500
    """Steps of Adam that optimize each image's own Gaussian q (amortisation_gap, approximation_gap)."""
    local_samples: Annotated[int, AtLeast(1)] = 8
    """Posterior samples per step of that optimization."""
    # Generation.
    samples: Annotated[int | None, AtLeast(2)] = None
    """Images generated for frechet_distance, precision_recall, density_coverage and mmd (default: as many as real)."""
    features: str = "pixels"
    """What these compare: pixels, a classifier's run, Inception-v3's .safetensors, or an .npz of real and generated."""
    # Detection.
    outliers: str = ""
    """Data set that `anomaly` tells from the run's own (a name, .npz or folder, with images of the same size)."""
    outlier_k: Annotated[int, AtLeast(1)] = 50
    """Samples of the importance-weighted bound in `anomaly`."""
    regret_steps: Annotated[int, AtLeast(1)] = 100
    """Updates of each image's own posterior in the likelihood regret of `anomaly`."""
    # Disentanglement.
    points: Annotated[int, AtLeast(4)] = 10_000
    """Rows that disentanglement scores learn from, and batches of betavae_score, factorvae_score; half as many test."""
    bins: Annotated[int, AtLeast(2)] = 20
    """Bins of equal width of mig and modularity."""

    def out_of_range(self, *fields: str) -> dict[str, str]:
        """Returns field -> what is wrong with its value, naming the flag; of the fields named, or of all."""
        found, known = {}, ranges(type(self))
        for name in fields or known:
            value, allowed = getattr(self, name), known[name]
            if value is not None and allowed is not None and not allowed.holds(value):
                # Of several values, the first that is out of range.
                items = value if isinstance(value, tuple) else (value,)
                item_range = allowed.range if isinstance(allowed, Each) else allowed
                shown = next((item for item in items if not item_range.holds(item)), value)
                flag = f"--{name.replace('_', '-')}"
                found[name] = f"{flag}: {shown} is out of range; it must be {allowed.words}"
        return found

    def check(self, *fields: str) -> None:
        """Raises InputError if the value of one of these fields is out of range; the message names the flag."""
        for message in self.out_of_range(*fields).values():
            raise InputError(message)
