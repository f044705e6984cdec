"""Data sets of the user's own: the base class, and the row of the registry that one becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from vae_jax.data.config import DataConfig
from vae_jax.data.source import Source, no_validation
from vae_jax.data.split import PROTOCOLS
from vae_jax.errors import InputError


class DataSet:
    """Base of the data sets that are written outside of this package.

    A config names the class: `DataConfig(name="package.module:Blobs")`, or `"experiment:Blobs"` for one in the
    experiment file. `load` is called once per split, without any state between the calls: the same options must give
    the same examples in every process, or a run cannot be resumed.

    Attributes:
      reference: where the data come from.
      protocols: one sentence per protocol, by name; `data.protocol` chooses.
      resizable: whether `data.image_size` means something.
    """

    reference: ClassVar[str] = "yours"
    protocols: ClassVar[Mapping[str, str]] = {"standard": "the splits that the data set itself defines"}
    resizable: ClassVar[bool] = False

    def load(self, config: DataConfig, split: str) -> Source:
        """Returns one split, as `data.from_arrays(Info(...), split, arrays, config.pipeline)` makes it.

        Args:
          config: the options; `source`, `protocol` and `image_size` are for the data set to read.
          split: "train", "validation" or "test"; only names in `Info.sizes` are requested after the first.
        """
        raise TypeError(f"{type(self).__name__} must define load")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the registry.

    Attributes:
      summary: one line for `vae-jax data list`.
      reference: where the data set comes from.
      protocols: one sentence a protocol, by name.
      load: `(config, split) -> Source`.
      validated: protocols with a validation split; None where it depends on the user's files.
      resizable: whether `image_size` means something.
      made: why there is no `source` to read ("computed"), or "".
      cls: the class of a data set that is not of this package.
      kind: of the examples, as `Info.kind`; only images can be prepared.
    """

    summary: str
    reference: str
    protocols: Mapping[str, str]
    load: Callable[[DataConfig, str], Source]
    validated: tuple[str, ...] | None = None
    resizable: bool = False
    made: str = ""
    cls: type[DataSet] | None = None
    kind: str = "image"

    @property
    def reads_files(self) -> bool:
        """Whether it has no examples of its own, but reads and splits those of the user's files."""
        return self.protocols is PROTOCOLS


def entry_of(cls: type[DataSet], name: str) -> Entry:
    """Returns the row of a data set of the user's own.

    Args:
      cls: its class.
      name: as messages and figures have it.
    """

    def load(config: DataConfig, split: str) -> Source:
        try:
            source = cls().load(config, split)
        except InputError:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"data.name: {name}.load raised {text} for the {split} split; correct it") from error
        if not isinstance(source, Source):
            raise InputError(
                f"data.name: {name}.load returned a {type(source).__name__}; return data.from_arrays(...), a Source"
            )
        sizes = source.info.sizes
        if split not in sizes or "train" not in sizes:
            if split == "validation":
                raise no_validation(name, config.protocol, ())
            raise InputError(
                f"data.name: {name}.load does not list the {split if split not in sizes else 'train'} split; name "
                "every split with its number of examples in Info.sizes"
            )
        # One name for the data wherever they are shown, whatever the class wrote there.
        return dataclasses.replace(source, info=dataclasses.replace(source.info, name=name))

    summary = (cls.__doc__ or name).strip().splitlines()[0]
    return Entry(summary, cls.reference, cls.protocols, load, resizable=cls.resizable, cls=cls)
