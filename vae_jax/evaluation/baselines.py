"""Densities of pixels with an exact likelihood, fitted by scikit-learn: what a VAE on the same data has to beat."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vae_jax.errors import InputError, nearest, option

# kind -> one line of meaning with its reference.
BASELINES: dict[str, str] = {
    "mog": "mixture of Gaussians over pixels, fitted by EM (Dempster et al. 1977)",
    "ppca": "probabilistic PCA, the optimum of a linear VAE (Tipping and Bishop 1999)",
}


@dataclass(frozen=True)
class Density:
    """A fitted density of rows x [N, D].

    Attributes:
      log_prob: x [N, D] -> log p(x) in nats [N].
      sample: (n, seed) -> x [n, D].
      iterations: of EM; 0 where the fit is in closed form.
      converged: whether EM stopped by its tolerance.
      parameters: free parameters.
    """

    log_prob: Callable[[np.ndarray], np.ndarray]
    sample: Callable[[int, int], np.ndarray]
    iterations: int
    converged: bool
    parameters: int


def fit(
    kind: str,
    rows: np.ndarray,
    components: int,
    *,
    covariance: Literal["full", "diag"] = "full",
    floor: float = 1e-6,
    iterations: int = 100,
    seed: int = 0,
) -> Density:
    """Returns the density of this kind that EM or an eigendecomposition fits to the rows.

    Args:
      kind: "mog" or "ppca".
      rows: training data [N, D].
      components: Gaussians of the mixture; principal components of pPCA, whose remaining D - q variances are one.
      covariance: of each Gaussian of the mixture.
      floor: added to the variances of the mixture.
      iterations: of EM at most.
      seed: of the k-means start of EM.

    Returns:
      the density, with `log_prob` of rows [N, D] in nats.

    Raises:
      InputError: an unknown kind, too few or too many components, or a fit that is degenerate.
    """
    if kind not in BASELINES:
        raise InputError(f"{option('kind')}: no baseline {kind!r}; {nearest(kind, BASELINES)}")
    n, dims = rows.shape
    # pPCA has to leave at least one direction to the noise.
    most, of = (n, f"{n} training examples") if kind == "mog" else (min(n, dims) - 1, f"{n} examples of {dims} pixels")
    if not 1 <= components <= most:
        raise InputError(f"{option('components')}: {components} is out of range for {of}; it must be in 1 to {most}")
    # float64: pixels at the border of an image hardly vary, so covariances are close to singular.
    rows = np.asarray(rows, np.float64)
    return _ppca(rows, components) if kind == "ppca" else _mog(rows, components, covariance, floor, iterations, seed)


def _mog(rows: np.ndarray, components: int, covariance: Any, floor: float, iterations: int, seed: int) -> Density:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(
        components, covariance_type=covariance, reg_covar=floor, max_iter=iterations, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says it
        try:
            model.fit(rows)
        except ValueError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise InputError(
                f"mog: {components} components cannot be fitted ({reason}); use fewer components or a larger "
                f"{option('floor')}"
            ) from error

    def sample(count: int, seed: int) -> np.ndarray:
        # scikit-learn takes no seed per draw: it is a field of the model.
        model.random_state = seed
        drawn = model.sample(count)[0]  # ordered by component
        return np.random.default_rng(seed).permutation(drawn)

    dims = rows.shape[1]
    # Free parameters: a mean and a covariance per component, and weights that sum to 1.
    each = dims + (dims if covariance == "diag" else dims * (dims + 1) // 2)
    count = components * each + components - 1
    return Density(model.score_samples, sample, int(model.n_iter_), bool(model.converged_), count)


def _ppca(rows: np.ndarray, components: int) -> Density:
    from sklearn.decomposition import PCA

    # The maximum of the likelihood has variances with 1 / N; scikit-learn's are with 1 / (N - 1): scale them.
    model: Any = PCA(components, svd_solver="full").fit(rows)
    n, dims = rows.shape
    shrink = (n - 1) / n
    noise = shrink * float(model.noise_variance_)
    if noise <= 0:
        raise InputError(
            f"ppca: {components} components leave no variance for the noise; use fewer components, or "
            f"{option('dequantize', True)}"
        )
    # The covariance is W W^T + noise I; the columns of W are the components with these lengths.
    scales = np.sqrt(np.maximum(shrink * model.explained_variance_ - noise, 0.0))
    inverse = 1.0 / (np.square(scales) + noise)

    def log_prob(x: np.ndarray) -> np.ndarray:
        centered = np.asarray(x, np.float64) - model.mean_
        # Coordinates along the components, which are orthonormal, [N, q].
        codes = centered @ model.components_.T
        # By Pythagoras the squared length outside the components, so that no [D, D] matrix is needed.
        outside = np.square(centered).sum(1) - np.square(codes).sum(1)
        # The covariance has the eigenvalues 1 / inverse along the components and the noise in all other directions.
        log_det = (dims - components) * np.log(noise) - np.log(inverse).sum()
        return -0.5 * (dims * np.log(2 * np.pi) + log_det + np.square(codes) @ inverse + outside / noise)

    def sample(count: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        codes = rng.normal(size=(count, components)) * scales
        return model.mean_ + codes @ model.components_ + np.sqrt(noise) * rng.normal(size=(count, dims))

    # Mean, noise, and W up to the rotations of its columns that leave W W^T unchanged.
    free = dims + 1 + components * dims - components * (components - 1) // 2
    return Density(log_prob, sample, 0, True, free)
