"""Sample media for the demo: photographs, images made by a random decoder, and files that must not pass.

What they are: the photographs are those that the scikit-image wheel ships, as they are, and encoded again or
cut by us. Some were scaled by whoever gave them to scikit-image, so they are no camera originals. The
"generated" images come from a convolutional decoder with fixed random weights: noise with a 1/f amplitude
spectrum, then three upsamplings by 2.

What they are not: outputs of a diffusion model or of a trained GAN. They share with these only the trace that
upsampling leaves: transposed convolution and pixel shuffle repeat the spectrum at multiples of 1/8 cycle per
pixel, often far more plainly than a trained generator does; nearest neighbour leaves faint copies near 1/2.
A result on them shows that the pipeline works; it says nothing of how well a detector does on real media.
"""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Kind = Literal["photograph", "generated", "corrupt", "bomb", "missing", "not_an_image"]
FloatImage = NDArray[np.float32]
Upsampling = Callable[[FloatImage, int, np.random.Generator], FloatImage]

ORIGINALS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
)
JPEG_QUALITIES = (95, 85, 70)
CROPS = (
    ("astronaut.png", (131, 17, 419, 305)),
    ("coffee.png", (203, 61, 523, 381)),
    ("motorcycle_left.png", (77, 45, 461, 429)),
    ("rocket.jpg", (301, 91, 621, 411)),
)
LATENT_SIZE_PX = 64
LATENT_CHANNELS = 8
STAGES = 3
BOMB_SIDE_PX = 50_000
SEED = 20_260


@dataclass(frozen=True, slots=True)
class DemoItem:
    """One reference to publish. `path_or_uri` is a file:// URI, with no file when `kind` is "missing"."""

    path_or_uri: str
    kind: Kind
    note: str


def make_demo_media(directory: Path) -> list[DemoItem]:
    """Write the sample media below `directory` and describe them.

    Every call writes the same bytes, as long as Pillow and scikit-image stay at their versions.

    Raises:
        ModuleNotFoundError: scikit-image, which ships the photographs, is not installed.
        FileNotFoundError: the installed scikit-image lacks one of the photographs.
    """
    photographs = _photograph_directory()
    directory.mkdir(parents=True, exist_ok=True)
    items: list[DemoItem] = []
    for makers in (_photographs(photographs), _generated(), _broken(photographs)):
        for name, kind, data, note in makers:
            path = directory.resolve() / name
            if data is not None:
                path.write_bytes(data)
            items.append(DemoItem(path.as_uri(), kind, note))
    return items


Made = tuple[str, Kind, bytes | None, str]
"""File name, kind, the file's bytes or None for no file, note."""


def _photograph_directory() -> Path:
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the demo's photographs come with scikit-image, which is not installed: pip install 'mediasieve[embedded]'",
            name="skimage",
        )
    directory = Path(spec.submodule_search_locations[0]) / "data"
    absent = [name for name in ORIGINALS if not (directory / name).is_file()]
    if absent:
        raise FileNotFoundError(
            f"the installed scikit-image lacks {', '.join(absent)} in {directory}: "
            "install the version that requirements/dev.txt names"
        )
    return directory


def _photographs(directory: Path) -> Iterator[Made]:
    for name in ORIGINALS:
        yield f"photo-{name}", "photograph", (directory / name).read_bytes(), "as scikit-image ships it"
    for stem in ("astronaut", "coffee"):
        image = Image.open(directory / f"{stem}.png").convert("RGB")
        for quality in JPEG_QUALITIES:
            data = _encoded(image, "JPEG", quality=quality)
            yield f"photo-{stem}-q{quality}.jpg", "photograph", data, f"JPEG quality {quality}"
    image = Image.open(directory / "chelsea.png").convert("RGB")
    yield "photo-chelsea.webp", "photograph", _encoded(image, "WEBP", quality=80), "WebP, lossy"
    lossless = _encoded(image, "WEBP", lossless=True)
    yield "photo-chelsea-lossless.webp", "photograph", lossless, "WebP, lossless"
    for name, box in CROPS:
        crop = Image.open(directory / name).convert("RGB").crop(box)
        note = f"{crop.width} x {crop.height} px cut from {name}, native pixels"
        yield f"photo-{Path(name).stem}-crop.png", "photograph", _encoded(crop, "PNG"), note


def _generated() -> Iterator[Made]:
    for variant, (name, upsample) in enumerate(UPSAMPLINGS.items()):
        image = Image.fromarray(decode_latent(upsample, SEED + variant))
        note = f"random decoder, {name} upsampling"
        yield f"made-{name}.png", "generated", _encoded(image, "PNG"), note
        yield f"made-{name}.jpg", "generated", _encoded(image, "JPEG", quality=92), f"{note}, JPEG quality 92"
        yield f"made-{name}.webp", "generated", _encoded(image, "WEBP", quality=90), f"{note}, WebP"


def _broken(directory: Path) -> Iterator[Made]:
    whole = _encoded(Image.open(directory / "coffee.png").convert("RGB"), "JPEG", quality=90)
    yield "broken-truncated.jpg", "corrupt", whole[: len(whole) * 2 // 5], "a JPEG cut off after 40 %"
    side = f"{BOMB_SIDE_PX:,} x {BOMB_SIDE_PX:,} px"
    yield "broken-bomb.png", "bomb", _bomb(), f"a PNG of a few bytes whose header claims {side}"
    yield "broken-missing.jpg", "missing", None, "no such file"
    yield (
        "broken-text.png",
        "not_an_image",
        b"This is a text file, whatever its name says.\n",
        "text named .png",
    )


def _encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _bomb() -> bytes:
    header = struct.pack(">IIBBBBB", BOMB_SIDE_PX, BOMB_SIDE_PX, 8, 2, 0, 0, 0)
    first_rows = zlib.compress(bytes(4 * (1 + 3 * BOMB_SIDE_PX)), 9)
    chunks = ((b"IHDR", header), (b"IDAT", first_rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, data) for name, data in chunks)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def decode_latent(upsample: Upsampling, seed: int) -> NDArray[np.uint8]:
    """Run noise through the random decoder: (64, 64, 8) latent -> uint8 (512, 512, 3). Deterministic."""
    rng = np.random.default_rng(seed)
    x = _pink_noise(rng)
    for stage in range(STAGES):
        channels = 3 if stage == STAGES - 1 else LATENT_CHANNELS
        x = upsample(x, channels, rng)
        x /= x.std()
        if stage < STAGES - 1:
            x = np.maximum(x, np.float32(0.2) * x)
    rgb = 127.5 * (1.0 + np.tanh(0.8 * (x - x.mean(axis=(0, 1)))))
    pixels: NDArray[np.uint8] = np.rint(rgb).astype(np.uint8)
    return pixels


def _pink_noise(rng: np.random.Generator) -> FloatImage:
    """(64, 64, 8) with an amplitude spectrum of 1/f, which natural images have about (Field 1987)."""
    size = LATENT_SIZE_PX
    white = np.fft.rfft2(rng.standard_normal((size, size, LATENT_CHANNELS)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    pink = np.fft.irfft2(white / np.maximum(frequency, 1 / size)[..., None], s=(size, size), axes=(0, 1))
    scaled: FloatImage = (pink / pink.std(axis=(0, 1))).astype(np.float32)
    return scaled


def _nearest(x: FloatImage, channels: int, rng: np.random.Generator) -> FloatImage:
    return _convolve(x.repeat(2, axis=0).repeat(2, axis=1), _kernel(rng, x.shape[2], channels))


def _zero_insertion(x: FloatImage, channels: int, rng: np.random.Generator) -> FloatImage:
    """Transposed convolution of stride 2; its uneven overlap leaves a checkerboard (Odena et al. 2016)."""
    spread = np.zeros((2 * x.shape[0], 2 * x.shape[1], x.shape[2]), np.float32)
    spread[::2, ::2] = x
    return _convolve(spread, _kernel(rng, x.shape[2], channels))


def _pixel_shuffle(x: FloatImage, channels: int, rng: np.random.Generator) -> FloatImage:
    """Four kernels, one for each sub-pixel (Shi et al. 2016). Their differences repeat every second pixel."""
    shared = np.tile(_kernel(rng, x.shape[2], channels), 4)
    own = rng.normal(0.0, 0.02, shared.shape).astype(np.float32)
    y = _convolve(x, shared + own).reshape(x.shape[0], x.shape[1], 2, 2, channels)
    return np.ascontiguousarray(y.transpose(0, 2, 1, 3, 4)).reshape(2 * x.shape[0], 2 * x.shape[1], channels)


UPSAMPLINGS: dict[str, Upsampling] = {
    "nearest": _nearest,
    "transposed": _zero_insertion,
    "pixel-shuffle": _pixel_shuffle,
}


def _kernel(rng: np.random.Generator, channels_in: int, channels_out: int) -> NDArray[np.float32]:
    """(3, 3, in, out): a binomial low-pass times a random mixing of channels, plus small random weights."""
    binomial = np.outer((1, 2, 1), (1, 2, 1)) / 16
    mixing = rng.standard_normal((channels_in, channels_out)) / np.sqrt(channels_in)
    noise = rng.normal(0.0, 0.02, (3, 3, channels_in, channels_out))
    kernel: NDArray[np.float32] = (binomial[:, :, None, None] * mixing + noise).astype(np.float32)
    return kernel


def _convolve(x: FloatImage, kernel: NDArray[np.float32]) -> FloatImage:
    """3 x 3, same size, edges repeated: (H, W, in) * (3, 3, in, out) -> (H, W, out)."""
    height, width = x.shape[:2]
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
    y = np.zeros((height, width, kernel.shape[3]), np.float32)
    for row in range(3):
        for column in range(3):
            y += padded[row : row + height, column : column + width] @ kernel[row, column]
    return y
