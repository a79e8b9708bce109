"""Whether `llmseg live` and an open page grow: memory of both, once a minute.

    .venv/bin/python bench/live_growth.py --minutes 30

Starts the server on the demo's photographs with the smallest model, opens its page in headless
Chromium, changes the class list once a minute as people do, and prints a row a minute: resident
memory of the server, heap, DOM nodes and listeners of the page after a collection, frames shown. At
the end it prints how much each grew from the first third of the time to the last.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CONFIG = 'imagenet: {model: lite0, short_sides: [64], dilated: false}\n'
CLASSES = ('dog', 'coffee cup', 'space suit', 'saucer')
FLAGS = ('headless', 'no-sandbox', 'disable-gpu', 'no-first-run', 'disable-background-networking')
MINUTE_S = 60.0
PAGE = ('JSHeapUsedSize', 'Nodes', 'JSEventListeners')
COLUMNS = ('minute', 'server MiB', 'page heap MiB', 'DOM nodes', 'listeners', 'frames')


def main() -> None:
    """Run for the minutes asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=int, default=30)
    parser.add_argument('--port', type=int, default=8091)
    parser.add_argument('--chromium', default='/usr/bin/chromium')
    parser.add_argument('--chromedriver', default='/usr/bin/chromedriver')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / 'fast.yaml').write_text(CONFIG)
        server = start_server(Path(folder), arguments.port)
        browser = start_browser(arguments.chromium, arguments.chromedriver)
        try:
            browser.get(f'http://localhost:{arguments.port}')
            print(*COLUMNS, sep='\t', flush=True)
            rows = [measure(browser, server.pid, n) for n in range(1, arguments.minutes + 1)]
        finally:
            browser.quit()
            server.send_signal(signal.SIGINT)
            print(f'server ended with {server.wait(30)}')
    tell_growth(rows)


def start_server(folder: Path, port: int) -> subprocess.Popen[str]:
    code = 'from llmseg_ros.cli.main import main; main()'
    options = ['--port', str(port), '--config', 'fast.yaml', '--classes', 'cat,cup,rocket']
    command = [sys.executable, '-c', code, 'live', *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert server.stdout is not None
    server.stdout.readline()
    return server


def start_browser(chromium: str, chromedriver: str) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(f'--{flag}')
    return webdriver.Chrome(options=options, service=Service(chromedriver))


def measure(browser: Any, pid: int, minute: int) -> tuple[float, ...]:
    """Wait a minute, change the class list twice, and measure."""
    name = CLASSES[minute % len(CLASSES)]
    browser.execute_script('send({ do: "add", names: arguments[0] })', name)
    time.sleep(MINUTE_S / 2)
    browser.execute_script('send({ do: "drop", name: arguments[0] })', name)
    time.sleep(MINUTE_S / 2)
    browser.execute_cdp_cmd('HeapProfiler.collectGarbage', {})
    browser.execute_cdp_cmd('Performance.enable', {})
    found = {
        metric['name']: metric['value']
        for metric in browser.execute_cdp_cmd('Performance.getMetrics', {})['metrics']
    }
    heap, nodes, listeners = (found[name] for name in PAGE)
    frames = browser.execute_script('return look.frame.frame')
    row = (minute, resident_mib(pid), heap / 2**20, nodes, listeners, frames)
    print(*(round(value, 1) for value in row), sep='\t', flush=True)
    return row


def resident_mib(pid: int) -> float:
    lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith('VmRSS:'))) / 1024


def tell_growth(rows: list[tuple[float, ...]]) -> None:
    """Print the change from the median of the first third to that of the last."""
    third = max(1, len(rows) // 3)
    for index, name in enumerate(COLUMNS[1:-1], start=1):
        first, last = (
            statistics.median(row[index] for row in part) for part in (rows[:third], rows[-third:])
        )
        print(f'{name}: {first:.1f} in the first third, {last:.1f} in the last')


if __name__ == '__main__':
    main()
