"""Which settings for large frames the middleware of the node has, unless its user names others."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from llmseg_ros.files import shipped_path

PROFILE_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
SHARED_PROFILE = 'config/fastdds.xml'
UDP_PROFILE = 'config/fastdds_receiver.xml'
CYCLONE_VARIABLE = 'CYCLONEDDS_URI'
CYCLONE_SETTINGS = 'config/cyclonedds.xml'
ZENOH_VARIABLE = 'ZENOH_CONFIG_OVERRIDE'
ZENOH_SETTINGS = 'config/zenoh.env'  # VARIABLE=VALUE, for a shell and for Compose
RECEIVE_BUFFER = 4 << 20  # bytes, as all of them ask for
KERNEL_BUFFERS = (
    'net.core.rmem_max',
    'net.core.wmem_max',
    'net.ipv4.ipfrag_high_thresh',
    'net.ipv4.ipfrag_time',
)


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


def choose_settings() -> None:
    """Set what names the settings of this process's middleware, whichever it is going to be."""
    choose_profile()
    os.environ.setdefault(CYCLONE_VARIABLE, cyclone_uri())
    os.environ.setdefault(ZENOH_VARIABLE, zenoh_override())


def cyclone_uri() -> str:
    """Return the value of CYCLONE_VARIABLE that names the shipped settings."""
    return shipped_path(CYCLONE_SETTINGS).absolute().as_uri()


def zenoh_override() -> str:
    """Return the shipped value of ZENOH_VARIABLE."""
    return shipped_path(ZENOH_SETTINGS).read_text(encoding='utf-8').partition('=')[2].strip()


def kernel_buffers() -> dict[str, int]:
    """Return what the kernel grants to sockets and fragments, by the name of its setting.

    Bytes, and for ipfrag_time seconds; without what it doesn't say.
    """
    found = {}
    for name in KERNEL_BUFFERS:
        with contextlib.suppress(OSError, ValueError):
            found[name] = int(Path('/proc/sys', *name.split('.')).read_text())
    return found


def granted_buffer() -> int:
    """Return the largest receive buffer in bytes the kernel grants; 0 where it doesn't say."""
    return kernel_buffers().get('net.core.rmem_max', 0)


def same_file(path: str, other: Path) -> bool:
    """Return whether both name one file that exists."""
    return os.path.exists(path) and os.path.samefile(path, other)
