"""Downloading from a hub on this machine: checked, repeatable, and clear about failures."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from pathlib import Path

import pytest

from llmseg_ros.cli.main import main
from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.download import DownloadError, download_bert_tokenizer, download_open_clip

hub = pytest.importorskip('huggingface_hub')

WEIGHTS = b'weights' * 1000
REPOSITORY = '/timm/vit_base_patch16_clip_224.openai/resolve/{}'
SAFETENSORS = f'{REPOSITORY}/open_clip_model.safetensors'
PICKLE = f'{REPOSITORY}/open_clip_pytorch_model.bin'
COMMIT = 'c0ffee' * 6 + 'c0ff'


class Hub(http.server.ThreadingHTTPServer):
    """Serves files by path as the hub does, and counts what it is asked."""

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files: dict[str, bytes] = {}
        self.announced: dict[str, str] = {}  # checksums other than the true ones
        self.requests: list[str] = []

    def put(self, path, content):
        for revision in ('main', COMMIT):
            self.files[path.format(revision)] = content


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.respond()

    def do_GET(self):
        content = self.respond()
        if content:
            self.wfile.write(content)

    def respond(self):
        path = self.path.partition('?')[0]
        self.server.requests.append(f'{self.command} {path}')
        content = self.server.files.get(path)
        if content is None:
            self.send_response(404)
            self.send_header('X-Error-Code', 'EntryNotFound')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return None
        name = path.rpartition('/')[2]
        blob = hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()
        digest = (
            hashlib.sha256(content).hexdigest()
            if 'open_clip' in name and 'config' not in name
            else blob
        )
        self.send_response(200)
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('ETag', f'"{self.server.announced.get(name, digest)}"')
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        point_hub_at(monkeypatch, f'http://127.0.0.1:{server.server_port}')
        yield server
        server.shutdown()


def point_hub_at(monkeypatch, address):
    """Let the hub's client, which read its settings on import, use another address."""
    constants = 'huggingface_hub.constants'
    monkeypatch.setattr(f'{constants}.HF_HUB_OFFLINE', False)
    monkeypatch.setattr(f'{constants}.ENDPOINT', address)
    template = f'{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
    monkeypatch.setattr(f'{constants}.HUGGINGFACE_CO_URL_TEMPLATE', template)


def test_weights_arrive_checked_and_are_not_fetched_twice(server, cache):
    server.put(SAFETENSORS, WEIGHTS)
    [path] = download_open_clip(OpenClipConfig())
    folder = cache / 'weights/open_clip/ViT-B-16-quickgelu--openai'
    assert path == folder / 'open_clip_model.safetensors'
    assert path.read_bytes() == WEIGHTS
    recorded = Path(f'{path}.sha256').read_text()
    assert recorded == f'{hashlib.sha256(WEIGHTS).hexdigest()}  open_clip_model.safetensors\n'
    server.requests.clear()
    assert download_open_clip(OpenClipConfig()) == [path]
    assert server.requests == []
    path.write_bytes(b'damaged')
    assert download_open_clip(OpenClipConfig())[0].read_bytes() == WEIGHTS


def test_a_repository_without_safetensors_gives_its_other_file(server):
    server.put(PICKLE, WEIGHTS)
    [path] = download_open_clip(OpenClipConfig())
    assert path.name == 'open_clip_pytorch_model.bin'


def test_a_damaged_download_is_removed(server):
    server.put(SAFETENSORS, WEIGHTS)
    server.announced['open_clip_model.safetensors'] = '0' * 64
    for _ in range(2):
        with pytest.raises(DownloadError, match='arrived damaged and was removed'):
            download_open_clip(OpenClipConfig())
    del server.announced['open_clip_model.safetensors']
    assert download_open_clip(OpenClipConfig())[0].read_bytes() == WEIGHTS


def test_what_the_hub_lacks_is_told(server):
    with pytest.raises(DownloadError, match=r'has none of open_clip_model\.safetensors'):
        download_open_clip(OpenClipConfig())


def test_tokenizers_arrive_with_the_files_there_are(server, cache):
    with pytest.raises(DownloadError, match='has none of'):
        download_bert_tokenizer()
    server.put('/bert-base-uncased/resolve/{}/vocab.txt', b'[PAD]\n[UNK]\n')
    server.put('/bert-base-uncased/resolve/{}/tokenizer_config.json', b'{}')
    names = [path.name for path in download_bert_tokenizer()]
    assert names == ['tokenizer_config.json', 'vocab.txt']
    assert (cache / 'weights/simseg/tokenizer/vocab.txt').read_bytes() == b'[PAD]\n[UNK]\n'


def test_a_hub_tokenizer_of_an_open_clip_model_comes_along(server):
    server.put('/UCSC-VLAA/ViT-L-14-CLIPA-datacomp1B/resolve/{}/open_clip_model.safetensors', b'w')
    server.put('/bert-base-uncased/resolve/{}/vocab.txt', b'[PAD]')
    config = OpenClipConfig(model='ViT-L-14-CLIPA', pretrained='datacomp1b')
    paths = download_open_clip(config)
    assert [path.name for path in paths] == ['open_clip_model.safetensors', 'vocab.txt']
    assert paths[1].parent == paths[0].parent / 'text'


@pytest.mark.parametrize(
    ('config', 'error', 'reason'),
    [
        (OpenClipConfig(model='ViT-B-16'), EncoderUnavailable, 'use the model ViT-B-16-quickgelu'),
        (OpenClipConfig(model='MobileCLIP2-S0'), EncoderUnavailable, 'FastVit of timm'),
        (OpenClipConfig(model='EVA02-B-16'), EncoderUnavailable, 'there are merged2b_s8b_b131k'),
        (OpenClipConfig(pretrained='mine.pt'), DownloadError, 'nothing to download'),
        (OpenClipConfig(model='local-dir:mine'), DownloadError, 'nothing to download'),
    ],
)
def test_what_could_not_be_used_is_not_downloaded(server, config, error, reason):
    with pytest.raises(error, match=reason):
        download_open_clip(config)
    assert server.requests == []


def test_without_network_the_news_come_at_once(monkeypatch, cache):
    point_hub_at(monkeypatch, 'http://127.0.0.1:9')
    started = time.monotonic()
    with pytest.raises(DownloadError, match='can not be reached') as caught:
        download_open_clip(OpenClipConfig())
    assert time.monotonic() - started < 5
    assert str(cache) in str(caught.value)


def test_a_repository_named_by_the_user_comes_whole(server, cache):
    described = open_clip_config('EVA02-B-16')
    path = '/someone/eva/resolve/{}/'
    server.put(path + 'open_clip_config.json', described)
    server.put(path + 'open_clip_pytorch_model.bin', WEIGHTS)
    config = OpenClipConfig(model='hf-hub:someone/eva')
    paths = download_open_clip(config)
    assert [p.name for p in paths] == ['open_clip_config.json', 'open_clip_pytorch_model.bin']
    assert {p.parent for p in paths} == {cache / 'weights/open_clip/hf-hub:someone-eva'}
    server.requests.clear()
    assert download_open_clip(config) == paths
    assert server.requests == []


def test_a_repository_that_could_not_be_used_leaves_nothing(server, cache):
    described = open_clip_config('convnext_base')
    server.put('/someone/convnext/resolve/{}/open_clip_config.json', described)
    with pytest.raises(EncoderUnavailable, match='ConvNeXt of timm'):
        download_open_clip(OpenClipConfig(model='hf-hub:someone/convnext'))
    assert not [p for p in cache.rglob('*') if p.is_file()]


def open_clip_config(model):
    open_clip = pytest.importorskip('open_clip')
    return json.dumps({'model_cfg': open_clip.get_model_config(model)}).encode()


def test_the_verb_says_what_is_in_place(server, cache, capsys):
    server.put(SAFETENSORS, WEIGHTS)
    with pytest.raises(SystemExit) as done:
        main(['download'])
    assert done.value.code == 0
    assert 'open_clip_model.safetensors: SHA-256 checked' in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(['download', '--encoder', 'imagenet'])
    assert done.value.code == 0
    assert 'nothing to download' in capsys.readouterr().err


def test_the_verb_says_where_the_simseg_checkpoint_goes(server, cache, capsys):
    server.put('/bert-base-uncased/resolve/{}/vocab.txt', b'[PAD]')
    with pytest.raises(SystemExit) as done:
        main(['download', '--encoder', 'simseg'])
    assert done.value.code == 1
    assert str(cache / 'weights/simseg') in capsys.readouterr().err
    (cache / 'weights/simseg/simseg.vit-s.pth').write_bytes(b'checkpoint')
    with pytest.raises(SystemExit) as done:
        main(['download', '--encoder', 'simseg'])
    assert done.value.code == 0
