"""The cloud of a map in headless Chromium, opened from disk; skipped where there is none."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from ..helpers.browser import needs_chromium, opened_browser, show
from .pages import HOSTILE, make_map_page

pytestmark = needs_chromium
RED, GREEN = (128, 0, 0), (0, 128, 0)  # of classes 1 and 2
CORNER = 20  # pixels that the outline of the focus may lie on
LIGHTNESS = 0.55 + 0.45 * 200 / 255


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with opened_browser(tmp_path_factory.mktemp('browser')) as driver:
        yield driver


@pytest.fixture(scope='module')
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('pages') / 'report.html'
    path.write_text(make_map_page((HOSTILE, 'cup')), encoding='utf-8')
    return path


def pixels_of(browser: Any) -> NDArray[np.uint8]:
    """Return the canvas as it is seen."""
    time.sleep(0.3)  # two frames of the screen
    canvas = browser.find_element(By.CSS_SELECTOR, '.cloud canvas')
    return np.array(Image.open(io.BytesIO(canvas.screenshot_as_png)).convert('RGB'))


def share_of(pixels: NDArray[np.uint8], colour: tuple[int, ...]) -> float:
    wanted = np.multiply(colour, LIGHTNESS)
    return float((np.abs(pixels - wanted).max(axis=2) < 4).mean())


def said(browser: Any) -> str:
    text: str = browser.find_element(By.CSS_SELECTOR, '.cloud output').text
    return text


def box(browser: Any, index: int) -> Any:
    return browser.find_elements(By.CSS_SELECTOR, 'input[name="class"]')[index]


def test_the_cloud_is_drawn(browser: Any, page: Path) -> None:
    show(browser, page)
    pixels = pixels_of(browser)
    assert said(browser) == '1,728 of 1,728 points'
    assert share_of(pixels, RED) > 0.02
    assert share_of(pixels, GREEN) > 0.02
    # The layers lie as they are: background below, class 1 on it, class 2 on top.
    rows = [
        np.flatnonzero((np.abs(pixels - np.multiply(c, LIGHTNESS)).max(axis=2) < 4).any(axis=1))
        for c in (RED, GREEN)
    ]
    assert rows[1].mean() < rows[0].mean()


def test_nothing_is_wrong_and_nothing_is_fetched(browser: Any, page: Path) -> None:
    browser.get_log('browser')
    for width in (390, 1280):
        show(browser, page, width)
        overflow = 'return document.documentElement.scrollWidth - innerWidth'
        assert browser.execute_script(overflow) <= 0
    entries = [e for e in browser.get_log('browser') if 'GPU stall' not in e['message']]
    assert entries == []
    fetched = 'return performance.getEntriesByType("resource").map((e) => e.name)'
    assert [name for name in browser.execute_script(fetched) if not name.startswith('data:')] == []
    assert HOSTILE in browser.find_element(By.CSS_SELECTOR, '.controls').text


def test_classes_can_be_left_out(browser: Any, page: Path) -> None:
    show(browser, page)
    box(browser, 1).click()
    pixels = pixels_of(browser)
    assert said(browser) == '1,152 of 1,728 points'
    assert share_of(pixels, RED) == 0
    assert share_of(pixels, GREEN) > 0.02
    browser.find_element(By.CSS_SELECTOR, '.cloud .none').click()
    assert said(browser) == '0 of 1,728 points'
    assert share_of(pixels_of(browser), GREEN) == 0
    browser.find_element(By.CSS_SELECTOR, '.cloud .all').send_keys(Keys.ENTER)
    assert said(browser) == '1,728 of 1,728 points'
    assert box(browser, 1).is_selected()


def test_colours_and_probability(browser: Any, page: Path) -> None:
    show(browser, page)
    browser.find_element(By.CSS_SELECTOR, 'input[value="camera"]').click()
    pixels = pixels_of(browser)
    assert share_of(pixels, RED) == 0
    assert (pixels == 200).all(axis=2).mean() > 0.05
    least = browser.find_element(By.CSS_SELECTOR, 'input[name="least"]')
    least.send_keys(Keys.END)
    assert said(browser) == '0 of 1,728 points'
    browser.execute_script(
        'arguments[0].value = 65; arguments[0].dispatchEvent(new Event("input", {bubbles: true}))',
        least,
    )
    assert said(browser) == '864 of 1,728 points'  # x of 6 and more: 0.3 + 0.7 * 6 / 12 = 0.65


def keys(*keys: str) -> Callable[[Any, Any], None]:
    return lambda _, canvas: canvas.send_keys(*keys)


def drag(browser: Any, canvas: Any) -> None:
    ActionChains(browser).click_and_hold(canvas).move_by_offset(120, 30).release().perform()


def wheel(browser: Any, canvas: Any) -> None:
    canvas.send_keys(Keys.HOME)  # focus: before, the page scrolls
    there = ScrollOrigin.from_element(canvas)
    ActionChains(browser).scroll_from_origin(there, 0, -300).perform()


def touch(browser: Any, canvas: Any) -> None:
    """Two fingers move apart."""
    place = canvas.rect
    x, y = place['x'] + place['width'] / 2, place['y'] + place['height'] / 2

    def points(apart: int) -> list[dict[str, float]]:
        return [{'x': x - apart, 'y': y, 'id': 1}, {'x': x + apart, 'y': y, 'id': 2}]

    for kind, fingers in (
        ('touchStart', points(20)),
        ('touchMove', points(40)),
        ('touchMove', points(60)),
        ('touchEnd', []),
    ):
        browser.execute_cdp_cmd('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': fingers})


@pytest.mark.parametrize(
    'move',
    [keys(Keys.ARROW_LEFT), keys(Keys.ARROW_UP), keys('+'), keys('-'), drag, wheel, touch],
    ids=['left', 'up', 'plus', 'minus', 'drag', 'wheel', 'touch'],
)
def test_the_cloud_turns_and_comes_back(browser: Any, page: Path, move: Any) -> None:
    show(browser, page, height=1500)
    before = pixels_of(browser)
    canvas = browser.find_element(By.CSS_SELECTOR, '.cloud canvas')
    move(browser, canvas)
    assert (pixels_of(browser) != before).any(axis=2).mean() > 0.01
    browser.find_element(By.CSS_SELECTOR, '.cloud .home').click()
    np.testing.assert_array_equal(
        pixels_of(browser)[CORNER:-CORNER, CORNER:-CORNER], before[CORNER:-CORNER, CORNER:-CORNER]
    )


def test_coming_closer_and_going_away(browser: Any, page: Path) -> None:
    show(browser, page)
    before = share_of(pixels_of(browser), GREEN)
    canvas = browser.find_element(By.CSS_SELECTOR, '.cloud canvas')
    canvas.send_keys('+', '+')
    assert share_of(pixels_of(browser), GREEN) > 1.05 * before
    canvas.send_keys(*'------')
    assert share_of(pixels_of(browser), GREEN) < 0.8 * before


def test_both_colour_schemes(browser: Any, page: Path) -> None:
    for scheme, is_light in (('light', True), ('dark', False)):
        show(browser, page, scheme=scheme)
        corner = pixels_of(browser)[20, 20]
        assert (corner > 128).all() == is_light, scheme


def test_without_webgl(browser: Any, page: Path) -> None:
    """The pictures are left, and what to do is said."""
    script = 'HTMLCanvasElement.prototype.getContext = () => null'
    given = browser.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument', {'source': script})
    try:
        show(browser, page)
        WebDriverWait(browser, 5).until(lambda b: 'shows no WebGL' in b.page_source)
        assert browser.find_element(By.CSS_SELECTOR, '.cloud .missing').is_displayed()
        assert not browser.find_element(By.CSS_SELECTOR, '.cloud canvas').is_displayed()
    finally:
        browser.execute_cdp_cmd(
            'Page.removeScriptToEvaluateOnNewDocument', {'identifier': given['identifier']}
        )


def test_a_part_of_a_large_map_is_shown(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('llmseg_ros.reports.map_report.SHOWN_POINTS', 500)
    path = tmp_path / 'report.html'
    path.write_text(make_map_page(('cup',), forgotten=7), encoding='utf-8')
    show(browser, path)
    assert said(browser) == '500 of 500 points'
    text = browser.find_element(By.TAG_NAME, 'body').text
    assert "500 of the map's 1,728 voxels, drawn at random; map.ply has all" in text
    assert '7 voxels were forgotten at the limit of the map' in text
