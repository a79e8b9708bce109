"""Files to save from the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import yaml

from llmseg_ros.live.frames import LiveFrame
from llmseg_ros.live.session import LiveError, Session
from llmseg_ros.visualize import add_legend, label_image, overlay

if TYPE_CHECKING:
    from PIL import Image

File = tuple[str, bytes]  # media type, content


def newest(session: Session) -> LiveFrame:
    if session.newest is None:
        raise LiveError('there is no frame to save yet')
    return session.newest


def overlay_file(session: Session) -> File:
    """Return the newest frame at its own size with labels and a legend, as PNG."""
    from PIL import Image

    frame = newest(session)
    names = {item['id']: item['name'] for item in session.describe()['classes']}
    found = sorted((c for c in frame.classes if c.share), key=lambda c: -c.share)
    legend = [(c.id, f'{names.get(c.id, c.id)} {100 * c.share:.1f} %') for c in found]
    picture = add_legend(overlay(frame.rgb, frame.labels), legend)
    return 'image/png', png_of(Image.fromarray(picture))


def labels_file(session: Session) -> File:
    """Return the newest frame's label ids, as `llmseg segment` writes them."""
    return 'image/png', png_of(label_image(newest(session).labels))


def settings_file(session: Session) -> File:
    """Return settings and class list as a file for --config."""
    text = yaml.safe_dump(session.settings(), sort_keys=False, allow_unicode=True)
    return 'application/yaml', text.encode()


def subclasses_file(session: Session) -> File:
    """Return the subclasses in force as a file for the setting subclasses.file."""
    classes = {
        item['name']: {'subclasses': item['subclasses']} for item in session.describe()['classes']
    }
    content = {'origin': 'saved from llmseg live', 'classes': classes}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return 'application/yaml', text.encode()


def png_of(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format='PNG')
    return buffer.getvalue()


FILES: Mapping[str, Callable[[Session], File]] = {
    'overlay.png': overlay_file,
    'labels.png': labels_file,
    'settings.yaml': settings_file,
    'subclasses.yaml': subclasses_file,
}
