"""Build every open_clip model that can be used, with random weights, and encode a photograph.

One after another, the smallest first, each in a process of its own under a limit of memory; models
whose weights alone do not fit are named and left out. What is in --out is not done again. No
network is used. Nothing is said about quality.

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
from typing import TYPE_CHECKING

from llmseg_ros.files import replacing

if TYPE_CHECKING:
    from llmseg_ros.encoders.model_list import ModelFacts

CODE_AND_IMAGE = 1.5  # GB that torch, open_clip and the activations of one window take


def encode(name: str, limit_gb: float) -> dict:
    """Build one image tower and encode a photograph with it, in a process of its own."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit_gb * 1e9),) * 2)
    import open_clip
    import skimage.data
    import torch
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    from llmseg_ros.encoders.open_clip import forward_of, grid_constants, patch_side
    from llmseg_ros.encoders.vit import image_tensor

    config = open_clip.get_model_config(name)
    visual = _build_vision_tower(config['embed_dim'], CLIPVisionCfg(**config['vision_cfg'])).eval()
    grid, patch = (10, 15), patch_side(visual)
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    size = grid[0] * patch, grid[1] * patch
    image = image_tensor(skimage.data.chelsea(), size, 'bicubic', zero, one)
    constants = grid_constants(visual, grid, 'antialias', 'naclip', torch.device('cpu'))
    started = time.monotonic()
    with torch.no_grad():
        patches, pooled = forward_of(visual)(visual, image[None], 'naclip', *constants)
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
    parser.add_argument('--at-most', type=int, help='so many more, then end')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(encode(arguments.one, arguments.limit_gb)))
        return
    from llmseg_ros.encoders.model_list import list_facts

    results = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    usable = [fact for fact in list_facts() if not fact.why_not and fact.name not in results]
    if arguments.only:
        usable = [fact for fact in usable if fact.name in arguments.only]
    for fact in sorted(usable, key=lambda fact: fact.parameters)[: arguments.at_most]:
        results[fact.name] = run_one(fact, arguments.limit_gb)
        print(fact.name, results[fact.name], flush=True)
        with replacing(arguments.out) as partial:
            partial.write_text(json.dumps(results, indent=1), encoding='utf-8')
    print(f'{len(results)} done; {summary(results)}')


def run_one(fact: ModelFacts, limit_gb: float) -> dict:
    """Encode with a model in a process of its own; say why not where that fails."""
    about = {'tower': fact.tower, 'parameters': fact.parameters}
    weights_gb = fact.parameters * 4 / 1e9
    if weights_gb + CODE_AND_IMAGE > limit_gb:
        return {**about, 'left_out': f'{weights_gb:.1f} GB of weights'}
    command = [sys.executable, __file__, '--one', fact.name, '--limit-gb', str(limit_gb)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = lines[-1] if lines else f'signal {-done.returncode}'
    return {**about, **(json.loads(last) if done.returncode == 0 else {'failed': last})}


def summary(results: dict[str, dict]) -> str:
    """Say how many models were encoded with, failed and were left out."""
    fine = [found for found in results.values() if found.get('finite')]
    names = {
        word: [name for name, found in results.items() if word in found]
        for word in ('failed', 'left_out')
    }
    told = [f'{word.replace("_", " ")}: {", ".join(n) or "none"}' for word, n in names.items()]
    return f'{len(fine)} encode with finite features; {"; ".join(told)}'


if __name__ == '__main__':
    main()
