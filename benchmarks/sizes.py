"""Sizes that ours and a peer must share."""

from __future__ import annotations

from typing import NamedTuple


class Quantize(NamedTuple):
    """Vectors [N, D] that are quantized with a codebook [K, D]."""

    vectors: int
    codes: int
    features: int

    @property
    def flops(self) -> int:
        """Operations of the products of all vectors with all entries."""
        return 2 * self.vectors * self.codes * self.features

    @property
    def matrix_gib(self) -> float:
        """Size of the float32 matrix of all distances."""
        return 4 * self.vectors * self.codes / 2**30


class Sampling(NamedTuple):
    """Rows of codes that a transformer draws, `side` x `side` of each."""

    batch: int
    side: int
    codes: int
    width: int
    depth: int


# By --quick.
QUANTIZE = {False: Quantize(65_536, 8_192, 64), True: Quantize(2_048, 512, 64)}
SAMPLING = {False: Sampling(64, 7, 512, 128, 4), True: Sampling(4, 3, 16, 16, 1)}
