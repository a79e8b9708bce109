"""Poses over time, and frames of reference that hang on each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from llmseg_ros.mapping.geometry import GeometryError, Matrix, checked_pose

MAX_GAP_NS = 1_000_000_000  # between two poses with others in between them
MAX_JUMP_NS = 1_000_000_000  # by which stamps may go back: later, and it is another recording
QUATERNION_TOLERANCE = 1e-2


class StampedPose(NamedTuple):
    """A pose of a moving frame in its parent, at a time in nanoseconds."""

    stamp: int
    pose: Matrix


def pose_from_quaternion(translation: Iterable[float], quaternion_xyzw: Iterable[float]) -> Matrix:
    """Return the (4, 4) pose of a translation in metres and a unit quaternion.

    Raises:
        GeometryError: a number is not finite, or the quaternion is not of length 1.
    """
    quaternion = np.array([*quaternion_xyzw], np.float64)
    length = float(np.hypot.reduce(quaternion))  # of any size, without overflow
    pose = np.eye(4)
    pose[:3, 3] = [*translation]
    if not np.isfinite([*quaternion, *pose[:3, 3]]).all():
        raise GeometryError('a pose has numbers that are not finite')
    if not abs(length - 1) <= QUATERNION_TOLERANCE:
        raise GeometryError(f'the quaternion of a pose has length {length:.3g}, expected 1')
    pose[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    return pose


class PoseTrack:
    """Poses of one frame over time, interpolated between neighbours that are close in time."""

    def __init__(self, poses: Iterable[StampedPose]) -> None:
        """Sort the poses; of those with one stamp the last counts.

        Raises:
            GeometryError: there is none, one is no pose, or the stamps go back by a jump.
        """
        by_stamp: dict[int, Matrix] = {}
        latest: int | None = None
        for stamp, pose in poses:
            if latest is not None and latest - stamp > MAX_JUMP_NS:
                raise GeometryError(
                    f'the stamps of the poses jump back by {(latest - stamp) / 1e9:.2f} s: '
                    'these are two recordings, cut them apart'
                )
            latest = stamp if latest is None else max(latest, stamp)
            by_stamp[stamp] = checked_pose(pose)
        if not by_stamp:
            raise GeometryError('there are no poses')
        self.stamps: NDArray[np.int64] = np.array(sorted(by_stamp), np.int64)
        self._poses = np.stack([by_stamp[stamp] for stamp in self.stamps.tolist()])

    def at(self, stamp: int) -> Matrix | None:
        """Return the (4, 4) pose at a time, None before the first, after the last or in a gap.

        Positions are interpolated linearly, rotations by Slerp (Shoemake 1985).
        """
        after = int(np.searchsorted(self.stamps, stamp))
        if after < len(self.stamps) and self.stamps[after] == stamp:
            return np.array(self._poses[after])
        if after in (0, len(self.stamps)):
            return None
        begin, end = self.stamps[after - 1 : after + 1].tolist()
        if end - begin > MAX_GAP_NS:
            return None
        share = (stamp - begin) / (end - begin)
        one, other = self._poses[after - 1 : after + 1]
        pose = np.eye(4)
        pose[:3, 3] = (1 - share) * one[:3, 3] + share * other[:3, 3]
        turns = Rotation.from_matrix(np.stack([one[:3, :3], other[:3, :3]]))
        pose[:3, :3] = Slerp([0, 1], turns)(share).as_matrix()
        return pose


class FrameTree:
    """Frames of reference as tf has them: each hangs on one parent, fixed or moving."""

    def __init__(self) -> None:
        self._moving: dict[str, tuple[str, PoseTrack]] = {}
        self._fixed: dict[str, tuple[str, Matrix]] = {}

    def __bool__(self) -> bool:
        return bool(self._moving or self._fixed)

    def __contains__(self, frame: str) -> bool:
        return frame in self._moving or frame in self._fixed

    def add_moving(self, child: str, parent: str, track: PoseTrack) -> None:
        """Hang a frame on another by poses over time."""
        self._moving[child] = parent, track

    def add_fixed(self, child: str, parent: str, pose: Matrix) -> None:
        """Hang a frame on another for good.

        Raises:
            GeometryError: the pose is none.
        """
        self._fixed[child] = parent, checked_pose(pose)

    def has(self, frame: str) -> bool:
        """Return whether a frame hangs on another, or another on it."""
        links = (*self._moving.values(), *self._fixed.values())
        return frame in self or any(parent == frame for parent, _ in links)

    def moves(self, frame: str) -> bool:
        """Return whether anything moves between a frame and the topmost one above it.

        Raises:
            GeometryError: the frames hang on each other in a ring.
        """
        return any(above in self._moving for above in self.chain(frame))

    def chain(self, frame: str) -> list[str]:
        """Return a frame, its parent and so on up to the one that hangs on nothing.

        Raises:
            GeometryError: the frames hang on each other in a ring.
        """
        found = [frame]
        while found[-1] in self:
            parent = self._parent(found[-1])
            if parent in found:
                raise GeometryError(f'the frame {parent} hangs on itself by way of {found[-1]}')
            found.append(parent)
        return found

    def pose(self, frame: str, world: str, stamp: int) -> Matrix | None:
        """Return the (4, 4) pose of a frame in one above it, None where one is missing then.

        Raises:
            GeometryError: the frame does not hang on the other.
        """
        chain = self.chain(frame)
        if world not in chain:
            above = ' on '.join(chain[1:]) or 'nothing'
            raise GeometryError(f'the frame {frame} does not hang on {world}, but on {above}')
        pose = np.eye(4)
        for child in chain[: chain.index(world)]:
            step = self._step(child, stamp)
            if step is None:
                return None
            pose = step @ pose
        return pose

    def _parent(self, frame: str) -> str:
        return (self._moving.get(frame) or self._fixed[frame])[0]

    def _step(self, frame: str, stamp: int) -> Matrix | None:
        if frame in self._moving:
            return self._moving[frame][1].at(stamp)
        return self._fixed[frame][1]
