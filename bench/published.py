"""Published code and ours on the same random weights, names and images: how far they are apart.

The repositories are fetched by whoever runs this, REPOSITORIES in published_code.py lists them:

    .venv/bin/python bench/published.py --repositories FOLDER --json published.json

FOLDER has a folder of each, NACLIP, SCLIP and so on; what is absent is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import open_clip
import skimage
import torch
from numpy.typing import NDArray
from published_code import (
    JOINT,
    REPOSITORIES,
    VISION,
    Maskclip,
    Sample,
    Weights,
    clearclip_segmentor,
    definitions,
    segmentor,
)
from torch.nn.functional import normalize

from llmseg_ros.cli.common import print_table
from llmseg_ros.config_files import load_config
from llmseg_ros.encoders.loda import loda_pool
from llmseg_ros.evaluation.datasets import Dataset
from llmseg_ros.evaluation.layouts import with_published_names
from llmseg_ros.evaluation.variants import load_with_known
from llmseg_ros.files import shipped_path, write_json
from llmseg_ros.method.pamr import refine_pamr
from llmseg_ros.segmenter import Segmenter
from llmseg_ros.subclasses.resolver import Subclasses

MODEL = 'bench-published'
TEXT = {'context_length': 77, 'vocab_size': 49408, 'width': 64, 'heads': 1, 'layers': 2}
SIZES = {'224 x 224': (224, 224), '336 x 448, 272 x 400, 176 x 208': (336, 448)}
MORE_SIZES = ((272, 400), (176, 208))
CLIP_MEAN, CLIP_STD = (122.771, 116.746, 104.094), (68.501, 66.632, 70.323)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Row(NamedTuple):
    """A line of the table: the largest difference, or the share of equal pixels."""

    stage: str
    difference: float | None = None
    equal: float | None = None


def random_clip(folder: Path) -> Weights:
    """Write a checkpoint of random weights that fp16 holds exactly, and make open_clip know it."""
    torch.manual_seed(0)
    config = {'embed_dim': JOINT, 'quick_gelu': True, 'vision_cfg': VISION, 'text_cfg': TEXT}
    (folder / f'{MODEL}.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder / f'{MODEL}.json')
    model = open_clip.CLIP(**open_clip.get_model_config(MODEL))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.normal_(0, 1.5 * inputs**-0.5)
            if parameter.ndim == 1 and name.endswith('weight'):
                parameter.add_(1)
            parameter.copy_(parameter.half().float())
    torch.save(model.state_dict(), folder / 'clip.pt')
    return Weights(model.state_dict(), folder / 'clip.pt')


def photographs() -> list[NDArray[np.uint8]]:
    """Return photographs of the size VOC has, and a smooth random picture."""
    found = []
    for name, size in (('chelsea', (400, 301)), ('coffee', (300, 200)), ('astronaut', (240, 240))):
        found.append(cv2.resize(getattr(skimage.data, name)(), size, interpolation=cv2.INTER_AREA))
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return [*found, cv2.resize(noise, (201, 149), interpolation=cv2.INTER_CUBIC)]


def published_input(
    rgb: NDArray[np.uint8], short: int, long: int = 2048, mean: Any = CLIP_MEAN, std: Any = CLIP_STD
) -> torch.Tensor:
    """Resize as mmseg's Resize with keep_ratio does, and normalise; (1, 3, H, W)."""
    height, width = rgb.shape[:2]
    scale = min(long / max(height, width), short / min(height, width))
    size = int(width * scale + 0.5), int(height * scale + 0.5)
    pixels = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    normalised = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
    return torch.from_numpy(normalised).permute(2, 0, 1)[None]


def ours(preset: str, layout: str, weights: Weights, **changes: Any) -> Segmenter:
    """Load a preset on the random weights, with the published names, as `evaluate` does."""
    config = load_config(shipped_path(f'config/published/{preset}.yaml'))
    clip = replace(config.open_clip, model=MODEL, pretrained=str(weights.path))
    config = replace(config, open_clip=clip)
    for section, values in changes.items():
        config = replace(config, **{section: replace(getattr(config, section), **values)})
    papers = ['clearclip', 'sclip'] if 'clearclip' in preset else [preset.split('_')[0], 'sclip']
    empty = Dataset('', (), True, np.zeros(0, np.uint16), ())
    data = with_published_names(empty, layout, papers)
    known = {name: Subclasses(data.synonyms.get(name, ()), 'pack') for name in data.classes}
    return load_with_known(config, data.classes, {config.subclasses: known})


def agreement(
    segmenter: Segmenter, published: Callable[[NDArray[np.uint8]], Any], first: int
) -> float:
    """Return the share of equal pixels over the photographs.

    Args:
        segmenter: ours.
        published: gives (H, W) labels of an image.
        first: label of the first class in the published labels.
    """
    equal = []
    for rgb in photographs():
        labels = np.asarray(published(rgb)).squeeze().astype(int) + 1 - first
        equal.append((segmenter.segment(rgb).labels == labels).mean())
    return float(np.mean(equal))


@torch.no_grad()
def predict(model: Any, rgb: NDArray[np.uint8], short: int) -> torch.Tensor:
    """Return the labels of a published segmentor; ClearCLIP's without its half precision."""
    sample, image = Sample(rgb.shape[:2]), published_input(rgb, short)
    if type(model).__name__ == 'ClearCLIPSegmentation':
        crop = model.slide_stride, model.slide_crop
        model.postprocess_result(model.forward_slide(image, [sample.metainfo], *crop), [sample])
    else:
        model.predict(image, [sample])
    found: torch.Tensor = sample.found['pred_sem_seg']
    return found


def clip_rows(root: Path, weights: Weights) -> Iterator[Row]:
    """Compare NACLIP or SCLIP: features, texts, windows, and whole protocols."""
    naclip = root.name == 'NACLIP'
    mode, preset = ('naclip', 'naclip_voc21') if naclip else ('sclip', 'sclip_voc21')
    no_pamr = {'pamr_steps': 0} if naclip else {}
    model = segmentor(root, weights, names='voc21', prob_thd=0.1, **no_pamr)
    unrefined = ours(preset, 'voc', weights, refine={'name': 'none'}, open_clip={'windows': True})
    encoder: Any = unrefined.encoder
    texts = torch.cat([unrefined.vocabulary.words_bd, *class_texts(unrefined)])
    yield Row(f'{mode}: text features, 56 names x 80', gap(texts, model.query_features))
    generator = torch.Generator().manual_seed(1)
    for title, sizes in (('224 x 224', ((224, 224),)), (list(SIZES)[1], ((336, 448), *MORE_SIZES))):
        gaps = []
        for size in sizes:
            image = torch.randn(1, 3, *size, generator=generator)
            with torch.no_grad():
                csa = {} if naclip else {'csa': True}
                theirs = model.net.encode_image(image, return_all=True, **csa)[0, 1:]
            found = encoder._encode(image, (size[0] // 16, size[1] // 16))[0]
            gaps.append(gap(found[0].flatten(0, 1), theirs))
        yield Row(f'{mode}: features at {title}', max(gaps))
    yield Row(f'{mode}: logits by windows', window_gap(model, unrefined))
    whole = {'slide_crop': 0} if naclip else {}
    for title, layout, names, scale, preset, changes, settings in (
        ('VOC21 by windows, no PAMR', 'voc', 'voc21', 40, 'naclip_voc21', True, no_pamr),
        ('VOC21', 'voc', 'voc21', 40 if naclip else 65, f'{mode}_voc21', False, whole),
        ('Context60', 'context60', 'context60', 50, f'{mode}_context60', False, {}),
        ('COCO-Object', 'coco-object', 'coco_object', 50, f'{mode}_coco_object', False, {}),
        ('Context59', 'context59', 'context59', 40, f'{mode}_no_background', False, {}),
    ):
        if changes and not naclip:
            continue
        scale = 40 if naclip else scale
        least = 0.0 if '59' in title else 0.1
        area = {'area_thd': 0.1} if mode == 'sclip' and title == 'VOC21' else {}
        model = segmentor(
            root, weights, names=names, prob_thd=least, logit_scale=scale, **area, **settings
        )
        segmenter = unrefined if changes else ours(preset, layout, weights)
        same = agreement(
            segmenter, lambda rgb, m=model: predict(m, rgb, 336), int('59' not in title)
        )
        yield Row(f'{mode}: {title}', equal=same)


def class_texts(segmenter: Segmenter) -> list[torch.Tensor]:
    """Return the descriptors of every class's names, class by class."""
    vocabulary = segmenter.vocabulary
    pairs = zip(vocabulary.descriptors_cnd, vocabulary.members_cn, strict=True)
    return [rows_nd[members_n] for rows_nd, members_n in pairs]


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())


@torch.no_grad()
def window_gap(model: Any, segmenter: Segmenter) -> float:
    """Compare logits at image size, which our scale and shift have to be taken off."""
    from llmseg_ros.candidates import unit_features
    from llmseg_ros.method.patches import weights_at

    gaps = []
    for rgb in photographs():
        shape = rgb.shape[:2]
        metas = ({'ori_shape': shape},)
        image = published_input(rgb, 336)
        if type(model).__name__ == 'NACLIP':
            slid = model.forward_slide(image)
            theirs = torch.nn.functional.interpolate(slid, shape, mode='bilinear')[0]
        else:
            theirs = model.forward_slide(image, metas)[0]
        features = segmenter.encoder.encode_image(rgb)
        patches_hwd, _ = unit_features(features)
        assert features.axes is not None
        rows, columns = (
            torch.from_numpy(weights_at(axis, side)).float()
            for axis, side in zip(features.axes, shape, strict=True)
        )
        maps = torch.einsum('hwd,nd->nhw', patches_hwd, model.query_features)
        gaps.append(gap(torch.einsum('yh,nhw,xw->nyx', rows, maps, columns), theirs))
    return max(gaps)


def clearclip_rows(root: Path, weights: Weights) -> Iterator[Row]:
    """Compare ClearCLIP's features, and its protocols with and without background."""
    unrefined = ours('clearclip_voc21', 'voc', weights)
    encoder: Any = unrefined.encoder
    text = encoder._shared.model.encode_text
    model = clearclip_segmentor(root, weights, text, names='voc21', prob_thd=0.5)
    generator = torch.Generator().manual_seed(1)
    gaps = []
    for size in ((224, 224), (336, 448), *MORE_SIZES):
        image = torch.randn(1, 3, *size, generator=generator)
        with torch.no_grad():
            theirs = model.net.encode_image(image, 'ClearCLIP', True)[0]
        found = encoder._encode(image, (size[0] // 16, size[1] // 16))[0]
        gaps.append(gap(found[0].flatten(0, 1), theirs))
    yield Row('clearclip: features at these sizes', max(gaps))
    for title, layout, preset, least in (
        ('VOC21', 'voc', 'clearclip_voc21', 0.5),
        ('Context60', 'context60', 'clearclip_context60', 0.15),
        ('VOC20', 'voc20', 'clearclip_no_background', 0.0),
    ):
        model = clearclip_segmentor(root, weights, text, names=title.lower(), prob_thd=least)
        same = agreement(
            ours(preset, layout, weights), lambda rgb, m=model: predict(m, rgb, 448), int(least > 0)
        )
        yield Row(f'clearclip: {title}', equal=same)


def maskclip_rows(root: Path, weights: Weights) -> Iterator[Row]:
    """Compare MaskCLIP's features, and its labels without background."""
    model = Maskclip(root, weights.state)
    segmenter = ours('maskclip_voc20', 'voc20', weights)
    encoder: Any = segmenter.encoder
    texts_nd = torch.cat(class_texts(segmenter))
    generator = torch.Generator().manual_seed(1)
    gaps = []
    for size in ((224, 224), (336, 448), *MORE_SIZES):
        image = torch.randn(1, 3, *size, generator=generator)
        found = encoder._encode(image, (size[0] // 16, size[1] // 16))[0]
        gaps.append(gap(found[0], model.features(image)))
    yield Row('maskclip: features at these sizes', max(gaps))

    def labels(rgb: NDArray[np.uint8]) -> torch.Tensor:
        image = published_input(rgb, 512, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        logits = model.logits(image, texts_nd)[None]
        for shape in (image.shape[2:], rgb.shape[:2]):
            logits = torch.nn.functional.interpolate(logits, shape, mode='bilinear')
        return logits[0].argmax(dim=0)

    yield Row('maskclip: VOC20', equal=agreement(segmenter, labels, 0))


def pamr_rows(root: Path) -> Iterator[Row]:
    """Compare PAMR with dilations 8 and 16 on maps over photographs."""
    module = definitions(root / 'models/mods/pamr.py').PAMR(10, [8, 16])
    generator = torch.Generator().manual_seed(2)
    gaps, equal = [], []
    for rgb in photographs():
        image_3hw = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
        coarse = torch.randn(1, 5, 9, 12, generator=generator)
        maps = torch.nn.functional.interpolate(coarse, rgb.shape[:2], mode='bicubic').softmax(dim=1)
        theirs, found = module(image_3hw[None], maps)[0], refine_pamr(maps[0], image_3hw)
        gaps.append(gap(found, theirs))
        equal.append(float((found.argmax(0) == theirs.argmax(0)).float().mean()))
    yield Row('PAMR (8, 16), 10 iterations', max(gaps), float(np.mean(equal)))


def chils_rows(root: Path) -> Iterator[Row]:
    """Compare CHiLS's reweighting of the softmaxes."""
    made = definitions(root / 'src/zshot_utils.py', ('conf_pred',))
    from llmseg_ros.config import FusionConfig
    from llmseg_ros.method.fusion import class_maps

    generator = torch.Generator().manual_seed(3)
    draw = [torch.randn(n, 64, generator=generator) for n in (50, 6 * 4)]
    images_nd, texts_md = (normalize(rows, dim=-1) for rows in draw)
    sets_cnd = texts_md.unflatten(0, (6, 4))
    owner = {index: index // 4 for index in range(24)}
    theirs = made.conf_pred(100 * images_nd @ texts_md.T, 100 * images_nd @ sets_cnd[:, 0].T, owner)
    found = class_maps(
        images_nd[None],
        images_nd[0],
        sets_cnd,
        torch.ones(6, 4).bool(),
        FusionConfig('chils', logit_scale=100.0),
    )[0]
    yield Row('CHiLS', gap(found, theirs.unflatten(1, (6, 4)).amax(dim=2)))


def loop_rows(root: Path) -> Iterator[Row]:
    """Compare the whole loop of SimSeg, or that of the LLM supervision, on the same features."""
    from published_loops import loop_rows as rows

    yield from rows(root)


def loda_rows(root: Path) -> Iterator[Row]:
    made = definitions(root / 'simseg/models/components/pooling.py', ('TopKPooling',))
    tokens = torch.randn(3, 30, 16, generator=torch.Generator().manual_seed(4))
    mask = (torch.arange(30) < torch.tensor([[30], [4], [9]])).long()
    gaps = [
        gap(loda_pool(tokens, 5), made.TopKPooling(5, 1)(tokens)),
        gap(loda_pool(tokens, 1, mask.bool()), made.TopKPooling(1, 1)(tokens.clone(), mask)),
    ]
    yield Row('LoDA, of patches and of words', max(gaps))


def rows_of(folder: Path, weights: Weights) -> Iterator[Row]:
    """Compare whatever was fetched."""
    compared: dict[str, list[Callable[[Path], Iterator[Row]]]] = {
        'NACLIP': [lambda root: clip_rows(root, weights)],
        'SCLIP': [lambda root: clip_rows(root, weights)],
        'ClearCLIP': [lambda root: clearclip_rows(root, weights)],
        'MaskCLIP': [lambda root: maskclip_rows(root, weights)],
        '1-stage-wseg': [pamr_rows],
        'CHILS': [chils_rows],
        'SimSeg': [loda_rows, loop_rows],
        'LLM-supervision': [loop_rows],
    }
    for name, comparisons in compared.items():
        if not (folder / name).is_dir():
            print(f'{name} is not in {folder}: fetch github.com/{REPOSITORIES[name]}')
            continue
        for comparison in comparisons:
            yield from comparison(folder / name)


def main() -> None:
    """Compare, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--repositories', type=Path, required=True, help='folder of the fetched')
    parser.add_argument('--json', type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ['LLMSEG_CACHE'] = name  # no embedding of random weights is kept
        rows = []
        for row in rows_of(arguments.repositories, random_clip(Path(name))):
            print(row.stage, row.difference, row.equal, flush=True)
            rows.append(row)
    print_table(
        ('stage', 'largest difference', 'equal pixels'),
        [
            (
                row.stage,
                '' if row.difference is None else f'{row.difference:.1e}',
                '' if row.equal is None else f'{100 * row.equal:.2f} %',
            )
            for row in rows
        ],
    )
    if arguments.json:
        write_json(arguments.json, [row._asdict() for row in rows])


if __name__ == '__main__':
    main()
