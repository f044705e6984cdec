"""`vae-jax compare RUN RUN ...`: options that differ, metrics side by side, and their curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from vae_jax.cli.output import destination, write


@dataclass(frozen=True)
class Compare:
    """Runs side by side: options that differ, metrics of their eval.json (else the last training line), curves."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, two or more."""
    out: Path | None = None
    """PNG of the curves (default: figures/compare.png of the first run)."""

    def __call__(self) -> None:
        from vae_jax.tasks.compare import compare

        first = self.runs[0] if self.runs else Path()
        out = destination(self.out, first / "figures" / "compare.png", (".png",))
        found = compare(self.runs)
        names = list(found.names)
        print_table("options that differ", found.options, names)
        print_table("metrics", found.rows(), names)
        for name, source in found.sources.items():
            print(f"{name}: {source}")
        if found.warning:
            print(f"warning: {found.warning}")
        write(out, {}, found.figure)


def print_table(title: str, rows: dict[str, list[str]], names: list[str]) -> None:
    """Prints one row per key and one column per run."""
    from rich.console import Console
    from rich.table import Table

    if not rows:
        print(f"{title}: none")
        return
    # Names of folders and options are to be read as they are, "[red]" and ":key:" too.
    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for key, row in rows.items():
        table.add_row(key, *row)
    console.print(table)
