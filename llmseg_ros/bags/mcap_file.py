"""MCAP files, also such as lack their optional records or their end."""

from __future__ import annotations

import functools
import os
import struct
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, Footer, Schema, Statistics
from mcap.stream_reader import get_chunk_data_stream
from numpy.typing import NDArray

from llmseg_ros.bags.storage import BagError, Connection, Piece, Stored, in_time_order, ros_type

MAGIC = b'\x89MCAP0\r\n'
HEAD = struct.Struct('<BQ')  # of a record: what it is, bytes that follow
MESSAGE = struct.Struct('<HIQQ')  # channel, sequence number, times of recording and publishing
FOOTER_BYTES = HEAD.size + 20
COMPRESSIONS = ('', 'lz4', 'zstd')
LAST_TIME = (1 << 64) - 1


class Span(NamedTuple):
    """A chunk in the file.

    Attributes:
        start_time: of its first message, in nanoseconds.
        end_time: of its last.
        offset: of its record.
        length: of its record in bytes.
        channels: whose messages it has; None where nothing says so.
    """

    start_time: int
    end_time: int
    offset: int
    length: int
    channels: frozenset[int] | None


@dataclass
class Index:
    """What is known of a file before its messages are read."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    spans: list[Span] = field(default_factory=list)
    start_time: int = 0
    end_time: int = 0

    def count(self, channel: int, time: int) -> None:
        """Count a message."""
        first = not self.counts
        self.counts[channel] += 1
        self.start_time = time if first else min(time, self.start_time)
        self.end_time = max(time, self.end_time)

    def describe(self, opcode: int, content: bytes) -> None:
        """Take over a schema or channel."""
        if opcode == Opcode.SCHEMA:
            schema = parsed(Schema.read, content)
            self.schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = parsed(Channel.read, content)
            self.channels[channel.id] = channel


class McapFile:
    """An MCAP file: read by its index where it has one, else looked through once."""

    def __init__(self, path: Path) -> None:
        """Open a file that begins with the magic bytes."""
        self._name = path.name
        self.notes: list[str] = []
        self._damaged: set[int] = set()  # offsets of chunks
        self._loose: tuple[NDArray[np.uint64], NDArray[np.uint64]] | None = None
        self._file = path.open('rb')
        self._size = os.fstat(self._file.fileno()).st_size
        try:
            self._index = self._read_summary() or self._scan()
        except BaseException:
            self.close()
            raise
        self.start_time, self.end_time = self._index.start_time, self._index.end_time
        self.connections = [self._connection(c) for c in self._index.channels.values()]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(
        self, connections: Collection[int], start: int | None = None, stop: int | None = None
    ) -> Iterator[Stored]:
        """Yield the messages of some channels by time, from `start` until before `stop`."""
        first = start if start is not None else 0
        last = stop - 1 if stop is not None else LAST_TIME
        wanted = frozenset(connections)
        pieces: list[Piece] = [
            (span.start_time, functools.partial(self._in_chunk, span, wanted, first, last))
            for span in self._index.spans
            if span.start_time <= last
            and span.end_time >= first
            and (span.channels is None or span.channels & wanted)
        ]
        pieces.append((first, functools.partial(self._outside_chunks, wanted, first, last)))
        return in_time_order(pieces)

    def _connection(self, channel: Channel) -> Connection:
        schema = self._index.schemas.get(channel.schema_id)
        encoding = channel.message_encoding
        if not encoding and schema and schema.encoding.startswith('ros2'):
            encoding = 'cdr'
        in_ros = encoding in ('cdr', 'ros1')
        name = schema.name if schema else ''
        return Connection(
            channel.id,
            channel.topic,
            ros_type(name) if in_ros else name,
            encoding,
            self._index.counts[channel.id],
            schema.data if schema else b'',
            schema.encoding if schema else '',
            channel.metadata,
        )

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def _walk(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield opcode, offset and whole length of records up to the first that is not whole."""
        while begin + HEAD.size <= end:
            opcode, length = HEAD.unpack(self._read(begin, HEAD.size))
            length += HEAD.size
            if not opcode or begin + length > end:  # zeros: the disk had no time to write them
                return
            if opcode == Opcode.MESSAGE and length < HEAD.size + MESSAGE.size:
                return
            yield opcode, begin, length
            begin += length

    def _content(self, offset: int, length: int) -> bytes:
        return self._read(offset + HEAD.size, length - HEAD.size)

    def _read_summary(self) -> Index | None:
        """Return the index at the end of the file, None where it has none that tells all."""
        end = self._size - len(MAGIC) - FOOTER_BYTES
        if end < len(MAGIC) or self._read(self._size - len(MAGIC), len(MAGIC)) != MAGIC:
            return None
        if HEAD.unpack(self._read(end, HEAD.size)) != (Opcode.FOOTER, FOOTER_BYTES - HEAD.size):
            return None
        footer = parsed(Footer.read, self._content(end, FOOTER_BYTES))
        if not len(MAGIC) <= footer.summary_start <= end:
            return None
        try:
            return self._parse_summary(footer.summary_start, end)
        except Exception:  # whatever the parsers run into: the file itself has all of it again
            return None

    def _parse_summary(self, begin: int, end: int) -> Index | None:
        index, statistics = Index(), None
        for opcode, offset, length in self._walk(begin, end):
            if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                index.describe(opcode, self._content(offset, length))
            elif opcode == Opcode.CHUNK_INDEX:
                chunk = parsed(ChunkIndex.read, self._content(offset, length))
                index.spans.append(
                    Span(
                        chunk.message_start_time,
                        chunk.message_end_time,
                        chunk.chunk_start_offset,
                        chunk.chunk_length,
                        frozenset(chunk.message_index_offsets) or None,
                    )
                )
            elif opcode == Opcode.STATISTICS:
                statistics = parsed(Statistics.read, self._content(offset, length))
        if statistics is None:
            return None
        index.counts.update(statistics.channel_message_counts)
        index.start_time = statistics.message_start_time
        index.end_time = statistics.message_end_time
        index.spans.sort(key=lambda span: span.offset)
        counted = {channel for channel, count in index.counts.items() if count}
        schemas = {c.schema_id for c in index.channels.values()} - {0}
        tells_all = (
            sum(index.counts.values()) == statistics.message_count
            and len(index.spans) == statistics.chunk_count
            and len(index.channels) >= statistics.channel_count
            and counted <= index.channels.keys()
            and schemas <= index.schemas.keys()
            and all(span.offset + span.length <= begin for span in index.spans)
        )
        return index if tells_all else None

    def _scan(self) -> Index:
        """Look through the file as far as its records are whole."""
        index, reached, whole = Index(), len(MAGIC), False
        for opcode, offset, length in self._walk(reached, self._size):
            if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                whole = True
                break
            reached = offset + length
            if opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._describe(index, opcode, self._content(offset, length))
            elif opcode == Opcode.MESSAGE:
                channel, _, time, _ = MESSAGE.unpack(self._read(offset + HEAD.size, MESSAGE.size))
                index.count(channel, time)
            elif opcode == Opcode.CHUNK:
                self._scan_chunk(index, offset, length)
        unknown = index.counts.keys() - index.channels.keys()
        if unknown:
            lost = sum(index.counts.pop(channel) for channel in unknown)
            self.notes.append(
                f'{lost} messages of {self._name} are left out: their topics are not in it'
            )
        if not whole:
            seconds = (index.end_time - index.start_time) / 1e9
            self.notes.append(
                f'{self._name} is cut off: of its {self._size} bytes the first {reached} are '
                f'whole, with {len(index.spans)} chunks and {sum(index.counts.values())} messages '
                f'of {seconds:.1f} s'
            )
        return index

    def _scan_chunk(self, index: Index, offset: int, length: int) -> None:
        channels, times = set(), []
        for opcode, content in self._chunk_records(offset, length):
            if opcode == Opcode.MESSAGE:
                channel, _, time, _ = MESSAGE.unpack_from(content)
                index.count(channel, time)
                channels.add(channel)
                times.append(time)
            else:
                self._describe(index, opcode, bytes(content))
        if times:
            index.spans.append(Span(min(times), max(times), offset, length, frozenset(channels)))

    def _describe(self, index: Index, opcode: int, content: bytes) -> None:
        try:
            index.describe(opcode, content)
        except Exception as error:  # whatever the parsers run into
            self.notes.append(f'a description of a topic in {self._name} is damaged: {error}')

    def _chunk_records(self, offset: int, length: int) -> list[tuple[int, memoryview]]:
        """Return the records in a chunk, none where it is damaged."""
        try:
            chunk = parsed(Chunk.read, self._content(offset, length))
            if chunk.compression not in COMPRESSIONS:
                raise BagError(f'its compression {chunk.compression[:32]!a} is unknown')
            stream, size = get_chunk_data_stream(chunk, validate_crc=True)
            if size != chunk.uncompressed_size:
                raise BagError(f'it has {size} bytes instead of {chunk.uncompressed_size}')
            return list(records_in(stream.read(size)))
        except Exception as error:  # each compression raises types of its own
            if offset not in self._damaged:
                self._damaged.add(offset)
                self.notes.append(
                    f'a chunk of {self._name} at byte {offset} is damaged and left out: {error}'
                )
            return []

    def _in_chunk(
        self, span: Span, wanted: frozenset[int], first: int, last: int
    ) -> Iterator[Stored]:
        found = []
        for opcode, content in self._chunk_records(span.offset, span.length):
            if opcode == Opcode.MESSAGE:
                channel, _, time, _ = MESSAGE.unpack_from(content)
                if channel in wanted and first <= time <= last:
                    found.append(Stored(time, channel, bytes(content[MESSAGE.size :])))
        return iter(sorted(found, key=lambda message: message.time))

    def _outside_chunks(self, wanted: frozenset[int], first: int, last: int) -> Iterator[Stored]:
        if self._loose is None:
            self._loose = self._find_loose()
        times_n, offsets_n = self._loose
        begin = np.searchsorted(times_n, np.uint64(first))
        end = np.searchsorted(times_n, np.uint64(last), side='right')
        for offset in offsets_n[begin:end].tolist():
            _, length = HEAD.unpack(self._read(offset, HEAD.size))
            channel, _, time, _ = MESSAGE.unpack(self._file.read(MESSAGE.size))
            if channel in wanted:
                yield Stored(time, channel, self._file.read(length - MESSAGE.size))

    def _find_loose(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return times and offsets of the messages that are in no chunk, by time."""
        times, offsets = array('Q'), array('Q')
        begin = len(MAGIC)
        for span in [*self._index.spans, None]:
            end = span.offset if span else self._size
            for opcode, offset, _ in self._walk(begin, end):
                if opcode in (Opcode.DATA_END, Opcode.FOOTER):
                    break
                if opcode == Opcode.MESSAGE:
                    content = self._read(offset + HEAD.size, MESSAGE.size)
                    times.append(MESSAGE.unpack(content)[2])
                    offsets.append(offset)
            if span:
                begin = span.offset + span.length
        times_n, offsets_n = (np.array(values, np.uint64) for values in (times, offsets))
        order_n = np.argsort(times_n, kind='stable')
        return times_n[order_n], offsets_n[order_n]


def parsed(read: Callable[[ReadDataStream], Any], content: bytes) -> Any:
    """Return a record as the mcap package reads it."""
    return read(ReadDataStream(BytesIO(content)))


def records_in(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield the records in a chunk.

    Raises:
        BagError: they do not fill it.
    """
    view, position = memoryview(data), 0
    while position < len(data):
        if position + HEAD.size > len(data):
            raise BagError('its last record is cut off')
        opcode, length = HEAD.unpack_from(data, position)
        position += HEAD.size
        if position + length > len(data):
            raise BagError('its last record is cut off')
        if opcode == Opcode.MESSAGE and length < MESSAGE.size:
            raise BagError(f'one of its messages has {length} bytes')
        yield opcode, view[position : position + length]
        position += length
