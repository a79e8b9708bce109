"""Dense CRF refinement (Kraehenbuehl and Koltun, NIPS 2011) through pydensecrf."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import RefineConfig

PROBABILITY_FLOOR = 1e-8


def crf_available() -> bool:
    """Tell whether pydensecrf (PyPI: pydensecrf2) can be imported."""
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError:
        return False
    return True


def refine_crf(
    probabilities_khw: NDArray[np.float32], rgb: NDArray[np.uint8], config: RefineConfig
) -> NDArray[np.float32]:
    """Refine all labels together in ONE multi-class dense CRF.

    Args:
        probabilities_khw: (k, H, W), summing to 1 over k; k >= 2.
        rgb: (H, W, 3) uint8, the image at the same size.
        config: kernel widths in pixels of that size, weights, iterations.

    Returns:
        (k, H, W) marginals, summing to 1 over k.
    """
    from pydensecrf.densecrf import DenseCRF2D

    labels, height, width = probabilities_khw.shape
    unary = -np.log(np.maximum(probabilities_khw, PROBABILITY_FLOOR)).reshape(labels, -1)
    crf = DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.ascontiguousarray(rgb),
        compat=config.bilateral_compat,
    )
    # Step by step: pydensecrf keeps the interpreter's lock through a call, and other threads, such
    # as a node's executor, get their turn between two.
    marginals, scratch, other_scratch = crf.startInference()
    for _ in range(config.iterations):
        crf.stepInference(marginals, scratch, other_scratch)
    return np.asarray(marginals, dtype=np.float32).reshape(labels, height, width)
