"""Settings of the node semantic_map."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from llmseg_ros.settings import setting


@dataclass(frozen=True)
class MapConfig:
    voxel: float = setting(0.05, 'edge of a voxel in metres', low=0.001, high=10.0, restart=True)
    farthest: float = setting(
        5.0, 'depth beyond, in metres, stays out of the map', low=0.01, high=1000.0
    )
    limit: int = setting(
        1_000_000,
        'voxels at most: the regions seen longest ago go first',
        low=1000,
        high=20_000_000,
        restart=True,
    )
    rate: float = setting(
        1.0, 'how often a second map and boxes are sent', low=0.01, high=30.0, restart=True
    )
    poses: str = setting(
        'auto',
        'where poses come from: tf, the topic odometry, or auto: tf where tf2_ros is installed',
        ('auto', 'tf', 'odometry'),
        restart=True,
    )
    frame: str = setting(
        'map', 'frame of the map with tf; else it is that of odometry', restart=True
    )
    camera_in_base: tuple[float, ...] = setting(
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        "with odometry: x y z in metres and roll pitch yaw in radians of the clouds' frame in the "
        'one that odometry moves; zeros: not known, they have to be the same',
    )
    pose_wait: float = setting(1.0, 'seconds that a cloud waits for its pose', low=0.0, high=60.0)
    least_views: int = setting(
        1, 'views of a voxel that is sent or part of a box', low=1, high=1_000_000
    )
    least_voxels: int = setting(20, 'voxels of an object that gets a box', low=1, high=1_000_000)
    file: str = setting('', 'PLY file that the map is written to at the end', restart=True)


MAP_SECTIONS: dict[str, type[Any]] = {'map': MapConfig}
MAP_FIELDS = {f'map.{field.name}': field for field in dataclasses.fields(MapConfig)}
