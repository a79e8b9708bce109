"""Text-image encoders behind one protocol."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmseg_ros.config import SegmenterConfig
from llmseg_ros.encoders.base import Encoder, EncoderUnavailable, ImageFeatures
from llmseg_ros.encoders.runtime import pick_runtime

if TYPE_CHECKING:
    import torch

__all__ = ['Encoder', 'EncoderUnavailable', 'ImageFeatures', 'create_encoder', 'find_device']


def create_encoder(config: SegmenterConfig) -> Encoder:
    """Load the encoder a configuration names.

    Raises:
        EncoderUnavailable: its packages or weights aren't here, or the device or runtime isn't.
    """
    device = find_device(config.encoder.device)
    compiled = {'open_clip': config.open_clip.compile, 'simseg': config.simseg.compile}
    runtime = pick_runtime(config.encoder, device, compiled.get(config.encoder.name, False))
    if config.encoder.name == 'imagenet':
        from llmseg_ros.encoders.imagenet import ImageNetEncoder

        return ImageNetEncoder(config.imagenet, device, runtime)
    if config.encoder.name == 'open_clip':
        from llmseg_ros.encoders.open_clip import OpenClipEncoder

        return OpenClipEncoder(config.open_clip, device, config.encoder.precision, runtime)
    if config.encoder.name == 'simseg':
        from llmseg_ros.encoders.simseg import SimSegEncoder

        return SimSegEncoder(config.simseg, device, config.encoder.precision, runtime)
    raise EncoderUnavailable(f'there is no encoder {config.encoder.name!r}')


def find_device(name: str) -> torch.device:
    """Turn 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps' into a device that is present.

    Raises:
        EncoderUnavailable: there is no such device here.
    """
    # Read when torch is loaded: threads that spin while they wait take the cores from the camera
    # driver and from one another; a frame was seen to take twenty times as long.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    import torch

    if name == 'auto':
        if torch.cuda.is_available():
            return torch.device('cuda')
        return torch.device('mps' if torch.backends.mps.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise EncoderUnavailable(
            f'encoder.device is {name!r}, which is not here; use auto or cpu'
        ) from error
    return device
