"""Where the first stage of a second one comes from: its run, the step, and the hash of its weights."""

from __future__ import annotations

from typing import NamedTuple


class Stage1(NamedTuple):
    """The first stage that a run was given. Its configuration is `model.first`, its weights are in the checkpoints.

    Attributes:
      path: of its run folder, absolute.
      step: of the checkpoint that was taken.
      sha256: of the weights and the state that were taken, in hexadecimal.
    """

    path: str
    step: int
    sha256: str
