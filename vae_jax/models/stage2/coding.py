"""Exact entropy coding of codes with a sequential generator: about -log2 p bits, and every code comes back.

The decoder must compute, from the codes that it has, the very numbers that the encoder computed. So both run one
`FixedProgram`, step by step: `logits` would be one pass, but its sums are in another order. That two kinds of machine
compute the same floats nobody can promise; a checksum of the codes says so where they did not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import InputError, option, shown
from vae_jax.files import trees, vjc
from vae_jax.models.stage2.base import Around, Generator
from vae_jax.models.stage2.coding_header import (
    MOST_CHUNK,
    MOST_IMAGES,
    Header,
    apart,
    content,
    header,
    is_of,
    versions,
    words,
)
from vae_jax.models.stage2.fixed_program import DIGITS, FixedProgram, cpu_device, padded
from vae_jax.models.stage2.sequential import Sequential

BATCH = 64  # images that are coded side by side: what the program holds of them is in memory
CHUNK = 1024  # images of one stream of bits, whose end, length and checksums take some 15 bytes
MOST_CODES = 1 << 20  # each code takes one part of `TOTAL` at least, and together these must stay few


class Coder:
    """Compresses and decompresses codes with one generator; what was compiled is kept.

    Args:
      generator: one that draws one code after another.
      params: of it, as of `init`.
      around: what it was built for.

    Raises:
      InputError: a generator without an order of codes, more codes than the precision allows, or no `constriction`.
    """

    def __init__(self, generator: Generator, params: Any, around: Around):
        if not isinstance(generator, Sequential):
            raise InputError(
                f"model.generator: {type(generator).__name__} does not draw one code after another, as entropy coding "
                f"does; train a prior with {option('model.generator', 'pixelcnn')}"
            )
        if around.codes > MOST_CODES:
            raise InputError(
                f"model.generator: {around.codes:,} codes at a place are more than the {MOST_CODES:,} that can be "
                "compressed; train a first stage with fewer, or with several codebooks"
            )
        self._constriction = _constriction()
        self._generator, self._params = generator, params
        # bfloat16 has 8 of the 24 bits of a weight: the file would grow.
        self._around = around._replace(dtype=jnp.float32)
        # By batch and presence of features, which decide the compiled shapes.
        self._programs: dict[tuple[int, bool], FixedProgram] = {}
        self._sha256 = trees.sha256(params)[:DIGITS]
        self._rate = jax.jit(lambda params, keys, z, c: generator.rate(params, keys, z, c, self._around))

    def compress(self, codes: np.ndarray, cond: np.ndarray | None = None, chunk: int = CHUNK) -> bytes:
        """Returns the content of a .vjc file, from which `decompress` makes the same codes.

        Args:
          codes: integers [N, n] in the order of the generator, N of 1 or more.
          cond: features [N, F], which the file holds as well; None without a condition.
          chunk: how many images share a stream of bits: damage is reported by chunk, and each takes some bytes.

        Raises:
          InputError: codes or features that do not fit the generator, or a chunk out of range.
        """
        codes, cond = self._codes(codes), self._cond(cond, len(codes))
        if not 0 < chunk <= MOST_CHUNK:
            raise InputError(f"chunk: {chunk} is out of range; it must be in [1, {MOST_CHUNK}]")
        # Few images are one batch of their number, without rows of padding; of more, one program serves all batches.
        chunk = min(chunk, len(codes))
        batch, conditional = min(BATCH, chunk), cond is not None
        program = self._program(batch, conditional)
        chunks = []
        for start in range(0, len(codes), chunk):
            part = codes[start : start + chunk]
            features = None if cond is None else cond[start : start + chunk]
            chunks.append(content(part, features, self._encode(program, part, features)))
        # All that must be the same when it is decoded.
        length, sums = len(self._around.sizes), (self._sha256, program.sha256)
        head = Header(len(codes), length, chunk, batch, conditional, *sums, versions())
        return vjc.pack(head.packed(), chunks)

    def decompress(self, data: bytes, where: str = "data") -> np.ndarray:
        """Returns the codes of a .vjc file, int32 [N, n].

        Args:
          data: content of the file.
          where: what to call it in messages.

        Raises:
          InputError: a file that is damaged, cut off, or of another prior; nothing is returned of it.
        """
        # 1. Is this what was written? Then every byte is right, whoever wrote it.
        held, chunks = vjc.unpack(data, where)
        head = header(held, len(chunks), where)
        # 2. Was it written with this prior, and this program?
        if (head.length, head.params) != (len(self._around.sizes), self._sha256):
            raise InputError(
                f"{where}: was compressed with another prior (SHA-256 of its parameters {head.params[:12]}, of those "
                f"here {self._sha256[:12]}); give the run, and the checkpoint, that it was compressed with"
            )
        if head.conditional and not self._around.cond:
            raise vjc.damaged(where, "its header")
        program, made = self._program(head.batch, head.conditional), shown(words(head.made))
        if head.program != program.sha256:
            raise InputError(
                f"{where}: was compressed by another version of the program (with {made}; here {words(versions())}); "
                "decompress it with the versions that it was compressed with"
            )
        # 3. Do the codes come out that went in? All of them, before any is returned.
        out = []
        for number, chunk in enumerate(chunks, 1):
            rows = min(head.chunk, head.images - (number - 1) * head.chunk)
            part = self._decode(program, head, chunk, rows)
            if part is None or not is_of(chunk, part):
                raise InputError(
                    f"{where}: chunk {number} of {len(chunks)} decodes to other codes, because this machine computes "
                    f"other probabilities; decompress it where it was compressed (with {made})"
                )
            out.append(part)
        return np.concatenate(out)

    def bits(self, codes: np.ndarray, cond: np.ndarray | None = None) -> np.ndarray:
        """Returns -log2 p(codes|cond) of each example, float64 [N]: what no code of the model can beat on average."""
        codes, cond = self._codes(codes), self._cond(cond, len(codes))
        cpu, rates = cpu_device(), []
        with jax.default_device(cpu):
            params = jax.device_put(self._params, cpu)
            # An exact likelihood reads no keys. Parts have one padded shape, and are compiled once.
            keys = jax.random.split(jax.random.key(0), BATCH)
            for start in range(0, len(codes), BATCH):
                z = codes[start : start + BATCH]
                c = None if cond is None else padded(cond[start : start + BATCH], BATCH)
                rates.append(np.asarray(self._rate(params, keys, padded(z, BATCH), c), np.float64)[: len(z)])
        return np.concatenate(rates) / np.log(2.0)

    def _program(self, batch: int, conditional: bool) -> FixedProgram:
        key = (batch, conditional)
        if key not in self._programs:
            self._programs[key] = FixedProgram(self._generator, self._params, self._around, batch, conditional)
        return self._programs[key]

    def _encode(self, program: FixedProgram, codes: np.ndarray, cond: np.ndarray | None) -> bytes:
        """Returns the codes of a chunk as one stream of bits."""
        stream = self._constriction.stream
        # `perfect=False` scales cumulative weights by (TOTAL - size) / TOTAL, rounds down, and adds 1 for each code:
        # in float64 that is exact for integers of up to 24 bits, and no code is impossible.
        encoder, family = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False)

        # A range coder is a queue: codes come out in the order in which they went in, as `walk` needs them.
        def true_code(rows: slice, place: int, weights: np.ndarray) -> np.ndarray:
            found = codes[rows, place]
            encoder.encode(np.ascontiguousarray(found), family, weights)
            return found

        program.walk_all(len(codes), cond, true_code)
        # Words of 32 bits, little-endian on every machine.
        return encoder.get_compressed().astype("<u4").tobytes()

    def _decode(self, program: FixedProgram, head: Header, chunk: bytes, rows: int) -> np.ndarray | None:
        """Returns the codes of a chunk; None if it holds none that these probabilities could have made."""
        if (found := apart(chunk, rows, self._around.cond if head.conditional else 0)) is None:
            return None
        cond, bits = found
        # Streams are whole words; anything else was not written by an encoder.
        if len(bits) % 4:
            return None
        stream = self._constriction.stream
        family = stream.model.Categorical(perfect=False)
        decoder = stream.queue.RangeDecoder(np.frombuffer(bits, "<u4").astype(np.uint32))
        try:
            return program.walk_all(rows, cond, lambda _, place, weights: decoder.decode(family, weights))
        except AssertionError:  # how constriction says that no code ends here
            return None

    def _codes(self, codes: np.ndarray) -> np.ndarray:
        """Returns codes as int32 [N, n], all of which exist."""
        codes, sizes = np.asarray(codes), np.asarray(self._around.sizes)
        # The shape first: what follows looks at every code.
        if codes.ndim != 2 or codes.shape[1] != len(sizes) or codes.dtype.kind not in "iu":
            raise InputError(f"codes: are {codes.dtype} {codes.shape}; give integers [N, {len(sizes)}]")
        if not 0 < len(codes) <= MOST_IMAGES:
            raise InputError(
                f"codes: {len(codes):,} images do not fit into a file; give 1 to {MOST_IMAGES:,} at a time"
            )
        # Each code against the codebook of its own place; sizes may differ.
        wrong = np.argwhere((codes < 0) | (codes >= sizes))
        if len(wrong):
            image, place = wrong[0]
            raise InputError(
                f"codes: image {image} has {codes[image, place]} at place {place}, which is out of range; there are "
                f"codes 0 to {sizes[place] - 1}"
            )
        return codes.astype(np.int32)

    def _cond(self, cond: np.ndarray | None, n: int) -> np.ndarray | None:
        """Returns features as float32 [N, F]."""
        if cond is None:
            return None
        cond = np.asarray(cond, np.float32)
        if not self._around.cond:
            raise InputError("cond: this generator has no condition; leave it out")
        # NaN would come up later, as probabilities of codes that are already being coded.
        if cond.shape != (n, self._around.cond) or not np.all(np.isfinite(cond)):
            raise InputError(
                f"cond: is {cond.shape}; give finite features [{n}, {self._around.cond}], one row per image"
            )
        return cond


def _constriction() -> Any:
    """Returns the package that has the range coder."""
    try:
        import constriction
    except ImportError:
        raise InputError(
            "compression needs constriction, which is not installed; run pip install 'vae_jax[compress]'"
        ) from None
    return constriction
