"""From a trained run folder to its numbers: eval.json."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax

from vae_jax.data.fingerprint import fingerprint
from vae_jax.data.limit import text as rows_text
from vae_jax.data.split import BY_FILE
from vae_jax.errors import InputError, command, holding_notes, nearest, option
from vae_jax.evaluation import METRICS, Evaluation, evaluate, measures, other_names
from vae_jax.evaluation import eval_file as evaluations
from vae_jax.evaluation.needs import has_bound
from vae_jax.evaluation.settings import Settings
from vae_jax.evaluation.subject import Subject, cell_width
from vae_jax.files.atomic import jsonable
from vae_jax.options.ranges import SAMPLES
from vae_jax.options.typed import conform, conform_fields, items
from vae_jax.runs.inputs import shown_input, tell, user_batches
from vae_jax.tasks import given

if TYPE_CHECKING:
    from vae_jax.runs.run import Run
    from vae_jax.train import TrainState

logger = logging.getLogger(__name__)


# The split that the user's own examples stand for.
INPUT = "input"


@holding_notes()
def evaluate_run(
    run: Run | Path | str,
    x: Any = None,
    *,
    metrics: tuple[str, ...] = (),
    split: str | None = None,
    k: tuple[int, ...] | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
    settings: Mapping[str, Any] | None = None,
    others: Sequence[Run | Path | str] = (),
    out: Path | None = None,
    write: bool = True,
    report: Callable[[int, int], None] = lambda seen, total: None,
) -> dict[str, Any]:
    """Evaluates a run, merges the numbers into eval.json (see `evaluations`) and returns those of this call.

    Args:
      run: a run, or the path of its folder.
      x: the user's own examples in place of a split, as `encode` takes them. Their numbers are written to `out` alone,
        where it is given: the run's eval.json stays as it is.
      metrics: names to keep; () for all. `iwae` stands for every bound in `k` (50 if there is none); a group of
        `measures.MEASURES` for all of it. Those are made on request only.
      split, k, limit, batch_size: None takes the run's config; of x, all examples, and `split` where x holds splits.
      seed: of the posterior samples.
      step: of the checkpoint; None for the newest.
      state: evaluate this state instead of a checkpoint.
      settings: options of single metrics (fields of `settings.Settings`).
      others: further runs, for metrics that compare several.
      out: file to merge into; None is RUN/eval.json.
      write: False writes nothing.
      report: called with (examples done, examples in all).

    Returns:
      `experiment, step, data, split, protocol, metrics, latents, training` of this call; `expected` and `pass`, judged
      on all that was measured under the run's own protocol (`evaluation.split`, `evaluation.limit`, seed 0);
      `targets_of`, that protocol in words, where this call has another one; `set_aside`, where an eval.json that
      cannot be read was moved to. A metric that this run does not provide (no factors, say), or whose settings are
      out of range, does not cost the others: its reason is listed under `refused`.

    Raises:
      InputError: unknown metric or split, a number out of range that all depend on, an unfinished run, or nothing of
        what was requested can be measured.
    """
    run = given.opened(run)
    others = tuple(given.opened(other, "others") for other in others)
    call = _arguments(run, metrics, k, split, limit, batch_size, seed, step, out)
    file = call.out or run.path / "eval.json"
    if x is not None:
        run, call = _of_input(run, x, call, limit, asked=split is not None)
        write = write and call.out is not None
    if write:
        evaluations.check_out(file, run.path)
    source = run.source(call.split)
    changed = None if x is not None else run.data_change(call.split)
    wanted = _wanted(run, call, settings or {}, bool(others))
    state = finished(run, call.step) if state is None else state
    total = min(call.limit, source.size) if call.limit else source.size
    result = evaluate(
        run.model,
        state,
        run.batches(call.split, call.batch_size, call.limit),
        key=jax.random.key(call.seed),
        k=wanted.ks,
        limit=call.limit,
        cell_width=cell_width(run, call.split),
        report=lambda seen: report(seen, total),
    )

    def foreign(name: str, most: int) -> Iterator[dict[str, Any]]:
        of = call.split if x is None else run.config.evaluation.split
        return user_batches(run, name, of, call.batch_size, "outliers", limit=most)[0]

    where = call.split, call.limit, call.batch_size, call.seed
    subject = Subject(run, state, *where, wanted.options, others, report, foreign)
    found, unmeasured = measures.measure(wanted.asked, subject)
    whole = wanted.standard or not call.metrics
    names, absent = keep(wanted.standard, list(result.metrics), wanted.ks, run) if whole else ([], {})
    refused = wanted.refused | absent | unmeasured
    names += found
    if refused and not names:  # nothing to write: what is there stays as it is
        raise refusal(refused)
    result.metrics.update(found)
    about = _protocol(run, call, wanted.ks, result.n, state, changed) | _labels(result) | subject.protocol
    values = _values(run, call, state, result, names, about, refused)
    return values | _filed(run, values, call.metrics, file if write else None)


class _Call(NamedTuple):
    """The arguments of `evaluate_run` as plain values, the run's config in place of None."""

    metrics: tuple[str, ...]
    k: tuple[int, ...]
    asks_k: bool  # k was given, and is not the config's
    split: str
    limit: int
    batch_size: int
    seed: int
    step: int | Literal["best"] | None
    out: Path | None
    data: str  # what is measured, in words


def _arguments(
    run: Any, metrics: Any, k: Any, split: Any, limit: Any, batch_size: Any, seed: Any, step: Any, out: Any
) -> _Call:
    """Returns the arguments, checked.

    Raises:
      InputError: one of them is of another type (the message says what to write), out of range, or an unknown metric.
    """
    e = run.config.evaluation
    numbers = {"limit": limit, "batch_size": batch_size}
    step = conform(step, int | Literal["best"] | None, "step", 10)
    limit, batch_size = (conform(value, int | None, name) for name, value in numbers.items())
    out = conform(out, str | None, "out")
    call = _Call(
        items(metrics, str, "metrics"),
        e.k if k is None else items(k, int, "k"),
        k is not None,
        conform(split, str | None, "split", "test") or e.split,
        e.limit if limit is None else limit,
        e.batch_size if batch_size is None else batch_size,
        conform(seed, int, "seed", 0),
        step,
        None if out is None else Path(out),
        run.config.data.shown,
    )
    given.at_least("batch_size", call.batch_size)
    given.at_least("limit", call.limit, 0)
    given.seed(call.seed)
    check_names(call.metrics)
    return call


def _of_input(run: Run, x: Any, call: _Call, limit: int | None, *, asked: bool) -> tuple[Run, _Call]:
    """Returns the run with the user's examples as the split INPUT, and the call that measures these.

    Raises:
      InputError: examples that cannot be read or that this model cannot take, or an `out` that is the run's own file.
    """
    if call.out is not None and call.out.resolve() == (run.path / "eval.json").resolve():
        raise InputError(
            f"{option('out', call.out)}: holds the numbers of the run's own data; choose another file for those of "
            f"{option('x', flag='input')}"
        )
    _, source = user_batches(run, x, call.split, call.batch_size, asked=asked)
    # The limit of the run's config is one of its own data.
    return run.with_source(INPUT, source), call._replace(split=INPUT, limit=limit or 0, data=shown_input(x))


class _Wanted(NamedTuple):
    """What is to be measured.

    Attributes:
      ks: of the importance-weighted bounds.
      standard: names of the metrics that every evaluation makes; () for all of them, where none is requested.
      asked: measures, made on request only.
      options: of the measures.
      refused: measure or option -> why it is not made.
    """

    ks: tuple[int, ...]
    standard: tuple[str, ...]
    asked: tuple[str, ...]
    options: Settings
    refused: dict[str, str]


def _wanted(run: Run, call: _Call, settings: Mapping[str, Any], others: bool) -> _Wanted:
    """Returns what to measure.

    Raises:
      InputError: an option that is unknown or that nothing requested reads, or nothing requested can be made.
    """
    ks = bounds(call.metrics, call.k)
    options = _settings(settings, call.k or ks)
    asked = measures.expand(call.metrics)
    measures.check_read(asked, options, others)
    if call.asks_k and call.k and not ks and not any("k" in measures.MEASURES[name].reads for name in asked):
        raise InputError(
            f"{option('k')}: is not used by the requested metrics; add iwae to {option('metrics')}, or leave it out"
        )
    standard = tuple(name for name in call.metrics if name not in measures.names())
    refused = measures.refusals(asked, options)
    if ks and not has_bound(run.model):
        refused["iwae"] = (
            f"{run.path}: its model does not provide a bound on log p(x); leave out {option('k')} and iwae"
        )
        ks, standard = (), tuple(name for name in standard if not re.fullmatch("iwae|iw_.*", name))
    elif not all(map(SAMPLES.holds, call.k)):
        ks, standard = tuple(filter(SAMPLES.holds, ks)), tuple(name for name in standard if name != "iwae")
    asked = tuple(name for name in asked if name not in refused)
    if refused and call.metrics and not (asked or standard):
        raise refusal(refused)
    if call.split == INPUT:
        tell(run.source(INPUT))
    return _Wanted(ks, standard, asked, options, refused)


def _settings(chosen: Mapping[str, Any], k: tuple[int, ...]) -> Settings:
    """Returns the options of single metrics.

    Raises:
      InputError: an unknown one, or one of another type.
    """
    known = [field.name for field in dataclasses.fields(Settings) if field.name != "k"]
    for name in chosen:
        if name not in known:
            raise InputError(f"settings: no setting {name!r}; {nearest(name, known)}")
    return conform_fields(Settings(**chosen, k=k), {}, "settings")


def _values(
    run: Run,
    call: _Call,
    state: TrainState,
    result: Evaluation,
    names: Iterable[str],
    about: Mapping[str, Any],
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """Returns what eval.json holds of one call, as JSON has it; `about` is the protocol."""
    values = {
        "experiment": run.experiment,
        "step": int(state.step),
        "data": call.data,
        "split": call.split,
        "protocol": about,
        "metrics": {name: vars(result.metrics[name]) for name in names},
        "latents": {"kl_per_dim": result.kl_per_dim, "variance_of_mean": result.mean_variance},
        "training": run.provenance(),
        **({"refused": refused} if refused else {}),
    }
    return jsonable(values)


def _filed(run: Run, values: dict[str, Any], asked: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    """Merges a result into a file, if there is one, and returns what the call says of targets and of that file."""
    own, e = evaluations.is_own(values, run.config), run.config.evaluation
    about: dict[str, Any] = evaluations.verdicts(run.config, [values] if own else [])
    if file is not None:
        held, aside = evaluations.update(file, run.path, run.experiment, run.config, values, asked)
        if held["step"] == values["step"]:
            about = {name: held[name] for name in about}
        if aside is not None:
            logger.warning("%s: could not be read; it is kept as %s", file, aside)
            about["set_aside"] = str(aside)
    if not own and run.config.expected:
        about["targets_of"] = (
            f"{e.split} split, {f'first {e.limit:,}' if e.limit else 'all'} {run.spec.x.examples}, seed 0"
        )
    return about


def refusal(refused: Mapping[str, str]) -> InputError:
    """Returns the error that says why measures were refused; a reason that several share is said once."""
    reasons = list(dict.fromkeys(refused.values()))
    # A value out of range names its own option: the names of the metrics are right.
    blamed = "" if reasons[0].startswith("--") else f"{option('metrics')}: "
    return InputError(blamed + "; ".join(reasons))


def finished(run: Run, step: int | Literal["best"] | None = None) -> TrainState:
    """Returns the state of a checkpoint, None for the newest of a run that was trained to its end.

    Raises:
      InputError: no such checkpoint, or the newest that can be read is not of the last step.
    """
    passed_over: list[str] = []
    state = run.restore(step, passed_over.append if step is None else None)
    now, steps = int(state.step), run.last_step
    if step is None and now < steps:
        where = f"{passed_over[0]}, unfinished" if passed_over else f"{run.path}: unfinished"
        raise InputError(
            f"{where}, at step {now} of {steps}; continue it with {command('resume', run.path)}, or "
            f"measure it as it is with {option('step', now)}"
        )
    for sentence in passed_over:
        logger.warning(sentence)
    return state


def bounds(metrics: tuple[str, ...], ks: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the k of every requested importance-weighted bound."""
    named = tuple(int(m.group(1)) for name in metrics if (m := re.fullmatch(r"iw_(\d+)", name)))
    if "iwae" in metrics and not ks:
        ks = (50,)
    if metrics and "iwae" not in metrics:
        ks = ()
    return tuple(dict.fromkeys((*ks, *named)))


def check_names(metrics: tuple[str, ...]) -> None:
    """Raises InputError for a name that is no metric; the nearest is offered."""
    known = ["iwae", *METRICS, *measures.names()]
    for name in metrics:
        # The levels of a model are not known here: a level that it does not have is refused once it is measured.
        if name not in known and not re.fullmatch(r"iw_[1-9]\d*|kl/\S+", name):
            raise InputError(f"{option('metrics')}: no metric {name!r}; {other_names.meant(name, known)}")


def keep(metrics: tuple[str, ...], found: list[str], ks: tuple[int, ...], run: Run) -> tuple[list[str], dict[str, str]]:
    """Returns (the metrics to write, in the order of the request; why those that are not there are not).

    Args:
      metrics: names that were requested; () for all that were found.
      found: names of what was measured.
      ks: numbers of importance samples that "iwae" stands for.
      run: of which they are, for the reasons.

    Returns:
      names without repetition, and a sentence for each requested name without a number.
    """
    if not metrics:
        return found, {}
    every = [n for k in ks for n in (f"iw_{k}", f"iw_{k}_bits_per_dim") if n == f"iw_{k}" or n in found]
    groups = {"iwae": every, "iw_<k>": every, "kl/<level>": [n for n in found if n.startswith("kl/")] or ["kl/<level>"]}
    wanted = [n for name in metrics for n in groups.get(name, [name])]
    absent = {}
    for name in wanted:
        if name not in found:
            why = (
                "it needs a mass of binary or gray levels, or a density of dequantized ones"
                if name == "bits_per_dim"
                else "the model has none"
            )
            absent[name] = f"{run.path} has no {name} ({why}); it has {', '.join(found)}"
    return [name for name in dict.fromkeys(wanted) if name not in absent], absent


def _labels(result: Evaluation) -> dict[str, str]:
    """Returns the entry of the protocol that counts examples of unknown label, or {}."""
    if not result.unlabeled:
        return {}
    text = f"{result.unlabeled:,} of {result.n:,} examples have no known label; metrics that read it leave them out"
    return {"labels": text}


def _protocol(
    run: Run, call: _Call, ks: tuple[int, ...], n: int, state: TrainState, changed: str | None
) -> dict[str, Any]:
    """Returns everything that a number depends on besides the weights."""
    split, limit = call.split, call.limit
    info, data, likelihood = run.source(split).info, run.config.data, run.model.about.likelihood
    x = run.spec.x
    images = x.kind == "image"
    numbers = "in [0, 1]" if images else "real numbers" if x.dtype == "float32" else "whole numbers"
    if run.spec.units is not None:  # densities are of these numbers, not of the user's
        numbers = "in [0, 1], from the range {:g} to {:g}".format(*run.spec.units.range) if images else "standardized"
    pixels = {"binary": "binary", "count": "counts"}.get(info.values, numbers)
    if data.binarize != "none":
        pixels = f"binary ({data.binarize} binarisation)"
    elif data.dequantize:
        pixels = "dequantised, (v + u) / 256"
    elif likelihood.levels == 256:
        pixels = "256 grey levels, v / 255"
    # Stored with every evaluation, and two compare only where their texts are equal: it stays as it was first written.
    estimator = (
        "one posterior sample an example, KL in closed form; "
        f"sums over {'pixels' if images else 'entries'} and dimensions, nats"
    )
    if not likelihood.normalized:
        estimator += "; the distortion is a loss and no -log p(x|z), so its elbo bounds no likelihood"
    return {
        "data_protocol": info.protocol if split == INPUT else data.protocol if data.splits is None else BY_FILE,
        # Of the measured split: its images may be replaced by as many others while the training split stays.
        "data_sha256": fingerprint(run.source(split)),
        "splits": info.protocol_text,
        "pixels": pixels,
        "image_shape": x.shape,
        **({} if images else {"examples": x.examples}),
        "n": n,
        "limit": limit,
        "rows": rows_text(run.source(split), limit),
        "likelihood": type(likelihood).__name__,
        "estimator": estimator,
        "importance_samples": ks,
        "reconstruction": f"mean {x.examples[:-1]} of the mean code",
        "weights": "last" if state.ema is None else f"moving average, decay {run.config.ema_decay}",
        "seed": call.seed,
        **({"data_now": changed} if changed else {}),
    }
