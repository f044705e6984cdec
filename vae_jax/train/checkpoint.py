"""Checkpoints: the whole TrainState and the data position, atomic, through orbax. The only module that imports it."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from vae_jax.errors import InputError, command, either, option, quoted
from vae_jax.train import checksums
from vae_jax.train.state import TrainState
from vae_jax.train.waiting_loop import waiting_loops

logger = logging.getLogger(__name__)
# Opening and reading change settings of the whole process, which threads would put back in the wrong order.
_ONE_AT_A_TIME = threading.RLock()


class Checkpoints:
    """The checkpoints of one run folder.

    A save is written to a temporary folder and renamed when it is complete, so a kill or a full disk leaves the older
    ones as they were. Typed keys are stored as their uint32 data; nothing is pickled. SHA-256 checksums of all leaves
    and of the data position are part of a checkpoint and are compared when it is read.
    """

    def __init__(self, folder: Path, *, keep: int = 3, create: bool = True):
        import orbax.checkpoint as ocp

        self.folder = folder.absolute()
        self.run = folder.parent  # as the user named it
        self._broken: set[int] = set()  # found unreadable; removed when a checkpoint takes their place
        if not create and not self.folder.is_dir():
            raise InputError(f"{folder}: no checkpoints here; train the run first")
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{folder}: is a file, not a folder of checkpoints; move it away")
        # Nothing runs in the background: when `save` returns, the checkpoint is complete and old ones are removed.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=create, enable_async_checkpointing=False, enable_background_delete=False
        )
        with _quiet():
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """Returns the steps that have a finished checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, data_position: dict[str, Any], step: int | None = None) -> int:
        """Saves the state and the position of the data stream; returns the step.

        Args:
          state: of one run, or of a population (leading axis M), whose members may stand at different steps.
          data_position: what else is needed to continue (JSON).
          step: number of the checkpoint; None takes the state's.

        Raises:
          InputError: the disk is full or not writable; older checkpoints are untouched.
        """
        import orbax.checkpoint as ocp

        step = int(state.step) if step is None else step
        raw = _unwrap(state)
        try:
            # A damaged checkpoint of this step or a later one would keep orbax from saving, without a word.
            for broken in sorted(number for number in self._broken if number >= step):
                self._manager.delete(broken)
                self._broken.discard(broken)
            # This step is saved already, for example when a signal follows a regular checkpoint of the same step.
            if step in self.steps():
                return step
            # Two items in one checkpoint: the arrays, and the JSON record with their checksums and the data position.
            args = ocp.args.Composite(
                state=ocp.args.StandardSave(raw),  # type: ignore[call-arg]
                data=ocp.args.JsonSave(checksums.record(raw, data_position)),  # type: ignore[call-arg]
            )
            saved = self._manager.save(step, args=args)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(self._why_not_saved(step, error)) from error
        # Orbax does not raise for a step below its latest one; it returns False.
        if not saved:
            raise InputError(
                f"{self.folder}: the checkpoint of step {step} is not saved because there is one of step "
                f"{self.steps()[-1]}; remove the later ones, or choose another {option('workdir')}"
            )
        return step

    def forget(self, step: int) -> None:
        """Removes the checkpoints of this step and of later ones, which are about to be made again."""
        for later in (number for number in self.steps() if number >= step):
            self._manager.delete(later)

    def _why_not_saved(self, step: int, error: Exception) -> str:
        # What is left of a half-written checkpoint has a temporary name; removing it gives the space back.
        for part in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
            shutil.rmtree(part, ignore_errors=True)
        # The operating system's reason is buried in a long message; show that phrase only.
        known = re.search(
            r"No space left on device|File too large|Permission denied|Read-only file system|Disk quota exceeded",
            str(error),
        )
        reason = known[0] if known else (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        kept = self.steps()
        left = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is no older checkpoint"
        return (
            f"{self.folder}: cannot save the checkpoint of step {step} ({reason}); {left}; make room and use "
            f"{either('--resume', 'resume=True')}"
        )

    def restore(
        self, like: TrainState, step: int | None = None, say: Callable[[str], None] | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Returns (state, data position) of `step`, or of the newest checkpoint that can be read.

        Args:
          like: a state (or its shapes with shardings) of the same structure; arrays are placed as its are.
          step: the step to read; None takes the newest, and falls back to older ones if it is damaged.
          say: takes the sentence that says which checkpoints were passed over; None logs it as a warning.

        Raises:
          InputError: there is no checkpoint, none that can be read, or they are of another model.
        """
        found = self.steps()
        if step is not None and step not in found:
            raise InputError(f"{self.folder}: no checkpoint of step {step}; there are {found or 'none'}")
        if not found:
            raise InputError(
                f"{self.folder}: no checkpoint found; name another run, or train this one with "
                f"{command('resume', self.run)}"
            )
        tried: dict[int, str] = {}
        # Newest first. A step that was requested by number has no fallback.
        for candidate in [step] if step is not None else found[::-1]:
            try:
                with _quiet(), waiting_loops():
                    state, position = self._restore(like, candidate)
            except (InputError, MemoryError, jax.errors.JaxRuntimeError):
                raise  # nothing is wrong with the files
            except Exception as error:  # TensorStore raises `Exception` itself
                logger.info("checkpoint of step %d", candidate, exc_info=error)
                tried[candidate] = _reason(error)
                self._broken.add(candidate)
                continue
            if tried:
                (say or logger.warning)(f"{self.folder}: {_listed(tried)}; falling back to that of step {candidate}")
            return state, position
        # Nothing could be read. The advice may only name a checkpoint that has not been tried.
        others = [number for number in found if number not in tried]
        advice = (
            f"use {option('step', others[-1])}" + (f" (there are also {others[:-1]})" if others[1:] else "")
            if others
            else f"put the folder back from a copy, or train again with another {option('workdir')}"
        )
        raise InputError(f"{self.folder}: {_listed(tried)}; {advice}")

    def _restore(self, like: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        import orbax.checkpoint as ocp

        raw = _unwrap(like)
        try:
            # The record comes first: it says what kind of state this is before any of it is read.
            args = ocp.args.Composite(data=ocp.args.JsonRestore())  # type: ignore[call-arg]
            position, lines = checksums.open_record(self._manager.restore(step, args=args)["data"], raw)
            # Shapes, types and shardings of `like`, so that every device reads its own shards only.
            target = ocp.args.StandardRestore(jax.tree.map(_abstract, raw))  # type: ignore[call-arg]
            held = self._manager.restore(step, args=ocp.args.Composite(state=target))["state"]
        except checksums.Foreign as error:
            raise InputError(
                f"{self.folder}: the checkpoint of step {step} is of another model than config.json describes "
                f"({error}); put config.json back as it was"
            ) from error
        except Exception as error:
            # TensorStore raises plain exceptions, so a permission error is recognized by its text.
            if not re.search(r"permission.denied", str(error), re.IGNORECASE):
                raise
            raise InputError(
                f"{self.folder / str(step)}: cannot be read (permission denied); give yourself access with "
                f"chmod -R u+rX {quoted(self.folder)}"
            ) from error
        # Checkpoints of version 0.1 have no checksums to compare.
        if lines is not None:
            checksums.check(held, lines)
        return _wrap(held, like), position

    def close(self) -> None:
        """Releases the folder."""
        self._manager.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax from reporting damage in its own words beside ours."""
    # Orbax logs through absl.
    absl = logging.getLogger("absl")
    with _ONE_AT_A_TIME:
        level = absl.level
        absl.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            absl.setLevel(level)


def _reason(error: Exception) -> str:
    """Returns a few words for the many pages of TensorStore."""
    if isinstance(error, checksums.Damaged):
        return str(error)
    text = str(error)
    if "driver" in text:
        return "a file is damaged"
    if re.search(r"not.found|no such file|not exist", text, re.IGNORECASE):
        return "a file is missing"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) or not isinstance(error, ValueError | OSError):
        return "a file is damaged"
    # Of its own accord orbax says what does not fit, in the first line.
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]


def _listed(tried: dict[int, str]) -> str:
    """Returns "the checkpoint of step 12 cannot be read (a file is missing)", or the same of several."""
    reasons = "; ".join(dict.fromkeys(tried.values()))
    if len(tried) == 1:
        return f"the checkpoint of step {next(iter(tried))} cannot be read ({reasons})"
    return f"the checkpoints of steps {', '.join(map(str, sorted(tried)))} cannot be read ({reasons})"


def _abstract(x: jax.Array | jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))


def _unwrap(state: TrainState) -> dict[str, jax.Array]:
    """Returns the state as a flat dict with raw key data; empty subtrees are left to the structure of the reader."""
    # One flat dict, path -> leaf, so that what is stored does not depend on the classes of the pytree.
    raw = {**vars(state), "key": _key_data(state.key)}
    leaves = jax.tree_util.tree_leaves_with_path(raw)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _key_data(key: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
    """Returns the raw words of a key, or their shape where only the key's shape is known."""
    # `key_data` needs an array, so the shape of its result is evaluated abstractly; the sharding is carried over.
    if isinstance(key, jax.ShapeDtypeStruct):
        data = jax.eval_shape(jax.random.key_data, key)
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=key.sharding)
    return jax.random.key_data(key)


def _wrap(raw: dict[str, jax.Array], like: TrainState) -> TrainState:
    # Leaves are found by path. The tree is that of `like`, with the empty subtrees that no file holds.
    template = {**vars(like), "key": _key_data(like.key)}
    paths, treedef = jax.tree_util.tree_flatten_with_path(template)
    tree = jax.tree.unflatten(treedef, [raw[jax.tree_util.keystr(path)] for path, _ in paths])
    return TrainState(**{**tree, "key": jax.random.wrap_key_data(tree["key"])})
