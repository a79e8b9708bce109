"""Dense CRF refinement in torch: exact mean field at a working size, guided to image size.

Kraehenbuehl and Koltun (NIPS 2011), with every pair of pixels instead of a lattice. Nothing is read
back from the device.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from llmseg_ros.config import RefineConfig
from llmseg_ros.method.background import ABSENT
from llmseg_ros.method.crf import PROBABILITY_FLOOR
from llmseg_ros.method.guided_filter import upsample_guided
from llmseg_ros.method.maps import resize_maps
from llmseg_ros.method.stages import Shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

# Working size in pixels: memory and time go with its square. 64 x 114 in fp16 is 106 MB an image.
MOST_PIXELS = 64 * 114  # on a GPU: a short side of 64 at 16:9
MOST_PIXELS_CPU = 48 * 64
BLOCK = 1 << 20  # entries of the kernel matrix computed at a time, which stay in a CPU's cache
LEAST_EXPONENT = -40.0  # exp() of what underflows is five times slower


def refine_crf_torch(
    logits_bkhw: torch.Tensor,
    rgb_bhw3: torch.Tensor,
    config: RefineConfig,
    shared: Shared | None = None,
) -> torch.Tensor:
    """Refine the labels of a batch of images, each in ONE multi-class dense CRF.

    Args:
        logits_bkhw: (b, k, h, w) label logits; a label that is ABSENT in its first pixel stays
            improbable everywhere, unless all are.
        rgb_bhw3: (b, H, W, 3) uint8, on the same device.
        config: kernel widths in pixels of an image shrunk to `short_side`; they are scaled to the
            working size, which is at most that.
        shared: of the image, for a batch of one; the kernel goes with the image alone.

    Returns:
        (b, k, H, W) marginals, summing to 1 over k.
    """
    import torch

    on_cpu = logits_bkhw.device.type == 'cpu'
    shape = tuple(rgb_bhw3.shape[1:3])
    size = working_size(shape, config.short_side, MOST_PIXELS_CPU if on_cpu else MOST_PIXELS)
    image_b3hw = rgb_bhw3.permute(0, 3, 1, 2).float()
    # in whole grey levels, of which bilateral_kernel makes use
    small_b3hw = torch.nn.functional.adaptive_avg_pool2d(image_b3hw, size).round()
    probabilities_bkhw = mean_field(
        label_unary(logits_bkhw, size),
        small_b3hw,
        scale_kernels(config, shape, size),
        torch.float32 if on_cpu else torch.float16,
        shared,
    )
    if size == shape:
        return probabilities_bkhw
    return upsample_guided(probabilities_bkhw, small_b3hw / 255, image_b3hw / 255)


def working_size(shape: Sequence[int], short_side: int, most_pixels: int) -> tuple[int, int]:
    """Shrink (height, width) to a short side and to a number of pixels, never enlarge it."""
    height, width = shape
    scale = min(1.0, short_side / min(shape), math.sqrt(most_pixels / (height * width)))
    height = min(max(1, round(scale * height)), most_pixels)
    return height, min(max(1, round(scale * width)), most_pixels // height)


def scale_kernels(config: RefineConfig, shape: Sequence[int], size: Sequence[int]) -> RefineConfig:
    """Convert kernel widths from pixels at `short_side` to those at the working size."""
    scale = min(small / large for small, large in zip(size, shape, strict=True))
    scale /= min(1.0, config.short_side / min(shape))
    return dataclasses.replace(
        config,
        gaussian_sxy=config.gaussian_sxy * scale,
        bilateral_sxy=config.bilateral_sxy * scale,
    )


def label_unary(logits_bkhw: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return -log of the label probabilities, (b, k, *size), infinite for absent labels.

    Where all labels are absent the first counts as present.
    """
    import torch

    absent_bk = logits_bkhw[..., 0, 0] <= ABSENT
    first_k = torch.arange(absent_bk.shape[1], device=absent_bk.device) == 0
    absent_bk = absent_bk & ~(absent_bk.all(dim=1, keepdim=True) & first_k)
    batch, labels = absent_bk.shape
    logits_bkhw = resize_maps(logits_bkhw.flatten(0, 1), size).view(batch, labels, *size)
    unary_bkhw = -logits_bkhw.softmax(dim=1).clamp(min=PROBABILITY_FLOOR).log()
    return unary_bkhw.masked_fill(absent_bk[..., None, None], math.inf)


def mean_field(
    unary_bkhw: torch.Tensor,
    rgb_b3hw: torch.Tensor,
    config: RefineConfig,
    dtype: torch.dtype,
    shared: Shared | None = None,
) -> torch.Tensor:
    """Do mean field over every pair of pixels, one product with the kernel matrix an iteration.

    Both kernels are normalised symmetrically, k_ij / sqrt(n_i n_j) with n_i = sum_j k_ij, and j
    runs over i too, as in Kraehenbuehl and Koltun's own code.

    Args:
        unary_bkhw: (b, k, h, w) float32, infinite where a label can't be; one is finite everywhere.
        rgb_b3hw: (b, 3, h, w) whole grey levels from 0 to 255, as float32.
        config: kernel widths in pixels of this size, weights, iterations.
        dtype: of the kernel matrix, (b, h w, h w); sums are float32.
        shared: of the image.

    Returns:
        (b, k, h, w) float32 marginals, summing to 1 over k.
    """
    height, width = unary_bkhw.shape[2:]
    widths = config.bilateral_sxy, config.bilateral_srgb
    key = 'crf_torch', rgb_b3hw.shape, widths, dtype
    kernel_bnn, norm_bn = (shared or Shared()).once(
        key, lambda: bilateral_kernel(rgb_b3hw, *widths, dtype)
    )
    scale_b1n = norm_bn.rsqrt()[:, None]
    # a Gaussian of the position alone is one of rows times one of columns
    rows_hh = config.gaussian_compat * gaussian_kernel(height, config.gaussian_sxy, norm_bn.device)
    columns_ww = gaussian_kernel(width, config.gaussian_sxy, norm_bn.device)
    q_bkhw = (-unary_bkhw).softmax(dim=1)
    for _ in range(config.iterations):
        message_bkn = (q_bkhw.flatten(2) * scale_b1n).to(dtype) @ kernel_bnn
        message_bkn = message_bkn.float() * (config.bilateral_compat * scale_b1n)
        message_bkhw = rows_hh @ q_bkhw @ columns_ww + message_bkn.view_as(q_bkhw)
        q_bkhw = (message_bkhw - unary_bkhw).softmax(dim=1)
    return q_bkhw


def bilateral_kernel(
    rgb_b3hw: torch.Tensor, sxy: float, srgb: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare every pixel of (b, 3, h, w) images in whole grey levels with every other.

    Returns:
        (b, n, n) exp(-|x_i - x_j|^2 / 2 sxy^2 - |c_i - c_j|^2 / 2 srgb^2), pixels row by row, and
        its sums (b, n) in float32.
    """
    import torch

    batch, _, height, width = rgb_b3hw.shape
    pixels, device = height * width, rgb_b3hw.device
    left_bnf, right_bfn = colour_factors(rgb_b3hw)
    rows_hh = position_exponents(height, sxy, device)
    columns_ww = position_exponents(width, sxy, device)
    kernel_bnn = torch.empty(batch, pixels, pixels, dtype=dtype, device=device)
    norm_bn = torch.empty(batch, pixels, device=device)
    step = max(1, BLOCK // (width * pixels))
    for first in range(0, height, step):
        some_mh = rows_hh[first : first + step]
        block = slice(first * width, (first + len(some_mh)) * width)
        position_mwhw = some_mh[:, None, :, None] + columns_ww[:, None]
        exponents_bmn = torch.baddbmm(
            position_mwhw.view(-1, pixels), left_bnf[:, block], right_bfn, alpha=1 / srgb**2
        )
        values_bmn = exponents_bmn.clamp_(min=LEAST_EXPONENT).exp_()
        torch.sum(values_bmn, dim=2, out=norm_bn[:, block])
        kernel_bnn[:, block] = values_bmn
    return kernel_bnn, norm_bn


def colour_factors(rgb_b3hw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (b, n, 7) and (b, 7, n) whose product is -|c_i - c_j|^2 / 2, exactly.

    |c|^2 is split in two, so that each factor is a number of 8 bits: in the short mantissas of
    TF32, should matrix products be set to it, differences of large squares would be lost.
    """
    import torch

    colours_b3n = rgb_b3hw.flatten(2) - 128
    squares_b1n = colours_b3n.square().sum(dim=1, keepdim=True)
    low_b1n = squares_b1n.remainder(256) / 2
    high_b1n = squares_b1n / 2 - low_b1n
    ones_b1n = torch.ones_like(low_b1n)
    left_bfn = torch.cat([colours_b3n, -high_b1n, -low_b1n, ones_b1n, ones_b1n], dim=1)
    right_bfn = torch.cat([colours_b3n, ones_b1n, ones_b1n, -high_b1n, -low_b1n], dim=1)
    return left_bfn.mT, right_bfn


def gaussian_kernel(length: int, sxy: float, device: torch.device) -> torch.Tensor:
    """Return the (length, length) normalised smoothness kernel of one axis."""
    kernel_nn = position_exponents(length, sxy, device).exp()
    scale_n = kernel_nn.sum(dim=1).rsqrt()
    return kernel_nn * scale_n * scale_n[:, None]


def position_exponents(length: int, sxy: float, device: torch.device) -> torch.Tensor:
    """Return the (length, length) exponents -(x_i - x_j)^2 / 2 sxy^2 of one axis."""
    import torch

    positions_n = torch.arange(length, dtype=torch.float32, device=device)
    return (positions_n - positions_n[:, None]).square() / (-2 * sxy**2)
