"""Checkpoints: the whole TrainState and the data position, atomic, through orbax. The only module that imports it."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import jax

from vae_jax.errors import InputError
from vae_jax.train.state import TrainState

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run folder.

    A save is written to a temporary folder and renamed when it is complete, so a kill or a full disk leaves the older
    ones as they were. Typed keys are stored as their uint32 data; nothing is pickled.
    """

    def __init__(self, folder: Path, *, keep: int = 3, create: bool = True):
        import orbax.checkpoint as ocp

        self.folder = folder.absolute()
        self._broken: set[int] = set()  # found unreadable; replaced when their step is reached again
        if not create and not self.folder.is_dir():
            raise InputError(f"{folder}: no checkpoints here; train the run first")
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=create, enable_async_checkpointing=False, enable_background_delete=False
            ),
        )

    def steps(self) -> list[int]:
        """Returns the steps that have a finished checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, data_position: dict[str, Any], step: int | None = None) -> int:
        """Saves the state and the position of the data stream; returns the step.

        Args:
          state: of one run, or of a population (leading axis M), whose members may stand at different steps.
          data_position: what else is needed to go on (JSON).
          step: number of the checkpoint; None takes the state's.

        Raises:
          InputError: the disk is full or not writable; older checkpoints are untouched.
        """
        import orbax.checkpoint as ocp

        step = int(state.step) if step is None else step
        if step in self._broken:
            self._manager.delete(step)
            self._broken.discard(step)
        if step in self.steps():
            return step
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_unwrap(state)),  # type: ignore[call-arg]
            data=ocp.args.JsonSave(data_position),  # type: ignore[call-arg]
        )
        try:
            self._manager.save(step, args=args)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(self._why_not_saved(step, error)) from error
        return step

    def _why_not_saved(self, step: int, error: Exception) -> str:
        # What is left of a half-written checkpoint has a temporary name; removing it gives the space back.
        for part in self.folder.glob("*orbax-checkpoint-tmp*"):
            shutil.rmtree(part, ignore_errors=True)
        known = re.search(
            r"No space left on device|File too large|Permission denied|Read-only file system|Disk quota exceeded",
            str(error),
        )
        reason = known[0] if known else (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        kept = self.steps()
        left = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is no older checkpoint"
        return (
            f"{self.folder}: cannot save the checkpoint of step {step} ({reason}); {left}; make room and use --resume"
        )

    def restore(self, like: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """Returns (state, data position) of `step`, or of the newest checkpoint that can be read.

        Args:
          like: a state (or its shapes with shardings) of the same structure; arrays are placed as its are.
          step: the step to read; None takes the newest, and falls back to older ones with a warning if it is broken.

        Raises:
          InputError: there is no checkpoint, or none that can be read.
        """
        found = self.steps()
        if step is not None and step not in found:
            raise InputError(f"{self.folder}: no checkpoint of step {step}; there are {found or 'none'}")
        if not found:
            raise InputError(f"{self.folder}: no checkpoint found; train without --resume, or name another run")
        tried = []
        for candidate in [step] if step is not None else found[::-1]:
            try:
                state, position = self._restore(like, candidate)
            except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
                tried.append(candidate)
                self._broken.add(candidate)
                reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
                logger.warning("checkpoint of step %d cannot be read (%s)", candidate, reason)
                continue
            if tried:
                logger.warning("falling back to the last good checkpoint: step %d", candidate)
            return state, position
        raise InputError(f"{self.folder}: none of the checkpoints (steps {tried}) can be read; start a new run")

    def _restore(self, like: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        import orbax.checkpoint as ocp

        target = jax.tree.map(_abstract, _unwrap(like))
        read = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target),  # type: ignore[call-arg]
                data=ocp.args.JsonRestore(),  # type: ignore[call-arg]
            ),
        )
        return _wrap(read["state"], like), read["data"]

    def close(self) -> None:
        """Releases the folder."""
        self._manager.close()


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))


def _unwrap(state: TrainState) -> dict[str, Any]:
    """Returns the state as nested dicts with raw key data; empty subtrees are left to the structure of the reader."""
    raw = {**vars(state), "key": _key_data(state.key)}
    leaves = jax.tree_util.tree_leaves_with_path(raw)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _key_data(key: Any) -> Any:
    """Returns the raw words of a key, or their shape where only the key's shape is known."""
    if isinstance(key, jax.ShapeDtypeStruct):
        data = jax.eval_shape(jax.random.key_data, key)
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)
    return jax.random.key_data(key)


def _wrap(raw: dict[str, Any], like: TrainState) -> TrainState:
    template = {**vars(like), "key": _key_data(like.key)}
    paths, treedef = jax.tree_util.tree_flatten_with_path(template)
    tree = jax.tree.unflatten(treedef, [raw[jax.tree_util.keystr(path)] for path, _ in paths])
    return TrainState(**{**tree, "key": jax.random.wrap_key_data(tree["key"])})
