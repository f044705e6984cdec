"""`vae-jax train EXP` and `train --resume RUN`: parse, train with a live display, evaluate, say what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vae_jax.cli.options import given, parse_config
from vae_jax.cli.words import refuse_stray, take
from vae_jax.errors import InputError, nearest, quoted
from vae_jax.runs import idle

if TYPE_CHECKING:
    from vae_jax.runs.config import Config
    from vae_jax.runs.run import Run

FLAGS = ("--resume", "--smoke", "--distributed", "--quiet")
RUNS = ("--resume", "--init-from", "--stage1")  # options that name a run
SINGLE = ("--workdir", "--data", "--init-from", "--stage1")  # options of one value beside those of the config
RUN_OPTIONS = (
    "Run options: --workdir DIR, --resume [RUN], --init-from RUN, --stage1 RUN, --smoke, --quiet, --distributed."
)


def train(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""

    typed = argv
    refuse_stray(argv, SINGLE, FLAGS[1:])
    named, argv = take_runs(argv)
    name, workdir, flags, rest = split(argv, more=tuple(RUNS))
    if "--resume" in flags | named.keys() and "--init-from" in named:
        raise InputError("--init-from: a run that is resumed has its own weights; leave out --resume or --init-from")
    if "--stage1" in named and ("--resume" in flags | named.keys() or "--init-from" in named):
        raise InputError("--stage1: the weights of that run hold their first stage; leave --stage1 out")
    wants_help = "-h" in rest or "--help" in rest
    if name is None and not named and wants_help:
        print(help_text())
        return 0
    if "--resume" in flags | named.keys():
        return _resume(name, named.get("--resume"), workdir, flags, rest)
    if name is None and "--init-from" not in named:
        raise InputError(f"train: {which(typed, 'train', 'beta_vae')}")
    _connect(flags)
    return _new(name, named, workdir, flags, rest)


def _new(name: str | None, named: dict[str, Path], workdir: Path | None, flags: set[str], words: list[str]) -> int:
    """Trains an experiment, or the options of the run that it starts from, in a folder of its own."""
    from vae_jax.runs import experiments as index
    from vae_jax.runs.config import keep_targets
    from vae_jax.runs.run import Run

    origin, stage1 = (Run.load(named[o]) if o in named else None for o in ("--init-from", "--stage1"))
    if name is not None:
        path = index.find(name)
        base, stem, about = index.load(path), path.stem, index.summary(path)
    else:
        assert origin is not None
        base, stem, about = origin.config, origin.experiment, f"The options of {origin.path}, from its weights."
    config = parse_config(base, words, f"vae-jax train {stem}", description=f"{about}\n\n{RUN_OPTIONS}")
    idle.refuse([config], base, given(words))
    if "--smoke" in flags:
        config = config.shrink()
    config = keep_targets(config, base)
    return _train(config, stem, workdir, flags, init_from=origin, stage1=stage1)


def _resume(name: str | None, run: Path | None, workdir: Path | None, flags: set[str], words: list[str]) -> int:
    """Continues a run with its own options; those on the command line come on top."""
    from vae_jax.runs.config import keep_targets
    from vae_jax.runs.run import Run, is_torso

    path, file = find_run(name, run, workdir)
    if is_torso(path):
        # Neither the options nor --init-from of its start are known. With those given now, what is left of them would
        # be the experiment's defaults, without a word.
        known = name is not None and not _is_folder(name)
        raise InputError(
            f"{path}: was stopped before its options were written, so they are unknown; start it anew with `vae-jax "
            f"train {quoted(name) if known else 'EXP'} --workdir {quoted(path)}` and the options of its first start"
        )
    old = Run.load(path)
    experiment = _stem(name)
    if experiment not in (None, old.experiment) and not _is_folder(name or ""):
        raise InputError(
            f"{path}: is a run of {old.experiment!r}, not of {experiment!r}; continue it with `vae-jax train --resume "
            f"{quoted(path)}`"
        )
    if name is not None and file is not None:
        _check_code(name, file, old)
    _connect(flags)
    about = f"Continues {path}; the defaults are its own options.\n\n{RUN_OPTIONS}"
    config = parse_config(old.config, words, f"vae-jax train --resume {quoted(path)}", description=about)
    idle.refuse([config], old.config, given(words))
    if "--smoke" in flags and old.config.shrink() != old.config:
        raise InputError(f"--smoke: {path} was not made with it, and is resumed as it was made; leave --smoke out")
    return _train(keep_targets(config, old.config), old.experiment, path, flags, resume=True)


def _check_code(name: str, file: Path, run: Run) -> None:
    """Raises InputError where an experiment file with classes, or a file beside it, differs from the run's copy.

    The run would continue with its copies, and what was changed in the files would be passed over without a word.

    Args:
      name: the experiment as it was typed, for the message.
      file: of the experiment.
      run: to be continued.
    """
    from vae_jax.runs.kinds import code_above, code_below

    # That of a first stage is from another file, whatever this one is.
    code = code_above(run.config)
    if code is not None and (other := code.differing(file)) is not None:
        anew = f", or train the file with `vae-jax train {quoted(name)} --init-from {quoted(run.path)}`"
        # A first stage with classes keeps the code that it was trained with, and a run keeps one code.
        raise InputError(
            f"{other}: is not the code that {run.path} was made with; continue the run as it is with `vae-jax train "
            f"--resume {quoted(run.path)}`{anew if code_below(run.config) is None else ''}"
        )


def find_run(name: str | None, run: Path | None, workdir: Path | None) -> tuple[Path, Path | None]:
    """Returns the folder to resume, and the file of the experiment where one is named.

    The folder is RUN of `--resume RUN`, --workdir, or the newest run of the experiment.

    Args:
      name: the experiment, or a run folder in its place (`train RUN --resume`).
      run: the word after --resume.
      workdir: of --workdir.

    Raises:
      InputError: two different folders were named, or none.
    """
    from vae_jax.runs import experiments as index
    from vae_jax.tasks.training import newest_folder

    if run is None and name is not None and _is_folder(name):
        run, name = Path(name), None
    if run is not None and workdir is not None and workdir.absolute() != run.absolute():
        raise InputError(f"--workdir {workdir}: a run is resumed in its own folder {run}; leave --workdir out")
    file = None if name is None else index.find(name)  # a typing error is named before a folder is looked for
    path = run or workdir
    if path is not None:
        return path, file
    if file is None:
        raise InputError(f"--resume: which run? name its folder, as in `vae-jax train --resume {_newest_of_all()}`")
    return newest_folder(file.stem), file


def _newest_of_all() -> str:
    """Returns the newest run in ./runs, as an example to type (quoted where a shell needs it)."""
    found = sorted(Path("runs").glob("*/config.json"), key=lambda file: file.stat().st_mtime_ns)
    return quoted(found[-1].parent) if found else "runs/beta_vae"


def _is_folder(word: str) -> bool:
    """Says whether a word names a folder, not an experiment: whoever has a folder `beta_vae` means the experiment."""
    from vae_jax.runs import experiments as index

    return Path(word).is_dir() and word not in index.all_experiments()


def _stem(name: str | None) -> str | None:
    """Returns the name that an experiment's runs carry."""
    return Path(name).stem if name is not None and name.endswith(".py") else name


def _connect(flags: set[str]) -> None:
    if "--distributed" in flags:
        # Before any other device call, or the processes cannot find each other.
        import jax

        jax.distributed.initialize()


def take_runs(argv: list[str]) -> tuple[dict[str, Path], list[str]]:
    """Returns ({"--resume" or "--init-from": its run}, the other words).

    `--resume` alone stays a flag; so it is before an experiment, `train --resume EXP`, unless EXP is a folder.

    Raises:
      InputError: --init-from without a run, or an option given twice.
    """

    def accepts(option: str, after: Sequence[str], before: Sequence[str]) -> int:
        word = after[0] if after and not after[0].startswith("-") else ""
        return 1 if word and (option != "--resume" or _is_run(word, before)) else 0

    def missing(option: str) -> str:
        # `--resume` alone is a flag; `--resume=` and any other option want a folder.
        return "" if option == "--resume" else f"a run folder, as in {option.rstrip('=')} {_newest_of_all()}"

    found, rest = take(argv, RUNS, accepts, missing)
    return {option: Path(values[0]) for option, values in found.items()}, rest


def _is_run(word: str, before: Sequence[str]) -> bool:
    """Says whether the word after --resume names a run: a folder, or a path, or anything when EXP came before."""
    from vae_jax.runs import experiments as index

    if (Path(word) / "config.json").is_file() or _is_folder(word) or (before and not before[0].startswith("-")):
        return True
    return not word.endswith(".py") and word not in index.all_experiments() and ("/" in word or "." in word)


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
            value = word.partition("=")[2] if "=" in word else next(words, "")
            if not value or value.startswith("--"):
                raise InputError("--workdir: needs a folder, as in --workdir runs/mine")
            if workdir is not None:
                raise InputError("--workdir: was given twice; give it once")
            workdir = Path(value)
        elif name is None and not word.startswith("-") and not rest:
            name = word
        else:
            rest.append(word)
    stray = next((w for w in rest[:1] if not w.startswith("-")), None)
    if stray is not None:
        raise InputError(
            f"{command}: {stray!r} is no option; options start with --, as in --data {stray} if these are data; one "
            "experiment is trained at a time"
        )
    typo = next((w for w in rest if w.startswith("--") and "." not in w and _near(w.partition("=")[0], known)), None)
    if typo is not None:
        raise InputError(f"{typo}: no such option; {nearest(typo, known)}")
    return name, workdir, flags, rest


def _near(word: str, known: tuple[str, ...]) -> bool:
    """Says whether the word is a near miss of a run option (so that it is named, not passed on)."""
    import difflib

    return bool(difflib.get_close_matches(word, known, 1, 0.85))


def which(argv: list[str], command: str, example: str) -> str:
    """Returns words for a command line that does not begin with an experiment: its order, where one is in it.

    Args:
      argv: every word after the command.
      command: the command.
      example: words that may follow the command.
    """
    from vae_jax.runs import experiments as index

    known = index.all_experiments()
    at = [
        i
        for i, word in enumerate(argv)
        if (word in known or (word.endswith(".py") and not word.startswith("-")))
        # The word after an option is its value, even where it is called like an experiment.
        and (i == 0 or argv[i - 1] in FLAGS or "=" in argv[i - 1] or not argv[i - 1].startswith("--"))
    ]
    if not at:
        return f"which experiment? as in vae-jax {command} {example} (all: vae-jax list experiments)"
    words = [argv[at[-1]], *argv[: at[-1]], *argv[at[-1] + 1 :]]
    return f"put the experiment first: `vae-jax {command} {' '.join(map(quoted, words))}`"


def help_text() -> str:
    """Returns `vae-jax train --help` without an experiment."""
    from vae_jax.runs import experiments as index

    found = index.all_experiments()
    width = max(map(len, found), default=0)
    rows = "\n".join(f"  {name:<{width}}  {index.summary(path)}" for name, path in found.items())
    return (
        "usage: vae-jax train EXP [--data PATH] [--workdir DIR] [--smoke] [--quiet] [--OPTION VALUE ...]\n"
        "       vae-jax train EXP --init-from RUN      starts with the weights of another run\n"
        "       vae-jax train EXP --stage1 RUN         trains a second stage on the codes of a run\n"
        "       vae-jax train --resume RUN [--steps N] continues a run with its own options\n"
        "       vae-jax train EXP --resume             continues the newest run of EXP\n\n"
        f"EXP is one of these, or a path to your own .py file:\n{rows}\n\n"
        "`vae-jax train EXP --help` shows every option with its type, default and unit."
    )


def _train(
    config: Config,
    name: str,
    workdir: Path | None,
    flags: set[str],
    *,
    resume: bool = False,
    init_from: Run | None = None,
    stage1: Run | None = None,
) -> int:
    from vae_jax.cli.evaluate import print_result
    from vae_jax.tasks.measuring import evaluate_run
    from vae_jax.tasks.progress import Progress
    from vae_jax.tasks.training import train_run

    with Progress(config.steps, quiet="--quiet" in flags) as progress:
        run = train_run(
            config,
            name,
            workdir,
            resume=resume,
            retune=resume,
            init_from=init_from,
            stage1=stage1,
            report=progress.report,
            say=progress.say,
        )
    print_result(evaluate_run(run))
    print(f"figures: {run.path / 'figures'}")
    return 0
