"""Disentanglement scores of a run: rows of its split, mean codes, and what was done with them.

Rows are drawn at random, without replacement, from the examples that are measured: `points` to learn from and half as
many to test with, where a score tests. A split with fewer is used whole, two thirds to learn from, and the protocol
says so. On `sprites` every split is a uniform sample of the factor grid; `--split train` has rows enough for the
papers' 15,000, and the protocol "full" has the whole grid.

A latent variable is a code dimension. One-hot blocks (`Space.variables`) count as one dimension, the number of the
largest entry; tables keep its values as they are, linear classifiers of `explicitness` and `info_mec` see one column
per value, and the other scores read it as a number.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vae_jax import metrics, prng, spaces
from vae_jax.errors import InputError, option
from vae_jax.evaluation.codes import Codes, encode_all
from vae_jax.evaluation.likelihood import evaluate
from vae_jax.evaluation.needs import lacking, require
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics.estimate import Estimate

UDR_ROWS = 1000
# Where the standard errors of the scores come from, in the words of the protocol.
BOOTSTRAP, AGAIN, QUARTERS, PARTS, MODELS = (
    "bootstrap over rows",
    "bootstrap over rows, all fitted and tested again",
    "bootstrap over rows, a quarter of them each time, rather too large",
    "lower bound (up to a third too small), all again on 5 disjoint parts of the rows",
    "bootstrap over the others",
)


class Facts(NamedTuple):
    """What the scores of one run use.

    Attributes:
      codes: one column a latent variable [N, V].
      log_var: [N, V], or None for a deterministic code.
      discrete: variables that are one-hot blocks, bool [V].
      factors: [N, F].
      names: of the factors, () where the data set has none.
      train, test: rows to learn from and to test with.
    """

    codes: np.ndarray
    log_var: np.ndarray | None
    discrete: np.ndarray
    factors: np.ndarray
    names: tuple[str, ...]
    train: int
    test: int


def variables(codes: np.ndarray, blocks: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns one column a latent variable [N, V], which of them are discrete [V], and where each begins in z [V]."""
    # Without blocks every entry of z is a variable.
    sizes = np.asarray(blocks or (1,) * codes.shape[1])
    first = np.cumsum(sizes) - sizes
    # A one-hot block becomes the number of its largest entry.
    columns = [codes[:, i : i + n].argmax(1) if n > 1 else codes[:, i] for i, n in zip(first, sizes)]
    return np.stack(columns, axis=1).astype(np.float64), sizes > 1, first


def gather(subject: Subject, metric: str) -> Facts:
    """Returns the rows that the scores use, drawn and encoded once.

    Raises:
      InputError: the data have no factors, or a code is not finite.
    """
    points = subject.settings.points
    require(metric, ("factors",), subject.run.model, subject.source.info)
    codes = drawn(subject, points + points // 2)
    columns, discrete, first = variables(codes.mean, spaces.variables(subject.run.model.about.latents))
    n = len(columns)
    # Rows come in the order of the data set. They are shuffled, since the first ones are learned from and the last ones
    # tested with. Stream 0 of the seed draws rows, stream 1 orders them.
    order = np.random.default_rng([subject.seed, 1]).permutation(n)
    # A split that is too small for both keeps two thirds to learn from.
    train = points if n >= points + points // 2 else n - n // 3
    # One column per variable, as `columns` has them.
    log_var = None if codes.log_var is None else codes.log_var[order][:, first]
    names = tuple(subject.source.info.factor_names)
    return Facts(
        columns[order], log_var, discrete, codes.extra["factors"][order], names, train, min(points // 2, n // 3)
    )


def drawn(subject: Subject, number: int) -> Codes:
    """Returns the codes of `number` of the examples that are measured, drawn at random; of all if there are no more."""
    # Every example is used, so the codes are those that other metrics share.
    if subject.size <= number:
        return subject.codes

    def make() -> Codes:
        batches = subject.run.chunks(subject.split, drawn_rows(subject, number), subject.batch_size)
        return subject.finite(encode_all(subject.run.model, subject.state, batches))

    return subject.once(f"codes of {number} rows", make)


def drawn_rows(subject: Subject, number: int) -> np.ndarray:
    """Returns `number` of the rows that are measured, drawn at random, ascending; all if there are no more."""
    return subject.rows[np.sort(np.random.default_rng([subject.seed, 0]).permutation(subject.size)[:number])]


def _say(
    subject: Subject, metric: str, facts: Facts, text: str, error: str, found: Sequence[float] | np.ndarray = ()
) -> None:
    """Puts into the protocol what the numbers of a metric depend on."""
    used = len(facts.codes)
    which = "all" if used == subject.size else f"drawn at random from {subject.size:,}"
    said = f"mean codes; {used:,} rows of the {subject.split} split, {which}; {text}; standard error: {error}"
    if len(found):
        each = ", ".join(f"{_name(facts, k)} {value:.3f}" for k, value in enumerate(found))
        said += f"; by factor: {each}"
    subject.protocol[metric] = said


def _name(facts: Facts, k: int) -> str:
    return facts.names[k] if k < len(facts.names) else str(k)


def _first(facts: Facts, subject: Subject) -> Facts:
    """Returns the first `points` rows, for scores that test nothing."""
    n = subject.settings.points
    log_var = None if facts.log_var is None else facts.log_var[:n]
    return facts._replace(codes=facts.codes[:n], log_var=log_var, factors=facts.factors[:n])


def _gap(subject: Subject, metric: str, soft: bool) -> dict[str, Estimate]:
    facts = _first(gather(subject, metric), subject)
    common: dict[str, Any] = {"discrete": facts.discrete, "names": facts.names, "seed": subject.seed}
    if soft:
        # These take the log variances as well: they spread q(z|x) over fixed bins.
        score = getattr(metrics, metric)
        found = score(facts.codes, facts.factors, facts.log_var, **common)
        kind = "each code in one bin" if facts.log_var is None else "q(z|x) spread over bins"
        text = f"100 bins from -4 to 4, {kind}, {found.outside:.2%} of mean codes beyond them"
    else:
        bins = subject.settings.bins
        found = metrics.mig(facts.codes, facts.factors, bins=bins, **common)
        text = f"{bins} bins of equal width"
    _say(subject, metric, facts, text, BOOTSTRAP, found.per_factor)
    return {metric: Estimate(found.value, found.stderr, len(facts.codes))}


def mig(subject: Subject) -> dict[str, Estimate]:
    """Returns `mig`."""
    return _gap(subject, "mig", soft=False)


def rmig(subject: Subject) -> dict[str, Estimate]:
    """Returns `rmig`."""
    return _gap(subject, "rmig", soft=True)


def jemmig(subject: Subject) -> dict[str, Estimate]:
    """Returns `jemmig`."""
    return _gap(subject, "jemmig", soft=True)


def modularity(subject: Subject) -> dict[str, Estimate]:
    """Returns `modularity`."""
    facts, bins = _first(gather(subject, "modularity"), subject), subject.settings.bins
    found = metrics.modularity(
        facts.codes, facts.factors, bins=bins, discrete=facts.discrete, names=facts.names, seed=subject.seed
    )
    _say(subject, "modularity", facts, f"{bins} bins of equal width", BOOTSTRAP)
    return {"modularity": Estimate(found.value, found.stderr, len(facts.codes))}


def _rows(facts: Facts) -> dict[str, Any]:
    return {"train": facts.train, "test": facts.test, "names": facts.names}


def _tested(facts: Facts) -> str:
    return f"{facts.train:,} to learn from and {facts.test:,} to test with"


def sap(subject: Subject) -> dict[str, Estimate]:
    """Returns `sap`."""
    facts = gather(subject, "sap")
    found = metrics.sap(facts.codes, facts.factors, seed=subject.seed, **_rows(facts))
    _say(subject, "sap", facts, f"LinearSVC, C 0.01, balanced, {_tested(facts)}", AGAIN, found.per_factor)
    return {"sap": Estimate(found.value, found.stderr, facts.test)}


def explicitness(subject: Subject) -> dict[str, Estimate]:
    """Returns `explicitness`."""
    facts = gather(subject, "explicitness")
    found = metrics.explicitness(facts.codes, facts.factors, discrete=facts.discrete, seed=subject.seed, **_rows(facts))
    text = f"ROC area of logistic regression, C 1, {_tested(facts)}"
    _say(subject, "explicitness", facts, text, AGAIN, found.per_factor)
    return {"explicitness": Estimate(found.value, found.stderr, facts.test)}


def _dci(subject: Subject, metric: str, method: metrics.Method, text: str) -> dict[str, Estimate]:
    facts = gather(subject, metric)
    found = metrics.dci(facts.codes, facts.factors, method=method, seed=subject.seed, **_rows(facts))
    _say(subject, metric, facts, f"{text}, {_tested(facts)}", PARTS, found.per_factor)
    parts = {"disentanglement": found.disentanglement, "completeness": found.completeness}
    parts["informativeness"] = found.informativeness
    return {f"{metric}_{name}": Estimate(score.value, score.stderr, facts.test) for name, score in parts.items()}


def dci(subject: Subject) -> dict[str, Estimate]:
    """Returns `dci_disentanglement`, `dci_completeness` and `dci_informativeness` (test accuracy)."""
    return _dci(subject, "dci", "boosting", "gradient boosting, 100 stages of depth 3, informativeness is accuracy")


def dci_linear(subject: Subject) -> dict[str, Estimate]:
    """Returns the same three by the lasso, with informativeness 1 - normalized error."""
    text = "lasso, alpha 0.02, factors as numbers, informativeness is 1 - normalised root mean squared error"
    return _dci(subject, "dci_linear", "lasso", text)


def _held(subject: Subject, metric: str, score: Callable[..., metrics.Accuracy], text: str) -> dict[str, Estimate]:
    points = subject.settings.points
    facts = _first(gather(subject, metric), subject)
    # `points` counts batches as well: their rows are drawn with replacement from the first `points` rows.
    found = score(
        facts.codes, facts.factors, train=points, test=max(points // 2, 1), names=facts.names, seed=subject.seed
    )
    _say(subject, metric, facts, f"{text}, {points:,} / {points // 2:,} batches of 64, rows with replacement", AGAIN)
    if found.votes is not None:
        subject.protocol[metric] += f"; {int(found.active.sum())} of {len(found.active)} dimensions active"
    return {metric: Estimate(found.value, found.stderr, max(points // 2, 1))}


def betavae_score(subject: Subject) -> dict[str, Estimate]:
    """Returns `betavae_score`."""
    return _held(subject, "betavae_score", metrics.betavae_score, "logistic regression, C 1")


def factorvae_score(subject: Subject) -> dict[str, Estimate]:
    """Returns `factorvae_score`."""
    return _held(subject, "factorvae_score", metrics.factorvae_score, "majority vote, deviations under 0.05 left out")


def irs(subject: Subject) -> dict[str, Estimate]:
    """Returns `irs`."""
    facts = _first(gather(subject, "irs"), subject)
    found = metrics.irs(facts.codes, facts.factors, names=facts.names, seed=subject.seed)
    _say(subject, "irs", facts, "0.99 quantile of the deviations", QUARTERS)
    return {"irs": Estimate(found.value, found.stderr, len(facts.codes))}


def info_mec(subject: Subject) -> dict[str, Estimate]:
    """Returns `infom`, `infoc` and `infoe`."""
    facts = _first(gather(subject, "info_mec"), subject)
    found = metrics.info_mec(facts.codes, facts.factors, discrete=facts.discrete, names=facts.names, seed=subject.seed)
    text = f"10 neighbours, {int(found.active.sum())} of {len(found.active)} codes active, InfoE on its own rows"
    _say(subject, "info_mec", facts, text, PARTS)
    parts = {"infom": found.modularity, "infoc": found.compactness, "infoe": found.explicitness}
    return {name: Estimate(score.value, score.stderr, len(facts.codes)) for name, score in parts.items()}


def udr(subject: Subject) -> dict[str, Estimate]:
    """Returns `udr` of this run among `subject.others`.

    Raises:
      InputError: no other run, one of other data or unfinished, or a code that is not finite.
    """
    if not subject.others:
        raise InputError(f"udr: it compares two or more runs of the same data; name the others with {option('others')}")
    # 1. Check that all runs saw the same data and are finished.
    here = subject.run.config.data
    models = [(subject.run, subject.state)]
    for other in subject.others:
        there = other.config.data
        if (here.name, here.source, here.protocol) != (there.name, there.source, there.protocol) or (
            other.spec.x.shape != subject.run.spec.x.shape
        ):
            raise InputError(
                f"udr: {other.path} has other data ({there.name} {there.protocol}, {other.spec.x.shape}) than "
                f"{subject.run.path} ({here.name} {here.protocol}, {subject.run.spec.x.shape}); all runs need the same"
            )
        if reason := lacking(f"udr: {other.path}", ("no indices",), other.model):
            raise InputError(f"{reason.rpartition(';')[0]}; leave it out of {option('others')}")
        state = other.restore()
        if int(state.step) < other.last_step:
            raise InputError(f"udr: {other.path} is unfinished, at step {int(state.step)} of {other.last_step}")
        models.append((other, state))
    # 2. Encode the same rows with every run; the rate tells which dimensions are in use.
    rows = drawn_rows(subject, UDR_ROWS)
    codes, kls = [], []
    for run, state in models:
        # To be called twice: the codes and the rate take one pass each.
        batches = functools.partial(run.chunks, subject.split, rows, subject.batch_size)
        mean = encode_all(run.model, state, batches()).mean
        columns, _, _ = variables(mean, spaces.variables(run.model.about.latents))
        kl = evaluate(run.model, state, batches(), key=prng.site_key(subject.key, "udr")).kl_per_dim
        # Where the rate is no sum over these variables, those that change count.
        known = kl is not None and len(kl) == columns.shape[1]
        codes.append(columns)
        kls.append(np.asarray(kl) if known else np.where(np.ptp(columns, axis=0) > 0, np.inf, 0.0))
    # 3. Compare the codes of all pairs of runs.
    found = metrics.udr(codes, kls, seed=subject.seed)
    active = ", ".join(str(int(a.sum())) for a in found.active)
    subject.protocol["udr"] = (
        f"{len(models)} runs, lasso, alpha 0.1, {len(rows):,} rows of the {subject.split} split; dimensions over 0.01 "
        f"nats: {active}; standard error: {MODELS}"
    )
    # Row 0 is this run. The error is NaN where there are too few others to resample.
    stderr = float(found.stderr[0])
    return {"udr": Estimate(float(found.per_model[0]), None if np.isnan(stderr) else stderr, len(models))}
