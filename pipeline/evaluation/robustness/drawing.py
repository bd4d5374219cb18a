"""Pictures drawn by code: interface, page and illustration. Text is set in the typeface that Pillow carries."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.media.encode import Pixels

# fmt: off
WORDS = (
    "about", "after", "again", "album", "answer", "archive", "before", "between", "button", "cancel", "change",
    "city", "close", "comment", "copy", "country", "delete", "detail", "edit", "evening", "every", "family", "file",
    "folder", "friend", "garden", "help", "history", "home", "image", "invoice", "letter", "list", "market",
    "message", "minute", "monday", "morning", "music", "notes", "number", "office", "order", "page", "paper",
    "people", "photo", "place", "print", "profile", "question", "record", "reply", "report", "save", "search", "send",
    "settings", "share", "street", "summer", "table", "today", "town", "travel", "update", "upload", "village",
    "water", "week", "window", "winter", "world", "year",
)
# fmt: on

Colour = tuple[int, int, int]


def sentence(random: np.random.Generator, words: int) -> str:
    """So many words, drawn."""
    return " ".join(WORDS[int(i)] for i in random.integers(0, len(WORDS), words)).capitalize()


@lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def text_lines(
    draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], random: np.random.Generator, size_px: int, colour: Colour
) -> None:
    """Fill a box (left, top, right, bottom) with lines of text, ragged right, with gaps between paragraphs."""
    left, top, right, bottom = box
    font = _font(size_px)
    y = top
    while y + size_px <= bottom:
        if random.random() < 0.12:
            y += size_px
            continue
        line = sentence(random, int(random.integers(3, 16)))
        while line and draw.textlength(line, font=font) > right - left:
            line = line.rpartition(" ")[0]
        draw.text((left, y), line, fill=colour, font=font)
        y += round(1.45 * size_px)


def interface(photo: Pixels, random: np.random.Generator, width: int = 1280, height: int = 800) -> Pixels:
    """A window that shows a photograph, fitted as viewers do, beside text: uint8 (height, width, 3)."""
    dark = bool(random.random() < 0.4)
    ground, ink, bar = (
        ((32, 33, 36), (224, 224, 226), (52, 54, 58)) if dark else ((250, 250, 250), (34, 34, 38), (226, 229, 233))
    )
    accent = _colour(random)
    canvas = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, width, 44), fill=bar)
    for place, colour in enumerate(((237, 106, 94), (245, 191, 79), (98, 197, 84))):
        draw.ellipse((16 + 26 * place, 15, 30 + 26 * place, 29), fill=colour)
    draw.rounded_rectangle((130, 8, width - 40, 36), radius=14, fill=ground, outline=accent)
    draw.text((150, 13), f"https://{sentence(random, 1).lower()}.example", fill=ink, font=_font(14))
    side = int(random.integers(200, 320))
    draw.rectangle((0, 44, side, height), fill=bar)
    text_lines(draw, (16, 64, side - 16, height - 20), random, 15, ink)
    image = Image.fromarray(photo)
    image.thumbnail((width - side - 80, int(height * 0.62)), Image.Resampling.BICUBIC)
    canvas.paste(image, (side + 40, 70))
    below = 90 + image.height
    for place in range(3):
        left = side + 40 + 130 * place
        draw.rounded_rectangle((left, below, left + 112, below + 34), radius=8, fill=accent)
        draw.text((left + 14, below + 9), sentence(random, 1), fill=(255, 255, 255), font=_font(15))
    text_lines(draw, (side + 40, below + 52, width - 40, height - 20), random, 17, ink)
    return np.asarray(canvas)


def page(photo: Pixels | None, random: np.random.Generator, width: int = 850, height: int = 1100) -> Pixels:
    """A page of text, with a figure if a photograph is given: uint8 (height, width, 3), white, unscanned."""
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    margin = int(random.integers(60, 100))
    draw.text((margin, margin), sentence(random, 4), fill=(10, 10, 10), font=_font(30))
    top = margin + 64
    if photo is not None:
        image = Image.fromarray(photo)
        image.thumbnail((width - 2 * margin, height // 3), Image.Resampling.BICUBIC)
        canvas.paste(image, ((width - image.width) // 2, top))
        top += image.height + 20
    text_lines(draw, (margin, top, width - margin, height - margin), random, int(random.integers(13, 19)), (20, 20, 24))
    return np.asarray(canvas)


def illustration(random: np.random.Generator, width: int = 768, height: int = 768) -> Pixels:
    """Flat colours, as from a vector program: sky, hills, shapes; antialiased: drawn at twice the size."""
    canvas = Image.new("RGB", (2 * width, 2 * height), _colour(random))
    draw = ImageDraw.Draw(canvas)
    for layer in range(int(random.integers(3, 6))):
        x = np.linspace(0, 2 * width, 40)
        phase, waves = random.uniform(0, 6.28), random.uniform(1, 4)
        y = height * (0.8 + 0.25 * layer) + 0.12 * height * np.sin(phase + waves * x / width)
        hill = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
        draw.polygon([*hill, (2 * width, 2 * height), (0, 2 * height)], fill=_colour(random))
    for _ in range(int(random.integers(8, 20))):
        _shape(draw, random, 2 * width, 2 * height)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX))


def _shape(draw: ImageDraw.ImageDraw, random: np.random.Generator, width: int, height: int) -> None:
    x, y = int(random.integers(0, width)), int(random.integers(0, height))
    size = int(random.integers(width // 30, width // 6))
    fill, outline = _colour(random), (20, 20, 24) if random.random() < 0.5 else None
    box = (x - size, y - size, x + size, y + size)
    kind = int(random.integers(0, 3))
    if kind == 0:
        draw.ellipse(box, fill=fill, outline=outline, width=6)
    elif kind == 1:
        draw.rounded_rectangle(box, radius=size // 4, fill=fill, outline=outline, width=6)
    else:
        corners = int(random.integers(3, 7))
        draw.regular_polygon((x, y, size), corners, rotation=int(random.integers(0, 360)), fill=fill, outline=outline)


def _colour(random: np.random.Generator) -> Colour:
    red, green, blue = (int(c) for c in random.integers(30, 236, 3))
    return red, green, blue
