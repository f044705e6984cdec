"""Scores on plain arrays: codes, features, images and scores in, numbers with standard errors out; no model is needed.

    from vae_jax import metrics

    metrics.mig(codes, factors).value           # and .stderr, .per_factor, .mutual_information, ...
    metrics.frechet_distance(real, generated)   # Estimate(value, stderr, n), of features [N, F] and [M, F]

Disentanglement scores take codes [N, D] and the factors [N, F] behind them. Rows should be a uniform sample of the
factor grid, or all of it, in any order. Codes are E[z|x]. Factors are values (or numbers of values) of any kind; each
score counts them itself.

| function | range, better | what it asks | reference |
|---|---|---|---|
| `mig` | 0 to 1, higher | one code knows of a factor, the next does not (dSprites: at most 0.902) | arXiv:1802.04942 |
| `rmig` | 0 to 1, higher | the same under the whole posterior, bins fixed | arXiv:1908.09961 |
| `jemmig` | 0 to 1, LOWER | and that code knows of nothing else | arXiv:1908.09961 |
| `sap` | 0 to 1, higher | one code predicts a factor, the next one does not | arXiv:1711.00848 |
| `dci` | 0 to 1, higher | each code serves one factor (D), each factor needs one code (C) | Eastwood, Williams 2018 |
| `betavae_score` | 1/F to 1, higher | a linear classifier names the factor that pairs share | Higgins et al. 2017 |
| `factorvae_score` | 1/F to 1, higher | the stillest code names the factor that is held | arXiv:1802.05983 |
| `modularity` | 0 to 1, higher | each code knows of one factor only | arXiv:1802.05312 |
| `explicitness` | 0.5 to 1, higher | a linear classifier ranks the values of each factor | arXiv:1802.05312 |
| `irs` | 0 to 1, higher | a code stays when its factor is held and all others change | arXiv:1811.00007 |
| `info_mec` | 0 to 1, higher | modularity, compactness, explicitness in information | arXiv:2305.18378 |
| `udr` | 0 to about 1, higher | models trained apart found the same codes; needs no factors | arXiv:1905.12614 |

All other scores:

| function | of | what it measures | reference |
|---|---|---|---|
| `frechet_distance`, `gaussian_distance` | features of two sets | of Gaussians, lower is better | arXiv:1706.08500 |
| `mmd` | features of two sets | unbiased squared discrepancy under two kernels (KID) | arXiv:1801.01401 |
| `precision_recall` | features of two sets | share of each set in the manifold of the other | arXiv:1904.06991 |
| `density_coverage` | features of two sets | real balls that generated rows lie in | arXiv:2002.09797 |
| `ssim`, `ms_ssim` | pairs of images | structural similarity, at most 1 | Wang et al. 2003, 2004 |
| `cluster`, `agreement` | codes and labels; a table | accuracy, NMI, ARI of k-means against labels | Kuhn 1955 |
| `expected_calibration_error` | sums by bin | probabilities against outcomes, lower is better | arXiv:1706.04599 |
| `quantile_error` | counts by level | the same of quantiles, lower is better | arXiv:1807.00263 |
| `auroc`, `waic` | scores of two sets; log p | out-of-distribution detection | arXiv:1810.01392 |
| `mutual_information`, `decompose` | posteriors and codes | parts of the rate, nats | arXiv:1802.04942 |
| `bits_per_dim` | log p in nats | bits per dimension, lower is better | |

`Estimate` is a mean over examples with its standard error, `Moments` the mean and variance of a stream.

Defaults of the disentanglement scores are the papers' settings as disentanglement_lib (arXiv:1811.12359) ran them.
Every such score has a standard error. It is that of a bootstrap over rows, in which fits, votes and test rows are drawn
and made again (the bins of tables stay), and of `udr` over the other models. `dci` and `info_mec`, too slow or unfit
for that (nearest neighbors of rows that were drawn twice), take it from five disjoint parts of the rows, a lower bound:
up to a third too small. Claimed against true spread over fresh rows: `benchmarks/stderr.py`,
`results/studies/stderr.json`. Where a score is at its limit, such as a `betavae_score` of 1.000, it does not spread and
its error says nothing. No error holds the bias that a finite sample gives a score, nor the spread between training
seeds.

scikit-learn and JAX load when a score first needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vae_jax.metrics.arrays import Score
from vae_jax.metrics.discrepancy import mmd
from vae_jax.metrics.estimate import Estimate, bits_per_dim
from vae_jax.metrics.frechet import frechet_distance, gaussian_distance
from vae_jax.metrics.importances import Dci, Method, dci
from vae_jax.metrics.infomec import InfoMec, info_mec
from vae_jax.metrics.information_gaps import Gap, jemmig, mig, rmig
from vae_jax.metrics.interventions import Accuracy, betavae_score, factorvae_score
from vae_jax.metrics.manifolds import density_coverage, precision_recall
from vae_jax.metrics.moments import Moments
from vae_jax.metrics.outliers import auroc, waic
from vae_jax.metrics.partitions import agreement, cluster
from vae_jax.metrics.predictors import Explicitness, Sap, explicitness, sap
from vae_jax.metrics.purity import Modularity, modularity
from vae_jax.metrics.ranking import Udr, udr
from vae_jax.metrics.reliability import expected_calibration_error, quantile_error
from vae_jax.metrics.robustness import Robustness, irs

if TYPE_CHECKING:
    from vae_jax.metrics.image_pairs import ms_ssim, ssim
    from vae_jax.metrics.information import Information, decompose, mutual_information

# Where the scores are that run on JAX, which takes longer to load than all others together.
_ON_JAX = {
    "Information": "information",
    "decompose": "information",
    "ms_ssim": "image_pairs",
    "mutual_information": "information",
    "ssim": "image_pairs",
}

__all__ = [
    "Accuracy",
    "Dci",
    "Estimate",
    "Explicitness",
    "Gap",
    "InfoMec",
    "Information",
    "Method",
    "Modularity",
    "Moments",
    "Robustness",
    "Sap",
    "Score",
    "Udr",
    "agreement",
    "auroc",
    "betavae_score",
    "bits_per_dim",
    "cluster",
    "dci",
    "decompose",
    "density_coverage",
    "expected_calibration_error",
    "explicitness",
    "factorvae_score",
    "frechet_distance",
    "gaussian_distance",
    "info_mec",
    "irs",
    "jemmig",
    "mig",
    "mmd",
    "modularity",
    "ms_ssim",
    "mutual_information",
    "precision_recall",
    "quantile_error",
    "rmig",
    "sap",
    "ssim",
    "udr",
    "waic",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_JAX:
        raise AttributeError(f"module 'vae_jax.metrics' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vae_jax.metrics.{_ON_JAX[name]}"), name)
