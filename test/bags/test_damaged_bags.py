"""Bags without optional records, cut off, damaged or compressed: what is there is read."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import mcap.writer
import numpy as np
import pytest
import yaml
import zstandard
from mcap.writer import CompressionType, IndexType
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from llmseg_ros.bags.reading import opened_bag
from llmseg_ros.bags.storage import BagError
from llmseg_ros.reports.bag_folder import find_bags, is_folder_of_bags

from ..helpers.bags import (
    IMAGE,
    SECOND,
    TYPES,
    Channel,
    greys,
    image,
    notes_of,
    picture,
    pictures,
    record_ends,
    write_bag,
    write_mcap,
    write_ros1_bag,
)

FIVE = [1, 2, 3, 4, 5]
WITHOUT = {
    'statistics': {'use_statistics': False},
    'any index': {'index_types': IndexType.NONE},
    'message index': {'index_types': IndexType.CHUNK},
    'chunk index': {'index_types': IndexType.MESSAGE},
    'repeated channels': {'repeat_channels': False},
    'repeated schemas': {'repeat_schemas': False},
    'summary': {
        'index_types': IndexType.NONE,
        'repeat_channels': False,
        'repeat_schemas': False,
        'use_statistics': False,
        'use_summary_offsets': False,
    },
    'chunks': {'use_chunking': False},
    'chunks and statistics': {'use_chunking': False, 'use_statistics': False},
    'checksums': {'enable_crcs': False},
}


@pytest.mark.parametrize('compression', CompressionType)
@pytest.mark.parametrize('options', WITHOUT.values(), ids=WITHOUT)
def test_optional_records(
    tmp_path: Path, options: dict[str, object], compression: CompressionType
) -> None:
    options = {'chunk_size': 100, 'compression': compression, **options}
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], pictures(5), **options)
    with opened_bag(bag) as opened:
        (camera,) = opened.connections
        assert (camera.msgcount, opened.message_count) == (5, 5)
        assert (opened.start_time, opened.end_time) == (SECOND, 5 * SECOND)
        times = [m.time for m in opened.messages([camera], 2 * SECOND, 4 * SECOND)]
    assert times == [2 * SECOND, 3 * SECOND]
    assert greys(bag) == FIVE
    assert notes_of(bag) == []


@pytest.mark.parametrize('chunks', [True, False])
def test_messages_in_any_order(tmp_path: Path, chunks: bool) -> None:
    messages = [(0, s * SECOND, picture(s)) for s in (4, 2, 5, 1, 3)]
    options = {'use_chunking': chunks, 'chunk_size': 100}
    assert greys(write_mcap(tmp_path / 'bag.mcap', [Channel()], messages, **options)) == FIVE


def test_messages_beside_the_chunks(tmp_path: Path) -> None:
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], pictures(3), chunk_size=100)
    loose = write_mcap(tmp_path / 'loose.mcap', [Channel()], pictures(5), use_chunking=False)
    ends, content = record_ends(loose), loose.read_bytes()
    whole = bag.read_bytes()
    records = [content[a:b] for a, b in itertools.pairwise(ends)]
    extra = [record for record in records if record[0] == 5][3:]
    data_end = whole.index(b'\x0f\x04\0\0\0\0\0\0\0')
    bag.write_bytes(whole[:data_end] + b''.join(extra))
    assert greys(bag) == FIVE


@pytest.mark.parametrize('compression', CompressionType)
@pytest.mark.parametrize('chunks', [True, False])
def test_cut_at_every_record_and_within(
    tmp_path: Path, chunks: bool, compression: CompressionType
) -> None:
    options = {'chunk_size': 100, 'use_chunking': chunks, 'compression': compression}
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], pictures(5), **options)
    content, ends = bag.read_bytes(), record_ends(bag)
    opcodes = [content[end] for end in ends[:-1]]
    data_ends = ends[1 + opcodes.index(0x0F)]
    for index, end in enumerate(ends):
        for cut in (end, end + 5, end + 12):
            if cut >= len(content):
                continue
            bag.write_bytes(content[:cut])
            whole = [op for op, e in zip(opcodes, ends[1:], strict=True) if e <= cut]
            expected = min(5, whole.count(6) + (0 if chunks else whole.count(5)))
            if not expected:
                with pytest.raises(BagError, match='has no messages that can be read: bag'):
                    greys(bag)
                continue
            assert greys(bag) == FIVE[:expected], (index, cut)
            if cut >= data_ends:
                assert notes_of(bag) == []
                continue
            (said,) = notes_of(bag)
            reached = max(e for e in ends if e <= cut)
            assert f'of its {cut} bytes the first {reached} are whole' in said
            assert f' and {expected} messages of {expected - 1:.1f} s' in said


@pytest.mark.parametrize('keep', [0, 4, 8, 20])
def test_cut_within_the_header(tmp_path: Path, keep: int) -> None:
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], pictures(1))
    bag.write_bytes(bag.read_bytes()[:keep])
    with pytest.raises(BagError, match=r'is empty|is no bag|has no messages that can be read'):
        greys(bag)


def test_zeros_where_the_disk_had_no_time(tmp_path: Path) -> None:
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], pictures(5), chunk_size=100)
    content, ends = bag.read_bytes(), record_ends(bag)
    third = [end for end in ends[:-1] if content[end] == 6][2]
    bag.write_bytes(content[:third] + bytes(1 << 20))
    assert greys(bag) == [1, 2]
    assert 'is cut off: of its' in notes_of(bag)[0]


@pytest.mark.parametrize('with_index', [True, False])
@pytest.mark.parametrize('compression', CompressionType)
def test_a_damaged_chunk_costs_that_chunk(
    tmp_path: Path, compression: CompressionType, with_index: bool
) -> None:
    options = {'chunk_size': 100, 'compression': compression}
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], pictures(5), **options)
    content, ends = bytearray(bag.read_bytes()), record_ends(bag)
    third, end = [(a, b) for a, b in itertools.pairwise(ends) if content[a] == 6][2]
    content[(third + end) // 2 : (third + end) // 2 + 20] = bytes(range(200, 220))
    bag.write_bytes(content if with_index else content[:-40])
    assert greys(bag) == [1, 2, 4, 5]
    said = f'a chunk of bag.mcap at byte {third} is damaged and left out: '
    assert [note.startswith(said) for note in notes_of(bag)] == [True]


@pytest.mark.parametrize('what', ['attachment', 'metadata', 'channel'])
def test_a_bag_without_messages(tmp_path: Path, what: str) -> None:
    with (tmp_path / 'bag.mcap').open('wb') as file:
        writer = mcap.writer.Writer(file)
        writer.start()
        if what == 'attachment':
            writer.add_attachment(0, 0, 'map.png', 'image/png', b'x' * 99)
        elif what == 'metadata':
            writer.add_metadata('robot', {'name': 'r2'})
        else:
            writer.register_channel('/camera', 'cdr', writer.register_schema(IMAGE, '', b''))
        writer.finish()
    with pytest.raises(BagError, match=r'bag\.mcap has no messages$'):
        greys(tmp_path / 'bag.mcap')


def test_attachments_beside_messages(tmp_path: Path) -> None:
    with (tmp_path / 'bag.mcap').open('wb') as file:
        writer = mcap.writer.Writer(file, chunk_size=100)
        writer.start()
        channel = writer.register_channel('/camera', 'cdr', writer.register_schema(IMAGE, '', b''))
        for _, time, raw in pictures(2):
            writer.add_message(channel, time, raw, time)
            writer.add_attachment(0, 0, 'map.png', 'image/png', b'\5' * 999)
            writer.add_metadata('robot', {'name': 'r2'})
        writer.finish()
    assert greys(tmp_path / 'bag.mcap') == [1, 2]


def five(path: Path, storage: StoragePlugin, compression: CompressionMode) -> Path:
    messages = [('/camera', IMAGE, TYPES.deserialize_cdr(picture(s), IMAGE)) for s in FIVE]
    return write_bag(path, messages, storage, compression)


def lone(path: Path) -> Path:
    (file,) = [f for f in path.iterdir() if f.suffix != '.yaml']
    return file


@pytest.mark.parametrize('compression', [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize('storage', StoragePlugin)
def test_a_lone_file_of_a_compressed_bag(
    tmp_path: Path, storage: StoragePlugin, compression: CompressionMode
) -> None:
    bag = five(tmp_path / 'bag', storage, compression)
    assert greys(bag) == FIVE
    file = lone(bag)
    assert greys(file) == FIVE
    if compression is CompressionMode.FILE:
        assert file.suffix == '.zstd'
        for name in (file.with_suffix('.zst'), file.with_suffix('')):
            assert greys(shutil.copy(file, tmp_path / name.name)) == FIVE
    (bag / 'metadata.yaml').unlink()
    assert greys(bag) == FIVE


def test_a_compressed_file_that_is_cut_off(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 40, 60, 3), np.uint8)
    noise[:, 0, 0, 0] = range(200)
    messages = [
        (0, (1 + i) * SECOND, bytes(TYPES.serialize_cdr(image(rgb, 'rgb8'), IMAGE)))
        for i, rgb in enumerate(noise)
    ]
    bag = write_mcap(tmp_path / 'bag.mcap', [Channel()], messages, chunk_size=100)
    packed = zstandard.ZstdCompressor().compress(bag.read_bytes())
    (tmp_path / 'bag.mcap.zst').write_bytes(packed[: len(packed) * 9 // 10])
    found = greys(tmp_path / 'bag.mcap.zst')
    assert len(found) > 100
    assert found == [*range(len(found))]
    assert 'bag.mcap is cut off' in notes_of(tmp_path / 'bag.mcap.zst')[-1]


def edited(path: Path, **values: object) -> Path:
    """Change what metadata.yaml says."""
    file = path / 'metadata.yaml'
    content = yaml.safe_load(file.read_text())
    content['rosbag2_bagfile_information'].update(values)
    file.write_text(yaml.safe_dump(content))
    return path


def old_metadata(path: Path) -> Path:
    """Write metadata.yaml as the first version of rosbag2 did."""
    (path / 'metadata.yaml').write_text(
        'rosbag2_bagfile_information:\n  version: 1\n  storage_identifier: sqlite3\n'
        f'  relative_file_paths: [{path.name}/{lone(path).name}]\n'
    )
    return path


def renamed(path: Path) -> Path:
    lone(path).rename(path / 'mine.mcap')
    return path


def emptied(path: Path) -> Path:
    (path / 'metadata.yaml').write_text('')
    return path


@pytest.mark.parametrize(
    'change',
    [
        lambda path: edited(path, storage_identifier=''),
        lambda path: edited(path, storage_identifier='sqlite3'),
        lambda path: edited(path, storage_identifier='my_plugin'),
        lambda path: edited(path, message_count=0, topics_with_message_count=[]),
        *(lambda path, v=v: edited(path, version=v) for v in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12)),
        lambda path: edited(path, compression_mode='FILE', compression_format='zstd'),
        lambda path: edited(path, compression_format='lz4', compression_mode='MESSAGE'),
        old_metadata,
        renamed,
        emptied,
    ],
)
def test_what_metadata_yaml_says_of_the_storage(
    tmp_path: Path, change: Callable[[Path], Path]
) -> None:
    bag = change(five(tmp_path / 'bag', StoragePlugin.MCAP, CompressionMode.NONE))
    assert greys(bag) == FIVE


def split(path: Path) -> Path:
    """Write a recording of three files, two images each."""
    path.mkdir()
    for part in range(3):
        messages = pictures(6)[2 * part : 2 * part + 2]
        write_mcap(path / f'{path.name}_{part}.mcap', [Channel()], messages)
    names = [f'{path.name}_{part}.mcap' for part in range(3)]
    content = {'rosbag2_bagfile_information': {'version': 9, 'relative_file_paths': names}}
    (path / 'metadata.yaml').write_text(yaml.safe_dump(content))
    return path


def test_a_recording_in_parts(tmp_path: Path) -> None:
    bag = split(tmp_path / 'run')
    with opened_bag(bag) as opened:
        assert [c.msgcount for c in opened.connections] == [6]
    assert greys(bag) == [1, 2, 3, 4, 5, 6]
    (bag / 'metadata.yaml').unlink()  # the recorder writes it last
    assert greys(bag) == [1, 2, 3, 4, 5, 6]
    assert not is_folder_of_bags(bag)
    assert find_bags(tmp_path) == ['run']
    (bag / 'run_1.mcap').rename(bag / 'other.mcap')
    with pytest.raises(BagError, match=r'has no metadata\.yaml and 3 bag files, expected one'):
        greys(bag)


@pytest.mark.parametrize(
    ('harm', 'said'),
    [
        (Path.unlink, 'run_1.mcap, named in metadata.yaml of run, is not there; the rest is'),
        (lambda file: file.write_bytes(b''), 'left out: .*run_1.mcap is empty'),
        (lambda file: file.write_text('hello'), 'left out: .*run_1.mcap is no bag: it begins'),
    ],
)
def test_a_part_that_is_missing(tmp_path: Path, harm: Callable[[Path], object], said: str) -> None:
    bag = split(tmp_path / 'run')
    harm(bag / 'run_1.mcap')
    assert greys(bag) == [1, 2, 5, 6]
    (note,) = notes_of(bag)
    assert re.search(said, note)


def test_all_parts_are_missing(tmp_path: Path) -> None:
    bag = split(tmp_path / 'run')
    for file in bag.glob('*.mcap'):
        file.unlink()
    with pytest.raises(BagError, match=r'run has no bag file: run_0\.mcap, run_1\.mcap'):
        greys(bag)


def test_a_bag_of_ros1_without_index(tmp_path: Path) -> None:
    bag = write_ros1_bag(tmp_path / 'old.bag', np.zeros((2, 3, 3), np.uint8))
    bag.write_bytes(bag.read_bytes()[:-300])
    with pytest.raises(BagError, match=r'has no index, or is damaged .*`rosbag reindex old.bag`'):
        greys(bag)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('version https://git-lfs.github.com/spec/v1\n', 'is a pointer of Git LFS'),
        ('topics:', 'begins like no MCAP, SQLite or ROS 1 bag file'),
    ],
)
def test_other_files(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / 'bag.mcap').write_text(content)
    with pytest.raises(BagError, match=said):
        greys(tmp_path / 'bag.mcap')
