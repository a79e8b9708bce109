"""A ROS graph of one's own on this machine, for the demo and the benchmark."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from llmseg_ros.files import shipped_path
from llmseg_ros.ros.transport import PROFILE_VARIABLES, SHARED_PROFILE

DOMAINS = range(1, 102)  # their ports are below Linux's ephemeral ones
FIRST_PORT, PORTS_PER_DOMAIN = 7400, 250  # RTPS 2.2, 9.6.1
PARTICIPANTS = range(10, PORTS_PER_DOMAIN, 2)  # ports of a domain's first, second, ... participant


@contextmanager
def isolated_graph() -> Iterator[dict[str, str]]:
    """Give the environment variables of an unused ROS domain that stays on this machine.

    The shipped Fast DDS profile is among them. The domain is kept from other callers of this
    function until the block ends.

    Raises:
        OSError: all domains are in use.
    """
    with ExitStack() as held:
        yield {
            'ROS_DOMAIN_ID': str(_hold_domain(held)),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'ROS_STATIC_PEERS': '',
            **({'ROS_LOCALHOST_ONLY': '1'} if os.environ.get('ROS_DISTRO') == 'humble' else {}),
            **dict.fromkeys(PROFILE_VARIABLES, str(shipped_path(SHARED_PROFILE))),
        }


def _hold_domain(held: ExitStack) -> int:
    """Return a domain without participants; its TCP port, unused by DDS, is the lock.

    The first participant may have gone before the others: a domain is free when none is left.
    """
    for domain in random.sample(DOMAINS, len(DOMAINS)):
        port = FIRST_PORT + PORTS_PER_DOMAIN * domain
        try:
            for offset in PARTICIPANTS:
                with closing(socket.socket(type=socket.SOCK_DGRAM)) as participant:
                    participant.bind(('', port + offset))
            lock = held.enter_context(closing(socket.socket()))
            lock.bind(('127.0.0.1', port))
        except OSError:
            continue
        return domain
    raise OSError(f'all ROS domains from {DOMAINS[0]} to {DOMAINS[-1]} are in use')
