"""Options of single metrics; every field is a flag of `vae-jax eval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vae_jax.errors import InputError

# setting -> its least value.
LEAST = {"k": 1, "chains": 1, "temperatures": 2, "leapfrog": 1, "local_steps": 1, "local_samples": 1}
LEAST |= {"points": 4, "bins": 2}
LEAST |= {"samples": 2, "outlier_k": 1, "regret_steps": 1}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a metric may be told."""

    k: tuple[int, ...] | None = None
    """Samples of the importance-weighted bounds, one bound each (default: the run's config)."""

    # Annealed importance sampling; the cost is chains x temperatures x leapfrog gradients per image.
    chains: int = 8
    """Chains per image of annealed importance sampling (ais, bdmc, inference_gap)."""
    temperatures: int = 200
    """Temperatures of annealed importance sampling, prior and joint included: more bring both bounds closer."""
    leapfrog: int = 5
    """Leapfrog steps of a Hamiltonian move of annealed importance sampling."""
    anneal_from: Literal["prior", "posterior"] = "prior"
    """Where annealing starts: p(z), as published, or q(z|x), which needs fewer temperatures."""
    # Optimization of one Gaussian per image.
    local_steps: int = 500
    """Steps of Adam that optimize each image's own Gaussian q (amortisation_gap, approximation_gap)."""
    local_samples: int = 8
    """Posterior samples per step of that optimization."""
    # Generation.
    samples: int | None = None
    """Images generated for frechet_distance, precision_recall, density_coverage and mmd (default: as many as real)."""
    features: str = "pixels"
    """What these compare: pixels, a classifier's run, Inception-v3's .safetensors, or an .npz of real and generated."""
    # Detection.
    outliers: str = ""
    """Data set that `anomaly` tells from the run's own (a name, .npz or folder, with images of the same size)."""
    outlier_k: int = 50
    """Samples of the importance-weighted bound in `anomaly`."""
    regret_steps: int = 100
    """Updates of each image's own posterior in the likelihood regret of `anomaly`."""
    # Disentanglement.
    points: int = 10_000
    """Rows that disentanglement scores learn from, and batches of betavae_score, factorvae_score; half as many test."""
    bins: int = 20
    """Bins of equal width of mig and modularity."""

    def out_of_range(self, *fields: str) -> dict[str, str]:
        """Returns field -> what is wrong with its value, naming the flag; of the fields named, or of all."""
        found = {}
        for name in fields or LEAST:
            value, least = getattr(self, name), LEAST[name]
            # The smallest of several values decides; an empty tuple breaks no bound.
            if isinstance(value, tuple):
                value = min(value, default=None)
            if value is not None and value < least:
                flag = f"--{name.replace('_', '-')}"
                found[name] = f"{flag}: {value} is out of range; it must be {least} or more"
        return found

    def check(self, *fields: str) -> None:
        """Raises InputError if the value of one of these fields is out of range; the message names the flag."""
        for message in self.out_of_range(*fields).values():
            raise InputError(message)
