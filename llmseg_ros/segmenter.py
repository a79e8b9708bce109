"""The whole method on one image: encode, fuse, gate, refine."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.candidates import (
    compete_by_name,
    find_candidates,
    fuse_candidates,
    order_by_size,
    refine_fused,
)
from llmseg_ros.class_rules import Given, Rules, clean_rules
from llmseg_ros.classes import BACKGROUND_ID, ClassRegistry, ClassUpdate, name_key
from llmseg_ros.config import (
    SegmenterConfig,
    load_config,
)
from llmseg_ros.encoders import Encoder, ImageFeatures, create_encoder
from llmseg_ros.method.background import BY_PROBABILITY, BY_WORDS
from llmseg_ros.method.refine import available_refiner
from llmseg_ros.method.stages import Shared, StageClock
from llmseg_ros.name_notes import notes_on_names
from llmseg_ros.segmentation import ClassResult, Segmentation
from llmseg_ros.subclasses.background import AskingStatus
from llmseg_ros.subclasses.resolver import Resolver, Subclasses
from llmseg_ros.vocabulary import Vocabulary, describe_classes

if TYPE_CHECKING:
    import torch

    from llmseg_ros.method.name_logits import NameLogits


class Segmenter:
    """Segment images into any classes named; `segment` and `set_classes` are safe across threads.

    Example:
        segmenter = Segmenter.from_config('config/offline.yaml', classes=['cat', 'sofa'])
        result = segmenter.segment(rgb)
        result.labels, result.mask('cat')

    Attributes:
        config: in force.
        encoder: in use.
        vocabulary: in force; replaced as a whole.
        notes: a sentence for every name in force that will not be found as meant.
        on_new_subclasses: called after an answer of the language model has changed the vocabulary,
            on the thread that asked.
    """

    def __init__(
        self,
        config: SegmenterConfig = SegmenterConfig(),  # noqa: B008, frozen
        classes: Iterable[str] = (),
        registry: ClassRegistry | None = None,
        encoder: Encoder | None = None,
        resolver: Resolver | None = None,
        rules: Given = (),
    ) -> None:
        """Load the encoder and describe the classes.

        Args:
            config: of every stage.
            classes: names to begin with.
            registry: to share ids and versions with a segmenter before this one.
            encoder: to share one that is loaded, else the configured one is.
            resolver: of subclasses, else one as configured.
            rules: of classes to begin with, as `set_classes` has them.

        Raises:
            EncoderUnavailable: the encoder's packages or weights aren't here.
        """
        self.config = dataclasses.replace(config, refine=available_refiner(config.refine))
        self.encoder: Encoder = create_encoder(config) if encoder is None else encoder
        self._registry = ClassRegistry() if registry is None else registry
        self._resolver = Resolver(config.subclasses) if resolver is None else resolver
        self._updating = threading.Lock()
        self.on_new_subclasses: Callable[[], None] | None = None
        self._rules: Rules = {}
        self.set_classes(classes, rules)

    @classmethod
    def from_config(cls, path: str | Path, classes: Iterable[str] = ()) -> Segmenter:
        """Build a segmenter from a configuration file.

        Raises:
            ConfigError: the file can't be used.
            EncoderUnavailable: the encoder's packages or weights aren't here.
        """
        return cls(load_config(path), classes)

    def set_classes(self, names: Iterable[str], rules: Given = ()) -> ClassUpdate:
        """Describe a new class list and put it in force between two frames.

        A class without known subclasses stands under its own name until the language model, asked
        in the background where one is set, has answered.

        Args:
            names: of the classes.
            rules: names of classes and what counts for them alone, by ClassRule's attributes.
        """
        with self._updating:
            before = self._registry.current.version
            update = self._registry.update(names)
            cleaned = clean_rules(rules, [entry.name for entry in update.classes])
            messages = (*update.messages, *cleaned.messages)
            if cleaned.rules != self._rules and update.version == before:
                update = self._registry.renew()
            self._rules = cleaned.rules
            self._resolver.resolve_all(
                [entry.name for entry in update.classes], self._take_subclasses
            )
            self.vocabulary = self._describe(update, self.config)
            names = [entry.name for entry in update.classes]
            self.notes = tuple(notes_on_names(names, self.encoder, self._resolver))
            return dataclasses.replace(
                update,
                messages=(*messages, *self.notes),
                rules_refused=bool(cleaned.messages),
            )

    @property
    def asking(self) -> AskingStatus:
        """How the asking of the language model goes."""
        return self._resolver.status

    def close(self) -> None:
        """Ask the language model nothing more, and let go of the store."""
        self._resolver.close()

    def _take_subclasses(self, name: str, found: Subclasses) -> None:
        """Describe the class list anew with what the language model has answered."""
        with self._updating:
            current = self._registry.current
            if not found.names or name not in {entry.name for entry in current.classes}:
                return
            self.vocabulary = self._describe(self._registry.renew(), self.config)
        if self.on_new_subclasses is not None:
            self.on_new_subclasses()

    def _describe(self, update: ClassUpdate, config: SegmenterConfig) -> Vocabulary:
        return describe_classes(update, config, self.encoder, self._resolver, self._rules)

    def reconfigure(self, config: SegmenterConfig) -> None:
        """Take on new settings between two frames; slow where they are the encoder's.

        Raises:
            EncoderUnavailable: the encoder can't be had with these settings.
            ConfigError: a background word can't be used.
        """
        with self._updating:
            new_encoder = encoder_settings(config) != encoder_settings(self.config)
            if new_encoder:
                self.encoder = create_encoder(config)
            words = used_words(config)
            in_gate = config.gate.background and not self.config.gate.background
            if new_encoder or in_gate or words not in ((), used_words(self.config)):
                self.vocabulary = self._describe(self._registry.current, config)
            self.config = dataclasses.replace(config, refine=available_refiner(config.refine))

    def segment(self, rgb: NDArray[np.uint8], previous: Segmentation | None = None) -> Segmentation:
        """Segment an (H, W, 3) uint8 RGB image.

        Args:
            rgb: the image.
            previous: of the frame before in a stream, for the gate's hysteresis.

        Raises:
            ValueError: the image is empty, or not (H, W, 3) uint8.
        """
        import torch

        check_image(rgb)
        started = time.perf_counter()
        with torch.inference_mode():
            features = self.encoder.encode_image(rgb)
        return self.segment_features(features, rgb, started, previous=previous)

    def segment_features(
        self,
        features: ImageFeatures,
        rgb: NDArray[np.uint8],
        started: float | None = None,
        config: SegmenterConfig | None = None,
        previous: Segmentation | None = None,
        shared: Shared | None = None,
    ) -> Segmentation:
        """Segment an image that is already encoded, for several settings over one encoding.

        Args:
            features: of the image.
            rgb: (H, W, 3) uint8 image.
            started: when its encoding began, by time.perf_counter.
            config: of the stages from the gate on, else the segmenter's own.
            previous: of the frame before in a stream, for the gate's hysteresis.
            shared: of these features and this frame before, one for all settings: what they have
                in common is computed once, the times are what each would take alone.

        Raises:
            ValueError: `config` needs background words, the segmenter's own doesn't.
        """
        import torch

        config = self.config if config is None else config
        vocabulary = self.vocabulary  # read once: another thread may put a new one in its place
        shared = Shared() if shared is None else shared
        clock = StageClock(shared, started)
        clock.lap('encode')
        with torch.inference_mode():
            if not vocabulary.classes:
                return background_only(rgb, vocabulary.version, clock.timings_ms)
            gate = vocabulary, config.gate
            scores_c, candidates = shared.once(
                ('gate', *gate), lambda: find_candidates(features, *gate, previous)
            )
            clock.lap('gate')
            stages = config.fusion, config.background
            by_name = config.background.name in BY_PROBABILITY
            if by_name and config.gate.name == 'none':
                candidates = order_by_size(vocabulary, candidates)

            def fuse() -> torch.Tensor | NameLogits:
                if by_name:
                    return compete_by_name(features, *gate, candidates, *stages)
                return fuse_candidates(features, vocabulary, scores_c, candidates, *stages)

            fused = shared.once(('fuse', *gate, *stages), fuse)
            clock.lap('fuse')
            best_hw, confidence_hw = refine_fused(
                fused, features, scores_c[candidates.index_k], rgb, gate, config, shared
            )
            ids_k = label_ids(vocabulary, candidates.index_k.cpu().numpy())
            labels_hw = ids_k[best_hw]
            labels_hw, confidence_hw = without_small_classes(vocabulary, labels_hw, confidence_hw)
        clock.lap('refine')
        return Segmentation(
            labels_hw,
            confidence_hw,
            class_results(vocabulary, scores_c.cpu().numpy(), labels_hw),
            vocabulary.version,
            clock.timings_ms,
            frozenset(ids_k[1:][candidates.valid_k.cpu().numpy()].tolist()),
        )


def encoder_settings(config: SegmenterConfig) -> tuple[object, ...]:
    """Return the part of a configuration that encoders are made with."""
    return config.encoder, getattr(config, config.encoder.name)


def used_words(config: SegmenterConfig) -> tuple[str | bool, ...]:
    """Return the words a configuration tells background by, and whether all of them are kept."""
    background = config.background
    return (*background.words, background.keep_words) if background.name in BY_WORDS else ()


def check_image(rgb: NDArray[np.uint8]) -> None:
    """Refuse what is not a non-empty (H, W, 3) uint8 image.

    Raises:
        ValueError: it isn't.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or rgb.size == 0:
        raise ValueError(f'expected an (H, W, 3) uint8 image, got {rgb.shape} {rgb.dtype}')


def background_only(
    rgb: NDArray[np.uint8], version: int, timings_ms: dict[str, float]
) -> Segmentation:
    """Return the segmentation of an image under an empty class list."""
    shape = rgb.shape[:2]
    labels = np.full(shape, BACKGROUND_ID, dtype=np.uint16)
    return Segmentation(labels, np.ones(shape, dtype=np.float32), (), version, timings_ms)


def label_ids(vocabulary: Vocabulary, index_k: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return the (k + 1,) ids of background and the candidates."""
    ids = [BACKGROUND_ID, *(vocabulary.described[index].id for index in index_k)]
    return np.array(ids, dtype=np.uint16)


def without_small_classes(
    vocabulary: Vocabulary, labels_hw: NDArray[np.uint16], confidence_hw: NDArray[np.float32]
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Make background of the classes with fewer pixels than their rule asks for.

    The confidence of those pixels is the probability that the class is not there.
    """
    least = {
        item.id: rule.minimum_area
        for item in vocabulary.classes
        if (rule := vocabulary.rules.get(name_key(item.name))) and rule.minimum_area
    }
    if not least:
        return labels_hw, confidence_hw
    areas = np.bincount(labels_hw.ravel(), minlength=max(least) + 1)
    small = [number for number, area in least.items() if 0 < areas[number] < area]
    mask = np.isin(labels_hw, small)
    labels = np.where(mask, np.uint16(BACKGROUND_ID), labels_hw)
    return labels, np.where(mask, 1 - confidence_hw, confidence_hw)


def class_results(
    vocabulary: Vocabulary, scores_c: NDArray[np.float32], labels_hw: NDArray[np.uint16]
) -> tuple[ClassResult, ...]:
    """Measure area and box of every class in a label image."""
    import cv2

    found = set(np.flatnonzero(np.bincount(labels_hw.ravel())).tolist())
    results = []
    scores_of_classes = scores_c[: len(vocabulary.classes)]  # after them come those of `never`
    for item, score in zip(vocabulary.classes, scores_of_classes, strict=True):
        area, box = 0, (0, 0, 0, 0)
        if item.id in found:
            mask = (labels_hw == item.id).view(np.uint8)
            x, y, width, height = cv2.boundingRect(mask)
            area, box = int(np.count_nonzero(mask)), (x, y, width, height)
        results.append(ClassResult(item.id, item.name, float(np.clip(score, 0, 1)), area, box))
    return tuple(results)
