"""Colours, overlays, legends and contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmseg_ros.visualize import (
    add_legend,
    colour_labels,
    contact_sheet,
    label_contours,
    label_image,
    overlay,
    palette,
)

VOC_COLOURS = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    7: (128, 128, 128),
    8: (64, 0, 0),
    15: (192, 128, 128),
    20: (0, 64, 128),
    255: (224, 224, 192),
}


@pytest.mark.parametrize(('class_id', 'colour'), VOC_COLOURS.items())
def test_palette_is_the_voc_colour_map(class_id: int, colour: tuple[int, int, int]) -> None:
    assert tuple(palette(256)[class_id]) == colour


def test_palette_gives_every_id_its_own_colour() -> None:
    assert len(np.unique(palette(65536), axis=0)) == 65536


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_colour_labels(dtype: type[np.unsignedinteger]) -> None:
    labels = np.array([[0, 1], [2, 255]], dtype)
    assert colour_labels(labels).tolist() == [
        [[0, 0, 0], [128, 0, 0]],
        [[0, 128, 0], [224, 224, 192]],
    ]


def test_colour_labels_above_255() -> None:
    labels = np.array([[300]], np.uint16)  # 0b100101100: bits 2, 3, 5, 8
    assert colour_labels(labels)[0, 0].tolist() == [64, 0, 128 + 64 + 32]


def test_colour_labels_of_no_pixels() -> None:
    assert colour_labels(np.zeros((0, 5), np.uint16)).shape == (0, 5, 3)


def test_label_contours() -> None:
    labels = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 7]])
    assert label_contours(labels).tolist() == [
        [False, False, False, False],
        [False, False, False, True],
        [False, False, True, True],
    ]


def test_overlay_blends_inside_and_keeps_the_background() -> None:
    rgb = np.full((8, 8, 3), 100, np.uint8)
    labels = np.zeros((8, 8), np.uint16)
    labels[2:7, 2:7] = 1
    before = rgb.copy()
    result = overlay(rgb, labels, opacity=0.5)
    assert result[4, 4].tolist() == [114, 50, 50]  # halfway to (128, 0, 0)
    assert result[2, 4].tolist() == [128, 0, 0]  # contour inside
    assert result[1, 4].tolist() == [255, 255, 255]  # contour outside
    assert result[0, 0].tolist() == [100, 100, 100]
    assert np.array_equal(rgb, before)


def test_overlay_of_background_alone_is_the_image() -> None:
    rgb = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(overlay(rgb, np.zeros((4, 4), np.uint8)), rgb)


@pytest.mark.parametrize(('top', 'mode'), [(255, 'P'), (256, 'I;16')])
def test_label_image_keeps_the_ids(top: int, mode: str) -> None:
    labels = np.array([[0, 1, 2], [3, 4, top]], np.uint16)
    image = label_image(labels)
    assert image.mode == mode
    assert np.array_equal(np.asarray(image), labels)


def test_label_image_has_the_colours() -> None:
    image = label_image(np.array([[0, 1], [2, 255]], np.uint16)).convert('RGB')
    assert image.getpixel((1, 0)) == (128, 0, 0)
    assert image.getpixel((1, 1)) == (224, 224, 192)


def test_legend_stands_below_the_image_and_shows_the_colour() -> None:
    rgb = np.full((20, 300, 3), 7, np.uint8)
    result = add_legend(rgb, [(1, 'cat'), (2, 'sofa')])
    assert result.shape[1:] == (300, 3)
    assert np.array_equal(result[:20], rgb)
    colours = {tuple(colour) for colour in result[20:].reshape(-1, 3).tolist()}
    assert {(255, 255, 255), (128, 0, 0), (0, 128, 0)} <= colours


def test_legend_is_larger_for_an_image_that_is_shown_smaller() -> None:
    rgb = np.full((20, 400, 3), 7, np.uint8)
    plain, double = (add_legend(rgb, [(1, 'cat')], scale)[20:] for scale in (1, 2))
    assert double.shape[0] == 2 * plain.shape[0]
    swatches = [np.count_nonzero((strip == palette(2)[1]).all(axis=2)) for strip in (plain, double)]
    assert swatches[1] == pytest.approx(4 * swatches[0], rel=0.2)


def test_legend_without_entries_keeps_the_image() -> None:
    rgb = np.full((20, 30, 3), 7, np.uint8)
    assert np.array_equal(add_legend(rgb, [])[:20], rgb)


@pytest.mark.parametrize(
    'text', ['猫', 'قطة', 'x' * 500, 'two\nlines', '\udcff', '\0', '', '😀', '%s{}']
)
@pytest.mark.parametrize('width', [1, 40, 640])
def test_legend_draws_any_text(text: str, width: int) -> None:
    result = add_legend(np.zeros((4, width, 3), np.uint8), [(1, text)] * 3)
    assert result.shape[1] == width


def strip_of(text: str, class_id: int = 1) -> np.ndarray:
    return add_legend(np.zeros((4, 300, 3), np.uint8), [(class_id, text)])[4:]


@pytest.mark.parametrize(
    ('text', 'other'),
    [
        *(('猫', '犬'), ('고양이', '강아지'), ('ねこ', 'いぬ'), ('🐱', '🚗'), ('кошка', 'собака')),
        *(('قطة', 'كلب'), ('बिल्ली', 'कुत्ता'), ('แมว', 'หมา'), ('☕️', '✈️'), ('café', 'cafe')),
    ],
)
def test_legend_knows_the_script(text: str, other: str) -> None:
    """Two names are drawn as two, and not as boxes that stand for what no font has."""
    from llmseg_ros.legend_text import LegendText

    assert LegendText(16).fitting(text, 300, '1') == text
    assert (strip_of(text) != strip_of(other)).any()


def test_legend_tells_by_its_id_what_no_font_has() -> None:
    from llmseg_ros.legend_text import LegendText

    assert LegendText(16).fitting('\U00013000 3 %', 300, '7') == '7 \N{REPLACEMENT CHARACTER} 3 %'
    ink = [(strip_of('\U00013000', class_id) == 0).all(axis=2) for class_id in (7, 8)]
    assert (ink[0] != ink[1]).any()


def test_legend_is_drawn_without_the_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmseg_ros import legend_text

    for cached in (legend_text._font_files, legend_text._font, legend_text._font_with):
        cached.cache_clear()
    monkeypatch.setattr(legend_text, 'FONT_PACKAGES', ())
    try:
        assert (strip_of('cat') != strip_of('dog')).any()
        assert legend_text.LegendText(16).fitting('猫', 300, '1').startswith('1 ')
    finally:
        for cached in (legend_text._font_files, legend_text._font, legend_text._font_with):
            cached.cache_clear()


def test_legend_cuts_long_text_at_the_edge() -> None:
    rgb = np.zeros((4, 200, 3), np.uint8)
    strip = add_legend(rgb, [(1, 'W' * 64)])[4:]
    assert (strip[:, -5:] == 255).all()


def test_contact_sheet_scales_and_pads() -> None:
    wide = np.full((10, 20, 3), 50, np.uint8)
    tall = np.full((40, 20, 3), 90, np.uint8)
    sheet = contact_sheet([wide, tall, wide], columns=2, tile_width=10)
    assert sheet.shape == (20 + 5, 20, 3)
    assert (sheet[:5, :10] == 50).all()
    assert (sheet[5:20, :10] == 255).all()
    assert (sheet[:20, 10:] == 90).all()
    assert (sheet[20:, :10] == 50).all()
    assert (sheet[20:, 10:] == 255).all()


def test_label_image_survives_a_file(tmp_path: Path) -> None:
    labels = np.array([[0, 5], [254, 255]], np.uint16)
    label_image(labels).save(tmp_path / 'labels.png')
    with Image.open(tmp_path / 'labels.png') as image:
        assert image.mode == 'P'
        assert np.array_equal(np.asarray(image), labels)
