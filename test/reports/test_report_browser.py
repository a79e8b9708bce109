"""The report page in headless Chromium, opened from disk; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from ..helpers.browser import needs_chromium, opened_browser, show
from .pages import HOSTILE, QUOTED, make_evaluation_page, make_folder_page, make_replay_page

BAGS = ('monday/hall', 'javascript:alert(3)', QUOTED, '%2e%2e/#?.bag')

pytestmark = needs_chromium


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with opened_browser(tmp_path_factory.mktemp('browser')) as driver:
        yield driver


@pytest.fixture(scope='module')
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An ablation with few classes, an evaluation with many, a bag, and a folder of bags."""
    folder = tmp_path_factory.mktemp('pages')
    axes = {'fusion': ('paper', 'max'), 'refine': ('none', 'pamr')}
    many = [f'class {index} with a long name' for index in range(70)]
    texts = {
        'ablation': make_evaluation_page(('cat', HOSTILE, QUOTED), axes),
        'many': make_evaluation_page(many, {}, images=400),
        'replay': make_replay_page(folder, (HOSTILE, 'cup' * 60), with_truth=True),
        'folder': make_folder_page(folder, BAGS, (HOSTILE, 'cup')),
    }
    paths = {name: folder / f'{name}.html' for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name], encoding='utf-8')
    return paths


@pytest.mark.parametrize('name', ['ablation', 'many', 'replay', 'folder'])
def test_page_is_whole_at_every_width(browser: Any, pages: dict[str, Path], name: str) -> None:
    browser.get_log('browser')
    for width in (390, 1280):
        show(browser, pages[name], width)
        overflow = 'return document.documentElement.scrollWidth - innerWidth'
        assert browser.execute_script(overflow) <= 0
        images = (
            'const all = [...document.querySelectorAll("main img")];'
            'all.forEach((image) => { image.loading = "eager"; });'
            'return all.map((image) => image.complete && image.naturalWidth)'
        )
        WebDriverWait(browser, 10).until(lambda b, script=images: all(b.execute_script(script)))
        assert len(browser.execute_script(images)) >= (0 if name == 'folder' else 8)
    assert browser.get_log('browser') == []


def test_hostile_names_do_nothing(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages['ablation'])
    assert HOSTILE in browser.find_element(By.ID, 'classes').text
    assert HOSTILE in browser.find_element(By.TAG_NAME, 'h1').text
    assert browser.execute_script('return document.querySelectorAll("[onerror]").length') == 0


def test_bags_lead_to_their_reports(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages['folder'])
    links = browser.find_elements(By.CSS_SELECTOR, '#bags tbody a')
    assert [link.text for link in links] == sorted(BAGS)
    for link in links:
        report = pages['folder'].parent / link.text / 'report.html'
        assert link.get_attribute('href') == report.as_uri()
    assert browser.execute_script('return document.querySelectorAll("[onerror]").length') == 0


def column(browser: Any, index: int) -> list[str]:
    """Return the texts in a column of the table of classes."""
    script = (
        'return [...document.querySelectorAll("#classes tbody tr")]'
        '.map((row) => row.cells[arguments[0]].textContent.trim())'
    )
    texts: list[str] = browser.execute_script(script, index)
    return texts


@pytest.mark.parametrize('use_keyboard', [False, True])
def test_sorting(browser: Any, pages: dict[str, Path], use_keyboard: bool) -> None:
    show(browser, pages['many'])
    header = browser.find_elements(By.CSS_SELECTOR, '#classes thead th')[1]
    button = header.find_element(By.TAG_NAME, 'button')

    def sort() -> list[float]:
        if use_keyboard:
            button.send_keys(Keys.ENTER)
        else:
            button.click()
        return [float(text.split()[0]) for text in column(browser, 1)]

    assert header.get_attribute('aria-sort') == 'none'
    values = sort()
    assert header.get_attribute('aria-sort') == 'descending'
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 5
    assert sort() == sorted(values)
    assert header.get_attribute('aria-sort') == 'ascending'
    browser.find_elements(By.CSS_SELECTOR, '#classes thead button')[0].send_keys(Keys.SPACE)
    assert header.get_attribute('aria-sort') == 'none'
    names = column(browser, 0)
    assert names[:4] == ['background', *(f'class {i} with a long name' for i in range(3))]


@pytest.mark.parametrize(('name', 'tables'), [('ablation', 7), ('folder', 6)])
def test_every_table_can_be_sorted(
    browser: Any, pages: dict[str, Path], name: str, tables: int
) -> None:
    show(browser, pages[name])
    script = """
        return [...document.querySelectorAll('thead th')].filter((header) => {
            header.querySelector('button').click();
            return header.ariaSort === 'none';
        }).length
    """
    assert browser.execute_script(script) == 0
    assert len(browser.find_elements(By.TAG_NAME, 'table')) >= tables


def test_missing_values_are_last_either_way(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages['ablation'])
    script = """
        const cell = document.querySelector('#classes tbody tr').cells[1];
        cell.textContent = '\\u2013';
        delete cell.dataset.value;
        const button = document.querySelectorAll('#classes thead button')[1];
        return [0, 1].map(() => {
            button.click();
            return [...document.querySelectorAll('#classes tbody tr')].at(-1).cells[1].textContent;
        })
    """
    assert browser.execute_script(script) == ['\u2013', '\u2013']


def test_both_colour_schemes(browser: Any, pages: dict[str, Path]) -> None:
    colours = {}
    for scheme in ('light', 'dark'):
        show(browser, pages['replay'], scheme=scheme)
        script = 'const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]'
        ink, paper = browser.execute_script(script)
        colours[scheme] = [sum(map(int, c[4:-1].split(','))) for c in (ink, paper)]
    assert colours['light'][0] < 200 < 600 < colours['light'][1]
    assert colours['dark'][1] < 200 < 600 < colours['dark'][0]


def test_a_picture_can_be_enlarged(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages['replay'])
    browser.find_element(By.CSS_SELECTOR, 'button.zoom').send_keys(Keys.ENTER)
    large = browser.find_element(By.CSS_SELECTOR, 'dialog img')
    assert large.is_displayed()
    assert large.size['width'] > 300
    large.click()
    assert not large.is_displayed()


def test_video_plays(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages['replay'])
    script = """
        const done = arguments[0];
        const video = document.querySelector('video');
        video.addEventListener('timeupdate', () => {
            if (video.currentTime > 0.1) done([video.videoWidth, video.duration]);
        });
        video.addEventListener('error', () => done(video.error.message));
        video.play().catch((error) => done(error.message));
    """
    width, duration = browser.execute_async_script(script)
    assert width == 64
    assert duration == pytest.approx(0.8, abs=0.1)
