"""Bring maps to the size of an image, along the image's edges, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmseg_ros.method.maps import resize_maps

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

RADIUS = 1  # of a window, in pixels of the small size
EPSILON = 1e-2  # colours that vary less than this within a window, squared, don't guide


def upsample_guided(
    probabilities_bkhw: torch.Tensor, small_b3hw: torch.Tensor, image_b3hw: torch.Tensor
) -> torch.Tensor:
    """Enlarge probabilities by the fast guided filter, the image its guide.

    In a window around each small pixel probabilities are fitted as linear in colour; the averaged
    coefficients are enlarged and meet the colours of the image (He, Sun and Tang, ECCV 2010; He
    and Sun, 2015).

    Args:
        probabilities_bkhw: (b, k, h, w), summing to 1 over k.
        small_b3hw: (b, 3, h, w) colours in [0, 1].
        image_b3hw: (b, 3, H, W), the same at the size of the image.

    Returns:
        (b, k, H, W), from 0 to 1 and summing to 1 over k.
    """
    shape = image_b3hw.shape[2:]
    slopes_bk3hw, offsets_bkhw = fit_colours(probabilities_bkhw, small_b3hw)
    maps_bkhw = enlarge(offsets_bkhw, shape)
    for channel in range(3):
        slopes_bkhw = enlarge(slopes_bk3hw[:, :, channel], shape)
        maps_bkhw.addcmul_(slopes_bkhw, image_b3hw[:, None, channel])
    maps_bkhw.clamp_(min=0)
    return maps_bkhw.div_(maps_bkhw.sum(dim=1, keepdim=True))


def fit_colours(
    maps_bkhw: torch.Tensor, colours_b3hw: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit maps as linear in colour, window by window.

    Returns:
        Slopes (b, k, 3, h, w) and offsets (b, k, h, w), averaged over the windows a pixel lies in.
    """
    import torch

    means_b3hw, means_bkhw = window_means(colours_b3hw), window_means(maps_bkhw)
    covariance_b33hw = window_means(colours_b3hw[:, :, None] * colours_b3hw[:, None])
    covariance_b33hw -= means_b3hw[:, :, None] * means_b3hw[:, None]
    covariance_b33hw.diagonal(dim1=1, dim2=2).add_(EPSILON)
    covariance_bk3hw = window_means(maps_bkhw[:, :, None] * colours_b3hw[:, None])
    covariance_bk3hw -= means_bkhw[:, :, None] * means_b3hw[:, None]
    # the inverse of a 3 x 3 matrix by cross products: a solver would wait for the device
    first, second, third = covariance_b33hw.unbind(dim=1)
    pairs = ((second, third), (third, first), (first, second))
    adjugate_b33hw = torch.stack([torch.linalg.cross(*pair, dim=1) for pair in pairs], dim=1)
    determinant_bhw = (first * adjugate_b33hw[:, 0]).sum(dim=1)
    slopes_bk3hw = (adjugate_b33hw[:, None] * covariance_bk3hw[:, :, None]).sum(dim=3)
    slopes_bk3hw /= determinant_bhw[:, None, None]
    offsets_bkhw = means_bkhw - (slopes_bk3hw * means_b3hw[:, None]).sum(dim=2)
    return window_means(slopes_bk3hw), window_means(offsets_bkhw)


def window_means(maps_bxhw: torch.Tensor) -> torch.Tensor:
    """Average (b, ..., h, w) maps over the window around each pixel, as far as there is image."""
    import torch

    means_bchw = torch.nn.functional.avg_pool2d(
        maps_bxhw.flatten(1, -3), 2 * RADIUS + 1, 1, RADIUS, count_include_pad=False
    )
    return means_bchw.view_as(maps_bxhw)


def enlarge(maps_bkhw: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Resize (b, k, h, w) maps bilinearly to (b, k, H, W)."""
    batch, labels = maps_bkhw.shape[:2]
    return resize_maps(maps_bkhw.flatten(0, 1), shape).reshape(batch, labels, *shape)
