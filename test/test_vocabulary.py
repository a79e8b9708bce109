"""Background words beside the class list in force."""

import pytest

from llmseg_ros.config import BACKGROUND_WORDS, ConfigError
from llmseg_ros.subclasses.resolver import Resolver
from llmseg_ros.vocabulary import other_words


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
