"""Decoders, upsamplers and super-resolution networks with random weights: real checkpoints are not needed here."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [torch] extra")
pytest.importorskip("safetensors", reason="needs the [torch] extra")

import torch
from safetensors.torch import save_file

from pipeline.training.adversarial import AdversarySettings, against_spectrum
from pipeline.training.decoders import (
    Decoder,
    TinyAutoencoder,
    load_diffusers,
    load_tiny,
    load_tiny_directory,
    tiny_side,
)
from pipeline.training.super_resolution import CompactNet, RrdbNet, load_upscaler
from pipeline.training.tensors import read_tensors
from pipeline.training.upsamplers import UpsamplerSpec, load_upsamplers, save, train

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def rgb():
    coarse = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:50, :67]


def conv(tensors, name, channels_in, channels, *, bias=True, size=3):
    tensors[f"{name}.weight"] = torch.randn(channels, channels_in, size, size) * 0.1
    if bias:
        tensors[f"{name}.bias"] = torch.zeros(channels)


def block(tensors, number, width, pooled=False):
    for place in (0, 2, 4):
        conv(tensors, f"{number}.conv.{place}", width, width)
    if pooled:
        conv(tensors, f"{number}.pool.0", width, 4 * width, bias=False, size=1)
        tensors |= {f"{number}.pool.1.weight": torch.ones(4 * width), f"{number}.pool.1.bias": torch.zeros(4 * width)}
        conv(tensors, f"{number}.pool.3", 4 * width, width, bias=False, size=1)


def tiny_tensors(width=8, latent=4, pooled=False):
    """The published layer order at another width."""
    encoder, decoder = {}, {}
    conv(encoder, "0", 3, width)
    block(encoder, 1, width)
    for first in (2, 6, 10):
        conv(encoder, str(first), width, width, bias=False)
        for number in range(first + 1, first + 4):
            block(encoder, number, width, pooled and first == 10)
    conv(encoder, "14", width, latent)
    conv(decoder, "1", latent, width)
    for first in (3, 8, 13):
        for number in range(first, first + 3):
            block(decoder, number, width, pooled and first == 3)
        conv(decoder, str(first + 4), width, width, bias=False)
    block(decoder, 18, width)
    conv(decoder, "19", width, 3)
    return encoder, decoder


@pytest.fixture
def tiny_files(tmp_path):
    encoder, decoder = tiny_tensors()
    save_file(encoder, tmp_path / "rnd_encoder.safetensors")
    torch.save(decoder, tmp_path / "rnd_decoder.pth")
    return tmp_path


def test_a_tiny_autoencoder_keeps_the_native_size(tiny_files, rgb):
    found = load_tiny_directory(tiny_files)
    rebuilt = found["rnd"](rgb)
    assert (rebuilt.shape, rebuilt.dtype) == (rgb.shape, np.uint8)
    assert np.array_equal(rebuilt, found["rnd"](rgb))


@pytest.mark.parametrize("pooled", [False, True])
def test_a_tiny_autoencoder_shrinks_by_eight(pooled):
    encoder, decoder = (
        tiny_side(t, side) for t, side in zip(tiny_tensors(pooled=pooled), ("encoder", "decoder"), strict=True)
    )
    latent = encoder(torch.rand(1, 3, 32, 48))
    assert latent.shape == (1, 4, 4, 6)
    assert decoder(latent).shape == (1, 3, 32, 48)


def test_the_tiny_autoencoder_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="not installed")
    theirs = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, latent_channels=4
    ).eval()
    encoder, decoder = tiny_tensors()
    names = {f"encoder.layers.{name}": value for name, value in encoder.items()}
    for name, value in decoder.items():  # there the squashing is no layer
        number, _, rest = name.partition(".")
        names[f"decoder.layers.{int(number) - 1}.{rest}"] = value
    theirs.load_state_dict(names)
    pixels = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        latents = theirs.encode(pixels * 2 - 1).latents
        assert torch.allclose(tiny_side(encoder, "encoder")(pixels), latents, atol=1e-6)
        wanted = theirs.decode(latents).sample * 0.5 + 0.5
        assert torch.allclose(tiny_side(decoder, "decoder")(latents), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_diffusers_autoencoders_load_from_a_directory(tmp_path, rgb, kind):
    diffusers = pytest.importorskip("diffusers", reason="not installed")
    if kind == "kl":
        made = diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        )
    else:
        made = diffusers.AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)
    made.save_pretrained(tmp_path, safe_serialization=True)
    decoder = load_diffusers(str(tmp_path), kind)
    assert decoder.stride == (2 if kind == "kl" else 8)
    assert decoder(rgb).shape == rgb.shape
    with pytest.raises(ValueError, match="give a directory or hub id"):
        load_diffusers(str(tmp_path / "absent"), kind)


def test_what_is_no_tiny_autoencoder_is_named(tmp_path, tiny_files):
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x\.safetensors: encoder: tensors are not named"):
        load_tiny(tmp_path / "x.safetensors", tiny_files / "rnd_decoder.pth")
    with pytest.raises(ValueError, match=r"sd_encoder: absent; there are"):
        load_tiny_directory(tiny_files, ["sd"])


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_is_never_executed(tmp_path, capsys):
    torch.save({"weight": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"bad\.pth: damaged, or more than tensors"):
        read_tensors(tmp_path / "bad.pth")
    assert "executed" not in capsys.readouterr().out


def test_wrappers_and_prefixes_come_off_and_halves_widen(tmp_path):
    torch.save({"params_ema": {"module.a": torch.ones(2, dtype=torch.float16)}, "step": 3}, tmp_path / "a.pth")
    (found,) = read_tensors(tmp_path / "a.pth").items()
    assert (found[0], found[1].dtype) == ("a", torch.float32)


@pytest.mark.parametrize("kind", ["nearest", "transposed", "shuffle"])
@pytest.mark.parametrize("stride", [4, 16])
def test_an_upsampler_learns_is_seeded_and_survives_its_file(tmp_path, rgb, kind, stride):
    spec = UpsamplerSpec(kind=kind, stride=stride, width=8)

    def crop(number):
        return np.roll(rgb, number, 1)[:48, :64]

    upsampler, losses = train(spec, crop, 25)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    save(upsampler, tmp_path / "u.safetensors")
    (loaded,) = load_upsamplers(tmp_path).values()
    assert loaded.spec == spec
    rebuilt = upsampler(rgb)
    assert rebuilt.shape == rgb.shape
    assert np.array_equal(loaded(rgb), rebuilt)
    assert train(spec, crop, 2)[1] == train(spec, crop, 2)[1]


@pytest.mark.parametrize(
    ("net", "scale"),
    [(RrdbNet(2, 8, 4, 1), 4), (RrdbNet(1, 8, 4, 2), 2), (CompactNet(3, 8, 4), 4), (CompactNet(1, 8, 2), 2)],
    ids=["rrdb-x4", "rrdb-x2", "compact-x4", "compact-x2"],
)
def test_super_resolution_checkpoints_tell_their_form(tmp_path, rgb, net, scale):
    torch.save({"params_ema": net.state_dict()}, tmp_path / "sr.pth")
    found = load_upscaler(tmp_path / "sr.pth")
    assert (type(found.net), found.scale) == (type(net), scale)
    assert found(rgb).shape == rgb.shape
    pixels = torch.rand(1, 3, 8, 12)
    assert torch.equal(found.net(pixels), net.eval()(pixels))
    assert found.net(pixels).shape == (1, 3, 8 * scale, 12 * scale)


def test_what_is_no_super_resolution_network_is_named(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"x\.safetensors: neither RRDBNet nor SRVGGNetCompact"):
        load_upscaler(tmp_path / "x.safetensors")


def test_an_adversary_comes_nearer_to_the_spectrum_and_leaves_its_model_alone(rgb):
    encoder, decoder = (tiny_side(t, side) for t, side in zip(tiny_tensors(), ("encoder", "decoder"), strict=True))
    given = Decoder(TinyAutoencoder(encoder, decoder), 8)
    before = {name: value.clone() for name, value in given.net.state_dict().items()}
    noise = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    settings = AdversarySettings(steps=15, size_px=64, learning_rate=3e-3, last_layers=2)
    found = against_spectrum(given, lambda number: np.roll(noise, number, 0)[:64, :64].copy(), settings)
    assert found.after < 0.9 * found.before
    assert all(torch.equal(before[name], value) for name, value in given.net.state_dict().items())
    moved = [n for n, v in found.decoder.net.state_dict().items() if not torch.equal(before[n], v)]
    assert {name.split(".")[1] for name in moved} == {"18", "19"}
    assert found.decoder(rgb).shape == rgb.shape
