"""Which Fast DDS transports the node uses, unless its user has named others."""

from __future__ import annotations

import os
from pathlib import Path

from llmseg_ros.files import shipped_path

PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
SHARED_PROFILE = 'config/fastdds.xml'
UDP_PROFILE = 'config/fastdds_receiver.xml'
RECEIVE_BUFFER = 4 << 20  # bytes, as both profiles ask for


def choose_profile() -> None:
    """Set the variables that name a Fast DDS profile for the participants of this process.

    Frames through shared memory depend on the sender's profile; through UDP they need nothing of
    the sender, but a receive buffer that stock kernels don't grant.
    """
    shared = shipped_path(SHARED_PROFILE)
    given = [os.environ[name] for name in PROFILE_VARIABLES if os.environ.get(name)]
    if all(same_file(path, shared) for path in given):
        chosen = shipped_path(UDP_PROFILE) if granted_buffer() >= RECEIVE_BUFFER else shared
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, str(chosen)))


def granted_buffer() -> int:
    """Return the largest receive buffer in bytes the kernel grants; 0 where it doesn't say."""
    try:
        return int(Path('/proc/sys/net/core/rmem_max').read_text())
    except (OSError, ValueError):
        return 0


def same_file(path: str, other: Path) -> bool:
    """Return whether both name one file that exists."""
    return os.path.exists(path) and os.path.samefile(path, other)
