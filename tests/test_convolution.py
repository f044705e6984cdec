"""The convolutions equal the native operation: values, both gradients, and under every transform in use."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from vae_jax.errors import InputError
from vae_jax.networks import conv_cpu, conv_native, winograd
from vae_jax.networks.convolution import Conv, ConvTranspose, conv, conv_transpose

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# kernel, stride, height, width, channels in, channels out, padding
CONV = [
    (4, 2, 8, 8, 8, 6, "SAME"),  # blocks
    (4, 2, 7, 9, 8, 6, "SAME"),
    (4, 2, 9, 8, 5, 6, "VALID"),
    (4, 2, 8, 8, 1, 6, "SAME"),  # few in
    (4, 2, 7, 7, 3, 6, "SAME"),
    (4, 2, 8, 8, 8, 1, "SAME"),
    (4, 2, 8, 8, 8, 64, "SAME"),  # minimal
    (4, 2, 8, 6, 64, 5, "SAME"),  # minimal, odd width out: blocks
    (4, 2, 10, 10, 64, 5, "VALID"),  # minimal
    (4, 2, 7, 8, 64, 5, "SAME"),  # minimal, odd height in
    (2, 2, 8, 8, 5, 6, "SAME"),  # plain product
    (2, 2, 7, 7, 5, 6, "SAME"),
    (2, 2, 7, 7, 5, 6, "VALID"),  # last row and column unread
    (1, 1, 5, 5, 5, 6, "SAME"),
    (1, 2, 7, 7, 5, 6, "SAME"),  # kernel < stride
    (1, 2, 7, 7, 1, 6, "SAME"),
    (2, 3, 8, 7, 3, 6, "SAME"),
    (8, 4, 16, 13, 5, 6, "SAME"),
    (3, 1, 7, 6, 5, 6, "SAME"),  # native
    (3, 1, 7, 6, 5, 6, "VALID"),
    (3, 2, 8, 8, 5, 6, "SAME"),
    (3, 2, 7, 7, 5, 6, "SAME"),
    (3, 2, 8, 8, 5, 6, "VALID"),
    (3, 2, 8, 9, 1, 1, "SAME"),
    (5, 1, 8, 8, 1, 6, "SAME"),
    (5, 1, 8, 8, 6, 7, "VALID"),
    (4, 1, 6, 6, 5, 1, "SAME"),
    (2, 1, 6, 6, 5, 6, "SAME"),
]
TRANSPOSE = [
    (4, 2, 4, 4, 8, 6),
    (4, 2, 5, 3, 8, 6),
    (4, 2, 4, 4, 8, 1),
    (4, 2, 4, 4, 8, 3),
    (4, 2, 4, 4, 1, 6),
    (4, 2, 4, 4, 64, 8),
    (4, 2, 4, 5, 8, 64),
    (2, 2, 4, 4, 5, 6),
    (1, 1, 4, 4, 5, 6),
    (1, 2, 4, 4, 5, 6),
    (3, 1, 5, 4, 5, 6),
    (3, 2, 4, 5, 5, 6),
    (5, 2, 4, 4, 5, 6),
    (5, 1, 4, 4, 5, 1),
    (2, 3, 4, 4, 5, 3),
    (3, 2, 4, 4, 5, 1),
]


def native_conv(x, w, *, stride, padding):
    return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=DIMENSIONS)


def native_transpose(x, w, *, stride):
    return lax.conv_transpose(x, w, (stride, stride), "SAME", dimension_numbers=DIMENSIONS)


def operands(kernel, height, width, channels, features, batch=2, dtype=jnp.float32):
    key_x, key_w = jax.random.split(jax.random.key(kernel))
    x = jax.random.normal(key_x, (batch, height, width, channels), dtype)
    return x, jax.random.normal(key_w, (kernel, kernel, channels, features), dtype)


def values_and_gradients(function, x, w):
    """y, dx, dw of sum(sin(y)), which gives every output its own cotangent."""

    def loss(x, w):
        y = function(x, w)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

    (_, y), (dx, dw) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, w)
    return y, dx, dw


def assert_close(got, want, tolerance=1e-4):
    for name, a, b in zip(("y", "dx", "dw"), got, want):
        assert a.shape == b.shape, name
        assert a.dtype == b.dtype, name
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("case", CONV, ids=str)
def test_conv_equals_native(case):
    kernel, stride, height, width, channels, features, padding = case
    x, w = operands(kernel, height, width, channels, features)
    ours = jax.jit(lambda x, w: values_and_gradients(lambda x, w: conv(x, w, stride=stride, padding=padding), x, w))
    native = jax.jit(
        lambda x, w: values_and_gradients(lambda x, w: native_conv(x, w, stride=stride, padding=padding), x, w)
    )
    assert_close(ours(x, w), native(x, w))


@pytest.mark.parametrize("case", TRANSPOSE, ids=str)
def test_conv_transpose_equals_native(case):
    kernel, stride, height, width, channels, features = case
    x, w = operands(kernel, height, width, channels, features)
    ours = jax.jit(lambda x, w: values_and_gradients(lambda x, w: conv_transpose(x, w, stride=stride), x, w))
    native = jax.jit(lambda x, w: values_and_gradients(lambda x, w: native_transpose(x, w, stride=stride), x, w))
    assert ours(x, w)[0].shape == (2, stride * height, stride * width, features)
    assert_close(ours(x, w), native(x, w))


FORMS = [(4, 2, 8), (4, 2, 1), (4, 2, 64), (3, 1, 8)]  # blocks, few, minimal, native


@pytest.mark.parametrize(("kernel", "stride", "channels"), FORMS)
@pytest.mark.parametrize("transpose", [False, True])
def test_transforms(kernel, stride, channels, transpose):
    x, w = operands(kernel, 8, 8, channels, 6)
    if transpose:
        w = w.swapaxes(2, 3)
        x = jnp.concatenate([x] * 6, axis=3)[..., :6]
    ours, native = (conv_transpose, native_transpose) if transpose else (conv, native_conv)
    options = {"stride": stride} if transpose else {"stride": stride, "padding": "SAME"}
    f = lambda x, w: values_and_gradients(lambda x, w: ours(x, w, **options), x, w)  # noqa: E731
    want = jax.jit(lambda x, w: values_and_gradients(lambda x, w: native(x, w, **options), x, w))

    factors = jnp.array([1.0, -0.5, 2.0])
    swept = jax.jit(jax.vmap(f, in_axes=(None, 0)))(x, jnp.stack([factor * w for factor in factors]))
    for i, factor in enumerate(factors):
        assert_close([leaf[i] for leaf in swept], want(x, factor * w))

    scanned = jax.jit(lambda x, w: lax.scan(lambda c, s: (c, f(x, s * w)), 0, factors)[1])(x, w)
    assert_close([leaf[1] for leaf in scanned], want(x, factors[1] * w))

    def sharded(x, w):
        mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
        shard = lambda x, w: ours(x, w, **options)  # noqa: E731
        return jax.shard_map(shard, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))(x, w)

    assert_close(jax.jit(lambda x, w: values_and_gradients(sharded, x, w))(x, w), want(x, w))


@pytest.mark.parametrize(("kernel", "stride", "channels"), FORMS)
@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_bfloat16_in_bfloat16_out(kernel, stride, channels, function):
    x, w = operands(kernel, 8, 8, channels, 6, dtype=jnp.bfloat16)
    f = jax.jit(lambda x, w: values_and_gradients(lambda x, w: function(x, w, stride=stride), x, w))
    got = f(x, w)
    assert [leaf.dtype for leaf in got] == [jnp.bfloat16] * 3
    want = f(x.astype(jnp.float32), w.astype(jnp.float32))
    np.testing.assert_allclose(
        np.asarray(got[0], np.float32), want[0], atol=0.03 * np.abs(want[0]).max()
    )  # 8 bits of mantissa


@functools.cache
def reference64(kernel, stride, transposed):
    """Returns the map (x, w, dy) -> y, dx, dw in float64 numpy: for each output pixel the sum over its window."""

    def maps(x, w, dy):
        y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(w.shape)
        for i, j, u, v in np.ndindex(*dy.shape[1:3], kernel, kernel):
            # SAME padding of these sizes, as `conv` and `conv_transpose` document it.
            if transposed:
                before = kernel - 1 if stride > kernel - 1 else -(-(kernel + stride - 2) // 2)
                r, c = i + u - before, j + v - before
                if r % stride or c % stride:
                    continue
                r, c = r // stride, c // stride
            else:
                pads = [max(stride * (-(-n // stride) - 1) + kernel - n, 0) // 2 for n in x.shape[1:3]]
                r, c = stride * i + u - pads[0], stride * j + v - pads[1]
            if 0 <= r < x.shape[1] and 0 <= c < x.shape[2]:
                y[:, i, j] += x[:, r, c] @ w[u, v]
                dx[:, r, c] += dy[:, i, j] @ w[u, v].T
                dw[u, v] += x[:, r, c].T @ dy[:, i, j]
        return y, dx, dw

    return maps


# kernel, stride, channels in, channels out: every form of conv_cpu, one channel on either side, and native ones
BFLOAT16 = [
    (4, 2, 1, 6), (5, 1, 1, 6), (3, 2, 1, 1), (4, 2, 8, 1), (4, 2, 3, 6), (4, 2, 8, 6), (4, 2, 8, 64), (4, 2, 64, 8),
    (2, 2, 5, 6), (1, 1, 5, 6), (3, 1, 5, 6), (5, 1, 6, 1),
]  # fmt: skip


IN_SUITE = {(4, 2, 1, 6), (4, 2, 8, 6), (4, 2, 64, 8), (3, 2, 1, 1), (5, 1, 6, 1)}  # the rest differ in one number


@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "features"),
    [pytest.param(*case, marks=[] if case in IN_SUITE else pytest.mark.slow) for case in BFLOAT16],
)
@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_bfloat16_is_as_accurate_as_the_native_operation(kernel, stride, channels, features, function):
    """Root mean squared errors against float64, of values and both gradients: at most 1.1 times the native ones."""
    transposed = function is conv_transpose
    x, w = operands(kernel, 8, 8, channels, features, batch=8, dtype=jnp.bfloat16)
    native = native_transpose if transposed else functools.partial(native_conv, padding="SAME")
    shape = jax.eval_shape(functools.partial(function, stride=stride), x, w).shape
    dy = jax.random.normal(jax.random.key(9), shape, jnp.bfloat16)
    want = reference64(kernel, stride, transposed)(*(np.asarray(a, np.float64) for a in (x, w, dy)))

    def errors(function):
        def maps(x, w, dy):
            y, pull = jax.vjp(functools.partial(function, stride=stride), x, w)
            return y, *pull(dy)

        found = jax.jit(maps)(x, w, dy)
        return [np.sqrt(np.mean((np.asarray(a, np.float64) - b) ** 2) / np.mean(b**2)) for a, b in zip(found, want)]

    ours, theirs = errors(function), errors(native)
    assert max(theirs) < 2.5e-3  # the reference is that of the native operation, rounded once
    assert all(a <= 1.1 * b for a, b in zip(ours, theirs)), (ours, theirs)


@pytest.mark.parametrize("channels", [1, 5, 64])
@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (5, 2), (4, 2), (2, 2)])
def test_a_kernel_that_does_not_fit_is_refused_in_one_line(kernel, stride, channels):
    side = kernel - 1
    x, w = operands(kernel, side, 7, channels, 2)
    with pytest.raises(InputError) as error:
        values_and_gradients(functools.partial(conv, stride=stride, padding="VALID"), x, w)
    assert str(error.value) == (
        f"conv: a kernel of {kernel}x{kernel} does not fit into an image of {side}x7 without padding; "
        f"pad with padding='SAME', or use a kernel of at most {side}x{side}"
    )
    for fixed, padding in ((w, "SAME"), (w[:side, :side], "VALID")):
        ours, theirs = (functools.partial(f, stride=stride, padding=padding) for f in (conv, native_conv))
        assert_close(values_and_gradients(ours, x, fixed), values_and_gradients(theirs, x, fixed))


@pytest.mark.parametrize("empty", ["batch", "height", "channels", "features"])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 1), (1, 2)])
def test_empty_arrays_give_empty_arrays_or_zeros(kernel, stride, empty):
    """As the native operation does: a last batch of no images, or a part without channels."""
    size = {"batch": 2, "height": 4, "channels": 8, "features": 6} | {empty: 0}
    x = jnp.ones((size["batch"], size["height"], 4, size["channels"]))
    w = jnp.ones((kernel, kernel, size["channels"], size["features"]))
    ours = values_and_gradients(functools.partial(conv, stride=stride), x, w)
    want = values_and_gradients(functools.partial(native_conv, stride=stride, padding="SAME"), x, w)
    for a, b in zip(ours, want):
        np.testing.assert_array_equal(a, b)
    y, dx, dw = values_and_gradients(functools.partial(conv_transpose, stride=stride), x, w)
    assert y.shape == (size["batch"], stride * size["height"], stride * 4, size["features"])
    assert not np.any(y)
    assert not np.any(dx)
    assert not np.any(dw)


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 5])
def test_strides_longer_than_the_image(kernel, channels):
    x, w = operands(kernel, 3, 4, channels, 2)
    for padding in ("SAME", "VALID"):
        ours, theirs = (functools.partial(f, stride=7, padding=padding) for f in (conv, native_conv))
        assert_close(values_and_gradients(ours, x, w), values_and_gradients(theirs, x, w))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_module_equals_flax_conv(padding):
    x, _ = operands(4, 9, 9, 5, 6)
    ours, theirs = Conv(6, 4, 2, padding=padding), nn.Conv(6, (4, 4), (2, 2), padding=padding)
    variables = theirs.init(jax.random.key(0), x)
    variables["params"]["bias"] += jnp.arange(6.0)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (3, 1)])
def test_module_equals_flax_conv_transpose(kernel, stride):
    x, _ = operands(kernel, 5, 5, 5, 6)
    ours, theirs = ConvTranspose(6, kernel, stride), nn.ConvTranspose(6, (kernel, kernel), (stride, stride))
    variables = theirs.init(jax.random.key(0), x)
    variables["params"]["bias"] += jnp.arange(6.0)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-4, atol=1e-5)


def test_module_dtypes():
    x = jnp.ones((1, 8, 8, 3))
    module = Conv(4, 4, 2, use_bias=False, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x)
    assert set(variables["params"]) == {"kernel"}
    assert variables["params"]["kernel"].dtype == jnp.float32
    assert module.apply(variables, x).dtype == jnp.bfloat16


def test_other_platforms_get_native_convolutions():
    x, w = operands(4, 8, 8, 8, 64)
    gradient = jax.jit(lambda x, w: values_and_gradients(lambda x, w: conv(x, w, stride=2), x, w))
    lowered = {p: gradient.trace(x, w).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")}
    assert lowered["cuda"].count("stablehlo.convolution") == 3
    assert "dot_general" not in lowered["cuda"]
    assert "stablehlo.convolution" not in lowered["cpu"]


def test_forms_are_all_reached(monkeypatch):
    """The table above would prove little if a guard sent everything to the native operation."""
    seen = set()
    names = [(conv_cpu, name) for name in ("_overlap", "_overlap_add", "_spread")]
    names += [(conv_native, "forward"), (conv_native, "input_grad")]
    names += [(winograd, name) for name in ("merge_output", "merge_input", "merge_kernel")]
    for module, name in names:
        form = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, name=name, form=form, **kw: (seen.add(name), form(*a, **kw))[1])
    for kernel, stride, channels in FORMS:
        x, w = operands(kernel, 8, 8, channels, 6)
        window = conv_native.Window(kernel, stride, (1, 1), (8, 8), (8 // stride, 8 // stride))
        y = jax.eval_shape(functools.partial(conv_cpu.forward, window=window), x, w)
        jax.eval_shape(functools.partial(conv_cpu.input_grad, window=window), y, w)
        jax.eval_shape(functools.partial(conv_cpu.weight_grad, window=window), x, y)
    assert len(seen) == 8


def test_bad_arguments_are_named():
    x, w = operands(4, 8, 8, 3, 6)
    with pytest.raises(ValueError, match="CIRCULAR"):
        conv(x, w, padding="CIRCULAR")
    for function in (conv, conv_transpose):
        with pytest.raises(InputError, match=rf"^{function.__name__}: a stride of 0 is out of range; use 1 or more$"):
            function(x, w, stride=0)
    with pytest.raises(ValueError, match=r"\[K, K, in, out\]"):
        conv(x, w[:2])
    with pytest.raises(ValueError, match="'VALID'"):
        ConvTranspose(6, padding="VALID").init(jax.random.key(0), x)
