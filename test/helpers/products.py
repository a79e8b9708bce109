"""What the messages of patches and names make together, against the maps the node fuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from llmseg_ros import candidates
from llmseg_ros.config import FusionConfig, GateConfig, SegmenterConfig
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.vocabulary import fixed_embeddings

FP16 = 2.0**-11  # the largest relative error of rounding to float16


def product_maps(features: Any, embeddings_sd: Any, rows: Any) -> tuple[Any, Any]:
    """Return (h, w, c) products and how far float16 may have them from those of float32."""
    shape = features.rows, features.columns, features.dimension
    patches_hwd = np.frombuffer(features.data, np.float16).reshape(shape).astype(np.float32)
    products_hws = patches_hwd @ embeddings_sd.T
    maps = [part.max(axis=-1) for part in np.split(products_hws, np.cumsum(rows)[:-1], axis=-1)]
    # |(x + e) t - x t| <= |e| |t|, and |t| <= 1
    error_hw1 = 1.01 * FP16 * np.linalg.norm(patches_hwd, axis=-1, keepdims=True) + 1e-5
    return np.stack(maps, axis=-1), error_hw1


def check_products(
    encoder: Any, names: list[str], rgb: Any, fusion: str, patch: pytest.MonkeyPatch
) -> Any:
    """Compare the product of both messages with the maps of one image; return the patches'."""
    from std_msgs.msg import Header

    from llmseg_ros.ros.features import found_to_features

    config = SegmenterConfig(fusion=FusionConfig(name=fusion), gate=GateConfig(name='none'))
    segmenter = Segmenter(config, names, encoder=encoder)
    fused: list[torch.Tensor] = []

    def spied(*arguments: Any) -> torch.Tensor:
        fused.append(class_maps(*arguments))
        return fused[-1]

    class_maps = candidates.class_maps
    patch.setattr(candidates, 'class_maps', spied)
    found = segmenter.find(rgb)
    features = found_to_features(found, Header(frame_id='camera'))
    assert features.header.frame_id == 'camera'
    assert features.encoder == encoder.name
    assert (features.height, features.width) == rgb.shape[:2]
    rows_sd, counts = fixed_embeddings(segmenter.vocabulary, config.fusion)
    products_hwc, error_hw1 = product_maps(features, rows_sd.numpy(), counts)
    difference_hwc = products_hwc[..., found.passed.index_k.numpy()] - fused[0].numpy()
    assert (np.abs(difference_hwc) <= error_hw1).all()
    assert np.ptp(products_hwc) > 0.01
    return features
