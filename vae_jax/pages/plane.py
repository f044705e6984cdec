"""Codes laid out in the plane: PCA, t-SNE, UMAP."""

from __future__ import annotations

import importlib.util
from typing import Literal

import numpy as np

from vae_jax.errors import InputError, choice, option

Map = Literal["pca", "tsne", "umap"]
MAPS: tuple[Map, ...] = ("pca", "tsne", "umap")


def check_map(name: str) -> None:
    """Raises InputError for a map that needs a package which is not there."""
    if name == "umap" and importlib.util.find_spec("umap") is None:
        fix = f"`pip install umap-learn`, or use {choice('map', ('pca', 'tsne'))}"
        raise InputError(f"{option('map', 'umap')}: umap-learn is not installed; {fix}")


def flatten(codes: np.ndarray, name: Map, seed: int = 0) -> tuple[np.ndarray, str]:
    """Returns the places of codes in the plane, and how they came about.

    PCA: the two directions of largest variance. t-SNE (van der Maaten and Hinton 2008): perplexity 30, or a third of
    the codes where they are few; from PCA. UMAP (arXiv:1802.03426): 15 neighbors. Codes of one or two dimensions are
    shown as they are.

    Args:
      codes: finite numbers [N, D].
      name: which map.
      seed: of t-SNE and UMAP.

    Returns:
      float64 [N, 2], and a sentence.
    """
    codes = np.asarray(codes, np.float64)
    size, dims = codes.shape
    if dims == 1:
        return np.column_stack([codes[:, 0], np.arange(size)]), "the one latent dimension from left to right"
    if dims == 2:
        return codes, "the two latent dimensions as they are"
    if not np.any(codes.std(0) > 0):
        return np.zeros((size, 2)), "all codes are the same"
    if name == "tsne" and size > 4:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (size - 1) / 3)
        made = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(codes)
        return np.asarray(made, np.float64), f"t-SNE of {dims} dimensions, perplexity {perplexity:.3g}, from PCA"
    if name == "umap":
        check_map(name)
        import umap  # type: ignore[import-not-found]

        made = umap.UMAP(n_jobs=1, random_state=seed).fit_transform(codes)
        return np.asarray(made, np.float64), f"UMAP of {dims} dimensions, 15 neighbors"
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(codes)
    share = float(pca.explained_variance_ratio_.sum())
    return pca.transform(codes), f"PCA: two directions with {share:.0%} of the variance of {dims} dimensions"
