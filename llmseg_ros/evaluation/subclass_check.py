"""Which subclasses ever win over their class's own name on given images, patch by patch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from llmseg_ros.candidates import grid_features
from llmseg_ros.method.fusion import name_maps

if TYPE_CHECKING:
    from llmseg_ros.encoders import ImageFeatures
    from llmseg_ros.segmenter import Segmenter
    from llmseg_ros.vocabulary import Vocabulary

KEPT_WIDTH = 480  # of the images kept for pictures, in pixels


@dataclass(frozen=True, eq=False)
class Sight:
    """An image that a class was found in.

    Attributes:
        image: its name.
        rgb: (H, W, 3) uint8, at most KEPT_WIDTH wide.
        labels_hw: (h, w) uint16 by patch: 0 outside the class, 1 where the class is, 2 where the
            subclass is above the class's name, too.
    """

    image: str
    rgb: NDArray[np.uint8]
    labels_hw: NDArray[np.uint16]


@dataclass
class Contest:
    """A subclass against its class's own name, on the patches labelled with the class.

    Attributes:
        name: of the subclass.
        won: patches where its similarity is above that of the name.
        first: patches where it is above all names of the class.
        lead: the largest difference to the name's similarity, below 0 where it never wins.
        sight: the image where it wins on most patches, else where it comes nearest.
    """

    name: str
    won: int = 0
    first: int = 0
    lead: float = -np.inf
    sight: Sight | None = None
    _best: tuple[int, float] = (-1, -np.inf)

    def take(self, won_hw: NDArray[np.bool_], first: int, lead: float, sight: Sight) -> None:
        """Count an image; `won_hw` has the class's patches where it is above the name."""
        won = int(won_hw.sum())
        self.won += won
        self.first += first
        self.lead = max(self.lead, lead)
        if (won, lead) > self._best:
            self._best = won, lead
            self.sight = replace(sight, labels_hw=sight.labels_hw + won_hw)


@dataclass
class ClassCheck:
    """A class on all images.

    Attributes:
        name: of the class.
        contests: of its subclasses, in their order.
        images: that it was found in.
        patches: labelled with it, in all of them.
    """

    name: str
    contests: list[Contest]
    images: int = 0
    patches: int = 0

    @property
    def never(self) -> list[Contest]:
        """The subclasses that never win."""
        return [contest for contest in self.contests if self.patches and not contest.won]


@dataclass
class SubclassCheck:
    """A check of the subclasses of a segmenter's classes, image by image."""

    segmenter: Segmenter
    classes: list[ClassCheck] = field(init=False)

    def __post_init__(self) -> None:
        self.classes = [
            ClassCheck(item.name, [Contest(name) for name in item.subclasses])
            for item in self.segmenter.vocabulary.classes
        ]

    def add(self, rgb: NDArray[np.uint8], image: str) -> None:
        """Compare every name of the classes found in an (H, W, 3) uint8 image.

        Raises:
            ValueError: the array is not an image.
        """
        import torch

        segmenter = self.segmenter
        with torch.inference_mode():
            features = segmenter.encoder.encode_image(rgb)
        labels = segmenter.segment_features(features, rgb).labels
        kept = shrunk(rgb)
        vocabulary = segmenter.vocabulary
        maps = similarities(features, vocabulary, segmenter)
        for item, checked, maps_nhw in zip(vocabulary.classes, self.classes, maps, strict=True):
            size = maps_nhw.shape[:0:-1]
            mask = (labels == item.id).astype(np.uint8)
            inside_hw = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(bool)
            if inside_hw.any():
                count_image(checked, maps_nhw, Sight(image, kept, inside_hw.astype(np.uint16)))


def count_image(checked: ClassCheck, maps_nhw: NDArray[np.float32], sight: Sight) -> None:
    """Count the patches of a class in an image, by its name's and subclasses' similarities."""
    inside_hw = sight.labels_hw.astype(bool)
    checked.images += 1
    checked.patches += int(inside_hw.sum())
    leads_nhw = maps_nhw[1:] - maps_nhw[0]
    best_hw = maps_nhw.argmax(axis=0)
    for index, contest in enumerate(checked.contests):
        won_hw = inside_hw & (leads_nhw[index] > 0)
        first = int((inside_hw & (best_hw == index + 1)).sum())
        contest.take(won_hw, first, float(leads_nhw[index][inside_hw].max()), sight)


def similarities(
    features: ImageFeatures, vocabulary: Vocabulary, segmenter: Segmenter
) -> Iterator[NDArray[np.float32]]:
    """Yield the (n, h, w) similarities of the patches with the names of each class, own first."""
    import torch

    fusion = replace(segmenter.config.fusion, name='max', superclass=True)
    with torch.inference_mode():
        patches_hwd, pooled_d = grid_features(features)
        for index, item in enumerate(vocabulary.classes):
            part = slice(index, index + 1)
            maps_hw1n = name_maps(
                patches_hwd,
                pooled_d,
                vocabulary.descriptors_cnd[part],
                vocabulary.members_cn[part],
                fusion,
            )
            maps_nhw = maps_hw1n[:, :, 0, : 1 + len(item.subclasses)].permute(2, 0, 1)
            yield maps_nhw.float().cpu().numpy()


def shrunk(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image at most KEPT_WIDTH wide."""
    height, width = rgb.shape[:2]
    if width <= KEPT_WIDTH:
        return rgb
    size = KEPT_WIDTH, max(1, round(height * KEPT_WIDTH / width))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
