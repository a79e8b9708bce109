"""Background words beside the class list in force."""

import pytest
import torch

from llmseg_ros.config import BACKGROUND_WORDS, ConfigError
from llmseg_ros.subclasses.resolver import Resolver
from llmseg_ros.vocabulary import describe_alone, other_words


@pytest.mark.parametrize(
    ('names', 'missing'),
    [
        (['cat'], []),
        (['Sky', ' wall '], ['sky', 'wall']),
        (['trees', 'fences'], ['tree', 'fence']),  # the plural
        (['furniture', 'shelf'], ['shelf']),  # a subclass
        (['flooring', 'drapes'], ['floor', 'curtain']),  # other names, in the indoor pack
    ],
)
def test_no_word_is_a_requested_class(names, missing):
    words = other_words(BACKGROUND_WORDS, names, Resolver().same_class)
    assert set(BACKGROUND_WORDS) - set(words) == set(missing)
    assert [word for word in BACKGROUND_WORDS if word in words] == list(words)


def test_words_are_merged_and_checked():
    assert other_words(['sky', ' sky', 'sea'], [], Resolver().same_class) == ('sky', 'sea')
    with pytest.raises(ConfigError, match=r'background\.words: a class name is empty'):
        other_words(['sky', ' '], [], Resolver().same_class)


def test_a_class_without_subclasses_is_described_by_what_shows_it():
    descriptors = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    members = torch.tensor([[True, False], [True, True]])
    membership, things = torch.tensor([[1.0, 0.5], [1.0, 1.0]]), torch.eye(2)
    described = describe_alone(descriptors, members, membership, things)
    expected = torch.tensor([1.0, 0.5]) / 1.25**0.5
    torch.testing.assert_close(described[0], torch.stack([expected, torch.zeros(2)]))
    torch.testing.assert_close(described[1], descriptors[1])
