"""Build every open_clip model that can be used, with random weights, and encode a photograph.

One after another, each in a process of its own under a limit of memory; models whose weights alone
do not fit are named and left out. No network is used. Nothing is said about quality.

    .venv/bin/python bench/open_clip_models.py --limit-gb 8 --out models.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

CODE_AND_IMAGE = 1.5  # GB that torch, open_clip and the activations of one window take


def encode(name: str, limit_gb: float) -> dict:
    """Build one image tower and encode a photograph with it, in a process of its own."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit_gb * 1e9),) * 2)
    import open_clip
    import skimage.data
    import torch
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    from llmseg_ros.encoders import open_clip as ours
    from llmseg_ros.encoders import timm_towers
    from llmseg_ros.encoders.dense_attention import neighbour_bias
    from llmseg_ros.encoders.vit import image_tensor, interpolate_positions

    config = open_clip.get_model_config(name)
    visual = _build_vision_tower(config['embed_dim'], CLIPVisionCfg(**config['vision_cfg'])).eval()
    of_timm = timm_towers.is_timm(visual)
    patch = timm_towers.patch_side(visual) if of_timm else visual.conv1.stride[0]
    grid = (10, 15)
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    size = grid[0] * patch, grid[1] * patch
    image = image_tensor(skimage.data.chelsea(), size, 'bicubic', zero, one)
    if of_timm:
        cpu = torch.device('cpu')
        constants = timm_towers.grid_constants(visual, grid, 'antialias', 'naclip', cpu)
        forward = timm_towers.dense_forward
    else:
        positions = interpolate_positions(visual.positional_embedding.detach(), grid, 'antialias')
        constants, forward = (positions, neighbour_bias(grid)), ours.dense_forward
    started = time.monotonic()
    with torch.no_grad():
        patches, pooled = forward(visual, image[None], 'naclip', *constants)
    fine = bool(torch.isfinite(patches).all() and torch.isfinite(pooled).all())
    # random names: the frame is segmented, the labels mean nothing
    names = torch.nn.functional.normalize(torch.randn(5, patches.shape[2]), dim=1)
    labels = (torch.nn.functional.normalize(patches[0], dim=1) @ names.T).argmax(dim=1)
    return {
        'finite': fine,
        'seconds': round(time.monotonic() - started, 2),
        'peak_gb': round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        'features': list(patches.shape[1:]),
        'labels': len(labels.unique()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--limit-gb', type=float, default=8.0)
    parser.add_argument('--out', type=Path, default=Path('models.json'))
    parser.add_argument('--only', nargs='*', help='these models, instead of all that can be used')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(encode(arguments.one, arguments.limit_gb)))
        return
    from llmseg_ros.encoders.model_list import list_facts

    results = {}
    for fact in list_facts():
        if fact.why_not or (arguments.only and fact.name not in arguments.only):
            continue
        weights_gb = fact.parameters * 4 / 1e9
        if weights_gb + CODE_AND_IMAGE > arguments.limit_gb:
            results[fact.name] = {'left_out': f'{weights_gb:.1f} GB of weights'}
        else:
            command = [sys.executable, __file__, '--one', fact.name]
            command += ['--limit-gb', str(arguments.limit_gb)]
            done = subprocess.run(command, capture_output=True, text=True)
            lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
            last = lines[-1] if lines else f'signal {-done.returncode}'
            results[fact.name] = json.loads(last) if done.returncode == 0 else {'failed': last}
        print(fact.name, results[fact.name], flush=True)
        arguments.out.write_text(json.dumps(results, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
