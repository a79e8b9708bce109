"""Frames out of whatever a person has: a camera, a video, a bag, pictures."""

from __future__ import annotations

from pathlib import Path

from llmseg_ros.frame_sources.frames import FrameSource, SourceError, TimedFrame

__all__ = [
    'FrameSource',
    'SourceError',
    'TimedFrame',
    'is_camera',
    'is_video_name',
    'open_source',
]

VIDEO_SUFFIXES = (
    *('.3gp', '.avi', '.flv', '.h264', '.h265', '.ivf', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4'),
    *('.mpeg', '.mpg', '.mts', '.mxf', '.ogv', '.ts', '.webm', '.wmv', '.y4m'),
)


def open_source(source: str, topic: str = '', sixteen_bit: str = 'high_byte') -> FrameSource:
    """Open a camera, a video, a bag, a folder of pictures or a picture.

    Args:
        source: a camera's number or device, else a path; `./0` is a file named 0.
        topic: of the camera in a bag; '' where there is only one.
        sixteen_bit: high_byte or stretch: how 16 bits of pictures and bags become 8.

    Raises:
        SourceError: it can't be used.
    """
    from llmseg_ros.bags.files import METADATA, is_bag_file
    from llmseg_ros.formats.image_files import is_image_name
    from llmseg_ros.frame_sources.bag_frames import open_bag_frames
    from llmseg_ros.frame_sources.pictures import open_pictures

    if is_camera(source):
        from llmseg_ros.frame_sources.cameras import open_camera

        return open_camera(source)
    path = Path(source).expanduser()
    try:
        if not path.exists():
            raise SourceError(missing_in_words(source))
        inside = list(path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise SourceError(f'{source} can not be read: {error.strerror}') from error
    if is_bag_file(path) or any(is_bag_file(p) or p.name == METADATA for p in inside):
        return open_bag_frames(path, topic, sixteen_bit)
    if path.is_dir() or is_image_name(path):
        return open_pictures(path, sixteen_bit)
    from llmseg_ros.frame_sources.videos import open_video

    return open_video(path)


def is_camera(source: str) -> bool:
    """Tell whether a text names a camera: a number, /dev/videoN, or a name in /dev/v4l."""
    number = source.isascii() and source.isdecimal()
    return number or source.startswith(('/dev/video', '/dev/v4l/'))


def is_video_name(source: str) -> bool:
    """Tell whether a file is taken for a video by its name."""
    return source.lower().endswith(VIDEO_SUFFIXES)


def missing_in_words(source: str) -> str:
    """Return why a source that does not exist can't be one."""
    if '://' in source:
        return f'{source} is an address: save the video as a file and give its path'
    return f'{source} does not exist: give a camera number, a video, a bag, or a folder of pictures'
