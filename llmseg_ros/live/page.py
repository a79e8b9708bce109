"""The page: one document with its styles and scripts in it, nothing fetched from elsewhere."""

from __future__ import annotations

import functools
from pathlib import Path

from llmseg_ros.reports.report_page import FOLDER as LOOK
from llmseg_ros.reports.report_page import hash_of, read_script, read_style, templates

FOLDER = Path(__file__).parent / 'page'
SCRIPTS = ('decode.js', 'picture.js', 'strip.js', 'classes.js', 'panel.js', 'socket.js')


@functools.cache
def render_page() -> tuple[str, str]:
    """Return the page and its Content-Security-Policy."""
    scripts = [read_script(FOLDER / name) for name in SCRIPTS]
    style = read_style(LOOK / 'look.css', FOLDER / 'live.css')
    html = templates(FOLDER).get_template('live.html.j2').render(scripts=scripts, style=style)
    hashes = ' '.join(f"'{script.hash}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src '{hash_of(style)}'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return html, policy
