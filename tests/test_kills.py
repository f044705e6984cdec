"""Killed runs (`kills.py`): at the moments that once lost a run, and, slow, at a hundred random ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).with_name("kills.py")


def kills(*words: str) -> list[dict]:
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, str(TOOL), *words], capture_output=True, text=True, env=env)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, (rows, done.stderr[-3000:])
    return rows


def test_a_run_killed_at_a_bad_moment_ends_like_one_that_was_not():
    *rows, total = kills("--moments")
    assert [row["same"] for row in rows] == [True] * 5
    assert total["kills"] == 5


@pytest.mark.slow
def test_a_hundred_kills_over_all_kinds_of_runs():
    total = kills("--kills", "100")[-1]
    assert total["kills"] >= 100
    assert total["same"] == total["kills"]
    assert len(total["by kind"]) == 8
