"""`llmseg replay` asks the language model before the first frame, and nothing later."""

import importlib.util
import json
import time

import numpy as np
import pytest
import skimage.data
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from llmseg_ros.cli.main import main

IMAGE = 'sensor_msgs/msg/Image'
MODES = ['offline']
if importlib.util.find_spec('rclpy') and importlib.util.find_spec('llmseg_ros.msg'):
    MODES.append('lockstep')


@pytest.fixture
def bag(tmp_path):
    """Three times the same frame: a cat, which is to have the same labels each time."""
    types = get_typestore(Stores.ROS2_JAZZY)
    header, time_type = (
        types.types[name] for name in ('std_msgs/msg/Header', 'builtin_interfaces/msg/Time')
    )
    rgb = skimage.data.chelsea()
    height, width = rgb.shape[:2]
    data = np.ascontiguousarray(rgb).reshape(-1)
    path = tmp_path / 'bag'
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection('/camera', IMAGE, typestore=types)
        for second in range(1, 4):
            message = types.types[IMAGE](
                header(time_type(second, 0), 'camera'), height, width, 'rgb8', 0, 3 * width, data
            )
            writer.write(camera, second * 10**9, types.serialize_cdr(message, IMAGE))
    return path


@pytest.mark.parametrize('mode', MODES)
def test_answers_come_before_the_first_frame(mode, bag, server, fast_config, tmp_path, capsys):
    def answer_slowly(request):
        time.sleep(0.5)
        return server.answer(json.dumps({'subclasses': ['tabby cat', 'tiger cat', 'Egyptian cat']}))

    server.behave = answer_slowly
    config = fast_config(server.url)

    def replay(*arguments):
        command = ['replay', bag, '--classes', 'zub', '--config', config, '--json', tmp_path / 'j']
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in (*command, *arguments)])
        assert left.value.code == 0, capsys.readouterr().err
        return json.loads((tmp_path / 'j').read_text())

    first = replay('--mode', mode)
    assert server.asked == ['zub']
    assert first['changed_pixels'] == 0.0
    assert first['class_share']['zub'] > 0.3
    if mode == 'offline':
        again = replay('--subclasses', 'store')
        assert server.asked == ['zub']
        assert first['class_share'] == again['class_share']
