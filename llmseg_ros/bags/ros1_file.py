"""Bag files of ROS 1."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags.rosbag1 import Reader

from llmseg_ros.bags.storage import BagError, Connection, Stored, ros_type

MAGIC = b'#ROSBAG V'


class Ros1File:
    """An open bag file of ROS 1."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            BagError: it has no index, or is damaged.
        """
        self._path = path
        self.notes: list[str] = []
        self._reader = Reader(path)
        try:
            self._reader.open()
        except Exception as error:  # whatever its parser runs into
            raise BagError(
                f'{path} has no index, or is damaged ({error or type(error).__name__}): try '
                f'`rosbag reindex {path.name}`'
            ) from error
        self.connections = [
            Connection(
                c.id, c.topic, ros_type(c.msgtype), 'ros1', c.msgcount, c.msgdef.data.encode()
            )
            for c in self._reader.connections
        ]
        empty = not self._reader.message_count
        self.start_time = 0 if empty else self._reader.start_time
        self.end_time = 0 if empty else self._reader.end_time - 1

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def messages(
        self, connections: Collection[int], start: int | None = None, stop: int | None = None
    ) -> Iterator[Stored]:
        """Yield the messages of some connections by time, from `start` until before `stop`.

        Raises:
            BagError: the file is damaged.
        """
        wanted = [c for c in self._reader.connections if c.id in connections]
        if not wanted:  # rosbags takes that for all
            return
        try:
            for connection, time, raw in self._reader.messages(wanted, start, stop):
                yield Stored(time, connection.id, bytes(raw))
        except Exception as error:  # as above
            raise BagError(
                f'{self._path} is cut off or damaged: {error or type(error).__name__}'
            ) from error
