"""Models named by a folder or repository that describes them: `local-dir:FOLDER`, `hf-hub:NAME`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.weights import find_weights, given_weights, snapshot_in, weights_folder

LOCAL, HUB = 'local-dir:', 'hf-hub:'
DESCRIPTION = 'open_clip_config.json'
TOKENIZER_MARKS = ('tokenizer.json', 'tokenizer_config.json', 'vocab.txt')


def has_own_description(name: str) -> bool:
    """Tell a folder or repository from a name that open_clip knows."""
    return name.startswith((LOCAL, HUB))


def model_folder(name: str) -> Path:
    """Return the folder of a model named `local-dir:FOLDER` or `hf-hub:NAME`; no network is used.

    A repository is looked for where `llmseg download` puts it, then in the cache of the Hugging
    Face hub, which HF_HUB_CACHE or HF_HOME move.

    Raises:
        EncoderUnavailable: it is not there, or has no description or no weights.
    """
    kind, _, what = name.partition(':')
    if f'{kind}:' == LOCAL:
        folder = snapshot_in(Path(what).expanduser())
        advice = 'give a folder that has it beside the weights, such as a snapshot of the hub'
    else:
        folder = hub_folder(what)
        advice = (
            'run `llmseg download --encoder open_clip` with this model where there is a network'
        )
    if not (folder / DESCRIPTION).is_file():
        raise EncoderUnavailable(f'model {name} has no {DESCRIPTION} in {folder}: {advice}')
    return folder


def hub_folder(repository: str) -> Path:
    """Return where a repository of the hub was put, be it ours or the cache of its client."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    own = weights_folder('open_clip', HUB + repository)
    cached = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type='model')
    return snapshot_in(cached) if cached.is_dir() and not own.is_dir() else own


def weights_in(folder: Path) -> Path:
    """Return the weight file of a model's folder: of several the one open_clip itself writes.

    Raises:
        EncoderUnavailable: there is none.
    """
    return find_weights(folder, first='open_clip') or given_weights(str(folder))


def read_description(name: str) -> dict[str, Any]:
    """Return what a folder says of its model: `model_cfg` and, mostly, `preprocess_cfg`.

    Raises:
        EncoderUnavailable: it is not there or can't be read as that.
    """
    path = model_folder(name) / DESCRIPTION
    try:
        described = json.loads(path.read_text(encoding='utf-8'))
        if 'model_cfg' not in described:
            described = {'model_cfg': described}
        for part in ('vision_cfg', 'text_cfg'):
            dict(described['model_cfg'][part])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderUnavailable(f'{path} does not describe a model of open_clip') from error
    return described


def find_tokenizer(text: dict[str, Any], folders: tuple[Path, ...]) -> Path | None:
    """Return the folder with the tokenizer of a text tower, None where it is in none.

    Args:
        text: the `text_cfg` of the model.
        folders: to look in, before the cache of the hub.
    """
    named = text.get('hf_tokenizer_name') or text['hf_model_name']
    for folder in (*folders, hub_folder(named)):
        # a text tower of the hub needs its own configuration besides
        wanted = TOKENIZER_MARKS if 'hf_model_name' not in text else ('config.json',)
        if any((folder / mark).is_file() for mark in wanted):
            return folder
    return None
