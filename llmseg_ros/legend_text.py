"""Text of legends, each character in the first font that has it."""

from __future__ import annotations

import importlib.util
import unicodedata
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FONT_PACKAGES = ('manimgx_fonts', 'manimgx_fonts_cjk')
FIRST_FONT = 'NotoSans[wght].ttf'
UNKNOWN = '\N{REPLACEMENT CHARACTER}'
NOWHERE = '\U0010ffff'  # a character that no font has, drawn as what stands for one
REGULAR = 400.0  # of the weights in one file


class LegendText:
    """Measure, cut and draw lines of text at one font size in pixels."""

    def __init__(self, size: float) -> None:
        self._size = size

    def fitting(self, text: str, width: float, substitute: str) -> str:
        """Return the text on one line, cut to a width in pixels.

        Args:
            text: what to write.
            width: that there is.
            substitute: to begin with where a character of the text is in no font.
        """
        fonts = self._fonts(text)
        line = ''.join(
            char if font >= 0 else UNKNOWN for char, font in zip(text, fonts, strict=True)
        )
        if UNKNOWN in line:
            line = f'{substitute} {line}'
        if self.width(line) <= width:
            return line
        while line and self.width(line + '…') > width:
            line = line[:-1]
        return line + '…'

    def width(self, line: str) -> float:
        """Return the width of a line in pixels."""
        return sum(font.getlength(run) for run, font in self._runs(line))

    def draw(self, draw: ImageDraw.ImageDraw, x: float, middle: float, line: str) -> None:
        """Draw a line from x on, its first font's middle at a height."""
        first = _font(0, self._size)
        ascent, descent = first.getmetrics() if hasattr(first, 'getmetrics') else (self._size, 0)
        for run, font in self._runs(line):
            draw.text((x, middle + (ascent - descent) / 2), run, 'black', font, anchor='ls')
            x += font.getlength(run)

    def _runs(self, line: str) -> list[tuple[str, Font]]:
        """Return a line in pieces of one font each."""
        pieces = groupby(zip(self._fonts(line), line, strict=True), lambda pair: pair[0])
        return [
            (''.join(char for _, char in pairs), _font(max(0, index), self._size))
            for index, pairs in pieces
        ]

    def _fonts(self, line: str) -> list[int]:
        """Return the place of the first font with each character, -1 where none has it.

        Marks are drawn in the font of the letter they are on.
        """
        places: list[int] = []
        for char in line:
            if places and unicodedata.category(char).startswith('M'):
                places.append(places[-1])
            else:
                places.append(_font_with(char, self._size) if char.isprintable() else -1)
        return places


@lru_cache(maxsize=4096)
def _font_with(char: str, size: float) -> int:
    for index in range(max(1, len(_font_files()))):
        font = _font(index, size)
        if bytes(font.getmask(char)) != bytes(font.getmask(NOWHERE)):
            return index
    return -1


@lru_cache(maxsize=256)
def _font(index: int, size: float) -> Font:
    from PIL import ImageFont

    files = _font_files()
    if not files:
        return ImageFont.load_default(size)
    font = ImageFont.truetype(str(files[index]), size)
    font.set_variation_by_axes([REGULAR])
    return font


@lru_cache(maxsize=1)
def _font_files() -> tuple[Path, ...]:
    """Return the font files of the packages, Latin first, those of many characters last."""
    files: list[Path] = []
    for package in FONT_PACKAGES:
        found = importlib.util.find_spec(package)
        if found and found.submodule_search_locations:
            folder = Path(found.submodule_search_locations[0])
            files += [path for path in folder.iterdir() if path.suffix in ('.ttf', '.ttc')]
    return tuple(sorted(files, key=lambda path: (path.name != FIRST_FONT, path.stat().st_size)))
