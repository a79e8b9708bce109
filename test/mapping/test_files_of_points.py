"""Round trips of PLY, PointCloud2 and depth messages, through other people's readers."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData

from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.files import WriteError
from llmseg_ros.formats.image_messages import BadImage
from llmseg_ros.mapping.depth_messages import message_to_depth
from llmseg_ros.mapping.geometry import GeometryError
from llmseg_ros.mapping.ply import write_ply
from llmseg_ros.mapping.point_cloud2 import (
    FIELDS,
    POINT_BYTES,
    VOXEL_FIELDS,
    VOXEL_LAYOUT,
    cloud_table,
    pack_cloud,
    pack_voxels,
    read_cloud,
)
from llmseg_ros.mapping.voxels import VoxelMap, Voxels

from ..helpers.disk import room_for

KINDS = {4: '<u2', 6: '<u4', 7: '<f4'}  # of sensor_msgs/PointField


def some_voxels(count: int = 3) -> Voxels:
    rng = np.random.default_rng(0)
    return Voxels(
        rng.normal(size=(count, 3)),
        rng.integers(0, 256, (count, 3)).astype(np.uint8),
        np.array([0, 300, IGNORED] * (count // 3), np.uint16),
        rng.random(count).astype(np.float32),
        rng.integers(1, 100_000, count).astype(np.int32),
    )


def test_ply(tmp_path: Path) -> None:
    voxels = some_voxels()
    write_ply(tmp_path / 'map.ply', voxels)
    vertices = PlyData.read(tmp_path / 'map.ply')['vertex']
    names = ['x', 'y', 'z', 'red', 'green', 'blue', 'label', 'probability', 'views']
    assert [of.name for of in vertices.properties] == names
    assert [of.val_dtype for of in vertices.properties[3:]] == [*['u1'] * 3, 'u2', 'f4', 'i4']
    places = np.stack([vertices[name] for name in 'xyz'], axis=1)
    np.testing.assert_array_equal(places, voxels.centres.astype(np.float32))
    colours = np.stack([vertices[name] for name in ('red', 'green', 'blue')], axis=1)
    np.testing.assert_array_equal(colours, voxels.rgb)
    np.testing.assert_array_equal(vertices['label'], voxels.labels)
    np.testing.assert_array_equal(vertices['probability'], voxels.probability)
    np.testing.assert_array_equal(vertices['views'], voxels.views)


def test_ply_far_from_its_origin(tmp_path: Path) -> None:
    """As with UTM coordinates: floats have steps of half a metre there."""
    voxels = some_voxels()
    voxels = voxels._replace(centres=np.add(voxels.centres, (5e5, 5.4e6, 0)))
    write_ply(tmp_path / 'map.ply', voxels, 'straße_classes.json')
    vertices = PlyData.read(tmp_path / 'map.ply')['vertex']
    places = np.stack([vertices[name] for name in 'xyz'], axis=1)
    np.testing.assert_array_equal(places, voxels.centres)


def test_ply_of_nothing(tmp_path: Path) -> None:
    write_ply(tmp_path / 'map.ply', VoxelMap().voxels())
    assert len(PlyData.read(tmp_path / 'map.ply')['vertex']) == 0


def test_full_disk(tmp_path: Path) -> None:
    write_ply(tmp_path / 'map.ply', some_voxels())
    before = (tmp_path / 'map.ply').read_bytes()
    with room_for(4096), pytest.raises(WriteError, match=r'map\.ply can not be written'):
        write_ply(tmp_path / 'map.ply', some_voxels(3000))
    assert (tmp_path / 'map.ply').read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ['map.ply']


def test_point_cloud() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(2, 5, 3)).astype(np.float32)
    points[0, 0] = np.nan
    rgb = rng.integers(0, 256, (2, 5, 3)).astype(np.uint8)
    labels = rng.integers(0, 65536, (2, 5)).astype(np.uint16)
    confidence = rng.random((2, 5)).astype(np.float32)
    data = pack_cloud(points, rgb, labels, confidence)
    assert data.shape == (2 * 5 * POINT_BYTES,)
    found = {
        name: np.ndarray((2, 5), KINDS[kind], data, offset, (5 * POINT_BYTES, POINT_BYTES))
        for name, offset, kind in FIELDS
    }
    for axis, name in enumerate('xyz'):
        np.testing.assert_array_equal(found[name], points[..., axis])
    np.testing.assert_array_equal(found['label'], labels)
    np.testing.assert_array_equal(found['confidence'], confidence)
    rgba = found['rgba']  # 0xAARRGGBB in PCL
    channels = np.stack([rgba >> 16 & 255, rgba >> 8 & 255, rgba & 255], axis=-1)
    np.testing.assert_array_equal(channels, rgb)
    assert (rgba >> 24 == 255).all()


def raw(values: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Any:
    ordered = values.astype(values.dtype.newbyteorder('>' if big else '<'))
    rows = np.ascontiguousarray(ordered).view(np.uint8).reshape(len(values), -1)
    padded = np.pad(rows, ((0, 0), (0, padding)))
    height, width = values.shape
    return SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big),
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


MILLIMETRES = np.array([[0, 1500, 65535], [1, 2, 3]], np.uint16)
METRES = np.array([[np.nan, 1.5, 65.535], [0.001, 0.002, 0.003]], np.float32)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', [0, 6])
def test_raw_depth(big: bool, padding: int) -> None:
    found = message_to_depth(raw(MILLIMETRES, '16UC1', padding, big))
    np.testing.assert_allclose(found, METRES)
    floats = message_to_depth(raw(np.nan_to_num(METRES), '32FC1', padding, big))
    np.testing.assert_array_equal(floats, METRES)
    assert floats.dtype == np.float32


def png(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, format='PNG')
    return file.getvalue()


def compressed(data: bytes, kind: str) -> Any:
    return SimpleNamespace(format=kind, data=np.frombuffer(data, np.uint8))


def test_compressed_depth() -> None:
    message = compressed(bytes(12) + png(MILLIMETRES), '16UC1; compressedDepth png')
    np.testing.assert_allclose(message_to_depth(message), METRES)


def test_compressed_float_depth() -> None:
    """As compressed_depth_image_transport quantises: value = A / depth + B."""
    depth = np.array([[0.5, 1.5, 7.25]], np.float32)
    scale = 100 * 101.0  # of depth_quantization 100 and depth_max 10
    shift = 1 - scale / 10
    values = np.append(np.rint(scale / depth[0] + shift), 0).astype(np.uint16)[None]
    data = struct.pack('<iff', 0, scale, shift) + png(values)
    found = message_to_depth(compressed(data, '32FC1; compressedDepth'))
    np.testing.assert_allclose(found[0, :3], depth[0], rtol=0.003)
    assert np.isnan(found[0, 3])


@pytest.mark.parametrize(
    ('message', 'reason'),
    [
        (raw(MILLIMETRES.astype(np.uint8), 'rgb8'), "encoding 'rgb8' is not supported"),
        (SimpleNamespace(**{**vars(raw(MILLIMETRES, '16UC1')), 'width': 4}), 'depth of 4x2 16UC1'),
        (SimpleNamespace(**{**vars(raw(MILLIMETRES, '16UC1')), 'height': 0}), 'empty'),
        (compressed(b'', '16UC1; compressedDepth png'), 'is not supported'),
        (compressed(bytes(12) + b'RVL', '16UC1; compressedDepth rvl'), 'is not supported'),
        (compressed(png(MILLIMETRES), 'png'), "format 'png' is not supported"),
        (compressed((bytes(12) + png(MILLIMETRES))[:60], '16UC1; png'), 'of 48 bytes is cut off'),
        (compressed(bytes(12) + png(np.zeros((2, 2), np.uint8)), '16UC1; png'), '16 bits and one'),
    ],
)
def test_bad_depth(message: Any, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        message_to_depth(message)


def cloud_message(table: Any, padding: int = 0) -> SimpleNamespace:
    """Return a structured (H, W) array as a PointCloud2, as any other library might write it."""
    big = table.dtype['x'].byteorder == '>'
    kinds = {'f4': 7, 'u4': 6, 'u2': 4, 'f8': 8}
    fields = [
        SimpleNamespace(
            name=name, offset=offset, datatype=kinds[kind.newbyteorder('=').str[1:]], count=1
        )
        for name, (kind, offset) in table.dtype.fields.items()
    ]
    rows = [row.tobytes() + bytes(padding) for row in table]
    return SimpleNamespace(
        height=table.shape[0],
        width=table.shape[1],
        point_step=table.dtype.itemsize,
        row_step=len(rows[0]),
        is_bigendian=big,
        fields=fields,
        data=b''.join(rows),
    )


def some_table(order: str = '<', names: str = 'x y z rgba label confidence') -> Any:
    kinds = {'x': 'f4', 'y': 'f4', 'z': 'f4', 'rgba': 'u4', 'label': 'u2', 'confidence': 'f4'}
    table = np.zeros((2, 3), [(name, order + kinds[name]) for name in names.split()])
    for axis, value in zip('xyz', (0.5, -1.5, 2.0), strict=True):
        table[axis] = value + np.arange(6).reshape(2, 3)
    table['rgba'] = 0xFF102030
    table['label'] = 1000
    table['confidence'] = 0.25
    return table


@pytest.mark.parametrize('names', ['x y z rgba label confidence', 'label confidence z y x rgba'])
@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('padding', [0, 5])
def test_clouds_of_any_layout_are_read(names: str, order: str, padding: int) -> None:
    table = some_table(order, names)
    found = read_cloud(cloud_message(table, padding))
    for axis, name in enumerate('xyz'):
        np.testing.assert_array_equal(found.points[..., axis], table[name])
    assert found.points.dtype == np.float32
    assert (found.rgb == (0x10, 0x20, 0x30)).all()
    assert (found.labels == 1000).all()
    assert (found.confidence == 0.25).all()


def test_what_is_packed_is_read_back() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(4, 5, 3)).astype(np.float32)
    points[0, 0] = np.nan
    rgb = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    labels = rng.integers(0, 65536, (4, 5)).astype(np.uint16)
    confidence = rng.random((4, 5)).astype(np.float32)
    message = SimpleNamespace(
        height=4,
        width=5,
        point_step=POINT_BYTES,
        row_step=5 * POINT_BYTES,
        is_bigendian=False,
        fields=[
            SimpleNamespace(name=name, offset=offset, datatype=kind, count=1)
            for name, offset, kind in FIELDS
        ],
        data=pack_cloud(points, rgb, labels, confidence).tobytes(),
    )
    for found, packed in zip(read_cloud(message), (points, rgb, labels, confidence), strict=True):
        np.testing.assert_array_equal(found, packed)


def test_voxels_are_packed_as_their_fields_say() -> None:
    voxels = some_voxels()
    fields = [
        SimpleNamespace(name=name, offset=offset, datatype=kind, count=1)
        for name, offset, kind in VOXEL_FIELDS
    ]
    size = VOXEL_LAYOUT.itemsize
    data = pack_voxels(voxels).tobytes()
    message = SimpleNamespace(
        height=1, width=3, point_step=size, row_step=3 * size, is_bigendian=False, fields=fields,
        data=data,
    )  # fmt: skip
    table = cloud_table(message)[0]
    for axis, name in enumerate('xyz'):
        np.testing.assert_array_equal(table[name], voxels.centres[:, axis].astype(np.float32))
    for name in ('probability', 'views'):
        np.testing.assert_array_equal(table[name], getattr(voxels, name))
    np.testing.assert_array_equal(table['label'], voxels.labels)
    np.testing.assert_array_equal(table['rgba'] >> 16 & 255, voxels.rgb[:, 0])


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'data': b'short'}, '3x2 points of 22 bytes, rows of 66 bytes, in 5 bytes'),
        ({'width': 0}, '0x2 points is empty or too large'),
        ({'row_step': 60, 'data': bytes(120)}, 'rows of 60 bytes'),
        ({'point_step': 8, 'row_step': 66}, 'lie beyond its points'),
        ({'fields': []}, 'has no field x: expected x, y, z, rgba, label, confidence'),
    ],
    ids=['data', 'width', 'rows', 'step', 'fields'],
)
def test_clouds_that_are_none(change: dict[str, Any], reason: str) -> None:
    message = cloud_message(some_table())
    vars(message).update(change)
    with pytest.raises(GeometryError, match=reason):
        read_cloud(message)


@pytest.mark.parametrize('value', [np.nan, np.inf, -0.1, 1.5])
def test_confidence_that_is_none(value: float) -> None:
    table = some_table()
    table['confidence'].flat[-1] = value
    with pytest.raises(GeometryError, match='confidence of the cloud is not within 0 and 1'):
        read_cloud(cloud_message(table))


def test_a_field_of_another_type_is_named() -> None:
    table = some_table().astype([(n, 'f8' if n == 'x' else k) for n, k in some_table().dtype.descr])
    with pytest.raises(GeometryError, match=r'the field x of the cloud is float64'):
        read_cloud(cloud_message(table))
