"""Exact mean field of a dense CRF, written out pixel by pixel, to hold pydensecrf against."""

from __future__ import annotations

import numpy as np

from llmseg_ros.config import RefineConfig


def dense_mean_field(probabilities_khw, rgb, config: RefineConfig):
    """Minimise E = sum_i -log p_i + sum_ij [x_i != x_j] (w_1 k_1 + w_2 k_2) by mean field.

    Kernels are normalised symmetrically, k_ij / sqrt(n_i n_j) with n_i = sum_j k_ij, and j runs
    over i too, as in Kraehenbuehl and Koltun's own code.
    """
    labels, height, width = probabilities_khw.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    kernel = np.zeros((len(pixels), len(pixels)))
    for weight, values in (
        (config.gaussian_compat, _kernel(pixels, rgb, config.gaussian_sxy, None)),
        (
            config.bilateral_compat,
            _kernel(pixels, rgb, config.bilateral_sxy, config.bilateral_srgb),
        ),
    ):
        norm = values.sum(axis=1)
        kernel += weight * values / np.sqrt(norm[:, None] * norm[None, :])
    unary = -np.log(np.maximum(probabilities_khw.reshape(labels, -1).astype(np.float64), 1e-8))
    q = _softmax(-unary)
    for _ in range(config.iterations):
        q = _softmax(-unary + q @ kernel)
    return q.reshape(labels, height, width)


def _kernel(pixels, rgb, sxy, srgb):
    values = np.zeros((len(pixels), len(pixels)))
    for i, (yi, xi) in enumerate(pixels):
        for j, (yj, xj) in enumerate(pixels):
            exponent = ((yi - yj) ** 2 + (xi - xj) ** 2) / (2 * sxy**2)
            if srgb is not None:
                difference = rgb[yi, xi].astype(np.float64) - rgb[yj, xj].astype(np.float64)
                exponent += (difference**2).sum() / (2 * srgb**2)
            values[i, j] = np.exp(-exponent)
    return values


def _softmax(logits):
    exponents = np.exp(logits - logits.max(axis=0))
    return exponents / exponents.sum(axis=0)
