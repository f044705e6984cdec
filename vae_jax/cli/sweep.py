"""`vae-jax sweep EXP --seeds 0:8 --vary OPTION=A,B`: parse, train all members, say what came out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.words import refuse_stray, take
from vae_jax.errors import InputError, nearest, quoted

if TYPE_CHECKING:
    from vae_jax.runs.config import Config

HELP = """usage: vae-jax sweep EXP [--seeds 0:8] [--vary OPTION=A,B,... [OPTION=C,D,...]] [--metrics A,B] [--data PATH]
                     [--workdir DIR] [--resume] [--smoke] [--quiet] [--strategy vmap|map] [--OPTION VALUE ...]

Trains every combination of the values of --vary with every seed. Members of equal shape are one compiled program.

--seeds     0:8 (0 to 7), 0:8:2, or 0,3,5 (default: the experiment's own seed)
--vary      an option of training and its values, as in model.objective.beta=1,4,16; several are combined
--metrics   what is measured at the end, as in `vae-jax eval` (default: the standard metrics)
--data      your own data (a folder of images, an .npz or .npy file, a table) or the name of a data set
--workdir   the sweep's folder (default: runs/EXP-sweep, or the next free number after it)
--resume    continue a sweep that was stopped; give the same options
--strategy  vmap: one operation for all members; map: members in turn, in less memory (default: vmap)

Other options are those of `vae-jax train EXP --help`; they are the same for all members."""

OWN = ("--seeds", "--vary", "--metrics", "--strategy")


def sweep(argv: list[str]) -> int:
    """Runs the command and returns its exit code."""
    from vae_jax.cli.train import FLAGS, SINGLE, split, which
    from vae_jax.runs import experiments as index

    refuse_stray(argv, (*SINGLE, *(option for option in OWN if option != "--vary")), FLAGS)
    own, rest = take_own(argv)
    if any(word.partition("=")[0] == "--seed" for word in rest):
        raise InputError("--seed: a sweep takes --seeds, as in --seeds 0:8 or --seeds 3")
    name, workdir, flags, options = split(rest, "sweep", OWN)
    if name is None:
        if "-h" in options or "--help" in options:
            print(HELP)
            return 0
        raise InputError(f"sweep: {which(argv, 'sweep', 'beta_vae --seeds 0:8')}")
    if "-h" in options or "--help" in options:
        print(HELP)
        return 0
    if "--distributed" in flags:
        raise InputError("--distributed: a sweep is made by one process; leave it out")
    refuse_runs(name, options)
    path = index.find(name)
    plan = read_plan(index.load(path), path.stem, own, options, smoke="--smoke" in flags)
    return _sweep(plan, workdir, flags)


def refuse_runs(name: str, options: Sequence[str]) -> None:
    """Refuses options of `train` that name a run to start from.

    Raises:
      InputError: there is one.
    """
    for given, after in zip(options, (*options[1:], "RUN")):
        word, _, value = given.partition("=")
        if word in ("--init-from", "--stage1"):
            command = f"vae-jax train {quoted(name)} {word} {quoted(value or after)} --seed 0"
            raise InputError(
                f"{word}: members of a sweep do not start from a run; train them one by one, as with `{command}`, then "
                "`vae-jax compare` their folders"
            )


def take_own(argv: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Returns ({option of the sweep: its words}, the other words); --vary takes all words up to the next option.

    Raises:
      InputError: an option without a value, or one given twice that takes one.
    """

    def accepts(option: str, after: Sequence[str], before: Sequence[str]) -> int:
        del before
        end = next((i for i, word in enumerate(after) if word.startswith("--")), len(after))
        return end if option == "--vary" else min(end, 1)

    return take(argv, OWN, accepts, lambda option: "a value (vae-jax sweep --help)", more="--vary")


def read_plan(base: Config, experiment: str, own: dict[str, list[str]], options: list[str], *, smoke: bool) -> Any:
    """Returns the `Sweep` that the words describe.

    Args:
      base: config of the experiment.
      experiment: its name.
      own: the words of the sweep itself by option (`--seeds`, `--vary`, ...), as of `words.take`.
      options: the other words, which every member receives.
      smoke: shorten every member to the few steps of a smoke test.

    Returns:
      a `tasks.sweeps.record.Sweep`; nothing is trained or written.

    Raises:
      InputError: see `vae_jax.tasks.sweeps.plan`; and whatever `vae-jax train` refuses.
    """
    from vae_jax.cli.options import given, parse_config
    from vae_jax.runs import config as configs
    from vae_jax.runs import idle
    from vae_jax.tasks.measuring import check_names
    from vae_jax.tasks.sweeps import plan
    from vae_jax.tasks.sweeps.record import Sweep

    vary = plan.parse_vary(own.get("--vary", []))
    if not vary and "--seeds" not in own:
        raise InputError("sweep: nothing to sweep over; give --seeds 0:8, or --vary OPTION=A,B, or both")
    seeds = plan.parse_seeds(own["--seeds"][0]) if "--seeds" in own else (base.seed,)
    metrics = tuple(name for name in re.split(r"[,\s]+", own.get("--metrics", [""])[0].strip()) if name)
    check_names(metrics)
    strategy = own.get("--strategy", ["vmap"])[0]
    if strategy not in ("vmap", "map"):
        raise InputError(f"--strategy {strategy}: no such strategy; {nearest(strategy, ('vmap', 'map'))}")
    # What is wrong with the common options is said without --vary.
    common = parse_config(base, options, f"vae-jax train {experiment}")

    parsed: list[Config] = []

    def configure(values: dict[str, str]) -> Config:
        words = [word for option, value in values.items() for word in (f"--{option}", *value.split())]
        try:
            config = parse_config(base, [*options, *words], f"vae-jax train {experiment}") if words else common
        except InputError as error:
            raise InputError(f"--vary: {error}") from error
        parsed.append(config)
        return configs.keep_targets(config.shrink() if smoke else config, base)

    members = plan.make_members(seeds, vary, configure)
    # Not those of --vary: beside a component that reads them there may be one that does not.
    idle.refuse(parsed, base, given(options))
    return Sweep(experiment, tuple(members), seeds, vary, metrics, strategy)


def _sweep(plan: Any, workdir: Path | None, flags: set[str]) -> int:
    from vae_jax.tasks.sweeps import table
    from vae_jax.tasks.sweeps.run import run_sweep

    values, folder = run_sweep(plan, workdir, resume="--resume" in flags, quiet="--quiet" in flags)
    table.print_table(values)
    print(f"table: {folder / 'sweep.csv'}, figures: {folder / 'figures'}, members: {folder}/*/")
    refused = {reason for member in values["members"] for reason in member.get("refused", {}).values()}
    if refused:
        # The rest is written; the exit code still says that not all of it could be done.
        raise InputError("--metrics: " + "; ".join(sorted(refused)))
    return 0
