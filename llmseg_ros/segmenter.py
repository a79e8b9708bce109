"""The whole method on one image: encode, fuse, gate, refine."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.candidates import (
    Found,
    class_results,
    compete_by_name,
    find_candidates,
    fuse_candidates,
    label_ids,
    order_by_size,
    refine_fused,
    without_small_classes,
)
from llmseg_ros.class_rules import Given, Rules, clean_rules
from llmseg_ros.classes import (
    ClassRegistry,
    ClassUpdate,
    clean_names,
    name_key,
)
from llmseg_ros.config import SegmenterConfig
from llmseg_ros.config_files import load_config
from llmseg_ros.contrasts import wanted_kinds, wants_contrasts
from llmseg_ros.encoders import Encoder, ImageFeatures, create_encoder
from llmseg_ros.method.background import BY_PROBABILITY, BY_WORDS
from llmseg_ros.method.refine import available_refiner
from llmseg_ros.method.stages import Shared, StageClock
from llmseg_ros.name_notes import notes_on_names
from llmseg_ros.own_lists import OwnList, OwnLists
from llmseg_ros.segmentation import Gated, Segmentation, background_only
from llmseg_ros.subclasses.background import AskingStatus
from llmseg_ros.subclasses.packs import MAX_SUBCLASSES
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
        on_new_subclasses: called after an answer of the language model, or contrasts switched on
            or off, have changed the vocabulary, on the thread that asked or switched.
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
        self._own_lists = OwnLists(self._registry, self._resolver)
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
            self._ask_for_missing(update, self.config)
            self.vocabulary = self._describe(update, self.config)
            names = [entry.name for entry in update.classes]
            self.notes = tuple(notes_on_names(names, self.encoder, self._resolver))
            return dataclasses.replace(
                update,
                messages=(*messages, *self.notes),
                rules_refused=bool(cleaned.messages),
            )

    def set_subclasses(self, name: str, names: Iterable[str]) -> tuple[str, ...]:
        """Let a class stand for these subclasses from the next frame on, whatever else is known.

        Returns:
            One sentence for every subclass refused or merged.

        Raises:
            KeyError: the class is not in the list.
        """
        cleaned, messages = clean_names(names)
        beyond, cleaned = cleaned[MAX_SUBCLASSES:], cleaned[:MAX_SUBCLASSES]
        messages += [f'{name!a} is beyond {MAX_SUBCLASSES} subclasses: refused' for name in beyond]
        with self._updating:
            own = {name_key(entry.name): entry.name for entry in self._registry.current.classes}
            name = own[name_key(name)]
            self._resolver.know(name, Subclasses(tuple(cleaned), 'typed'))
            self.vocabulary = self._describe(self._registry.renew(), self.config)
            kept = next(item.subclasses for item in self.vocabulary.classes if item.name == name)
        lost = [item for item in cleaned if item not in kept]
        return (*messages, *(f'{item!a} is a class, or repeats a name: left out' for item in lost))

    def describe(self, names: Iterable[str], rules: Given = ()) -> OwnList:
        """Describe a class list for `segment`; the one in force stays.

        Raises:
            NamesRefused: a name or a rule can't be used.
        """
        return self._own_lists.describe(names, rules, self.encoder, self.config)

    def origin(self, name: str) -> str:
        """Say where the subclasses of a class are from: a file, or a model with prompt and day."""
        return self._resolver.origin(name, self._resolver.resolve(name))

    @property
    def asking(self) -> AskingStatus:
        """How the asking of the language model goes."""
        return self._resolver.status

    def close(self) -> None:
        """Ask the language model nothing more, and let go of the store."""
        self._resolver.close()

    def _ask_for_missing(self, update: ClassUpdate, config: SegmenterConfig) -> None:
        names = [entry.name for entry in update.classes]
        self._resolver.resolve_all(names, self._take_subclasses, wanted_kinds(config))

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
            switched = wants_contrasts(config) != wants_contrasts(self.config)
            if switched:
                self._ask_for_missing(self._registry.renew(), config)
            if new_encoder or in_gate or switched or words not in ((), used_words(self.config)):
                self.vocabulary = self._describe(self._registry.current, config)
            self.config = dataclasses.replace(config, refine=available_refiner(config.refine))
        if switched and self.on_new_subclasses is not None:
            self.on_new_subclasses()

    @property
    def overlaps(self) -> bool:
        """Whether `find` of one image and `finish` of another, on two threads, run side by side.

        ONNX Runtime encodes without the interpreter's lock. Every operation of torch asks for it,
        and waits while pydensecrf keeps it: side by side they take longer than in turns.
        """
        return self.encoder.runtime != 'torch'

    @property
    def images_at_once(self) -> int:
        """How many images `find_all` should have, at most, where several wait.

        One on a CPU, which a single image keeps busy; a GPU has units to spare beside one.
        """
        return 1 if self.encoder.device.type == 'cpu' else self.encoder.images_at_once

    def segment(
        self, rgb: NDArray[np.uint8], previous: Gated | None = None, own: OwnList | None = None
    ) -> Segmentation:
        """Segment an (H, W, 3) uint8 RGB image.

        Args:
            rgb: the image.
            previous: of the frame before in a stream, for the gate's hysteresis.
            own: a class list of this image's own; None: the one in force.

        Raises:
            ValueError: the image is empty, or not (H, W, 3) uint8.
        """
        return self.finish(self.find(rgb, previous, own))

    def find(
        self, rgb: NDArray[np.uint8], previous: Gated | None = None, own: OwnList | None = None
    ) -> Found:
        """Do the first part of `segment`: encode the image, find its candidates, fuse."""
        return self.find_all([rgb], [previous], own)[0]

    def find_all(
        self,
        rgbs: Sequence[NDArray[np.uint8]],
        previous: Sequence[Gated | None],
        own: OwnList | None = None,
    ) -> list[Found]:
        """Do `find` of several images, encoded together; of that time each has an equal share."""
        import torch

        for rgb in rgbs:
            check_image(rgb)
        started = time.perf_counter()
        with torch.inference_mode():
            encoded = self.encoder.encode_images(rgbs)
        share_s = (time.perf_counter() - started) / max(1, len(rgbs))
        config, vocabulary = (None, None) if own is None else (own.config, own.vocabulary)

        def find_one(
            features: ImageFeatures, rgb: NDArray[np.uint8], before: Gated | None
        ) -> Found:
            begun = time.perf_counter() - share_s
            return self.find_in_features(
                features, rgb, begun, config, before, vocabulary=vocabulary
            )

        return [find_one(*one) for one in zip(encoded, rgbs, previous, strict=True)]

    def segment_features(
        self,
        features: ImageFeatures,
        rgb: NDArray[np.uint8],
        started: float | None = None,
        config: SegmenterConfig | None = None,
        previous: Gated | None = None,
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
        return self.finish(self.find_in_features(features, rgb, started, config, previous, shared))

    def find_in_features(
        self,
        features: ImageFeatures,
        rgb: NDArray[np.uint8],
        started: float | None = None,
        config: SegmenterConfig | None = None,
        previous: Gated | None = None,
        shared: Shared | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> Found:
        """Do the first part of `segment_features`."""
        import torch

        config = self.config if config is None else config
        if vocabulary is None:
            vocabulary = self.vocabulary  # read once: another thread may put another in its place
        shared = Shared() if shared is None else shared
        clock = StageClock(shared, started)
        clock.lap('encode')
        begun = rgb, vocabulary, config, shared, clock
        if not vocabulary.classes:
            return Found(*begun, features=features, encoder=self.encoder.name)
        gate = vocabulary, config.gate
        stages = config.fusion, config.background
        by_name = config.background.name in BY_PROBABILITY
        with torch.inference_mode():
            scores_c, candidates = shared.once(
                ('gate', *gate), lambda: find_candidates(features, *gate, previous)
            )
            clock.lap('gate')
            if by_name and config.gate.name == 'none':
                candidates = order_by_size(vocabulary, candidates)

            def fuse() -> torch.Tensor | NameLogits:
                if by_name:
                    return compete_by_name(features, *gate, candidates, *stages)
                return fuse_candidates(features, vocabulary, scores_c, candidates, *stages)

            fused = shared.once(('fuse', *gate, *stages), fuse)
            clock.lap('fuse')
        return Found(*begun, scores_c, candidates, fused, features, self.encoder.name)

    def finish(self, found: Found) -> Segmentation:
        """Do the second part of `segment`: refine what was found to labels at image size."""
        import torch

        vocabulary, clock = found.vocabulary, found.clock
        passed, scores_c = found.passed, found.scores_c
        if passed is None or scores_c is None:
            return background_only(found.rgb, vocabulary.version, clock.timings_ms)
        clock.resume()
        with torch.inference_mode():
            best_hw, confidence_hw = refine_fused(found, scores_c[passed.index_k])
            labels_hw = label_ids(vocabulary, passed.index_k.cpu().numpy())[best_hw]
            labels_hw, confidence_hw = without_small_classes(vocabulary, labels_hw, confidence_hw)
        clock.lap('refine')
        return Segmentation(
            labels_hw,
            confidence_hw,
            class_results(vocabulary, scores_c.cpu().numpy(), labels_hw, found.candidates),
            vocabulary.version,
            clock.timings_ms,
            found.candidates,
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
