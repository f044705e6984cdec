"""Exact entropy coding of codes with a sequential generator: about -log2 p bits, and every code comes back.

The decoder must compute, from the codes that it has, the very numbers that the encoder computed. So both run one
`FixedProgram`, step by step: `logits` would be one pass, but its sums are in another order. That two kinds of machine
compute the same floats nobody can promise; a checksum of the codes says so where they did not.
"""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import InputError, option, shown
from vae_jax.files import trees, vjc
from vae_jax.models.stage2.base import Around, Generator
from vae_jax.models.stage2.coding_header import MOST_CHUNK, MOST_IMAGES, Header, apart, checked, versions, with_features
from vae_jax.models.stage2.fixed_program import DIGITS, FixedProgram, cpu_device
from vae_jax.models.stage2.sequential import Sequential

CHUNK = 64  # images that are coded side by side, as one stream of bits, whose end costs up to 64 of them
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
          chunk: how many images share a stream of bits: damage is reported by chunk.

        Raises:
          InputError: codes or features that do not fit the generator, or a chunk out of range.
        """
        codes, cond = self._codes(codes), self._cond(cond, len(codes))
        if not 0 < chunk <= MOST_CHUNK:
            raise InputError(f"chunk: {chunk} is out of range; it must be in [1, {MOST_CHUNK}]")
        # Few images are one chunk of their number, without rows of padding.
        chunk = min(chunk, len(codes))
        # The last chunk has fewer images, but the batch of the others: one program serves all.
        program = self._program(chunk, cond is not None)
        chunks, sums = [], []
        for start in range(0, len(codes), chunk):
            part = codes[start : start + chunk]
            features = None if cond is None else cond[start : start + chunk]
            stream = self._encode(program, part, None if features is None else _padded(features, chunk))
            chunks.append(with_features(stream, features))
            sums.append(_sum(part))
        length, conditional = len(self._around.sizes), cond is not None
        # All that must be the same when it is decoded, and a checksum to see whether it was.
        header = Header(len(codes), length, chunk, conditional, self._sha256, program.sha256, versions(), sums)
        return vjc.pack(header._asdict(), chunks)

    def decompress(self, data: bytes, where: str = "data") -> np.ndarray:
        """Returns the codes of a .vjc file, int32 [N, n].

        Args:
          data: content of the file.
          where: what to call it in messages.

        Raises:
          InputError: a file that is damaged, cut off, or of another prior; nothing is returned of it.
        """
        # 1. Is this what was written? Then every byte is right, whoever wrote it.
        values, chunks = vjc.unpack(data, where)
        header = checked(values, len(chunks), where)
        # 2. Was it written with this prior, and this program?
        if (header.length, header.params) != (len(self._around.sizes), self._sha256):
            raise InputError(
                f"{where}: was compressed with another prior (SHA-256 of its parameters {header.params[:12]}, of those "
                f"here {self._sha256[:12]}); give the run, and the checkpoint, that it was compressed with"
            )
        if header.conditional and not self._around.cond:
            raise vjc.damaged(where, "its header")
        program = self._program(header.chunk, header.conditional)
        if header.program != program.sha256:
            raise InputError(
                f"{where}: was compressed by another version of the program (with {shown(header.made)}; here "
                f"{versions()}); decompress it with the versions that it was compressed with"
            )
        # 3. Do the codes come out that went in? All of them, before any is returned.
        out = []
        for number, content in enumerate(chunks, 1):
            rows = min(header.chunk, header.images - (number - 1) * header.chunk)
            part = self._decode(program, header, content, rows)
            if part is None or _sum(part) != header.sums[number - 1]:
                raise InputError(
                    f"{where}: chunk {number} of {len(chunks)} decodes to other codes, because this machine computes "
                    f"other probabilities; decompress it where it was compressed (with {shown(header.made)})"
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
            keys = jax.random.split(jax.random.key(0), CHUNK)
            for start in range(0, len(codes), CHUNK):
                z = codes[start : start + CHUNK]
                c = None if cond is None else _padded(cond[start : start + CHUNK], CHUNK)
                rates.append(np.asarray(self._rate(params, keys, _padded(z, CHUNK), c), np.float64)[: len(z)])
        return np.concatenate(rates) / np.log(2.0)

    def _program(self, chunk: int, conditional: bool) -> FixedProgram:
        key = (chunk, conditional)
        if key not in self._programs:
            self._programs[key] = FixedProgram(self._generator, self._params, self._around, chunk, conditional)
        return self._programs[key]

    def _encode(self, program: FixedProgram, codes: np.ndarray, cond: np.ndarray | None) -> bytes:
        stream = self._constriction.stream
        # `perfect=False` scales cumulative weights by (TOTAL - size) / TOTAL, rounds down, and adds 1 for each code:
        # in float64 that is exact for integers of up to 24 bits, and no code is impossible.
        encoder, family = stream.queue.RangeEncoder(), stream.model.Categorical(perfect=False)

        # A range coder is a queue: codes come out in the order in which they went in, as `walk` needs them.
        def true_code(place: int, weights: np.ndarray) -> np.ndarray:
            encoder.encode(np.ascontiguousarray(codes[:, place]), family, weights)
            return codes[:, place]

        program.walk(len(codes), cond, true_code)
        # Words of 32 bits, little-endian on every machine.
        return encoder.get_compressed().astype("<u4").tobytes()

    def _decode(self, program: FixedProgram, header: Header, content: bytes, rows: int) -> np.ndarray | None:
        """Returns the codes of a chunk; None if it holds none that these probabilities could have made."""
        cond = None
        if header.conditional:
            if (found := apart(content, rows, self._around.cond)) is None:
                return None
            cond, content = _padded(found[0], header.chunk), found[1]
        # Streams are whole words; anything else was not written by an encoder.
        if len(content) % 4:
            return None
        stream = self._constriction.stream
        family = stream.model.Categorical(perfect=False)
        decoder = stream.queue.RangeDecoder(np.frombuffer(content, "<u4").astype(np.uint32))
        try:
            return program.walk(rows, cond, lambda place, weights: decoder.decode(family, weights))
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


def _padded(x: np.ndarray, rows: int) -> np.ndarray:
    """Returns [N, ...] with zeros up to `rows`."""
    return np.pad(x, ((0, rows - len(x)), *((0, 0),) * (x.ndim - 1)))


def _sum(codes: np.ndarray) -> int:
    """Returns a checksum of codes."""
    # One type and byte order, so that machines agree on the sum of equal codes.
    return zlib.crc32(np.ascontiguousarray(codes, "<i4").tobytes())
