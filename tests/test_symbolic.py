"""Symbolic batch sizes: models are exported once for batches of any size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from jax import export

from vae_jax.networks import NETWORKS
from vae_jax.networks.conv_native import Window
from vae_jax.posteriors import POSTERIORS

SHAPE = (16, 16, 1)


def exported(function, *shapes):
    """Returns the function of arrays whose leading axis is symbolic, compiled for any size."""
    (b,) = export.symbolic_shape("b")
    arguments = [jax.ShapeDtypeStruct((b, *shape), dtype) for shape, dtype in shapes]
    return export.export(jax.jit(function))(*arguments).call


def check(model):
    """Exports x -> E[z|x] -> log p(x|z), and compares it with the plain function."""
    params, state = jax.jit(model.init)(jax.random.key(0), support.images(3, SHAPE))

    def there_and_back(x):
        z = model.encode(params, state, None, {"x": x}).z
        return model.decode(params, state, z).log_prob(x)

    given = support.images(5, SHAPE)["x"]
    call = exported(there_and_back, (SHAPE, jnp.float32))
    np.testing.assert_allclose(call(given), jax.jit(there_and_back)(given), rtol=2e-4, atol=2e-4)


def test_the_bound():
    model = support.fitting(3, NETWORKS["mlp"](hidden=(4,))).build(support.spec(SHAPE))
    params, state = jax.jit(model.init)(jax.random.key(0), support.images(3, SHAPE))
    ctx = support.context(model, 3, train=False)

    def bound(x):
        index = jnp.arange(x.shape[0], dtype=jnp.int32)
        return model.density.bound(params, state, jax.random.key(1), {"x": x}, ctx._replace(index=index), 3)

    given = support.images(5, SHAPE)["x"]
    np.testing.assert_allclose(exported(bound, (SHAPE, jnp.float32))(given), jax.jit(bound)(given), rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name):
    check(support.around(3, support.shrink(NETWORKS[name]())).build(support.spec(SHAPE)))


@pytest.mark.parametrize("name", POSTERIORS)
def test_every_posterior(name):
    config = support.fitting(3, NETWORKS["mlp"](hidden=(4,)), posterior=POSTERIORS[name]())
    model = config.build(support.spec(SHAPE))
    check(model)


def windows():
    """Yields geometries with inputs no larger than the kernel, SAME and VALID."""
    for size in ((1, 2), (2, 2), (2, 5)):
        for kernel in (2, 3, 4):
            for stride in (1, 2, 3):
                out = tuple(-(-n // stride) for n in size)
                low = tuple(max((o - 1) * stride + kernel - n, 0) // 2 for o, n in zip(out, size))
                yield Window(kernel, stride, low, size, out)
                if min(size) >= kernel:
                    yield Window(kernel, stride, (0, 0), size, tuple((n - kernel) // stride + 1 for n in size))


@pytest.mark.parametrize("channels", [1, 5, 70])
def test_both_forms_of_a_convolution_have_one_type_under_vmap(channels):
    """`lax.platform_dependent` is a switch over both: in bfloat16, under vmap, of inputs smaller than the window."""
    from vae_jax.networks import conv_cpu, conv_native

    for window in windows():
        x = jnp.zeros((2, 3, *window.size, channels), jnp.bfloat16)
        w = jnp.zeros((2, window.kernel, window.kernel, channels, 6), jnp.bfloat16)
        dy = jnp.zeros((2, 3, *window.out, 6), jnp.bfloat16)
        for name, given in {"forward": (x, w), "input_grad": (dy, w), "weight_grad": (x, dy)}.items():
            for axes in ((0, None), (0, 0)):
                arguments = [a if axis == 0 else a[0] for a, axis in zip(given, axes)]
                cpu, native = (
                    jax.eval_shape(jax.vmap(functools.partial(getattr(m, name), window=window), axes), *arguments)
                    for m in (conv_cpu, conv_native)
                )
                assert (cpu.shape, cpu.dtype) == (native.shape, native.dtype), (name, window)
                assert cpu.dtype == jnp.bfloat16
