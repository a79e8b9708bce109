"""What every text-image encoder offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.method.patches import PatchAxis

if TYPE_CHECKING:
    import torch


class EncoderUnavailable(RuntimeError):
    """The encoder can't be used here; the message is one sentence that says what to do."""


class ImageFeatures(NamedTuple):
    """Image features in the joint space.

    Attributes:
        patches_hwd: (h, w, d) float32, projected patch features, NOT normalised; of windows side
            by side.
        pooled_d: (d,) float32, the global descriptor, NOT normalised.
        keep_length: the length of a patch counts, so it isn't normalised before the product with a
            descriptor: a classifier's features are short where it sees no object.
        evidence_e: how far the image shows each thing an EvidenceEncoder knows; (e,) float32.
        axes: where the patches lie by rows and columns; None: they cover the image evenly.
        input_3hw: (3, H', W') float32, the pixels that were encoded, where a refiner may want them.
    """

    patches_hwd: torch.Tensor
    pooled_d: torch.Tensor
    keep_length: bool = False
    evidence_e: torch.Tensor | None = None
    axes: tuple[PatchAxis, PatchAxis] | None = None
    input_3hw: torch.Tensor | None = None


class ClassNames(NamedTuple):
    """What a class is called, and what it is a class of."""

    name: str
    aliases: tuple[str, ...] = ()
    subclasses: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """The name, its aliases and its subclasses."""
        return (self.name, *self.aliases, *self.subclasses)


class Encoder(Protocol):
    """A pair of encoders that put patches and names into one joint space of width d."""

    name: str
    """Model and weights, in a few words: for reports, and as the key of caches."""

    device: torch.device

    runtime: str
    """What the image tower runs on, in a few words."""

    images_at_once: int
    """How many images to encode together, at most; 1 where that is as good as one by one, or each
    number of them would be compiled for."""

    def encode_image(self, rgb: NDArray[np.uint8]) -> ImageFeatures:
        """Encode an (H, W, 3) uint8 RGB image."""
        return self.encode_images([rgb])[0]

    def encode_images(self, rgbs: Sequence[NDArray[np.uint8]]) -> list[ImageFeatures]:
        """Encode (H, W, 3) uint8 RGB images, each as if it were the only one."""
        ...

    def encode_text(self, names: Sequence[str]) -> torch.Tensor:
        """Encode names through the text templates into (n, d) float32, rows of length 1."""
        ...


@runtime_checkable
class EvidenceEncoder(Encoder, Protocol):
    """An encoder that knows some things by name, and how far an image shows each of them."""

    things_ed: torch.Tensor
    """Descriptors of these things, (e, d) float32, rows of length 1."""

    def encode_membership(self, classes: Sequence[ClassNames]) -> torch.Tensor:
        """Encode classes into (c, e) float32 from 0 to 1: which of these things show a class."""
        ...

    def told_by_others(self, classes: Sequence[ClassNames]) -> list[bool]:
        """Tell which classes none of these things is of, so that they only tell of them."""
        ...


@runtime_checkable
class MeaningEncoder(Encoder, Protocol):
    """An encoder that has names by their meaning too, apart from what it sees of them."""

    def encode_meaning(self, names: Sequence[str]) -> torch.Tensor:
        """Encode what names mean into (n, e) float32, rows of length 1."""
        ...


@runtime_checkable
class ListEncoder(Encoder, Protocol):
    """An encoder that knows things by a list of names, so that others may resemble none of it."""

    def unknown_names(self, names: Sequence[str]) -> list[str]:
        """Return those of the names that resemble nothing on its list."""
        ...
