"""New classes while a language model is slow, or down: frames go on, answers arrive.

.venv/bin/python bench/node_subclasses.py [--classes 50] [--answer-seconds 2] [--rate 5]
    [--outage 3600] [-- ROS arguments of the node]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from llmseg_ros.msg import LabelMap
from node_rig import Rig, rig, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile

BEFORE_S = 10.0  # frames before the new classes, to compare with


def main() -> None:
    """Put a new class list in force and print what happened to frames and answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--classes', type=int, default=50)
    parser.add_argument('--answer-seconds', type=float, default=2.0)
    parser.add_argument('--rate', type=float, default=5.0, help='of the camera, in Hz')
    parser.add_argument('--outage', type=float, default=0.0, help='seconds without a server')
    parser.add_argument('ros_arguments', nargs='*')
    arguments = parser.parse_args()
    os.environ['OPENAI_API_KEY'] = 'anything'
    server = ThreadingHTTPServer(('127.0.0.1', 0), answerer(arguments.answer_seconds), False)
    server.server_bind()  # the port is ours; before server_activate nobody listens there
    settings = {
        'subclasses.base_url': f'http://127.0.0.1:{server.server_port}/v1',
        'subclasses.store': f'{tempfile.mkdtemp()}/subclasses.sqlite3',
    }
    given = [word for key, value in settings.items() for word in ('-p', f'{key}:={value}')]
    with rig(*given, *arguments.ros_arguments) as made:
        made.listen()
        run(made, server, arguments)
    server.server_close()


def run(made: Rig, server: ThreadingHTTPServer, arguments: argparse.Namespace) -> None:
    """Film, ask for the classes, wait for the answers."""
    waiting: list[int] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    made.node.create_subscription(
        LabelMap, '/seg/label_map', lambda m: waiting.append(unanswered(m)), latched
    )
    made.set_classes(['cat'])
    with made.filming(arguments.rate):
        time.sleep(BEFORE_S)
        before = list(made.arrivals)
        dropped = made.count('dropped')
        begin = time.monotonic()
        made.set_classes(['cat', *(f'gizmo number {n}' for n in range(arguments.classes))])
        outage(made, arguments.outage)
        server.server_activate()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served = time.monotonic()
        wait_until(lambda: waiting[-1] == 0)
        print(f'all answers {time.monotonic() - served:.1f} s after the server was there')
        time.sleep(2)
        during = [arrival for arrival in made.arrivals if arrival[0] > begin]
        print(f'dropped by the node meanwhile: {made.count("dropped") - dropped}')
    server.shutdown()
    print_frames('before', before)
    print_frames('during', during)


def unanswered(message: LabelMap) -> int:
    """Return how many classes stand under their name alone."""
    return sum(entry.source == 'name' for entry in message.classes)


def answerer(seconds: float) -> type[BaseHTTPRequestHandler]:
    """Return a handler of chat completions that takes its time."""

    class Answerer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers['Content-Length']))
            time.sleep(seconds)
            content = json.dumps({'subclasses': ['tabby', 'kitten', 'tea cup', 'armchair']})
            message = {'role': 'assistant', 'content': content}
            choice = {'index': 0, 'message': message, 'finish_reason': 'stop'}
            answer = {'id': 'a', 'object': 'chat.completion', 'created': 0, 'model': 'm'}
            body = json.dumps({**answer, 'choices': [choice]}).encode()
            self.send_response(200)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Answerer


def outage(made: Rig, seconds: float) -> None:
    """Let the time pass, saying what the node says of it."""
    end = time.monotonic() + seconds
    said = ''
    while time.monotonic() < end:
        time.sleep(min(10.0, seconds))
        if made.message != said:
            said = made.message
            print(f'{end - time.monotonic():.0f} s of the outage left: {said}', flush=True)


def print_frames(when: str, arrivals: list[tuple[float, float]]) -> None:
    """Print how old results were and how long the longest gap between two was."""
    times, ages = np.array(arrivals).T
    p50, p95, most = 1000 * np.percentile(ages, (50, 95, 100))
    gap = 1000 * np.diff(times).max(initial=0.0)
    print(
        f'{when}: {len(ages)} results, age ms p50 {p50:.0f}, p95 {p95:.0f}, most {most:.0f}; '
        f'longest gap {gap:.0f} ms'
    )


if __name__ == '__main__':
    main()
