"""Quantizers beside vector-quantize-pytorch (torch on the CPU) and dm-haiku, with the same numbers in both.

The library does not need the peers: the extra `bench` installs vector-quantize-pytorch, `pip install dm-haiku` the
other one; without them these tests skip.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.model import Context
from vae_jax.quantizers import BSQ, FSQ, LFQ, VQ, ResidualVQ, SimVQ
from vae_jax.quantizers.estimators import estimate

torch = pytest.importorskip("torch")
peers = pytest.importorskip("vector_quantize_pytorch")

RNG = np.random.default_rng(0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def given(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def training(n):
    return Context(jnp.asarray(0), jnp.arange(n), {})


def test_fsq():
    z = 2 * given(3, 50, 4)
    theirs, index = peers.FSQ([8, 5, 5, 5])(torch.tensor(z))
    ours = FSQ((8, 5, 5, 5)).quantize({}, {}, z)
    np.testing.assert_allclose(ours.z, theirs.numpy(), **CLOSE)
    np.testing.assert_array_equal(ours.indices[..., 0], index.numpy())


@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_signs_and_their_entropies(kind):
    """Their logarithm is cut at 1e-5; at temperature 1 no probability of 2^5 codes is below it."""
    z = given(3, 50, 5)
    options = {"entropy_loss_weight": 0.3, "commitment_loss_weight": 0.25, "diversity_gamma": 0.7}
    scale = 5**-0.5 if kind is BSQ else 1.0
    # Their spherical codes have length `codebook_scale`, ours length 1.
    peer = peers.LFQ(codebook_size=32, spherical=kind is BSQ, **options)
    found, parts = peer(torch.tensor(z), inv_temperature=1.0, return_loss_breakdown=True)
    ours = kind(bits=5, temperature=1.0, diversity=0.7, entropy=0.3).quantize({}, {}, z)
    np.testing.assert_array_equal(ours.indices[..., 0], found.indices.numpy())
    np.testing.assert_allclose(ours.z, found.quantized.detach().numpy(), **CLOSE)
    gap = float(parts.per_sample_entropy - 0.7 * parts.batch_entropy)
    np.testing.assert_allclose(jnp.mean(ours.terms["entropy"]), gap, rtol=1e-4)
    # They take the mean over coordinates, we the sum.
    np.testing.assert_allclose(jnp.mean(ours.terms["commitment"]) / 5, float(parts.commitment), rtol=1e-5)
    assert abs(float(ours.z[0, 0, 0])) == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize("rotation", [False, True])
def test_gradients(rotation):
    z, q, g = given(20, 6), given(20, 6), given(20, 6)
    theirs = torch.tensor(z, requires_grad=True)
    module = importlib.import_module("vector_quantize_pytorch.vector_quantize_pytorch")
    out = (module.rotate_to if rotation else module.straight_through)(theirs, torch.tensor(q))
    out.backward(torch.tensor(g))
    kind = "rotation" if rotation else "straight-through"
    value, pull = jax.vjp(lambda z: estimate(kind, z, q), jnp.asarray(z))
    np.testing.assert_allclose(value, out.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(pull(jnp.asarray(g))[0], theirs.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_simvq():
    z = given(2, 40, 6)
    peer = peers.SimVQ(6, 16, rotation_trick=False)
    x = torch.tensor(z, requires_grad=True)
    theirs, index, loss = peer(x)
    (loss + theirs.square().sum()).backward()
    # A linear layer of torch is x W^T.
    params = {"map": jnp.asarray(peer.code_transform.weight.detach().numpy().T)}
    state = {"frozen": jnp.asarray(peer.frozen_codebook.numpy())}
    quantizer = SimVQ(codes=16)

    def total(params, z):
        out = quantizer.quantize(params, state, z)
        # Their terms are means over vectors and coordinates.
        return jnp.mean(out.cost) / 6 + jnp.sum(out.z**2), out

    (_, ours), grads = jax.value_and_grad(total, (0, 1), has_aux=True)(params, jnp.asarray(z))
    np.testing.assert_array_equal(ours.indices[..., 0], index.numpy())
    np.testing.assert_allclose(ours.z, theirs.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(jnp.mean(ours.cost) / 6, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(grads[1], x.grad.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grads[0]["map"].T, peer.code_transform.weight.grad.numpy(), rtol=1e-4, atol=1e-5)


def averages_of(book):
    """Returns our state of their codebook. Their averages start at 1 and the entry itself, ours at 0 without a bias."""
    size, total = (jnp.asarray(getattr(book, name)[0].numpy()) for name in ("cluster_size", "embed_avg"))
    steps = jnp.asarray(10_000, jnp.int32)  # decay^steps is 0: no correction is left
    return {
        "codebook": jnp.asarray(book.embed[0].detach().numpy()),
        "average": {"steps": steps, "size": size, "total": total},
    }


def test_vq_with_moving_averages():
    peer = peers.VectorQuantize(6, 8, decay=0.9, threshold_ema_dead_code=0, commitment_weight=0.25)
    quantizer = VQ(codes=8, decay=0.9, epsilon=1e-5)
    state = averages_of(peer._codebook)
    for _ in range(4):
        z = given(2, 30, 6)
        theirs, index, loss = peer(torch.tensor(z))
        ours = quantizer.quantize({}, state, z, ctx=training(2))
        np.testing.assert_array_equal(ours.indices[..., 0], index.numpy())
        np.testing.assert_allclose(ours.z, theirs.detach().numpy(), **CLOSE)
        np.testing.assert_allclose(jnp.mean(ours.cost) / 6, loss.item(), rtol=1e-5)
        state = ours.state
        np.testing.assert_allclose(state["codebook"], peer._codebook.embed[0].numpy(), **CLOSE)


def test_the_moving_averages_of_the_benchmark():
    """`benchmarks.peers.torch_vq_vae` written by hand does what our layer does."""
    from benchmarks.peers import torch_vq_vae as peer

    layer = peer.MovingAverages()
    quantizer = VQ(codes=peer.CODES, decay=peer.DECAY, commitment=peer.COMMITMENT, epsilon=peer.EPSILON)
    steps, book = jnp.asarray(10_000, jnp.int32), jnp.asarray(layer.book.numpy())
    state = {"codebook": book, "average": {"steps": steps, "size": jnp.ones(peer.CODES), "total": book}}
    for _ in range(2):
        z = given(2, 3, 3, peer.FEATURES)
        theirs, cost = layer(torch.tensor(z).permute(0, 3, 1, 2))
        ours = quantizer.quantize({}, state, z, ctx=training(2))
        np.testing.assert_allclose(ours.z, theirs.permute(0, 2, 3, 1).numpy(), **CLOSE)
        np.testing.assert_allclose(jnp.mean(ours.cost) / peer.FEATURES, cost.item(), rtol=1e-5)
        state = ours.state
        np.testing.assert_allclose(state["codebook"], layer.book.numpy(), **CLOSE)


def test_residual_vq():
    peer = peers.ResidualVQ(dim=6, num_quantizers=3, codebook_size=8, decay=0.9, threshold_ema_dead_code=0)
    quantizer = ResidualVQ(codes=8, decay=0.9, epsilon=1e-5, depth=3)
    state = {str(i): averages_of(layer._codebook) for i, layer in enumerate(peer.layers)}
    for _ in range(3):
        z = given(2, 30, 6)
        theirs, index, losses = peer(torch.tensor(z))
        ours = quantizer.quantize({}, state, z, ctx=training(2))
        np.testing.assert_array_equal(ours.indices, index.numpy())
        np.testing.assert_allclose(ours.z, theirs.detach().numpy(), **CLOSE)
        np.testing.assert_allclose(jnp.mean(ours.terms["commitment"]) / 6, losses.sum().item(), rtol=1e-5)
        state = ours.state
        for i, layer in enumerate(peer.layers):
            np.testing.assert_allclose(state[str(i)]["codebook"], layer._codebook.embed[0].numpy(), **CLOSE)


def test_vq_with_moving_averages_of_haiku():
    """Theirs correct the bias of the start as ours do; an entry never chosen becomes 0 there, and stays here."""
    hk = pytest.importorskip("haiku")

    def run(z):
        return hk.nets.VectorQuantizerEMA(6, 8, 0.25, 0.9)(z, is_training=True)

    forward = hk.transform_with_state(run)
    z = given(2, 30, 6)
    params, theirs = forward.init(jax.random.key(0), z)
    quantizer = VQ(codes=8, decay=0.9, epsilon=1e-5)
    state = quantizer.init_state(jax.random.key(0), 6)
    book = next(value["embeddings"] for value in theirs.values() if "embeddings" in value)
    state["codebook"] = jnp.asarray(book).T
    seen = np.zeros(8, bool)
    for _ in range(4):
        z = given(2, 30, 6)
        found, theirs = forward.apply(params, theirs, None, z)
        ours = quantizer.quantize({}, state, z, ctx=training(2))
        index = np.asarray(found["encoding_indices"])
        np.testing.assert_array_equal(ours.indices[..., 0], index)
        np.testing.assert_allclose(ours.z, found["quantize"], **CLOSE)
        np.testing.assert_allclose(jnp.mean(ours.cost) / 6, found["loss"], rtol=1e-5)
        state, seen = ours.state, seen | np.isin(np.arange(8), index)
        book = next(value["embeddings"] for value in theirs.values() if "embeddings" in value)
        np.testing.assert_allclose(state["codebook"][seen], np.asarray(book).T[seen], **CLOSE)
        # Both must choose alike from here on.
        state["codebook"] = jnp.asarray(book).T
