"""What the ViT image towers share: pixels in, and positions for any patch grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def image_tensor(
    rgb: NDArray[np.uint8],
    size: tuple[int, int],
    interpolation: str,
    mean_c11: torch.Tensor,
    std_c11: torch.Tensor,
) -> torch.Tensor:
    """Resize an image and normalise it.

    Args:
        rgb: (H, W, 3) uint8.
        size: height and width wanted, in pixels.
        interpolation: `bilinear` or `bicubic`, with antialiasing, as Pillow has them, or `opencv`,
            OpenCV's bilinear.
        mean_c11: (3, 1, 1) float32 on a scale of 0 to 1, on the device of the result.
        std_c11: likewise.

    Returns:
        (3, height, width) float32.

    Raises:
        ValueError: the array is not an RGB image.
    """
    import torch
    from torch.nn.functional import interpolate

    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f'expected an (H, W, 3) uint8 image, got {rgb.dtype} {rgb.shape}')
    # bytes are resized on the CPU whatever the device: as Pillow does it, by which the models
    # were trained, the same everywhere, and the upload is small
    if interpolation == 'opencv':
        import cv2

        rgb = np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    pixels_hwc = torch.from_numpy(np.array(rgb, order='C'))
    image_1chw = pixels_hwc.permute(2, 0, 1)[None]
    if image_1chw.shape[2:] != size:
        image_1chw = interpolate(image_1chw, size, mode=interpolation, antialias=True)
    image_chw = image_1chw[0].to(mean_c11.device, non_blocking=True) / 255
    return (image_chw - mean_c11) / std_c11


def interpolate_positions(
    positions_nd: torch.Tensor, grid: tuple[int, int], how: str, prefix: int = 1
) -> torch.Tensor:
    """Interpolate position embeddings, bicubic, to a patch grid; CLS keeps its own.

    Args:
        positions_nd: (prefix + s*s, d), CLS first, then a square grid.
        grid: rows and columns wanted.
        how: `plain`; `antialias`, smooth when the grid shrinks, as open_clip does for its own
            models; `offset`, scaled by (rows + 0.1) / s and (columns + 0.1) / s as in the code
            published with SCLIP, NACLIP and ClearCLIP, so that sizes round down safely.
        prefix: number of tokens before the grid, CLS and registers, that have a position.

    Returns:
        (prefix + rows*columns, d).
    """
    import torch
    from torch.nn.functional import interpolate

    side = round((len(positions_nd) - prefix) ** 0.5)
    if grid == (side, side):
        return positions_nd
    square_1dhw = positions_nd[prefix:].unflatten(0, (side, side)).permute(2, 0, 1)[None]
    if how == 'offset':
        factors = tuple((length + 0.1) / side for length in grid)
        resized_1dhw = interpolate(square_1dhw, scale_factor=factors, mode='bicubic')
    else:
        resized_1dhw = interpolate(
            square_1dhw, grid, mode='bicubic', align_corners=False, antialias=how == 'antialias'
        )
    return torch.cat([positions_nd[:prefix], resized_1dhw[0].flatten(1).T])
