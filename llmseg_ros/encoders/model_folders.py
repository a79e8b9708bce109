"""Models named by a folder or repository that describes them: `local-dir:FOLDER`, `hf-hub:NAME`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.weights import (
    find_weights,
    first_line,
    given_weights,
    snapshot_in,
    weights_folder,
)

LOCAL, HUB = 'local-dir:', 'hf-hub:'
DESCRIPTION = 'open_clip_config.json'
MOST_LAYERS = 1000  # of a tower, ten times the deepest there is
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
            'run `llmseg download --config FILE`, FILE the configuration that names it, where '
            'there is a network'
        )
    if not (folder / DESCRIPTION).is_file():
        raise EncoderUnavailable(f'model {name} has no {DESCRIPTION} in {folder}: {advice}')
    return folder


def hub_folder(repository: str) -> Path:
    """Return where a repository of the hub was put, be it ours or the cache of its client.

    Raises:
        EncoderUnavailable: it is no name of a repository.
    """
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise EncoderUnavailable(
            f'{repository!r} is no repository of the hub: expected OWNER/NAME'
        ) from error
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
        check_description(described)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise EncoderUnavailable(
            f'{path} does not describe a model of open_clip: {first_line(error)}'
        ) from error
    return described


def check_description(described: dict[str, Any]) -> None:
    """Raise one of several errors where a description lacks parts or has absurd ones."""
    for part in ('vision_cfg', 'text_cfg'):
        config = described['model_cfg'][part]
        if not isinstance(config, dict):
            raise ValueError(f'{part} is no table')
        layers = config.get('layers', 1)
        if isinstance(layers, int) and layers > MOST_LAYERS:
            raise ValueError(f'{part} has {layers} layers')
    preprocess = described.get('preprocess_cfg') or {}
    mean, std = (preprocess.get(key) or (1, 1, 1) for key in ('mean', 'std'))
    if not (len(mean) == len(std) == 3 and min(std) > 0 and math.isfinite(sum(mean) + sum(std))):
        raise ValueError(f'pixels have mean {mean} and standard deviation {std}')


def find_tokenizer(text: dict[str, Any], folders: tuple[Path, ...]) -> Path | None:
    """Return the folder with the tokenizer of a text tower, None where it is in none.

    Args:
        text: the `text_cfg` of the model.
        folders: to look in, before the cache of the hub.
    """
    for folder in (*folders, hub_folder(text_repository(text))):
        # a text tower of the hub needs its own configuration besides
        wanted = TOKENIZER_MARKS if not text.get('hf_model_name') else ('config.json',)
        if any((folder / mark).is_file() for mark in wanted):
            return folder
    return None


def text_repository(text: dict[str, Any]) -> str:
    """Return the repository of the hub that a text tower's tokenizer is of, by its `text_cfg`."""
    return str(text.get('hf_tokenizer_name') or text['hf_model_name'])


def tokenizer_files(text: dict[str, Any]) -> tuple[str, ...]:
    """Return the files that a text tower mostly needs of that repository."""
    own = ('config.json',) if text.get('hf_model_name') else ()
    return (*own, *TOKENIZER_MARKS[:2])


def refuse_own_code(folder: Path) -> None:
    """Raise EncoderUnavailable where a text tower would run code of its folder, or ask whether to.

    Towers that open_clip takes have their code in transformers.
    """
    path = folder / 'config.json'
    try:
        has_code = 'auto_map' in json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise EncoderUnavailable(f'{path} does not describe a text tower') from error
    if has_code:
        raise EncoderUnavailable(f'{path} names code in its folder (auto_map), which is not run')
