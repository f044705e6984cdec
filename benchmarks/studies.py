"""What studies share: a results file that the next call continues, and a section between two markers of a page.

The section has its own heading and words, so that a page says nothing of a study without results.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import jobs
from benchmarks.__main__ import environment
from vae_jax.errors import InputError
from vae_jax.files.atomic import replacing, write_json

Run = Mapping[str, Any]


def results(name: str) -> Path:
    """Returns the results file of a study in the repository."""
    return jobs.ROOT / "results" / "studies" / f"{name}.json"


def options(name: str, doc: str | None, page: Path) -> argparse.ArgumentParser:
    """Returns the options that all studies have.

    Args:
      name: of the study and its module.
      doc: docstring of the module.
      page: that its section is on, below the root of the repository.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=(doc or "").split("\n")[0])
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--out", type=Path, default=results(name))
    parser.add_argument("--page", type=Path, help=f"page of the section ({page} for the results file there)")
    return parser


def own(args: argparse.Namespace, name: str) -> bool:
    """Says whether the results go to the repository, and with them what is made of them."""
    return args.out == results(name)


def finished(out: Path, protocol: Mapping[str, Any]) -> dict[str, Run]:
    """Returns the runs that a results file holds, by name; {} where there is no file.

    Raises:
      InputError: they were made under another protocol, and a call with this one would replace them.
    """
    if not out.is_file():
        return {}
    held, asked = json.loads(out.read_text()), json.loads(json.dumps(protocol))
    for name, value in asked.items():
        if held["protocol"].get(name) != value:
            raise InputError(
                f"--out: {out} holds runs of {name} {held['protocol'].get(name)!r}, not {value!r}; name another file, "
                f"as in --out {out.with_stem(f'{out.stem}-2')}"
            )
    return held["runs"]


def stamped(run: Run) -> dict[str, Any]:
    """Returns a run that was just made with machine, versions and commit; what it says of these itself is kept.

    Each run has its own, because a results file holds runs of several calls.
    """
    return environment() | dict(run)


def made_on(runs: Iterable[Run]) -> str:
    """Returns where runs were made: processor, cores and version of jax, each that differs once."""
    found = (f"{r['machine']['cpu']}, {r['machine']['cores']} cores, jax {r['versions']['jax']}" for r in runs)
    return "; ".join(dict.fromkeys(found))


def write(
    out: Path,
    doc: str | None,
    protocol: Mapping[str, Any],
    runs: Mapping[str, Run],
    order: Sequence[str] = (),
    **more: Any,
) -> None:
    """Writes a results file.

    Args:
      out: the file.
      doc: docstring of the study, whose first paragraph says what the file is.
      protocol: what all runs have in common.
      runs: by name, each `stamped`.
      order: names of runs in the order of the file; others come after them as they are.
      more: values by name, between protocol and runs.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    what, place = first_paragraph(doc), {name: number for number, name in enumerate(order)}
    ordered = sorted(runs.items(), key=lambda item: place.get(item[0], len(place)))
    write_json(out, {"what": what, "protocol": dict(protocol), **more, "runs": dict(ordered)})


def first_paragraph(doc: str | None) -> str:
    """Returns the first paragraph of a docstring in one line."""
    return " ".join((doc or "").split("\n\n")[0].split())


def measure(
    held: dict[str, Run], wanted: Iterable[tuple[str, Callable[[], Run]]], save: Callable[[Mapping[str, Run]], None]
) -> None:
    """Makes the runs that are not held, and saves after each.

    Args:
      held: runs by name, to which those that are made are added.
      wanted: (name, what makes the run).
      save: writes the results file.
    """
    for name, make in wanted:
        if name not in held:
            held[name] = stamped(make())
            save(held)
            print(f"{name}: measured", flush=True)


def identity(run: Any) -> dict[str, Any]:
    """Returns what a trained run is known by: experiment, step, and the hash of its weights."""
    from vae_jax.files import trees

    weights = trees.sha256((run.state.eval_params, run.state.model_state))
    return {"experiment": run.experiment, "step": int(run.state.step), "weights_sha256": weights}


def equal_codes(run: Any) -> float:
    """Returns the nats of the codes of one example of a run, were all of them equally likely."""
    from vae_jax.spaces import Codes, leaves

    spaces = [space for space in leaves(run.model.about.latents) if isinstance(space, Codes)]
    return sum(math.log(k) for space in spaces for k in space.limits)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return ["| " + " | ".join(row) + " |" for row in cells]


def markers(name: str) -> tuple[str, str]:
    """Returns the lines between which a page holds the section of a study."""
    return f"<!-- begin {name}, made by python -m benchmarks.{name} -->", f"<!-- end {name} -->"


def between(page: Path, name: str) -> str:
    """Returns what a page holds between the markers of a study.

    Raises:
      InputError: the page does not have them.
    """
    begin, end = markers(name)
    text = page.read_text() if page.is_file() else ""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise InputError(
            f"--page: {page} must hold the lines `{begin}` and `{end}` once; add them where the section goes"
        )
    return text.split(begin)[1].split(end)[0].strip("\n")


def put(page: Path, name: str, lines: Sequence[str]) -> None:
    """Replaces what a page holds between the markers of a study; all else stays as it is.

    Raises:
      InputError: the page does not have them.
    """
    between(page, name)
    (begin, end), text = markers(name), page.read_text()
    before, after = text.split(begin)[0], text.split(end)[1]
    with replacing(page) as temporary:
        temporary.write_text("\n".join([before + begin, *lines, end]) + after)


def mean(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean over seeds and its standard error s / sqrt(S), None of a single one."""
    middle = sum(values) / len(values)
    if len(values) < 2:
        return middle, None
    return middle, math.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1) / len(values))


def number(found: tuple[float, float | None], digits: int) -> str:
    """Returns a number with its standard error."""
    value, error = found
    return f"{value:,.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
