"""Configuration: one frozen dataclass per stage, built here from YAML or ROS parameters.

A default, its range and its description live on the field and nowhere else; ROS parameter
descriptors and docs are made from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmseg_ros.settings import ConfigError, build_section, setting

# Of the usual protocol for PASCAL VOC with background (Wang et al., SCLIP, ECCV 2024).
BACKGROUND_WORDS = (
    *('sky', 'wall', 'tree', 'wood', 'grass', 'road', 'sea', 'river', 'mountain', 'sands', 'desk'),
    *('bed', 'building', 'cloud', 'lamp', 'door', 'window', 'wardrobe', 'ceiling', 'shelf'),
    *('curtain', 'stair', 'floor', 'hill', 'rail', 'fence'),
)

TEMPLATES = (
    'text templates: imagenet (80), short (7), photo (1), the published llm_supervision (13) '
    'and maskclip (85), or a file with one a line'
)


@dataclass(frozen=True)
class EncoderConfig:
    name: str = setting(
        'imagenet', 'text-image encoder', ('imagenet', 'open_clip', 'simseg'), restart=True
    )
    device: str = setting('auto', 'auto, cpu, cuda, cuda:N or mps', restart=True)
    precision: str = setting(
        'auto',
        'of matrix products: auto is fp32 on the CPU, bf16 or fp16 on a GPU',
        ('auto', 'fp32', 'fp16', 'bf16'),
        restart=True,
    )
    runtime: str = setting(
        'auto',
        'what image towers run on: auto is onnxruntime on the CPU, if installed, torch elsewhere',
        ('auto', 'torch', 'onnxruntime'),
        restart=True,
    )
    providers: tuple[str, ...] = setting(
        ('auto',),
        'of onnxruntime, by preference, such as tensorrt, cuda, cpu; auto: those of the device',
        restart=True,
    )


@dataclass(frozen=True)
class ImageNetConfig:
    model: str = setting(
        'lite2', 'EfficientNet-Lite: lite0 is fastest', ('lite0', 'lite1', 'lite2'), restart=True
    )
    short_sides: tuple[int, ...] = setting(
        (320,),
        'image short sides in pixels; the maps of several are averaged',
        low=32,
        high=2048,
        restart=True,
    )
    dilated: bool = setting(
        True, 'patches of 16 pixels instead of 32, by dilating the last stage', restart=True
    )
    temperature: float = setting(
        0.03, 'softness of the match of a name to the 1000 ImageNet names', low=0.001, high=1.0
    )


@dataclass(frozen=True)
class OpenClipConfig:
    model: str = setting(
        'ViT-B-16-quickgelu',
        'model name of open_clip, or hf-hub:NAME or local-dir:FOLDER, which bring their weights',
        restart=True,
    )
    pretrained: str = setting('openai', 'tag of its weights, or their file or folder', restart=True)
    attention: str = setting(
        'naclip',
        'attention of the last block',
        ('vanilla', 'maskclip', 'value', 'sclip', 'clearclip', 'naclip'),
    )
    tower: str = setting(
        'trained',
        "the image tower as it was trained, or as mmseg has it for MaskCLIP: GELU, ImageNet's mean "
        'and standard deviation',
        ('trained', 'mmseg'),
        restart=True,
    )
    positions: str = setting(
        'auto',
        'position embeddings on other grids, bicubic: with antialias as open_clip, with the offset '
        'of the published code, or plain; auto: offset for the weights of OpenAI (tag openai)',
        ('auto', 'antialias', 'offset', 'plain'),
        restart=True,
    )
    templates: str = setting('imagenet', TEMPLATES, restart=True)
    short_side: int = setting(336, 'image short side in pixels', low=16, high=2048)
    long_side: int = setting(2048, 'limit of the image long side in pixels', low=16, high=8192)
    resize: str = setting(
        'pillow',
        "of images: Pillow's bicubic, as in training, or OpenCV's bilinear, as published",
        ('pillow', 'opencv'),
    )
    fit: str = setting(
        'round',
        'sides that are not whole patches: rounded, or as published cut (NACLIP, SCLIP), padded '
        'around every window (ClearCLIP) or padded at the end (MaskCLIP)',
        ('round', 'cut', 'pad', 'pad_end'),
    )
    windows: bool = setting(True, 'encode by sliding windows, else the whole image at once')
    window: int = setting(224, 'window side in pixels', low=16, high=2048)
    stride: int = setting(112, 'window stride in pixels', low=16, high=2048)
    batch: int = setting(16, 'windows encoded at once', low=1, high=1024)
    compile: bool = setting(
        False,
        'compile the image tower (torch.compile; the first frame takes half a minute)',
        restart=True,
    )
    channels_last: bool = setting(False, 'channels-last memory format', restart=True)


@dataclass(frozen=True)
class SimSegConfig:
    checkpoint: str = setting(
        '', 'checkpoint file; empty: the one in the cache folder', restart=True
    )
    tokenizer: str = setting(
        '', 'folder of the BERT tokenizer; empty: the one in the cache folder', restart=True
    )
    templates: str = setting('imagenet', TEMPLATES, restart=True)
    input_size: int = setting(288, 'side of the square input in pixels', low=16, high=1024)
    compile: bool = setting(
        False,
        'compile the image tower (torch.compile; the first frame takes half a minute)',
        restart=True,
    )


@dataclass(frozen=True)
class SubclassesConfig:
    file: str = setting('', "the user's own subclass file, asked before all else", restart=True)
    packs: bool = setting(True, 'use the curated subclass packs', restart=True)
    filter: bool = setting(True, 'drop subclasses that would harm', restart=True)
    store: str = setting(
        '',
        'file of the answers of language models, or off; empty: in the data folder',
        restart=True,
    )
    llm: str = setting(
        'auto',
        'ask a language model for the rest: auto where base_url or OPENAI_API_KEY is set, or off',
        ('auto', 'off'),
        restart=True,
    )
    base_url: str = setting('', 'OpenAI-compatible server, as far as /v1', restart=True)
    model: str = setting('gpt-4o-mini', 'language model', restart=True)
    prompt: str = setting(
        'few-shot', 'few-shot, zero-shot, or a file with {n} and {class} in it', restart=True
    )
    n: int = setting(10, 'subclasses to ask for', low=1, high=100, restart=True)
    timeout: float = setting(60.0, 'seconds for one answer', low=0.1, high=3600.0, restart=True)
    budget: int = setting(
        1000, 'language model requests of one run', low=0, high=1_000_000, restart=True
    )


@dataclass(frozen=True)
class FusionConfig:
    name: str = setting(
        'max',
        'how the subclasses of a class are fused',
        ('paper', 'reference', 'mean', 'max', 'chils'),
    )
    superclass: bool = setting(True, 'the class name takes part beside its subclasses')
    temperature: float = setting(
        1.0, 'paper and reference: softness of the subclass weights', low=1e-3, high=1e3
    )
    logit_scale: float = setting(
        40.0,
        'factor on similarities before a softmax over names: chils, and background by '
        'probability, names or none',
        low=0.1,
        high=1000.0,
    )


@dataclass(frozen=True)
class GateConfig:
    name: str = setting(
        'share', 'which classes may appear in an image', ('simseg', 'share', 'none')
    )
    evidence: str = setting(
        'mean',
        'score of a class, but with imagenet: of its name, or the mean or the best over its name '
        'and subclasses',
        ('superclass', 'mean', 'max'),
    )
    top_k: int = setting(10, 'simseg: how many scores make the threshold', low=1, high=1000)
    margin: float = setting(0.02, 'simseg below 3 classes: distance to the best', low=0.0, high=2.0)
    share: float = setting(0.3, 'share: least part of the best score', low=0.0, high=1.0)
    minimum: float = setting(
        0.03,
        'share: least score of all, so that an image may show none of the classes',
        low=0.0,
        high=2.0,
    )
    background: bool = setting(
        False,
        'simseg: the name background takes part and a place, as published; it is no label',
    )
    max_candidates: int = setting(5, 'classes that may appear in one image', low=1, high=1000)
    hysteresis: float = setting(
        0.5,
        'in a stream: part by which the gate is lower for a class that passed in the frame before, '
        'and half by which that of share is higher for another; 0: off',
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True)
class BackgroundConfig:
    name: str = setting(
        'threshold',
        'what is background: maps below a threshold, the least probable pixels and words, words '
        'alone, the lower half of each map, or nothing',
        ('threshold', 'probability', 'names', 'minmax', 'none'),
    )
    threshold: float = setting(
        0.25,
        'threshold: map value, as a share of the strongest, below which is background',
        low=0.0,
        high=1.0,
    )
    scale: float = setting(
        10.0,
        'threshold: sharpness of the label probabilities made of the maps',
        low=0.1,
        high=1000.0,
    )
    rivals: float = setting(
        0.8,
        'threshold, with imagenet: how strongly what else the image shows competes; 0: not at all',
        low=0.0,
        high=1.0,
    )
    probability: float = setting(
        0.1, 'probability: of the best class, below which is background', low=0.0, high=1.0
    )
    area_threshold: float = setting(
        0.0,
        'probability, names and none: least part of the pixels of classes that a class may have '
        "alone, before the threshold (SCLIP's for PASCAL VOC is 0.1); 0: any",
        low=0.0,
        high=1.0,
    )
    words: tuple[str, ...] = setting(
        BACKGROUND_WORDS,
        'probability and names: what is background; never a requested class, its subclasses or '
        'other names',
    )
    contrasts: bool = setting(
        True,
        'threshold, probability and names: what is near a class or taken for it, by the packs and '
        'the language model, competes with the classes and is background',
    )
    keep_words: bool = setting(
        False,
        'take words that are requested classes as well, as published; what is both is background',
    )


@dataclass(frozen=True)
class RefineConfig:
    name: str = setting(
        'crf',
        'mask refinement: all labels together, each against background as published, by the '
        'nearest colours, or none; crf_binary needs pydensecrf2, else pamr',
        ('crf', 'crf_binary', 'pamr', 'none'),
    )
    backend: str = setting(
        'auto',
        'crf: by pydensecrf2 on one CPU core, or in torch on any device, on a CPU coarser; auto: '
        'pydensecrf where the logits lie on the CPU and it is installed',
        ('auto', 'pydensecrf', 'torch'),
    )
    short_side: int = setting(
        160,
        'crf and pamr: working short side in pixels; crf_binary: 16 a patch',
        low=16,
        high=2048,
    )
    pamr_on: str = setting(
        'probabilities',
        'pamr: on label probabilities at short_side, or at image size, as published with NACLIP, '
        'on the similarities of every name before the softmax (without names: on probabilities)',
        ('probabilities', 'similarities'),
    )
    max_labels: int = setting(
        32,
        'labels worked on at image size, crf_binary aside; of more, those most probable somewhere',
        low=2,
        high=1001,
    )
    morphology: bool = setting(True, 'crf_binary: close the gaps of masks, 7 x 7 pixels')
    iterations: int = setting(5, 'mean-field iterations', low=1, high=50)
    gaussian_sxy: float = setting(3.0, 'smoothness kernel width in pixels', low=0.1, high=1e3)
    gaussian_compat: float = setting(3.0, 'smoothness weight', low=0.0, high=1e3)
    bilateral_sxy: float = setting(40.0, 'appearance kernel width in pixels', low=0.1, high=1e3)
    bilateral_srgb: float = setting(
        8.0, 'appearance kernel width in grey levels', low=0.1, high=1e3
    )
    bilateral_compat: float = setting(10.0, 'appearance weight', low=0.0, high=1e3)


@dataclass(frozen=True)
class ImagesConfig:
    sixteen_bit: str = setting(
        'high_byte',
        'how 16 bits a value become 8: their high byte, or each picture stretched from its lowest '
        'to its highest value, for cameras that fill 10, 12 or 14 of the bits',
        ('high_byte', 'stretch'),
    )


@dataclass(frozen=True)
class SegmenterConfig:
    encoder: EncoderConfig = EncoderConfig()
    imagenet: ImageNetConfig = ImageNetConfig()
    open_clip: OpenClipConfig = OpenClipConfig()
    simseg: SimSegConfig = SimSegConfig()
    subclasses: SubclassesConfig = SubclassesConfig()
    fusion: FusionConfig = FusionConfig()
    gate: GateConfig = GateConfig()
    background: BackgroundConfig = BackgroundConfig()
    refine: RefineConfig = RefineConfig()
    images: ImagesConfig = ImagesConfig()


def build_config(data: Mapping[str, Any]) -> SegmenterConfig:
    """Build the configuration from nested settings; what is not given keeps its default.

    Raises:
        ConfigError: a setting is unknown, of the wrong type, or out of range.
    """
    sections: dict[str, type[Any]] = {
        field.name: type(field.default) for field in dataclasses.fields(SegmenterConfig)
    }
    unknown = set(data) - set(sections)
    if unknown:
        raise ConfigError(f'no section {sorted(unknown)[0]!r}; there are {", ".join(sections)}')
    built: dict[str, Any] = {name: build_section(sections[name], data[name], name) for name in data}
    return SegmenterConfig(**built)
