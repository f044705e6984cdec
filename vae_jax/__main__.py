"""`python -m vae_jax` and the `vae-jax` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    from vae_jax.cli import stop

    stop.install()
    from vae_jax.cli.main import run

    code = run(sys.argv[1:])
    stop.done()
    sys.exit(code)


if __name__ == "__main__":
    main()
