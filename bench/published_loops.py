"""Loops published with SimSeg and the LLM supervision, run on features that are given."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pydensecrf.densecrf
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from published_code import definitions
from torch.nn.functional import normalize

from llmseg_ros.config_files import load_config
from llmseg_ros.encoders import Encoder, ImageFeatures
from llmseg_ros.encoders.loda import loda_pool
from llmseg_ros.files import shipped_path
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.subclasses.resolver import Resolver, Subclasses

GRID, WIDTH = 18, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class GivenTexts(Encoder):
    """An encoder of names alone: a random descriptor for each."""

    name, device, runtime, images_at_once = 'given', torch.device('cpu'), 'torch', 1

    def encode_text(self, names: Sequence[str]) -> torch.Tensor:
        """Return (n, d) of length 1, the same for the same name."""
        rows = [
            torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
            for name in names
        ]
        return normalize(torch.stack(rows), dim=-1) if rows else torch.zeros(0, WIDTH)

    def encode_images(self, rgbs: Sequence[NDArray[np.uint8]]) -> list[ImageFeatures]:
        """Return smooth random patches, which are drawn to some names."""
        return [self._draw(rgb) for rgb in rgbs]

    def _draw(self, rgb: NDArray[np.uint8]) -> ImageFeatures:
        seed = int(rgb[0, 0].sum())
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(1, WIDTH, 4, 4, generator=generator)
        patches = torch.nn.functional.interpolate(coarse, (GRID, GRID), mode='bicubic')[0]
        patches_hwd = patches.permute(1, 2, 0).contiguous()
        pooled = normalize(loda_pool(patches_hwd.flatten(0, 1)[None], 5), dim=-1)[0]
        return ImageFeatures(patches_hwd, pooled)


def loop_rows(root: Path) -> Iterator[Any]:
    """Compare the labels of one loop over photographs with those of its presets."""
    from published import Row, photographs

    supervised = root.name == 'LLM-supervision'
    paper = 'llm_supervision' if supervised else 'simseg'
    for title, top_k, file in (
        ('VOC21', 10, 'pascal_voc'),
        ('Context60', 60 if supervised else 30, 'pascal_context'),
    ):
        lines = (root / f'data/label_category/{file}.txt').read_text().splitlines()
        names = [line.strip() for line in lines if line.strip()]
        subclasses = {name: [f'{kind} {name}' for kind in 'abcde'] for name in names}
        encoder = GivenTexts()
        labels = run_loop(root, names, subclasses, top_k, encoder)
        preset = load_config(shipped_path(f'config/published/{paper}_{title.lower()}.yaml'))
        known = {
            name: Subclasses(tuple(subclasses[name]) if supervised else (), 'pack')
            for name in names
        }
        segmenter = Segmenter(
            preset, names[1:], encoder=encoder, resolver=Resolver(preset.subclasses, known)
        )
        equal = [
            float((segmenter.segment(rgb).labels == labels(rgb)).mean()) for rgb in photographs()
        ]
        yield Row(f'{root.name}: whole loop, {title}', equal=float(np.mean(equal)))


def run_loop(
    root: Path,
    names: Sequence[str],
    subclasses: dict[str, list[str]],
    top_k: int,
    encoder: GivenTexts,
) -> Any:
    """Return a function from an image to the (H, W) labels of the published loop."""
    found: list[NDArray[np.int64]] = []

    def mean_iou(results: Any, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found.append(results[0])
        return torch.ones(1), torch.ones(1)

    made = definitions(
        root
        / ('seg_evaluation.py' if root.name == 'LLM-supervision' else 'tools/seg_evaluation.py'),
        ('dense_crf', 'evaluate_benchmark', 'get_CLIP_inputs_from_dict'),
        dcrf=pydensecrf.densecrf,
        cv2=cv2,
        Image=Image,
        tqdm=list,
        json=json,
        ENV=SimpleNamespace(device='cpu', rank='cpu'),
        logger=SimpleNamespace(emph=lambda *_: None),
        mean_iou=mean_iou,
        openai_imagenet_template=None,
        zero_shot_classifier=lambda model, texts, *_: encoder.encode_text(texts),
    )
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
    pixels = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize((288, 288)),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(MEAN, STD),
        ]
    )
    cfg = SimpleNamespace(
        transforms=SimpleNamespace(normalize=SimpleNamespace(mean=MEAN, std=STD), input_size=288)
    )

    def labels(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
        features = encoder.encode_image(rgb)
        model = SimpleNamespace(
            module=SimpleNamespace(
                forward_image_feature=lambda image: features.patches_hwd.flatten(0, 1)[None],
                forward_image_project=lambda patches: features.pooled_d[None],
                image_projection=lambda patches: patches,
            )
        )
        batch = pixels(Image.fromarray(rgb))[None], torch.zeros(1, *rgb.shape[:2])
        with tempfile.NamedTemporaryFile('w', suffix='.json') as file:
            json.dump(subclasses, file)
            file.flush()
            extra = (file.name,) if root.name == 'LLM-supervision' else ()
            made.evaluate_benchmark([batch], model, cfg, None, names, top_k, *extra)
        return found[-1]

    return labels
