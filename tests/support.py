"""What several test files need: small data, contexts and comparisons of pytrees."""

import dataclasses
import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import spec as specs
from vae_jax import train
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.likelihoods import Bernoulli
from vae_jax.model import About, Context
from vae_jax.models import VAE, VQVAE, SecondStage
from vae_jax.models.condition import Condition
from vae_jax.models.stage2 import GENERATORS
from vae_jax.networks import MLP, ResidualConv
from vae_jax.objectives import GRADIENTS, OBJECTIVES
from vae_jax.options import needs
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS
from vae_jax.quantizers import VQ
from vae_jax.spaces import Real
from vae_jax.spec import DataSpec

# What the data of the tests have besides the images, and `images` gives.
FACTS: dict = {"examples": 100, "classes": 3, "factors": (2, 4), "cond": 2}
# The smallest network with a grid for a code.
GRID = ResidualConv(hidden=8, stages=1, blocks=1, block_hidden=4)


def spec(shape: tuple[int, int, int]) -> DataSpec:
    """Returns the spec of images of this shape, with everything that a model may read beside them."""
    return specs.images(*shape, **FACTS)


def about(*shape: int) -> About:
    """Returns the facts of a toy model of images of this shape, with one real latent."""
    return About(specs.images(*(shape or (2, 2, 1))), Real((1,)), Bernoulli())


def shrink(config):
    """Returns a component config with every width cut to 16: two channels are left in each of 8 norm groups."""
    cut = {
        f.name: tuple(min(n, 16) for n in value)
        for f in dataclasses.fields(config)
        if isinstance(value := getattr(config, f.name), tuple) and value and all(isinstance(n, int) for n in value)
    }
    cut |= {name: 16 for name in ("hidden", "block_hidden", "width") if isinstance(getattr(config, name, None), int)}
    return dataclasses.replace(config, **cut)


def narrowed(model):
    """Returns a model of the same parts, narrow and one layer deep: the same code in smaller programs."""

    def cut(part):
        few = {name: 1 for name in ("depth", "layers", "blocks") if getattr(part, name, 0) in range(2, 100)}
        return dataclasses.replace(shrink(part), **few)

    # A quantizer is as deep as it has levels, which the numbers of a run have names for.
    parts = {name: getattr(model, name, None) for name in ("network", "posterior", "prior", "generator")}
    return dataclasses.replace(shrink(model), **{n: cut(part) for n, part in parts.items() if part is not None})


def around(latent_dim: int, network):
    """Returns a model around a network: a VAE, or a VQ-VAE where the code is a grid."""
    return VQVAE(latent_dim, network, quantizer=VQ(codes=8)) if network.spatial else VAE(latent_dim, network)


def second(generator=None, **options) -> SecondStage:
    """Returns a small second stage, on codes or on real vectors as the generator wants them."""
    generator = generator or GENERATORS["transformer"]()
    few = {"width": 8, "depth": 1, "heads": 2, "hidden": 8, "layers": 1, "kernel": 3, "blocks": 1}
    few |= {"passes": 2, "masks": 2}
    names = {f.name for f in dataclasses.fields(generator)}
    generator = dataclasses.replace(generator, **{name: value for name, value in few.items() if name in names})
    first = VAE(3, MLP((8,))) if generator.of == "real" else VQVAE(3, GRID, quantizer=VQ(codes=5))
    return SecondStage(first, generator, **options)


def small(cls, latent_dim: int, network, **options):
    """Returns a small model of a class of MODELS: every width cut to 16, and these options where it has them."""
    if cls is SecondStage:
        return second(**options)
    names = {f.name for f in dataclasses.fields(cls)}
    sizes = {"latent_dim": latent_dim, "network": network}
    if "quantizer" in names:
        sizes = {"features": latent_dim, "network": GRID, "quantizer": VQ(codes=8)}
        sizes |= {"top_hidden": 8, "top_blocks": 1}
    return dataclasses.replace(shrink(cls()), **{n: v for n, v in sizes.items() if n in names}, **options)


def fitting(latent_dim: int, network, **parts) -> VAE:
    """Returns a VAE with these components and, for the others, the first of each registry that goes with them.

    Raises:
      InputError: these components cannot be completed.
    """
    tables = {"posterior": POSTERIORS, "prior": PRIORS, "gradient": GRADIENTS, "objective": OBJECTIVES}
    free = [name for name in tables if name not in parts]
    found: list[VAE] = []
    for choice in itertools.product(*([cls() for cls in tables[name].values()] for name in free)):
        chosen = parts | dict(zip(free, choice, strict=True))
        if getattr(chosen["prior"], "conditional", False):
            chosen.setdefault("condition", Condition("label"))
        found.append(VAE(latent_dim, network, **chosen))
        if refusal(found[-1]) is None:
            return found[-1]
    found[0].check()
    raise AssertionError("the first choice is refused")


def refusal(config: VAE) -> str | None:
    """Returns why the parts of a model do not go together, without the advice, whose search takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(needs, "_fix", lambda *args: "")
        try:
            config.check()
        except InputError as error:
            return str(error)
    return None


def slow_but(keep: Iterable, values: Iterable) -> list:
    """Returns the values of a parametrized test, those that are not kept in the suite marked slow."""
    kept, values = set(keep), list(values)
    assert kept <= set(values), f"not among the values: {kept - set(values)}"  # a typo would leave a test out unseen
    return [value if value in kept else pytest.param(value, marks=pytest.mark.slow) for value in values]


def images(n: int, shape: tuple[int, int, int], seed: int = 0, counts: bool = False) -> dict[str, jax.Array]:
    """Returns a batch of n smooth images in (0, 1), inside the support of every likelihood, with all that may be told.

    These are labels, factors, condition vectors, and labeled examples beside them. With `counts`, for likelihoods that
    take only these, the pixels are 0, 1 and 2: as small as the images, so that flows stay well conditioned.
    """
    rng = np.random.default_rng(seed)

    def smooth() -> jax.Array:
        low = rng.uniform(size=(n, 1, 1, shape[-1]))
        found = 0.7 * rng.uniform(size=(n, *shape)) + 0.3 * low
        return jnp.asarray(np.floor(3 * found) if counts else found, jnp.float32)

    return {
        "x": smooth(),
        "label": jnp.asarray(rng.integers(FACTS["classes"], size=n), jnp.int32),
        "factors": jnp.asarray(rng.integers(FACTS["factors"], size=(n, len(FACTS["factors"]))), jnp.int32),
        "cond": jnp.asarray(rng.normal(size=(n, FACTS["cond"])), jnp.float32),
        "paired_x": smooth(),
        "paired_label": jnp.asarray(rng.integers(FACTS["classes"], size=n), jnp.int32),
    }


def sorted_data(path, each: int = 150, classes: int = 4) -> DataConfig:
    """Saves 8x8 images in the order of their classes; all pixels of class c lie in [50 c, 50 c + 50)."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    pixels = rng.integers(0, 50, (len(labels), 8, 8)) + 50 * labels[:, None, None]
    factors = np.stack([labels, rng.integers(3, size=len(labels))], 1)
    np.savez(path, images=pixels.astype(np.uint8), labels=labels, factors=factors)
    return DataConfig("npz", str(path), batch_size=8, protocol="full")


def context(model, n: int, *, step: int = 3, train: bool = True, index=None, **hyper: float) -> Context:
    """Returns the Context of a global batch of n examples, with the model's own hyper-parameters or other ones."""
    values = {name: jnp.asarray(hyper.get(name, value), jnp.float32) for name, value in model.training.hyper.items()}
    index = jnp.arange(n, dtype=jnp.int32) if index is None else jnp.asarray(index, jnp.int32)
    return Context(jnp.asarray(step, jnp.int32), index, values, train)


def checkpoint(run, step: int | None = None, state=None) -> None:
    """Saves a state, by default the untrained one, as that of `step`, by default the last: a run made in no time."""
    checkpoints, state = run.checkpoints(create=True), state or run.init()
    checkpoints.save(dataclasses.replace(state, step=state.step + (run.config.steps if step is None else step)), {})
    checkpoints.close()


def optimizer(params, config: train.Optimizer, steps: int = 1000):
    """Returns one optimizer of this config for every parameter group."""
    return train.make_optimizer({group: config for group in params}, steps)


def assert_trees_close(got, want, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Asserts equal structure, and values within tolerance; the failing leaf is named. Typed keys must be equal."""
    got_leaves, want_leaves = (jax.tree_util.tree_leaves_with_path(t) for t in (got, want))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), (_, b) in zip(got_leaves, want_leaves, strict=True):
        name = jax.tree_util.keystr(path)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol, err_msg=name)


def assert_trees_equal(got, want) -> None:
    """Asserts equal structure and equal bits."""
    assert_trees_close(got, want, rtol=0, atol=0)
