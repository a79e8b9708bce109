"""The settings that are shipped for other middleware are well formed and in all packages."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

pytest.importorskip('rclpy')

from llmseg_ros.files import shipped_path
from llmseg_ros.ros.transport import (
    CYCLONE_SETTINGS,
    RECEIVE_BUFFER,
    ZENOH_SETTINGS,
    cyclone_uri,
    kernel_buffers,
    zenoh_override,
)


def test_cyclone_asks_for_the_buffer_that_doctor_asks_for_and_starts_without() -> None:
    assert cyclone_uri() == f'file://{shipped_path(CYCLONE_SETTINGS).absolute()}'
    root = ET.parse(shipped_path(CYCLONE_SETTINGS)).getroot()
    buffer = root.find('.//{https://cdds.io/config}SocketReceiveBufferSize')
    assert buffer is not None
    assert buffer.attrib == {'min': 'default', 'max': f'{RECEIVE_BUFFER >> 20}MiB'}


def test_zenoh_takes_one_variable_with_whole_numbers() -> None:
    lines = shipped_path(ZENOH_SETTINGS).read_text(encoding='utf-8').splitlines()
    assert lines == [f'ZENOH_CONFIG_OVERRIDE={zenoh_override()}']
    settings = dict(pair.split('=') for pair in zenoh_override().split(';'))
    assert all(int(value) > 0 for value in settings.values())
    assert int(settings['transport/link/rx/buffer_size']) == RECEIVE_BUFFER


def test_the_kernel_tells_its_buffers() -> None:
    assert kernel_buffers()['net.core.rmem_max'] >= 4096
