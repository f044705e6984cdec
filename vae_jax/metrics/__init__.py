"""Disentanglement scores on plain arrays: codes [N, D] and the factors [N, F] behind them; no model is needed.

    from vae_jax import metrics

    metrics.mig(codes, factors).value           # and .stderr, .per_factor, .mutual_information, ...

Rows should be a uniform sample of the factor grid, or all of it, in any order. Codes are E[z|x]. Factors are values
(or numbers of values) of any kind; each score counts them itself.

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

Defaults are the papers' settings as disentanglement_lib (arXiv:1811.12359) ran them. Every score has a standard error.
It is that of a bootstrap over rows, in which fits, votes and test rows are drawn and made again (the bins of tables
stay), and of `udr` over the other models. `dci` and `info_mec`, too slow or unfit for that (nearest neighbors of rows
that were drawn twice), take it from five disjoint parts of the rows, a lower bound: up to a third too small. Claimed
against true spread over fresh rows: `benchmarks/stderr.py`, `results/studies/stderr.json`. Where a score is at its
limit, such as a `betavae_score` of 1.000, it does not spread and its error says nothing. No error holds the bias that a
finite sample gives a score, nor the spread between training seeds.

scikit-learn loads when a score first needs it.
"""

from vae_jax.metrics.arrays import Score
from vae_jax.metrics.importances import Dci, Method, dci
from vae_jax.metrics.infomec import InfoMec, info_mec
from vae_jax.metrics.information_gaps import Gap, jemmig, mig, rmig
from vae_jax.metrics.interventions import Accuracy, betavae_score, factorvae_score
from vae_jax.metrics.predictors import Explicitness, Sap, explicitness, sap
from vae_jax.metrics.purity import Modularity, modularity
from vae_jax.metrics.ranking import Udr, udr
from vae_jax.metrics.robustness import Robustness, irs

__all__ = [
    "Accuracy",
    "Dci",
    "Explicitness",
    "Gap",
    "InfoMec",
    "Method",
    "Modularity",
    "Robustness",
    "Sap",
    "Score",
    "Udr",
    "betavae_score",
    "dci",
    "explicitness",
    "factorvae_score",
    "info_mec",
    "irs",
    "jemmig",
    "mig",
    "modularity",
    "rmig",
    "sap",
    "udr",
]
