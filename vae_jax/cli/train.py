"""`vae-jax train EXP`: parse, train with a live display, evaluate, say what came out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vae_jax.cli import idle
from vae_jax.cli.options import parse_config
from vae_jax.errors import InputError, nearest

FLAGS = ("--resume", "--smoke", "--distributed", "--quiet")


def train(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    from vae_jax import experiments_index as index
    from vae_jax.config import keep_targets

    name, workdir, flags, rest = split(argv)
    if name is None:
        if "-h" in rest or "--help" in rest:
            print(help_text())
            return 0
        raise InputError(f"train: which experiment? one of {', '.join(index.all_experiments())}, or a .py file")
    path = index.find(name)
    if "--distributed" in flags:
        # Before any other device call, or the processes cannot find each other.
        import jax

        jax.distributed.initialize()
    experiment = index.load(path)
    description = f"{index.summary(path)}\n\nRun options: --workdir DIR, --resume, --smoke, --quiet, --distributed."
    config = parse_config(experiment, rest, f"vae-jax train {path.stem}", description=description)
    idle.refuse(config, experiment, rest)
    if "--smoke" in flags:
        config = config.shrink()
    config = keep_targets(config, experiment)
    return _train(config, path.stem, workdir, flags)


def split(
    argv: list[str], command: str = "train", more: tuple[str, ...] = ()
) -> tuple[str | None, Path | None, set[str], list[str]]:
    """Returns (experiment, workdir, flags, config options); the experiment may stand anywhere before the options.

    `more` are run options that the command took out before; a near miss of one is named too.
    """
    known = (*FLAGS, "--workdir", *more)
    flags, rest, workdir, name = set(), [], None, None
    words = iter(argv)
    for word in words:
        if word in FLAGS:
            flags.add(word)
        elif word == "--workdir" or word.startswith("--workdir="):
            value = word.partition("=")[2] if "=" in word else next(words, None)
            if not value:
                raise InputError("--workdir: needs a folder")
            workdir = Path(value)
        elif name is None and not word.startswith("-") and not rest:
            name = word
        else:
            rest.append(word)
    stray = next((w for w in rest[:1] if not w.startswith("-")), None)
    if stray is not None:
        raise InputError(
            f"{command}: {stray!r} is no option; options start with --, and one experiment is trained at a time"
        )
    typo = next((w for w in rest if w.startswith("--") and "." not in w and _near(w.partition("=")[0], known)), None)
    if typo is not None:
        raise InputError(f"{typo}: no such option; {nearest(typo, known)}")
    return name, workdir, flags, rest


def _near(word: str, known: tuple[str, ...]) -> bool:
    """Says whether the word is a near miss of a run option (so that it is named, not passed on)."""
    import difflib

    return bool(difflib.get_close_matches(word, known, 1, 0.85))


def help_text() -> str:
    """Returns `vae-jax train --help` without an experiment."""
    from vae_jax import experiments_index as index

    found = index.all_experiments()
    width = max(map(len, found), default=0)
    rows = "\n".join(f"  {name:<{width}}  {index.summary(path)}" for name, path in found.items())
    return (
        "usage: vae-jax train EXP [--workdir DIR] [--resume] [--smoke] [--quiet] [--OPTION VALUE ...]\n\n"
        f"EXP is one of these, or a path to your own .py file:\n{rows}\n\n"
        "`vae-jax train EXP --help` shows every option with its type, default and unit."
    )


def _train(config, name: str, workdir: Path | None, flags: set[str]) -> int:
    from vae_jax.cli.progress import Progress
    from vae_jax.training import train_run

    with Progress(config.steps, quiet="--quiet" in flags) as progress:
        run = train_run(config, name, workdir, resume="--resume" in flags, report=progress.report, say=progress.say)
    from vae_jax.cli.evaluate import print_result
    from vae_jax.measuring import evaluate_run

    # A resumed run keeps its first config; what may change is said now. The same run keeps its compiled programs.
    result = evaluate_run(run if run.config == config else dataclasses.replace(run, config=config))
    print_result(result)
    print(f"figures: {run.path / 'figures'}")
    return 0
