"""Headless Chromium for the tests of pages; without it they are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
DRIVER = shutil.which('chromedriver')
FLAGS = ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run')
FLAGS += ('disable-background-networking', 'disable-component-update', 'disable-sync')
FLAGS += ('enable-unsafe-swiftshader',)  # WebGL without a GPU

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason='needs chromium and chromedriver (apt: chromium-driver)'
)


@contextmanager
def opened_browser(folder: Path) -> Iterator[Any]:
    """Start Chromium with an empty folder for its user."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f'user-data-dir={folder}'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def show(
    browser: Any, page: Path | str, width: int = 1280, scheme: str = 'light', height: int = 900
) -> None:
    """Open a page from disk or of a server in a window of a width, in light or dark."""
    size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600}
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    features = [
        {'name': 'prefers-color-scheme', 'value': scheme},
        {'name': 'prefers-reduced-motion', 'value': 'reduce'},  # clicks don't wait for scrolling
    ]
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': features})
    browser.get(page.as_uri() if isinstance(page, Path) else page)
