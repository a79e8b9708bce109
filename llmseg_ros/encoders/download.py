"""Putting weights in place before a machine goes where there is no network."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.model_folders import DESCRIPTION, HUB, LOCAL, hub_folder, weights_in
from llmseg_ros.encoders.open_clip_models import (
    check_model,
    is_path,
    needs_hub_text,
    pretrained_config,
)
from llmseg_ros.encoders.weights import (
    checksum_file,
    compute_checksum,
    find_weights,
    weights_folder,
)

PATIENCE_SECONDS = 4.0
"""How long the hub may take to answer before it counts as out of reach."""

SAFETENSORS, PICKLE = 'open_clip_model.safetensors', 'open_clip_pytorch_model.bin'
TOKENIZER_FILES = (
    'tokenizer_config.json',
    'tokenizer.json',
    'vocab.txt',
    'vocab.json',
    'merges.txt',
    'sentencepiece.bpe.model',
    'spiece.model',
    'tokenizer.model',
    'added_tokens.json',
    'special_tokens_map.json',
)
BERT = 'bert-base-uncased'


class DownloadError(RuntimeError):
    """A file could not be downloaded; the message is one sentence that says what to do."""


def download_open_clip(config: OpenClipConfig) -> list[Path]:
    """Download the weights of a model and tag, and what its text tower needs besides.

    Raises:
        DownloadError: the hub is out of reach, or lacks the file, or it arrived damaged.
        EncoderUnavailable: model and tag don't fit, or the model can't be a dense encoder.
    """
    name, tag = config.model, config.pretrained
    if name.startswith(LOCAL):
        raise DownloadError(f'open_clip.model is the folder {name}, there is nothing to download')
    if name.startswith(HUB):
        return download_repository(name.removeprefix(HUB))
    if is_path(tag):
        raise DownloadError(f'open_clip.pretrained is the file {tag}, there is nothing to download')
    model = check_model(name, tag)
    address = pretrained_config(name, tag).get('hf_hub')
    if not address:
        raise DownloadError(
            f'this open_clip does not have {name}, {tag} on the hub: install a newer '
            'open_clip_torch, or set open_clip.pretrained to a checkpoint file'
        )
    repository, _, file = address.rpartition('/')
    files = (f'{Path(file).stem}.safetensors', file) if file else (SAFETENSORS, PICKLE)
    folder = weights_folder('open_clip', f'{name}--{tag}')
    paths = [download_file(repository, files, folder)]
    return paths + download_text(model, folder / 'text')


def download_repository(repository: str) -> list[Path]:
    """Download a model that a repository of the hub describes, unless its client has it already.

    Raises:
        DownloadError: the hub is out of reach, or lacks the file, or it arrived damaged.
        EncoderUnavailable: the model can't be a dense encoder.
    """
    own = weights_folder('open_clip', HUB + repository)
    folder = hub_folder(repository)
    if folder != own and (folder / DESCRIPTION).is_file() and find_weights(folder):
        return [folder / DESCRIPTION, weights_in(folder)]
    described = download_file(repository, (DESCRIPTION,), own)
    try:
        model = check_model(HUB + repository, None)
    except EncoderUnavailable:
        shutil.rmtree(own)
        raise
    weights = download_file(repository, (SAFETENSORS, PICKLE), own)
    return [described, weights, *download_text(model, own / 'text')]


def download_text(model: dict[str, Any], folder: Path) -> list[Path]:
    """Download what the text tower of a model has on the hub beside the weights, if anything."""
    if not needs_hub_text(model):
        return []
    text = model['text_cfg']
    tower = text.get('hf_model_name') or text['hf_tokenizer_name']
    return download_files(tower, ('config.json', *TOKENIZER_FILES), folder)


def download_bert_tokenizer() -> list[Path]:
    """Download the tokenizer of SimSeg's text encoder.

    Raises:
        DownloadError: the hub is out of reach, or lacks the files, or they arrived damaged.
    """
    return download_files(BERT, TOKENIZER_FILES, weights_folder('simseg', 'tokenizer'))


def download_files(repository: str, names: Sequence[str], folder: Path) -> list[Path]:
    """Download those of several files that a repository has, at least one."""
    paths = []
    for name in names:
        try:
            paths.append(download_file(repository, (name,), folder))
        except NotOnHub:
            continue
    if not paths:
        raise NotOnHub(f'{repository} has none of {", ".join(names)}')
    return paths


class NotOnHub(DownloadError):
    """The repository has no such file."""


def download_file(repository: str, names: Sequence[str], folder: Path) -> Path:
    """Download the first of several names that a repository has, and check its content.

    A file that is there with the content it was downloaded with is left alone, without network.

    Raises:
        DownloadError: the hub is out of reach, has none of the names, or the file is damaged.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    for path in (folder / name for name in names):
        recorded = checksum_file(path)
        if path.is_file() and recorded.is_file():
            if recorded.read_text(encoding='ascii').split(' ', 1)[0] == compute_checksum(path):
                return path
            path.unlink()  # damaged since: once more
    if not sys.stderr.isatty():
        disable_progress_bars()
    name, known = find_on_hub(repository, names)
    try:
        path = Path(
            hf_hub_download(
                repository,
                name,
                revision=known.commit_hash,
                local_dir=folder,
                etag_timeout=PATIENCE_SECONDS,
            )
        )
    except Exception as error:  # of the hub's client, of HTTP, of the disk
        raise DownloadError(f'{name} of {repository} did not arrive: {in_a_line(error)}') from error
    if not has_content(path, known.etag):
        path.unlink()
        shutil.rmtree(folder / '.cache', ignore_errors=True)  # where the client notes it as done
        raise DownloadError(f'{name} of {repository} arrived damaged and was removed: try again')
    checksum_file(path).write_text(f'{compute_checksum(path)}  {path.name}\n', encoding='ascii')
    return path


def find_on_hub(repository: str, names: Sequence[str]) -> tuple[str, Any]:
    """Return the first name a repository has, and what the hub says of the file."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        try:
            url = hf_hub_url(repository, name)
            return name, get_hf_file_metadata(url, timeout=PATIENCE_SECONDS)
        except EntryNotFoundError:
            continue
        except Exception as error:  # of the hub's client or of HTTP, by version
            raise DownloadError(
                f'the hub can not be reached for {repository}: {in_a_line(error)}; connect to the '
                'network, or copy the cache folder of a machine that has the weights to '
                f'{weights_folder("").parent}'
            ) from error
    raise NotOnHub(f'{repository} has none of {", ".join(names)}')


def in_a_line(error: Exception) -> str:
    """Return an error's kind and message on one line."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())


def has_content(path: Path, etag: str | None) -> bool:
    """Tell whether a file is what the hub announced: a SHA-256, or git's SHA-1 if it is small."""
    if etag is None:
        return False
    if len(etag) == hashlib.sha256().digest_size * 2:
        return compute_checksum(path) == etag
    content = path.read_bytes()
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest() == etag
