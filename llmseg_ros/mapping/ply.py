"""Maps as PLY files (Turk 1994), which CloudCompare, MeshLab, Open3D and Blender open."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llmseg_ros.files import replacing, writing
from llmseg_ros.mapping.voxels import Voxels

# The one library that writes vertices of any type, plyfile, is under the GPL.
AXES = (('x', '<f4', 'float'), ('y', '<f4', 'float'), ('z', '<f4', 'float'))
FAR_AXES = (('x', '<f8', 'double'), ('y', '<f8', 'double'), ('z', '<f8', 'double'))
FAR_M = 1 << 14  # from the origin, as in UTM: a float has steps above a millimetre there
PROPERTIES = (
    ('red', 'u1', 'uchar'),
    ('green', 'u1', 'uchar'),
    ('blue', 'u1', 'uchar'),
    ('label', '<u2', 'ushort'),
    ('probability', '<f4', 'float'),
    ('views', '<i4', 'int'),
)


def write_ply(path: Path, voxels: Voxels, names_in: str = 'classes.json') -> None:
    """Write the voxels as vertices of a binary PLY file; it is there complete or not at all.

    Positions are floats, doubles where the map is far from its origin. A comment says that the
    names of the labels are in the file `names_in`.

    Raises:
        WriteError: it can't be written.
    """
    far = np.abs(voxels.centres).max(initial=0) >= FAR_M
    properties = (*(FAR_AXES if far else AXES), *PROPERTIES)
    vertices = np.empty(len(voxels.labels), [(name, kind) for name, kind, _ in properties])
    for axis, name in enumerate('xyz'):
        vertices[name] = voxels.centres[:, axis]
    for channel, name in enumerate(('red', 'green', 'blue')):
        vertices[name] = voxels.rgb[:, channel]
    vertices['label'] = voxels.labels
    vertices['probability'] = voxels.probability
    vertices['views'] = voxels.views
    header = [
        'ply',
        'format binary_little_endian 1.0',
        f'comment llmseg_ros: the names of the labels are in {names_in}',
        f'element vertex {len(vertices)}',
        *(f'property {kind} {name}' for name, _, kind in properties),
        'end_header\n',
    ]
    with writing(path), replacing(path) as partial, partial.open('wb') as file:
        file.write('\n'.join(header).encode('ascii', 'backslashreplace'))
        file.write(vertices.tobytes())
