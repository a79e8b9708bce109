"""The page of `llmseg live` in headless Chromium, on a real server; skipped where there is none."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from starlette.applications import Starlette
from starlette.middleware import Middleware

from llmseg_ros.live.guard import Guard

from ..helpers.browser import needs_chromium, opened_browser, show
from .conftest import LiveServer

pytestmark = needs_chromium

HOSTILE = '<img src=x onerror=alert(1)>'
RIGHT_TO_LEFT = 'קטלוג של חתולים'
EMOJI = 'cat 🐈'


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with opened_browser(tmp_path_factory.mktemp('browser')) as driver:
        yield driver


@pytest.fixture
def page(server: LiveServer, browser: Any) -> Any:
    """The page, paused on the photograph of the cat."""
    show(browser, server.wait())
    until(browser, lambda: shown(browser) > 0)
    if text_of(browser, 'pause') == 'Pause':
        browser.find_element(By.ID, 'pause').click()
    until(browser, lambda: text_of(browser, 'pause') == 'Go on')
    for name in set(chips(browser)) - {'zebra'}:
        remove(browser, name)
    while browser.execute_script('return look.frame.name') != 'cat.png':
        step(browser)
    return browser


def until(browser: Any, condition: Callable[[], object], timeout_s: float = 15) -> None:
    WebDriverWait(browser, timeout_s, poll_frequency=0.05).until(lambda _: condition())


def text_of(browser: Any, identifier: str) -> str:
    return browser.find_element(By.ID, identifier).text


def shown(browser: Any) -> int:
    """Return the number of the frame on the page, 0 before the first."""
    return int(browser.execute_script('return look.frame ? look.frame.frame : 0'))


def step(browser: Any) -> None:
    before = shown(browser)
    browser.find_element(By.ID, 'step').click()
    until(browser, lambda: shown(browser) > before)


def add(browser: Any, text: str) -> None:
    """Paste names into the text box and send them."""
    set_value = "const box = document.getElementById('names'); box.value = arguments[0];"
    browser.execute_script(set_value, text)
    browser.find_element(By.ID, 'names').send_keys(Keys.ENTER)


def chips(browser: Any) -> dict[str, tuple[float, str]]:
    """Return share in percent and colour of the classes listed."""
    found = browser.execute_script(
        """return [...document.querySelectorAll('#chips li')].map((chip) => [
             chip.querySelector('.name').textContent,
             parseFloat(chip.querySelector('.share').textContent) || 0,
             getComputedStyle(chip.querySelector('.swatch')).backgroundColor])"""
    )
    return {name: (share, colour) for name, share, colour in found}


def pixels_like(browser: Any, colour: str) -> float:
    """Return the share of the canvas that has a colour, in percent."""
    return browser.execute_script(
        """const [r, g, b] = arguments[0].match(/\\d+/g).map(Number);
           const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
           let count = 0;
           for (let i = 0; i < data.length; i += 4) {
             count += data[i] === r && data[i + 1] === g && data[i + 2] === b;
           }
           return (400 * count) / data.length""",
        colour,
    )


def remove(browser: Any, name: str) -> None:
    browser.execute_script('send({ do: "drop", name: arguments[0] })', name)
    until(browser, lambda: name not in chips(browser))


def test_a_class_is_typed_and_found(page: Any) -> None:
    """Its chip comes with colour and share, and its pixels on the paused frame."""
    assert list(chips(page)) == ['zebra']
    add(page, 'cat, coffee cup')
    until(page, lambda: chips(page).get('cat', (0, ''))[0] > 5)
    share, colour = chips(page)['cat']
    page.execute_script("chooseView('labels')")
    assert pixels_like(page, colour) == pytest.approx(share, abs=0.1)
    page.execute_script("chooseView('overlay')")
    assert pixels_like(page, colour) < share / 2  # the contour alone
    assert list(chips(page)) == ['zebra', 'cat', 'coffee cup']
    remove(page, 'coffee cup')
    remove(page, 'cat')
    until(page, lambda: page.execute_script('return look.frame.ids.length') == 1)


def test_names_are_refused_in_a_sentence(page: Any) -> None:
    add(page, f'{"x" * 10_000}, zebra, background')
    until(page, lambda: '10000 characters' in text_of(page, 'told'))
    assert "'zebra' is in the list already" in text_of(page, 'told')
    assert 'is what no class covers' in text_of(page, 'told')
    assert list(chips(page)) == ['zebra']
    add(page, 'tab\u0007le')
    until(page, lambda: 'control characters' in text_of(page, 'told'))


def test_hostile_names_are_text(page: Any) -> None:
    names = [HOSTILE, RIGHT_TO_LEFT, EMOJI, 'w' * 64]
    add(page, '\n'.join(names))
    until(page, lambda: list(chips(page)) == ['zebra', *names])
    assert page.execute_script('return document.querySelectorAll("[onerror]").length') == 0
    overflow = 'return document.documentElement.scrollWidth - innerWidth'
    for width in (390, 1280):
        show(page, page.current_url, width)
        until(page, lambda: len(chips(page)) == 5)
        assert page.execute_script(overflow) <= 0
    for name in names:
        remove(page, name)


def test_a_tall_picture_fits_a_phone(page: Any) -> None:
    show(page, page.current_url, 390, height=800)
    until(page, lambda: shown(page) > 0)
    tall = 'canvas.style.setProperty("--aspect", 0.1); return canvas.getBoundingClientRect().width'
    assert page.execute_script(tall) == pytest.approx(0.72 * 800 * 0.1, abs=1)
    show(page, page.current_url)


def test_a_pixel_is_read_and_its_class_shown_as_heat(page: Any) -> None:
    add(page, 'cat')
    until(page, lambda: chips(page).get('cat', (0, ''))[0] > 5)
    canvas = page.find_element(By.ID, 'canvas')
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    reading = text_of(page, 'reading')
    assert ' cat ' in reading
    assert 'next, before refinement: background < 1 %' in reading
    heat = page.execute_script(
        'const id = look.frame.ids.at(-1); showHeatOf(id);'
        'return Math.max(...mapOf(look.frame, id).values)'
    )
    assert heat > 127
    assert canvas.get_attribute('data-view') == 'heat'
    page.execute_script("chooseView('overlay')")
    remove(page, 'cat')


def test_subclasses_are_seen_dropped_and_added(page: Any) -> None:
    add(page, 'cat')
    until(page, lambda: 'cat' in chips(page))
    page.find_element(By.CSS_SELECTOR, '#chips li:last-child summary').click()
    until(page, lambda: page.find_elements(By.CSS_SELECTOR, '#chips li:last-child .subclass'))
    listed = "return [...document.querySelectorAll('#chips li:last-child .subclass')]"
    names = f'{listed}.map((row) => row.firstChild.textContent)'
    assert 'tabby cat' in page.execute_script(names)
    origin = "return document.querySelector('#chips li:last-child .origin').textContent"
    assert 'from a file: voc.yaml' in page.execute_script(origin)
    dropped = page.execute_script(f'{listed}[0].firstChild.textContent')
    page.execute_script(f'{listed}[0].querySelector("button").click()')
    until(page, lambda: dropped not in page.execute_script(names))
    page.find_element(By.CSS_SELECTOR, '#chips li:last-child input').send_keys('wildc')
    page.execute_script('send({ do: "subclasses", name: "zebra", names: [] })')  # as others do
    until(page, lambda: page.execute_script('return list.key.includes(\'"subclasses":[]\')'))
    page.switch_to.active_element.send_keys('at', Keys.ENTER)
    until(page, lambda: 'wildcat' in page.execute_script(names))
    assert page.execute_script("return document.querySelector('#chips input').value") == ''
    assert 'typed here' in page.execute_script(origin)
    remove(page, 'cat')


def test_thresholds_are_checked_as_settings_are(page: Any) -> None:
    number = page.find_element(By.CSS_SELECTOR, '[data-name="gate.minimum"] input[type=number]')
    for value, sentence in (('5', 'gate.minimum is 5.0, expected 0.0 to 2.0'), ('0.05', '')):
        number.send_keys(Keys.CONTROL, 'a', Keys.NULL, value, Keys.ENTER)
        until(page, lambda said=sentence: text_of(page, 'threshold-told') == said)
    ranged = '[data-name="gate.minimum"] input[type=range]'
    until(page, lambda: page.find_element(By.CSS_SELECTOR, ranged).get_attribute('value') == '0.05')


def test_keys_pause_and_step(page: Any) -> None:
    body = page.find_element(By.TAG_NAME, 'body')
    before = shown(page)
    body.send_keys('n')
    until(page, lambda: shown(page) > before)
    body.send_keys(' ')
    until(page, lambda: text_of(page, 'pause') == 'Pause')
    before = shown(page)
    until(page, lambda: shown(page) >= before + 2)
    body.send_keys('2')
    assert page.find_element(By.ID, 'canvas').get_attribute('data-view') == 'labels'
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, '#strip button')) >= 2)
    page.find_element(By.CSS_SELECTOR, '#strip button:last-child').click()
    until(page, lambda: page.find_element(By.ID, 'back').is_displayed())
    body.send_keys(Keys.ESCAPE)
    until(page, lambda: not page.find_element(By.ID, 'back').is_displayed())


def test_two_pages_see_the_same(page: Any, server: LiveServer) -> None:
    first = page.current_window_handle
    page.switch_to.new_window('window')
    try:
        show(page, server.wait())
        until(page, lambda: list(chips(page)) == ['zebra'])
        add(page, 'cat')
        until(page, lambda: 'cat' in chips(page))
        page.switch_to.window(page.window_handles[0])
        until(page, lambda: 'cat' in chips(page))
        remove(page, 'cat')
    finally:
        for handle in page.window_handles:
            if handle != first:
                page.switch_to.window(handle)
                page.close()
        page.switch_to.window(first)


def test_page_says_that_the_server_is_gone_and_comes_back(page: Any, server: LiveServer) -> None:
    server.end(signal.SIGKILL)
    until(page, lambda: 'server is gone' in text_of(page, 'status'))
    add(page, 'cat')
    assert 'not sent' in text_of(page, 'told')
    with refusing_server(server.port):
        until(page, lambda: 'lacks the token' in text_of(page, 'status'))
    server.start()
    server.wait()
    until(page, lambda: text_of(page, 'status') == 'live')
    until(page, lambda: list(chips(page)) == ['zebra'])
    errors = [line['message'] for line in page.get_log('browser') if line['level'] == 'SEVERE']
    expected = ('WebSocket connection', 'Failed to load resource')
    unexpected = [said for said in errors if not any(text in said for text in expected)]
    assert unexpected == []


@contextmanager
def refusing_server(port: int) -> Iterator[None]:
    """Serve what a page without the token sees."""
    app = Starlette(middleware=[Middleware(Guard, token='another')])
    refusing = uvicorn.Server(uvicorn.Config(app, port=port, ws='wsproto', log_level='error'))
    thread = threading.Thread(target=refusing.run)
    thread.start()
    yield
    refusing.should_exit = True
    thread.join()


def test_ctrl_c_ends_it(page: Any, server: LiveServer) -> None:
    """With a page open, quickly, and without a traceback."""
    assert server.end() == 0
    assert 'Traceback' not in server.said()
    until(page, lambda: 'gone' in text_of(page, 'status'))
