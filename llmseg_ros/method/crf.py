"""Dense CRF refinement (Kraehenbuehl and Koltun, NIPS 2011) through pydensecrf."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import RefineConfig
from llmseg_ros.method.stages import Shared

if TYPE_CHECKING:
    from pydensecrf.densecrf import DenseCRF2D

PROBABILITY_FLOOR = 1e-8


def crf_available() -> bool:
    """Tell whether pydensecrf (PyPI: pydensecrf2) can be imported."""
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        return False
    return True


def refine_crf(
    probabilities_khw: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    config: RefineConfig,
    shared: Shared | None = None,
) -> NDArray[np.float32]:
    """Refine all labels together in ONE multi-class dense CRF.

    Args:
        probabilities_khw: (k, H, W), summing to 1 over k; k >= 2.
        rgb: (H, W, 3) uint8, the image at the same size.
        config: kernel widths in pixels of that size, weights, iterations.
        shared: of the image; the kernels, nearly half of the time, go with the image and k alone.

    Returns:
        (k, H, W) marginals, summing to 1 over k.
    """
    labels, height, width = probabilities_khw.shape
    unary = -np.log(np.maximum(probabilities_khw, PROBABILITY_FLOOR)).reshape(labels, -1)
    crf = (shared or Shared()).once(
        ('crf', config, probabilities_khw.shape), lambda: image_crf(rgb, labels, config)
    )
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    # Step by step: pydensecrf keeps the interpreter's lock through a call, and other threads, such
    # as a node's executor, get their turn between two.
    marginals, scratch, other_scratch = crf.startInference()
    for _ in range(config.iterations):
        crf.stepInference(marginals, scratch, other_scratch)
    return np.asarray(marginals, dtype=np.float32).reshape(labels, height, width)


def image_crf(rgb: NDArray[np.uint8], labels: int, config: RefineConfig) -> DenseCRF2D:
    """Make the CRF of an (H, W, 3) image, still without what is known of its pixels."""
    from pydensecrf.densecrf import DenseCRF2D

    crf = DenseCRF2D(rgb.shape[1], rgb.shape[0], labels)
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.require(rgb, requirements=['C', 'W']),  # it takes no array that is read-only
        compat=config.bilateral_compat,
    )
    return crf
