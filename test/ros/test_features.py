"""Patches on ~/features and names by ~/describe, over DDS."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('llmseg_ros.msg')

from llmseg_ros.msg import PatchFeatures
from llmseg_ros.srv import DescribeNames, GetClasses, SetClasses
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from skimage import data
from std_msgs.msg import Header

from llmseg_ros.candidates import grid_features
from llmseg_ros.config_files import load_config
from llmseg_ros.files import shipped_path
from llmseg_ros.method.fusion import class_maps
from llmseg_ros.ros.conversions import array_to_image
from llmseg_ros.segmenter import Segmenter

from ..helpers.products import product_maps

ROOT = Path(__file__).resolve().parents[2]
CAT = np.ascontiguousarray(data.chelsea())
NAMES = ['cat', 'coffee cup', 'rocket']


def frame(second: int) -> Image:
    message = array_to_image(CAT, 'rgb8', Header(frame_id='camera_optical'))
    message.header.stamp.sec = second
    return message


def describe(peer: Any, **fields: Any) -> DescribeNames.Response:
    return peer.call(DescribeNames, '/seg/describe', DescribeNames.Request(**fields))


def embeddings_of(answer: Any) -> Any:
    return np.reshape(answer.embeddings, (-1, answer.dimension))


def features_of(peer: Any, second: int) -> PatchFeatures:
    """Return the patches of a frame sent to the node."""
    heard = peer.collect(PatchFeatures, '/seg/features')
    camera = peer.publisher(Image, '/image', qos_profile_sensor_data)
    end = time.monotonic() + 20
    while not (found := [features for features in heard if features.header.stamp.sec == second]):
        assert time.monotonic() < end
        camera.publish(frame(second))
        peer.spin_for(0.1)
    return found[0]


def test_patches_times_names_are_the_maps_of_the_node(seg: Any, peer: Any) -> None:
    """The maps are made anew here, by the library, with the settings of the node."""
    features = features_of(peer, 31)
    answer = describe(peer, names=NAMES)
    assert (answer.success, answer.message) == (True, '')
    assert list(answer.names) == NAMES
    assert features.header == frame(31).header
    assert features.encoder == answer.encoder == 'imagenet lite0'
    assert (features.height, features.width) == CAT.shape[:2]
    assert features.dimension == answer.dimension
    assert len(features.data) == features.rows * features.columns * features.dimension
    assert (features.stride_x, features.stride_y) == (451 / features.columns, 300 / features.rows)
    assert (features.offset_x, features.offset_y) == (
        features.stride_x / 2 - 0.5,
        features.stride_y / 2 - 0.5,
    )

    config = load_config(shipped_path('config/offline.yaml'))
    small = dataclasses.replace(config.imagenet, model='lite0', short_sides=(160,))
    segmenter = Segmenter(dataclasses.replace(config, imagenet=small), NAMES)
    vocabulary = segmenter.vocabulary
    sets = vocabulary.descriptors_cnd, vocabulary.members_cn
    encoded = segmenter.encoder.encode_image(CAT)
    expected_hwc = class_maps(*grid_features(encoded), *sets, config.fusion).numpy()
    found_hwc, error_hw1 = product_maps(features, embeddings_of(answer), answer.rows)
    assert (np.abs(found_hwc - expected_hwc) <= error_hw1 + 1e-4 * expected_hwc.max()).all()
    middle = found_hwc[features.rows // 2, features.columns // 2]
    assert NAMES[middle.argmax()] == 'cat'


def test_patches_come_without_any_class(seg: Any, peer: Any) -> None:
    peer.call(SetClasses, '/seg/set_classes', SetClasses.Request())
    assert len(features_of(peer, 41).data) > 0
    answer = describe(peer)
    assert answer.success
    assert len(answer.names) == len(answer.rows) == len(answer.embeddings) == 0


def test_the_list_in_force_and_names_alone(seg: Any, peer: Any) -> None:
    request = SetClasses.Request(names=['cup', 'sofa'])
    in_force = peer.call(SetClasses, '/seg/set_classes', request).label_map
    whole = describe(peer)
    assert list(whole.names) == ['cup', 'sofa']
    assert list(whole.rows) == [len(item.subclasses) for item in in_force.classes]
    alone = describe(peer, subclasses=False)
    assert list(alone.rows) == [1, 1]
    first = embeddings_of(whole)[[0, whole.rows[0]]]
    np.testing.assert_array_equal(embeddings_of(alone), first)
    lengths = np.linalg.norm(embeddings_of(whole), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_names_leave_the_list_in_force_alone_and_take_no_ids(seg: Any, peer: Any) -> None:
    before = peer.call(GetClasses, '/seg/get_classes', GetClasses.Request()).label_map
    answer = describe(peer, names=['first of all', ' first  of all', 'background', 'zebra'])
    assert answer.success
    assert list(answer.names) == ['first of all', 'zebra']
    assert "repeats 'first of all': merged" in answer.message
    assert 'id 0: left out' in answer.message
    assert peer.call(GetClasses, '/seg/get_classes', GetClasses.Request()).label_map == before


def test_what_the_product_does_not_have_is_said(seg: Any, peer: Any) -> None:
    answer = describe(peer, names=['person'])
    assert answer.success
    assert "'person' is looked for by other things that each image shows too" in answer.message


BAD = {
    'too many': ([f'thing {i}' for i in range(101)], '101 names are more than the 100 of a call'),
    'an empty one': (['cat', ' '], 'a class name is empty: refused'),
    'a long one': (['x' * 65], 'has 65 characters, at most 64'),
    'no text': (['cat\x07'], 'has control characters'),
}


@pytest.mark.parametrize('what', BAD)
def test_bad_names_are_refused_in_a_sentence(seg: Any, peer: Any, what: str) -> None:
    names, sentence = BAD[what]
    answer = describe(peer, names=names)
    assert not answer.success
    assert sentence in answer.message
    assert len(answer.embeddings) == 0


def test_there_is_nothing_to_ask_without_a_model(start_seg: Callable[..., Any], peer: Any) -> None:
    start_seg('-r', '__node:=bare').wait_for_log('waiting to be configured')
    answer = peer.call(DescribeNames, '/bare/describe', DescribeNames.Request(names=['cat']))
    assert not answer.success
    assert 'the node is not configured' in answer.message


EXAMPLES = re.findall('```python\n(.*?)```', (ROOT / 'docs/interfaces.md').read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ('number', 'said'),
    [(0, r'^cat 0\.\d+ sensor_msgs.msg.RegionOfInterest\(x_offset=\d+'), (1, r'^cat: \d+\.\d+ at')],
)
def test_the_examples_of_the_documentation_run(
    seg: Any, peer: Any, number: int, said: str, tmp_path: Path
) -> None:
    camera = peer.publisher(Image, '/image', qos_profile_sensor_data)
    (tmp_path / 'example.py').write_text(EXAMPLES[number])
    with subprocess.Popen(
        [sys.executable, 'example.py'],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as example:
        second = 100
        while example.poll() is None:
            second += 1
            camera.publish(frame(second))
            peer.spin_for(0.2)
            if second > 200:
                example.kill()
        output = example.stdout.read()
    assert example.returncode == 0, output
    assert re.search(said, output, re.MULTILINE), output
