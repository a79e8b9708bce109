"""New mcap bags whose topics may be of any type and encoding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2.metadata import dump_qos_v9, parse_qos

from llmseg_ros.bags.files import METADATA
from llmseg_ros.bags.storage import Connection

VERSION = 9  # of metadata.yaml


class McapBag:
    """Write messages as they are, into one file."""

    def __init__(self, writer: Writer) -> None:
        """Take over a writer that has been started."""
        self._writer = writer
        self._connections: dict[int, Connection] = {}
        self._schemas: dict[tuple[str, str, bytes], int] = {}
        self._counts: Counter[int] = Counter()
        self._times: tuple[int, int] | None = None

    def add(self, connection: Connection) -> int:
        """Announce a topic, with whatever definition it has; return the number to write under."""
        schema = (connection.msgtype, connection.definition_encoding, connection.definition)
        if schema not in self._schemas:
            # 0: the type is not known
            number = self._writer.register_schema(*schema) if any(schema) else 0
            self._schemas[schema] = number
        number = self._writer.register_channel(
            connection.topic,
            connection.encoding,
            self._schemas[schema],
            dict(connection.metadata),
        )
        self._connections[number] = connection
        return number

    def write(self, number: int, time: int, raw: bytes | memoryview) -> None:
        """Write a message, recorded at a time in nanoseconds."""
        self._writer.add_message(number, time, bytes(raw), publish_time=time)
        self._counts[number] += 1
        first, last = self._times or (time, time)
        self._times = min(first, time), max(last, time)

    def metadata(self, file: str) -> dict[str, Any]:
        """Return what metadata.yaml says of a bag with this file."""
        first, last = self._times or (0, 0)
        whole = {
            'starting_time': {'nanoseconds_since_epoch': first},
            'duration': {'nanoseconds': last - first},
            'message_count': self._counts.total(),
        }
        topics = [
            {
                'topic_metadata': {
                    'name': connection.topic,
                    'type': connection.msgtype,
                    'serialization_format': connection.encoding,
                    'offered_qos_profiles': quality_of_service(connection),
                    'type_description_hash': connection.metadata.get('topic_type_hash', ''),
                },
                'message_count': self._counts[number],
            }
            for number, connection in self._connections.items()
        ]
        return {
            'version': VERSION,
            'storage_identifier': 'mcap',
            **whole,
            'topics_with_message_count': topics,
            'compression_format': '',
            'compression_mode': '',
            'relative_file_paths': [file],
            'files': [{'path': file, **whole}],
            'custom_data': None,
            'ros_distro': 'unknown',
        }


def quality_of_service(connection: Connection) -> list[Any]:
    """Return what a connection offered, as metadata.yaml has it; nothing where it can't be read."""
    try:
        return list(dump_qos_v9(parse_qos(connection.metadata.get('offered_qos_profiles', ''))))
    except Exception:  # a recorder's own words: whatever their parser runs into
        return []


@contextmanager
def new_mcap_bag(path: Path) -> Iterator[McapBag]:
    """Open a new bag folder; metadata.yaml is in it once the block is through.

    Raises:
        OSError: it can't be written.
    """
    path.mkdir()
    name = f'{path.name}.mcap'
    with (path / name).open('xb') as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start('ros2')
        bag = McapBag(writer)
        yield bag
        writer.finish()
    content = {'rosbag2_bagfile_information': bag.metadata(name)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (path / METADATA).write_text(text, encoding='utf-8')
