"""Topics nobody here can read beside a camera: they matter only where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mcap.reader
import pytest
import yaml
from rosbags.highlevel import AnyReader

from llmseg_ros.bags.frames import frame_stamp
from llmseg_ros.bags.reading import find_image_connections, opened_bag
from llmseg_ros.bags.storage import BagError

from ..helpers.bags import (
    COMPRESSED,
    IMAGE,
    SECOND,
    TYPES,
    Channel,
    contents,
    greys,
    picture,
    pictures,
    write_humble_db3,
    write_mcap,
)
from ..helpers.commands import llmseg, replay

OTHERS = {
    'service event': Channel(
        '/add/_service_event',
        'demo_msgs/srv/Add_Event',
        definition=b'service_msgs/ServiceEventInfo info\nAdd_Request[<=1] request\n'
        b'Add_Response[<=1] response\n' + b'=' * 80 + b'\nMSG: demo_msgs/Add_Request\nint64 a\n',
    ),
    'service with its dashes': Channel(
        '/add', 'demo_msgs/srv/Add', definition=b'int64 a\n---\nint64 sum\n'
    ),
    'odd definition': Channel('/config', 'demo_msgs/msg/Config', definition=b'int32 mode 1 2 3\n'),
    'broken text': Channel('/text', 'demo_msgs/msg/Text', definition=b'string caf\xe9\n'),
    'dependency missing': Channel('/state', 'demo_msgs/msg/State', definition=b'demo_msgs/Leg l\n'),
    'known type, other definition': Channel(
        '/chatter', 'std_msgs/msg/String', definition=b'int32 data\n'
    ),
    'empty definition': Channel('/state', 'demo_msgs/msg/State', definition=b''),
    'no encoding': Channel('/state', 'demo_msgs/msg/State', '', b''),
    'no schema': Channel('/state', '', '', b''),
    'idl': Channel('/a', 'demo_msgs/msg/A', 'ros2idl', b'module demo_msgs { struct A { long a;'),
    'omg idl': Channel('/a', 'demo::A', 'omgidl', b'struct A { any thing; };'),
    'ros1msg': Channel('/a', 'demo_msgs/A', 'ros1msg', b'time t\nduration d\n'),
    'protobuf': Channel('/markers', 'foxglove.SceneUpdate', 'protobuf', b'\n\0', 'protobuf'),
    'json': Channel('/imu', 'Imu', 'jsonschema', b'{"type": "object"}', 'json'),
    'json without schema': Channel('/note', '', '', b'', 'json'),
    'flatbuffer': Channel('/scan', 'foxglove.LaserScan', 'flatbuffer', b'\1\2', 'flatbuffer'),
    'cbor': Channel('/blob', 'Blob', '', b'', 'cbor'),
    'encoding without a name': Channel('/blob', 'Blob', 'mine', b'x', ''),
    'images in JSON': Channel('/eye', IMAGE, 'jsonschema', b'{}', 'json'),
    'the same topic in protobuf': Channel(
        '/camera', 'foxglove.RawImage', 'protobuf', b'\n\0', 'protobuf'
    ),
}
FOREIGN = b'\0\1\0\0' + bytes(range(16))


@pytest.mark.parametrize('profile', ['ros2', '', 'x-of-mine'])
@pytest.mark.parametrize('other', OTHERS.values(), ids=OTHERS)
def test_a_foreign_topic_does_not_matter(tmp_path: Path, other: Channel, profile: str) -> None:
    messages = [*pictures(2), (1, SECOND + 5, FOREIGN)]
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel(), other], messages, profile)
    assert greys(bag) == greys(bag, '/camera') == [1, 2]


@pytest.mark.parametrize(
    'camera',
    [
        Channel(schema_encoding='', definition=b''),
        Channel(definition=b''),
        Channel(definition=b'uint8 nothing like it\n'),
        Channel(schema_encoding='ros2idl', definition=b'module sensor_msgs {'),
        Channel(encoding=''),
    ],
    ids=['no definition', 'empty definition', 'wrong definition', 'broken idl', 'no encoding'],
)
def test_the_type_of_a_camera_is_known_without_the_bag(tmp_path: Path, camera: Channel) -> None:
    other = Channel('/chatter', 'std_msgs/msg/String', definition=b'string data\n')
    messages = [*pictures(2), (1, SECOND + 5, FOREIGN)]
    assert greys(write_mcap(tmp_path / 'bag.mcap', [camera, other], messages)) == [1, 2]


def test_one_topic_with_several_channels(tmp_path: Path) -> None:
    channels = [Channel(), Channel(definition=b''), Channel('/camera', 'demo_msgs/msg/State')]
    messages = [(i % 3, (1 + i) * SECOND, picture(1 + i)) for i in range(6)]
    bag = write_mcap(tmp_path / 'bag.mcap', channels, messages)
    assert greys(bag) == [1, 2, 4, 5]


def test_messages_of_ros1_in_an_mcap_file(tmp_path: Path) -> None:
    raw = TYPES.cdr_to_ros1(picture(7), IMAGE)
    camera = Channel('/camera', 'sensor_msgs/Image', 'ros1msg', b'Header header\n', 'ros1')
    bag = write_mcap(tmp_path / 'bag.mcap', [camera], [(0, SECOND, bytes(raw))], 'ros1')
    assert greys(bag) == [7]


def big_endian(raw: bytes) -> bytes:
    """Return an image of ours as a big-endian recorder writes it: all before the pixels turns."""
    message: Any = TYPES.deserialize_cdr(raw, IMAGE)
    return bytes(TYPES.serialize_cdr(message, IMAGE, little_endian=False))


def test_big_endian_messages(tmp_path: Path) -> None:
    messages = [(0, time, big_endian(raw)) for _, time, raw in pictures(2)]
    assert messages[0][2][:2] == b'\0\0'
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], messages)
    assert greys(bag) == [1, 2]
    with opened_bag(bag) as opened:
        stamps = [frame_stamp(m) for m in opened.messages(find_image_connections(opened))]
    assert stamps == [SECOND, 2 * SECOND]


@pytest.mark.parametrize(
    ('other', 'said'),
    [
        ('protobuf', r'/markers is of type foxglove.SceneUpdate in protobuf, expected sensor_msgs'),
        ('no schema', r'/state is of type no type, expected'),
        ('images in JSON', rf'/eye is of type {IMAGE} in json, expected'),
    ],
)
def test_a_foreign_topic_that_is_asked_for(tmp_path: Path, other: str, said: str) -> None:
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel(), OTHERS[other]], pictures(2))
    with pytest.raises(BagError, match=said):
        greys(bag, OTHERS[other].topic)


def test_info_lists_every_topic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [OTHERS[name] for name in ('service event', 'protobuf', 'json without schema')]
    messages = [*pictures(3), *((i, SECOND + i, FOREIGN) for i in (1, 2, 2, 3))]
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel(), *others], messages)
    assert llmseg('bag', 'info', bag) == 0
    lines = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        'topic type encoding messages replay',
        '/add/_service_event demo_msgs/srv/Add_Event cdr 1 not read; --out copies it',
        f'/camera {IMAGE} cdr 3 images',
        '/markers foxglove.SceneUpdate protobuf 2 not read, no ROS message; --out copies it',
        '/note - json 1 not read, no ROS message; --out copies it',
        f'{bag}: 7 messages in 2.00 s',
    ]


def test_out_copies_what_nobody_can_describe(fast_config: Path, tmp_path: Path) -> None:
    channels = [Channel(), *OTHERS.values()]
    messages = pictures(2)
    messages += [(i, SECOND + i, FOREIGN + bytes([i])) for i in range(1, len(channels))]
    bag = write_mcap(tmp_path / 'bag.mcap', channels, messages)
    arguments = [bag, '--image', '/camera', '--classes', 'cat', '--config', fast_config]
    assert replay(*arguments, '--out', tmp_path / 'out') == 0
    copied = [message for message in contents(tmp_path / 'out') if '/seg/' not in message[0]]
    assert copied == sorted(contents(bag), key=lambda message: message[3])
    with (tmp_path / 'out' / 'out.mcap').open('rb') as file:
        summary = mcap.reader.make_reader(file, validate_crcs=True).get_summary()
    assert summary is not None
    schemas = {
        channel.topic: summary.schemas.get(channel.schema_id)
        for channel in summary.channels.values()
        if channel.topic in ('/markers', '/config', '/note', '/camera')
    }
    assert schemas['/note'] is None
    for name in ('protobuf', 'odd definition'):
        schema, other = schemas[OTHERS[name].topic], OTHERS[name]
        assert schema is not None
        assert (schema.name, schema.encoding) == (other.msgtype, other.schema_encoding)
        assert schema.data == other.definition


def test_out_copies_types_of_the_robot(fast_config: Path, tmp_path: Path) -> None:
    topics = [('/camera', IMAGE), ('/robot/state', 'my_robot_msgs/msg/State')]
    messages = [*pictures(2), (1, SECOND + 5, FOREIGN), (1, 2 * SECOND + 5, FOREIGN)]
    write_humble_db3(tmp_path / 'humble.db3', topics, messages).close()
    arguments = [tmp_path / 'humble.db3', '--classes', 'cat', '--config', fast_config]
    assert replay(*arguments, '--out', tmp_path / 'out') == 0
    copied = [m for m in contents(tmp_path / 'out') if m[0] == '/robot/state']
    assert copied == [
        ('/robot/state', 'my_robot_msgs/msg/State', 'cdr', s * SECOND + 5, FOREIGN) for s in (1, 2)
    ]
    metadata = yaml.safe_load((tmp_path / 'out' / 'metadata.yaml').read_text())
    listed = metadata['rosbag2_bagfile_information']['topics_with_message_count']
    assert {t['topic_metadata']['name']: t['message_count'] for t in listed} == {
        **{'/camera': 2, '/robot/state': 2},
        **{'/seg/labels': 2, '/seg/masks': 2, '/seg/label_map': 1},
    }


def test_other_readers_read_the_new_bag(fast_config: Path, tmp_path: Path) -> None:
    write_humble_db3(tmp_path / 'humble.db3', [('/camera', IMAGE)], pictures(2)).close()
    arguments = [tmp_path / 'humble.db3', '--classes', 'cat', '--config', fast_config]
    assert replay(*arguments, '--out', tmp_path / 'out') == 0
    with AnyReader([tmp_path / 'out']) as reader:
        assert (reader.message_count, reader.start_time) == (7, SECOND)
        for connection, _, raw in reader.messages():
            message: Any = reader.deserialize(raw, connection.msgtype)
            assert message.header.frame_id in ('camera', '')
    assert COMPRESSED not in {c.msgtype for c in reader.connections}
