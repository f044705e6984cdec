"""The command table and the exit codes: 0 done, 2 bad input, 1 failure, 130/143 after a signal."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import traceback
from collections.abc import Iterator

from vae_jax.errors import InputError, holding_notes, nearest, note, on_command_line, quoted

# name -> (module:Class or module:function, one line for --help). Modules load when their command runs.
COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("vae_jax.cli.listing:List", "experiments, models, networks, objectives, priors, data, metrics"),
    "train": ("vae_jax.cli.train:train", "train an experiment into a run folder"),
    "sweep": ("vae_jax.cli.sweep:sweep", "seeds and option values, trained together as one program"),
    "eval": ("vae_jax.cli.evaluate:Evaluate", "measure a run: ELBO, rate, distortion, IW bounds, reconstruction"),
    "sample": ("vae_jax.cli.inspect:Sample", "new examples from the prior"),
    "fit-prior": ("vae_jax.cli.fit_prior:FitPrior", "a density of a finished run's codes, to sample from"),
    "reconstruct": ("vae_jax.cli.inspect:Reconstruct", "examples beside their reconstructions"),
    "interpolate": ("vae_jax.cli.inspect:Interpolate", "paths between the codes of two examples"),
    "traverse": ("vae_jax.cli.inspect:Traverse", "one latent dimension moved at a time"),
    "arithmetic": ("vae_jax.cli.arithmetic:Arithmetic", "an attribute added to or taken from the codes of examples"),
    "encode": ("vae_jax.cli.codes:Encode", "examples to codes (.npz, .csv)"),
    "decode": ("vae_jax.cli.codes:Decode", "codes to examples"),
    "score": (
        "vae_jax.cli.score:Score",
        "how likely each example is, and which are unlike the training data (.csv)",
    ),
    "impute": ("vae_jax.cli.impute:Impute", "missing values filled in"),
    "compress": ("vae_jax.cli.compress:Compress", "examples to a small file: entropy-coded codes of a second stage"),
    "decompress": ("vae_jax.cli.compress:Decompress", "examples from such a file"),
    "compare": ("vae_jax.cli.compare:Compare", "runs side by side: options, metrics, curves"),
    "report": ("vae_jax.cli.report:Report", "one HTML file on a run or several: numbers, curves, pictures, latent map"),
    "baseline": (
        "vae_jax.cli.baseline:Baseline",
        "mixtures of Gaussians and pPCA on pixels, to compare with",
    ),
    "data": ("vae_jax.cli.listing:data", "list data sets, or prepare one (array_record)"),
}


def usage() -> str:
    """Returns the text of `vae-jax --help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: vae-jax COMMAND [OPTIONS]\n\n"
        "Variational autoencoders in JAX: train, evaluate and look.\n\n"
        f"commands:\n{rows}\n\n"
        "start with:\n"
        "  vae-jax train beta_vae            about 3 minutes on a laptop CPU, no download\n"
        "  vae-jax traverse runs/beta_vae    what each latent dimension means\n\n"
        "`vae-jax COMMAND --help` shows a command's options."
    )


def run(argv: list[str]) -> int:
    """Runs one command line and returns its exit code; prints one line on stderr for bad input."""
    try:
        if argv and argv[0] == "--version":
            from vae_jax import __version__

            print(f"vae-jax {__version__}")
            return 0
        if argv and argv[0] == "help":  # `vae-jax help train`, as in git
            argv = [*argv[1:2], "--help"]
        if not argv or argv[0] in ("-h", "--help"):
            print(usage())
            return 0 if argv else 2
        name, rest = argv[0], argv[1:]
        if name not in COMMANDS and name.startswith("-"):
            raise InputError(f"{name}: {_command_first(argv)}")
        if name not in COMMANDS:
            raise InputError(f"{name}: no such command; {nearest(name, COMMANDS)}")
        with on_command_line(), holding_notes(), _warnings():
            code = _call(name, rest) or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"vae-jax: {_line(error)}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        print("vae-jax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away (`vae-jax list | head`): nobody is left to tell.
        sys.stderr.close()
        return 141
    except Exception as error:
        code = getattr(error, "exit_code", 1)
        if code == 1 and not getattr(error, "is_expected", False):  # our own fault: the traceback says where
            traceback.print_exc()
        print(f"vae-jax: {_line(error)}", file=sys.stderr)
        return code


def _command_first(argv: list[str]) -> str:
    """Returns words for options before the command: the same line in its order, where a command is among the words."""
    at = next((i for i, word in enumerate(argv) if word in COMMANDS), None)
    if at is None:
        return "the command comes first; `vae-jax --help` lists the commands"
    return f"the command comes first, as in `vae-jax {' '.join(map(quoted, [*argv[at:], *argv[:at]]))}`"


def _line(error: Exception) -> str:
    """Returns a message as one line; spaces inside it stay as they are, since a path may have two of them."""
    return " ".join(line.strip() for line in str(error).splitlines())


# Modules whose warnings are shown by every command.
WARN = ("train.checkpoint", "figures.curves", "tasks.measuring", "files.lock")


class _Noting(logging.Handler):
    """Makes a note of each warning."""

    def emit(self, record: logging.LogRecord) -> None:
        note(f"vae-jax: warning: {record.getMessage()}")


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Shows warnings on stderr, a line each: damaged files that were passed over (all or some lines), a missing lock.

    A command that reads a file twice says once what is wrong with it, as `note` does.
    """
    handler = _Noting(logging.WARNING)
    # Training says its own in the progress display.
    sources = [logging.getLogger(f"vae_jax.{name}") for name in WARN]
    for source in sources:
        source.addHandler(handler)
    try:
        yield
    finally:
        for source in sources:
            source.removeHandler(handler)


def _call(name: str, argv: list[str]) -> int | None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(importlib.import_module(module), attribute)
    if isinstance(target, type):
        from vae_jax.cli.options import parse
        from vae_jax.cli.output import check_apart

        command = parse(target, argv, f"vae-jax {name}")
        check_apart(command)
        return command()
    return target(argv)
