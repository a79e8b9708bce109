import pytest

from llmseg_ros.subclasses.quality import ANYTHING, filter_subclasses, meaning_of, membership_of


def reasons(filtered):
    return {dropped.name: dropped.reason for dropped in filtered.dropped}


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('Dog', 'repeats the class name'),
        ('dogs', 'repeats the class name'),
        ('Cats', "is the requested class 'cat'"),
        ('fox terriers', "repeats 'fox terrier'"),
        ('Terrier, fox', "repeats 'fox terrier'"),
        ('fox terrier', "repeats 'fox terrier'"),
        ('dining tables', "is the requested class 'Table dining'"),
        ('buses', "is the requested class 'bus'"),
        ('glass', None),
        ('hot dog', None),
    ],
)
def test_spelling(name, reason):
    classes = {'dog': ['fox terrier', name], 'cat': [], 'Table dining': [], 'bus': []}
    filtered = filter_subclasses(classes)['dog']
    assert filtered.kept == (('fox terrier', name) if reason is None else ('fox terrier',))
    assert [dropped.reason for dropped in filtered.dropped] == ([reason] if reason else [])


def encoder(vectors):
    """Encode names by a table; a name of no kind is orthogonal to all of them."""
    torch = pytest.importorskip('torch')

    def encode(names):
        rows = [vectors.get(name, [0.0, 0.0, 0.0, 1.0]) for name in names]
        return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)

    return encode


VECTORS = {
    'dog': [1.0, 0.0, 0.0, 0.0],
    'poodle': [0.9, 0.1, 0.0, 0.0],
    'beagle': [0.8, 0.2, 0.0, 0.0],
    'boxer': [0.8, 0.3, 0.0, 0.0],
    'cat': [0.0, 1.0, 0.0, 0.0],
    'tabby': [0.1, 0.9, 0.0, 0.0],
    'Siamese': [0.2, 0.9, 0.0, 0.0],
    'catfish': [0.2, 0.8, 0.3, 0.0],
    'bus': [0.0, 0.0, 1.0, 0.0],
}


def test_nearer_to_another_class():
    classes = {'dog': ['poodle', 'beagle', 'tabby'], 'cat': ['Siamese']}
    filtered = filter_subclasses(classes, encoder(VECTORS))
    assert filtered['dog'].kept == ('poodle', 'beagle')
    assert reasons(filtered['dog'])['tabby'].startswith("is nearer to 'cat' (0.99) than to 'dog'")
    assert filtered['cat'].kept == ('Siamese',)
    assert filtered['cat'].dropped == ()


def test_far_from_the_others():
    classes = {'dog': ['poodle', 'beagle', 'boxer', 'bus']}
    filtered = filter_subclasses(classes, encoder(VECTORS))['dog']
    assert filtered.kept == ('poodle', 'beagle', 'boxer')
    assert reasons(filtered)['bus'] == "is far from 'dog' (0.00, at least 0.28 is asked)"


def test_list_of_other_things_is_held_to_the_class_name():
    """Its centre is where its own mistakes are: there a bus would speak for a tram."""
    vectors = {
        **VECTORS,
        'bus': [0.3, 0.1, 0.9, 0.0],
        'van': [0.1, 0.0, 1.0, 0.0],
        'truck': [0.1, 0.2, 1.0, 0.0],
        'tram': [0.2, 0.1, 1.0, 0.0],
        'coach': [0.1, 0.1, 1.0, 0.0],
        'bean': [0.2, 0.1, 0.0, 1.0],
        'puppy': [0.9, 0.1, 0.2, 0.0],
    }
    classes = {'dog': ['van', 'truck', 'tram', 'coach', 'bean', 'puppy'], 'bus': []}
    filtered = filter_subclasses(classes, encoder(vectors))['dog']
    assert filtered.kept == ('puppy',)
    assert reasons(filtered)['van'].startswith("is nearer to 'bus'")
    assert reasons(filtered)['bean'] == "is far from 'dog' (0.20, at least 0.30 is asked)"


def test_meaning_is_asked_of_an_encoder_that_knows_it():
    class Plain:
        name = 'plain'
        device = None
        runtime = 'torch'
        images_at_once = 1
        encode_text = encode_image = encode_images = staticmethod(len)

    class Meaning(Plain):
        encode_meaning = staticmethod(max)

    assert meaning_of(Plain()) is len
    assert meaning_of(Meaning()) is max


def test_at_least_the_class_name_is_kept():
    encode = encoder(VECTORS)
    filtered = filter_subclasses({'dog': ['cat', 'cats', 'dog'], 'cat': []}, encode)
    assert filtered['dog'].kept == ()
    assert len(filtered['dog'].dropped) == 3
    assert filtered['cat'].kept == ()


def test_no_classes():
    assert filter_subclasses({}, encoder({})) == {}


def test_chance_level_of_an_encoder_makes_no_difference():
    shifted = {name: [*vector[:3], 3.0] for name, vector in VECTORS.items()}
    shifted |= {name: [0.0, 0.0, 0.0, 3.0] for name in ANYTHING if name not in VECTORS}
    classes = {'dog': ['poodle', 'beagle', 'boxer', 'bus']}
    assert filter_subclasses(classes, encoder(shifted))['dog'].kept == ('poodle', 'beagle', 'boxer')


MEMBERS = {
    'dog': [1.0, 1.0, 0.0, 0.0],
    'cat': [0.0, 0.0, 1.0, 1.0],
    'bus': [0.0, 0.0, 0.0, 0.0],
    'poodle': [1.0, 0.0, 0.0, 0.0],
    'tabby': [0.0, 0.0, 1.0, 0.0],
    'tabbies': [0.0, 0.0, 1.0, 0.0],
    'Siamese': [0.0, 0.3, 0.3, 0.4],
    'catfish': [0.0, 0.6, 0.4, 0.0],
}


def membership(names):
    torch = pytest.importorskip('torch')
    return torch.tensor([MEMBERS.get(name, [0.0] * 4) for name in names])


def test_what_another_class_shows_goes_to_it():
    classes = {'dog': ['poodle', 'beagle', 'tabby', 'Siamese', 'catfish'], 'cat': ['lion']}
    filtered = filter_subclasses(classes, encoder(VECTORS), membership)
    assert filtered['dog'].kept == ('poodle', 'beagle')
    assert filtered['cat'].taken == ('tabby', 'Siamese')
    assert filtered['cat'].kept[-2:] == ('tabby', 'Siamese')
    told = reasons(filtered['dog'])
    assert told['tabby'].endswith(' and goes there')
    # nearer to cat by what it means, but mostly shown by what shows dogs
    assert "is nearer to 'cat'" in told['catfish']
    assert not told['catfish'].endswith('goes there')


def test_nothing_goes_where_it_is_already_or_where_people_wrote_the_list():
    classes = {'dog': ['poodle', 'tabbies'], 'cat': ['Tabby'], 'bus': ['tabby']}
    vectors = {**VECTORS, 'tabbies': VECTORS['tabby'], 'Tabby': VECTORS['tabby']}
    found = filter_subclasses(classes, encoder(vectors), membership)
    assert found['cat'].kept == ('Tabby',)
    assert not any(item.taken for item in found.values())
    classes = {'dog': ['poodle', 'tabby'], 'cat': ['Siamese']}
    for written in ({'cat'}, {'dog'}):
        found = filter_subclasses(classes, encoder(VECTORS), membership, written)
        assert found['cat'].kept == ('Siamese',)
        assert ('tabby' in found['dog'].kept) == (written == {'dog'})


def test_the_default_encoder_gives_exchanged_names_back():
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.encoders import create_encoder

    pytest.importorskip('efficientnet_lite_pytorch')
    imagenet = create_encoder(SegmenterConfig())
    lists = {'dog': ['poodle', 'Siamese cat'], 'cat': ['tabby', 'beagle'], 'sofa': ['settee']}
    found = filter_subclasses(lists, meaning_of(imagenet), membership_of(imagenet))
    assert {name: item.kept for name, item in found.items()} == {
        'dog': ('poodle', 'beagle'),
        'cat': ('tabby', 'Siamese cat'),
        'sofa': ('settee',),
    }
