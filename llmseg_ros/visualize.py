"""Labels made visible: colours, overlays, legends and contact sheets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.classes import BACKGROUND_ID
from llmseg_ros.legend_text import LegendText

if TYPE_CHECKING:
    from PIL import Image

Rgb = NDArray[np.uint8]

LEGEND_FONT_SIZE = 16
LEGEND_MARGIN = 10
SWATCH = 18


def palette(count: int) -> Rgb:
    """Return the PASCAL VOC colour map of the ids 0 to count - 1, (count, 3) uint8.

    A colour depends on the id alone: bit 3k + j of the id is bit 7 - k of channel j
    (Everingham et al., PASCAL VOC devkit, VOClabelcolormap).
    """
    ids = np.arange(count, dtype=np.uint32)
    colours = np.zeros((count, 3), np.uint8)
    for k in range(8):
        for j in range(3):
            colours[:, j] |= (((ids >> (3 * k + j)) & 1) << (7 - k)).astype(np.uint8)
    return colours


@lru_cache(maxsize=2)
def _colour_table(count: int) -> Rgb:
    return palette(count)


def colour_labels(labels: NDArray[np.integer]) -> Rgb:
    """Return the colours of (H, W) labels, 0 to 65535, as (H, W, 3) uint8."""
    colours: Rgb = _colour_table(256 if labels.max(initial=0) < 256 else 65536)[labels]
    return colours


def overlay(rgb: Rgb, labels: NDArray[np.integer], opacity: float = 0.5) -> Rgb:
    """Lay the colours of (H, W) labels over the (H, W, 3) image and draw their contours.

    The background keeps the image's own pixels. A contour is the full class colour inside
    the region and white outside of it.
    """
    colours = colour_labels(labels)
    contours = label_contours(labels)
    labelled = labels != BACKGROUND_ID
    result = rgb.copy()
    result[contours] = 255
    blended = cv2.addWeighted(rgb, 1 - opacity, colours, opacity, 0)
    cv2.copyTo(blended, labelled.view(np.uint8), result)
    cv2.copyTo(colours, (contours & labelled).view(np.uint8), result)
    return result


def label_contours(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the (H, W) pixels with another label to the left, right, above or below."""
    contours = np.zeros(labels.shape, np.bool_)
    rows = labels[1:] != labels[:-1]
    columns = labels[:, 1:] != labels[:, :-1]
    contours[1:] |= rows
    contours[:-1] |= rows
    contours[:, 1:] |= columns
    contours[:, :-1] |= columns
    return contours


def label_image(labels: NDArray[np.integer]) -> Image.Image:
    """Return (H, W) labels as a picture that keeps the ids: palette, or 16 bit above 255."""
    from PIL import Image

    if labels.max(initial=0) > 255:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(palette(256).ravel().tolist())
    return image


def add_legend(rgb: Rgb, entries: Sequence[tuple[int, str]], scale: float = 1.0) -> Rgb:
    """Return the image with a strip below it that names the colours of (id, text) entries.

    A text with characters that are in no font begins with its id.

    Args:
        rgb: (H, W, 3) image.
        entries: class ids and what to write beside their colours.
        scale: of the strip, for images that are shown smaller than they are.
    """
    from PIL import Image, ImageDraw

    legend = LegendText(LEGEND_FONT_SIZE * scale)
    margin, swatch = round(LEGEND_MARGIN * scale), round(SWATCH * scale)
    width = rgb.shape[1]
    room = width - 2 * margin - swatch
    texts = [legend.fitting(text, room, str(class_id)) for class_id, text in entries]
    widest = max((legend.width(text) for text in texts), default=0)
    column = math.ceil(2 * margin + swatch + widest)
    columns = max(1, width // column)
    row_height = swatch + margin
    rows = math.ceil(len(entries) / columns)
    strip = Image.new('RGB', (width, rows * row_height + margin), 'white')
    draw = ImageDraw.Draw(strip)
    for index, ((class_id, _), text) in enumerate(zip(entries, texts, strict=True)):
        x = margin + (index % columns) * column
        y = margin + (index // columns) * row_height
        colour = tuple(palette(class_id + 1)[-1].tolist())
        draw.rectangle((x, y, x + swatch, y + swatch), fill=colour, outline='black')
        legend.draw(draw, x + swatch + margin // 2, y + swatch // 2, text)
    return np.vstack([rgb, np.asarray(strip)])


def add_line(rgb: Rgb, text: str) -> Rgb:
    """Return the (H, W, 3) image with a line of text below it, cut to its width."""
    from PIL import Image, ImageDraw

    legend = LegendText(LEGEND_FONT_SIZE)
    width, height = rgb.shape[1], SWATCH + LEGEND_MARGIN
    strip = Image.new('RGB', (width, height), 'white')
    line = legend.fitting(text, width - 2 * LEGEND_MARGIN, '')
    legend.draw(ImageDraw.Draw(strip), LEGEND_MARGIN, SWATCH // 2, line)
    return np.vstack([rgb, np.asarray(strip)])


def contact_sheet(images: Sequence[Rgb], columns: int, tile_width: int) -> Rgb:
    """Return the images side by side in rows, each scaled to one width, on white."""
    tiles = [_scale_to_width(image, tile_width) for image in images]
    rows = []
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        canvas = np.full(
            (max(tile.shape[0] for tile in row), columns * tile_width, 3), 255, np.uint8
        )
        for index, tile in enumerate(row):
            left = index * tile_width
            canvas[: tile.shape[0], left : left + tile_width] = tile
        rows.append(canvas)
    return np.vstack(rows)


def _scale_to_width(rgb: Rgb, width: int) -> Rgb:
    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    shrinks = width < rgb.shape[1]
    scaled = cv2.resize(
        rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return np.asarray(scaled, np.uint8)
