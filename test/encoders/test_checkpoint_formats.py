"""Each kind of checkpoint that people have makes the encoder that its plain weights make."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders.open_clip import OpenClipEncoder

open_clip = pytest.importorskip('open_clip')

NAME = 'tiny-quickgelu'  # as OpenAI's are
NUMBERS = {'input_resolution': 16, 'context_length': 77, 'vocab_size': 49408}


def model_of(state: dict[str, torch.Tensor], half: bool = False) -> nn.Module:
    model = open_clip.CLIP(**open_clip.get_model_config(NAME))
    model.load_state_dict(state)
    return model.half().eval() if half else model.eval()


def plain(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(state, path)
    return path


def openai_state(state: dict[str, torch.Tensor], path: Path) -> Path:
    """As `torch.jit.load(FILE).state_dict()` of OpenAI's files: halves, and numbers beside them."""
    numbers = {name: torch.tensor(value) for name, value in NUMBERS.items()}
    torch.save({**{key: value.half() for key, value in state.items()}, **numbers}, path)
    return path


def torchscript(state: dict[str, torch.Tensor], path: Path) -> Path:
    """As OpenAI's files are: the traced model in half precision, its numbers as attributes."""

    class Released(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in NUMBERS.items():
                self.register_buffer(name, torch.tensor(value))
            for name, part in model_of(state, half=True).named_children():
                setattr(self, name, part)
            for name in ('positional_embedding', 'text_projection', 'logit_scale'):
                setattr(self, name, nn.Parameter(state[name].half()))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.visual(image)

    image = torch.zeros(1, 3, 16, 16).half()
    traced = torch.jit.trace(Released().eval(), image, check_trace=False)
    torch.jit.save(traced, str(path))
    return path


def compiled(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(torch.compile(model_of(state)).state_dict(), path)
    return path


def trained(state: dict[str, torch.Tensor], path: Path) -> Path:
    """As open_clip's trainer writes epoch_N.pt, of a compiled model on several GPUs."""
    wrapped = {f'module._orig_mod.{key}': value for key, value in state.items()}
    torch.save({'epoch': 3, 'name': 'run', 'state_dict': wrapped, 'optimizer': {}}, path)
    return path


def half(state: dict[str, torch.Tensor], path: Path) -> Path:
    torch.save(model_of(state, half=True).state_dict(), path)
    return path


def safetensors(state: dict[str, torch.Tensor], path: Path) -> Path:
    from safetensors.torch import save_file

    save_file(state, path.with_suffix('.safetensors'))
    return path.with_suffix('.safetensors')


def hub_folder(state: dict[str, torch.Tensor], path: Path) -> Path:
    """As the hub's client keeps a repository: a snapshot of links to files without a suffix."""
    repository = path.parent / 'models--someone--tiny'
    for part in ('blobs', 'refs', 'snapshots/abc1'):
        (repository / part).mkdir(parents=True)
    shutil.move(safetensors(state, path), repository / 'blobs' / '0123')
    link = repository / 'snapshots/abc1/open_clip_model.safetensors'
    link.symlink_to('../../blobs/0123')
    (repository / 'refs/main').write_text('abc1')
    return repository


IN_FULL = (compiled, trained, safetensors, hub_folder)
ROUNDED = (openai_state, torchscript, half)


@pytest.mark.parametrize('write', [*IN_FULL, *ROUNDED], ids=lambda write: write.__name__)
def test_the_encoder_is_that_of_the_plain_weights(
    tiny_models: dict[str, Path],
    tmp_path: Path,
    photo: torch.Tensor,
    write: Callable[[dict[str, torch.Tensor], Path], Path],
) -> None:
    state = torch.load(tiny_models[NAME], weights_only=True)
    if write in ROUNDED:
        state = {key: value.half().float() for key, value in state.items()}
    (tmp_path / 'plain').mkdir()
    expected = load(plain(state, tmp_path / 'plain/weights.pt'))
    found = load(write(state, tmp_path / 'weights.pt'))
    assert {p.dtype for p in found._shared.model.parameters()} == {torch.float32}
    ours, theirs = found._shared.model.state_dict(), expected._shared.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    images = [encoder.encode_image(photo) for encoder in (found, expected)]
    assert torch.equal(images[0].patches_hwd, images[1].patches_hwd)
    assert torch.equal(found.encode_text(['cat']), expected.encode_text(['cat']))


def load(path: Path) -> OpenClipEncoder:
    tiling = {'short_side': 24, 'window': 16, 'stride': 8, 'templates': 'photo'}
    config = OpenClipConfig(model=NAME, pretrained=str(path), **tiling)
    return OpenClipEncoder(config, torch.device('cpu'))
