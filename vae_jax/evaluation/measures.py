"""Metrics computed on request: their names, meanings, and where their code is."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import NamedTuple

from vae_jax.data.source import Info
from vae_jax.errors import InputError, either, option
from vae_jax.evaluation import needs
from vae_jax.evaluation.settings import Settings
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.estimate import Estimate
from vae_jax.model import Model


class Measure(NamedTuple):
    """One entry of `MEASURES`.

    Attributes:
      home: "module:function" of `Subject -> {metric: Estimate}`; it loads when it is requested.
      meaning: one line for `vae-jax list metrics`, with the unit.
      reference: where it comes from.
      group: a name that stands for every measure of its kind.
      reads: what its numbers depend on: fields of `Settings`, and `others` if it reads further runs.
      needs: what the model and its data must provide (keys of `needs.NEEDS`).
    """

    home: str
    meaning: str
    reference: str
    group: str
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


# Settings that several measures read.
CHAINS = ("chains", "temperatures", "leapfrog", "anneal_from")
LOCAL = ("local_steps", "local_samples")


# name as it is requested -> Measure. One measure may give several metrics (`dci` gives three).
MEASURES: dict[str, Measure] = {
    # Likelihood: log p(x) by annealing from the prior to the joint. Codes must be able to move freely in R^n.
    "ais": Measure(
        "vae_jax.evaluation.ladder:measure_ais",
        "log p(x) by annealed importance sampling with Hamiltonian moves, a lower bound on average, nats",
        "arXiv:1611.04273",
        "likelihood",
        CHAINS,
        needs=("joint", "euclidean"),
    ),
    "bdmc": Measure(
        "vae_jax.evaluation.ladder:measure_bdmc",
        "log p(x) of simulated images from below and above, and the gap: what ais misses at most, nats",
        "arXiv:1511.02543",
        "likelihood",
        CHAINS,
        needs=("joint", "euclidean"),
    ),
    # Information: the parts of the rate under the exact aggregate posterior, from N^2 densities of N images. One prior
    # for all images is needed, or KL(q(z) || p(z)) has no second argument.
    "mutual_information": Measure(
        "vae_jax.evaluation.spread:mutual_information",
        "I(x; z) over the images that are measured, at most the logarithm of their number, nats",
        "Hoffman and Johnson 2016",
        "information",
        needs=("joint", "one level", "one prior"),
    ),
    "aggregate_kl": Measure(
        "vae_jax.evaluation.spread:aggregate_kl",
        "KL of the aggregate posterior of all images from the prior, nats",
        "Hoffman and Johnson 2016",
        "information",
        needs=("joint", "one level", "one prior"),
    ),
    "total_correlation": Measure(
        "vae_jax.evaluation.spread:total_correlation",
        "KL of the aggregate posterior from the product of its dimensions, nats",
        "arXiv:1802.04942",
        "information",
        needs=("joint", "one level", "one prior"),
    ),
    "dimension_kl": Measure(
        "vae_jax.evaluation.spread:dimension_kl",
        "KL of the aggregate posterior from the prior by dimension, summed, nats",
        "arXiv:1802.04942",
        "information",
        needs=("joint", "one level", "one prior"),
    ),
    # Gaps: where the bound is lost. Two of them read `k` and the chains, from which they take log p(x); two need an
    # optimized Gaussian for each image.
    "inference_gap": Measure(
        "vae_jax.evaluation.inference_gaps:inference_gap",
        "log p(x) (the higher of AIS and IW-k) minus ELBO, nats",
        "arXiv:1801.03558",
        "gaps",
        ("k", *CHAINS, *LOCAL),
        needs=("joint", "one level"),
    ),
    "approximation_gap": Measure(
        "vae_jax.evaluation.inference_gaps:approximation_gap",
        "log p(x) minus the ELBO of the best diagonal Gaussian of each image, nats",
        "arXiv:1801.03558",
        "gaps",
        ("k", *CHAINS, *LOCAL),
        needs=("joint", "one level", "euclidean"),
    ),
    "amortisation_gap": Measure(
        "vae_jax.evaluation.inference_gaps:amortisation_gap",
        "ELBO of the best diagonal Gaussian of each image minus that of the encoder, nats",
        "arXiv:1801.03558",
        "gaps",
        LOCAL,
        needs=("joint", "one level", "euclidean"),
    ),
    # Generation: samples of the prior against images, in the space that --features selects.
    "frechet_distance": Measure(
        "vae_jax.evaluation.generation:measure_frechet",
        "squared Wasserstein-2 distance of Gaussians fitted to features (--features) of samples and images",
        "arXiv:1706.08500",
        "generation",
        ("samples", "features"),
        needs=("complete",),
    ),
    "precision_recall": Measure(
        "vae_jax.evaluation.generation:measure_precision_recall",
        "share of samples among the images, and of images among the samples, by 3 neighbors in feature space",
        "arXiv:1904.06991",
        "generation",
        ("samples", "features"),
        needs=("complete",),
    ),
    "density_coverage": Measure(
        "vae_jax.evaluation.generation:measure_density_coverage",
        "neighborhoods of images that a sample lies in, by 5, and share of those that are hit",
        "arXiv:2002.09797",
        "generation",
        ("samples", "features"),
        needs=("complete",),
    ),
    "mmd": Measure(
        "vae_jax.evaluation.generation:measure_mmd",
        "unbiased squared maximum mean discrepancy of features, polynomial and Gaussian kernel",
        "arXiv:1801.01401",
        "generation",
        ("samples", "features"),
        needs=("complete",),
    ),
    # Reconstruction: decoded means against images, and whether the decoder's probabilities come true.
    "ssim": Measure(
        "vae_jax.evaluation.similarity:measure_ssim",
        "structural similarity of images and mean reconstructions, at most 1; data range 1",
        "Wang et al. 2004",
        "reconstruction",
        needs=("images", "complete"),
    ),
    "ms_ssim": Measure(
        "vae_jax.evaluation.similarity:measure_ms_ssim",
        "the same over as many of five scales as fit",
        "Wang et al. 2003",
        "reconstruction",
        needs=("images", "complete"),
    ),
    "calibration": Measure(
        "vae_jax.evaluation.calibration:measure",
        "error of decoded probabilities: expected calibration error (Bernoulli), or of quantiles (Gaussian pixels)",
        "arXiv:1706.04599, arXiv:1807.00263",
        "reconstruction",
        needs=("complete",),
    ),
    # Representation and probes: what codes tell of labels, without and with learning from them.
    "clustering": Measure(
        "vae_jax.evaluation.clustering:measure",
        "k-means on mean codes against labels: accuracy (Hungarian matching), NMI, ARI",
        "Kuhn 1955; Hubert and Arabie 1985",
        "representation",
        needs=("no indices", "labels"),
    ),
    "probe_svm": Measure(
        "vae_jax.evaluation.classification:probe_svm",
        "accuracy of a Gaussian-kernel SVM that knows the codes of the labeled training examples",
        "M1 of arXiv:1406.5298",
        "probe",
        needs=("no indices", "labels"),
    ),
    "probe_logistic": Measure(
        "vae_jax.evaluation.classification:probe_logistic",
        "accuracy of logistic regression on the same codes",
        "M1 of arXiv:1406.5298",
        "probe",
        needs=("no indices", "labels"),
    ),
    "knn": Measure(
        "vae_jax.evaluation.classification:knn",
        "accuracy of the 5 nearest codes of labeled training examples",
        "Cover and Hart 1967",
        "probe",
        needs=("no indices", "labels"),
    ),
    # Detection: images of another data set.
    "anomaly": Measure(
        "vae_jax.evaluation.anomaly:measure",
        "AUROC of telling --outliers from the run's data by ELBO, IW bound, likelihood regret, and WAIC over --others",
        "arXiv:1810.01392, arXiv:2003.02977",
        "detection",
        ("outliers", "outlier_k", "regret_steps", "others"),
        needs=("bound",),
    ),
    # Disentanglement: codes against known generative factors.
    "mig": Measure(
        "vae_jax.evaluation.disentanglement:mig",
        "mutual information gap: the best code of a factor against the second best, 0 to 1, higher is better",
        "arXiv:1802.04942",
        "disentanglement",
        ("points", "bins"),
        needs=("no indices", "factors"),
    ),
    "rmig": Measure(
        "vae_jax.evaluation.disentanglement:rmig",
        "the same under the whole posterior, fixed bins, 0 to 1, higher is better",
        "arXiv:1908.09961",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "jemmig": Measure(
        "vae_jax.evaluation.disentanglement:jemmig",
        "joint entropy minus the gap: codes must know nothing else, 0 to 1, LOWER is better",
        "arXiv:1908.09961",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "sap": Measure(
        "vae_jax.evaluation.disentanglement:sap",
        "accuracy of the best code alone minus the second best, linear SVM, 0 to 1, higher is better",
        "arXiv:1711.00848",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "dci": Measure(
        "vae_jax.evaluation.disentanglement:dci",
        "disentanglement, completeness, informativeness by gradient boosting (minutes), 0 to 1, higher is better",
        "Eastwood and Williams 2018",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "dci_linear": Measure(
        "vae_jax.evaluation.disentanglement:dci_linear",
        "the same three by the lasso: factors as numbers",
        "Eastwood and Williams 2018",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "betavae_score": Measure(
        "vae_jax.evaluation.disentanglement:betavae_score",
        "accuracy of naming the factor that pairs have in common, linear classifier, higher is better",
        "Higgins et al. 2017",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "factorvae_score": Measure(
        "vae_jax.evaluation.disentanglement:factorvae_score",
        "accuracy of naming the factor that is held, by the stillest code, higher is better",
        "arXiv:1802.05983",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "modularity": Measure(
        "vae_jax.evaluation.disentanglement:modularity",
        "whether each code knows of one factor only, 0 to 1, higher is better",
        "arXiv:1802.05312",
        "disentanglement",
        ("points", "bins"),
        needs=("no indices", "factors"),
    ),
    "explicitness": Measure(
        "vae_jax.evaluation.disentanglement:explicitness",
        "ROC area of a linear classifier for each value of a factor, 0.5 to 1, higher is better",
        "arXiv:1802.05312",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "irs": Measure(
        "vae_jax.evaluation.disentanglement:irs",
        "how still a code stays while its factor is held, 0 to 1, higher is better",
        "arXiv:1811.00007",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    "info_mec": Measure(
        "vae_jax.evaluation.disentanglement:info_mec",
        "infom, infoc, infoe: modularity, compactness, explicitness in information, 0 to 1, higher is better",
        "arXiv:2305.18378",
        "disentanglement",
        ("points",),
        needs=("no indices", "factors"),
    ),
    # Agreement: codes of several runs against each other, without factors.
    "udr": Measure(
        "vae_jax.evaluation.disentanglement:udr",
        "agreement of the codes of runs trained apart (--others), needs no factors, higher is better",
        "arXiv:1905.12614",
        "agreement",
        ("others",),
        needs=("no indices",),
    ),
}


def groups() -> dict[str, tuple[str, ...]]:
    """Returns group -> the names of its measures."""
    found: dict[str, tuple[str, ...]] = {}
    for name, measure in MEASURES.items():
        found[measure.group] = (*found.get(measure.group, ()), name)
    return found


def names() -> tuple[str, ...]:
    """Returns every name that may be requested: the measures and their groups."""
    return (*MEASURES, *groups())


def expand(asked: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the measures among the requested names, groups spelt out, each once."""
    by_group = groups()
    # Names that are not in the table are dropped here: standard metrics are made by `evaluate`.
    return tuple(dict.fromkeys(n for name in asked for n in by_group.get(name, (name,)) if n in MEASURES))


def refusals(asked: tuple[str, ...], settings: Settings) -> dict[str, str]:
    """Returns measure -> what is wrong with a setting that it reads; under its flag what no requested measure reads."""
    found: dict[str, str] = {}
    for field, message in settings.out_of_range().items():
        # A value out of range refuses the measures that read it, not the whole call.
        readers = [name for name in asked if field in MEASURES[name].reads]
        found |= dict.fromkeys(readers or [option(field)], message)
    return found


def check_read(asked: tuple[str, ...], settings: Settings, others: bool) -> None:
    """Refuses settings that were given and that no requested measure reads; `k` is judged by who makes the bounds.

    Args:
      asked: measures, see `expand`.
      settings: their options.
      others: whether further runs were given.

    Raises:
      InputError: the first such setting, with the measures that read it.
    """
    # A setting counts as given if it differs from its default; one typed at its default changes nothing.
    given = [f.name for f in dataclasses.fields(Settings) if f.name != "k" and getattr(settings, f.name) != f.default]
    for name in [*given, *(["others"] if others else [])]:
        readers = [m for m, about in MEASURES.items() if name in about.reads]
        if not set(readers) & set(asked):
            raise InputError(
                f"{option(name)}: is not used by the requested metrics; request one that reads it "
                f"({either('--metrics ' + ','.join(readers), f'metrics={tuple(readers)}')}), or leave it out"
            )


def lacking(name: str, model: Model, info: Info) -> str:
    """Returns why a measure cannot be made of a model and its data; "" where nothing is known against it."""
    return needs.lacking(name, MEASURES[name].needs, model, info)


def measure(names: tuple[str, ...], subject: Subject) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Returns the metrics of the requested measures, and for each that was refused the reason."""
    metrics: dict[str, Estimate] = {}
    refused: dict[str, str] = {}
    for name in names:
        if reason := lacking(name, subject.run.model, subject.source.info):
            refused[name] = reason
            continue
        # Imported on demand: some of these modules load scikit-learn or scipy, which most calls do not need.
        module, _, attribute = MEASURES[name].home.partition(":")
        function: Callable[[Subject], dict[str, Estimate]] = getattr(importlib.import_module(module), attribute)
        # A measure that is refused must not cost the numbers of the others.
        try:
            metrics.update(function(subject))
        except InputError as error:
            refused[name] = str(error)
    return metrics, refused
