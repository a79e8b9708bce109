"""Agreement of views: exact in the ray-cast room, as much as labels are spoilt elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from llmseg_ros.evaluation.metrics import IGNORED
from llmseg_ros.mapping.agreement import AgreementMeter, View, agreement_report, match_views
from llmseg_ros.mapping.geometry import depth_to_points
from llmseg_ros.mapping.voxels import VoxelMap

from ..helpers.room import CAMERA, CHAIR, POSES, TABLE, WALL, circle, shoot


def view_of(pose: np.ndarray) -> tuple[View, np.ndarray]:
    shot = shoot(pose)
    return View(depth_to_points(shot.depth, CAMERA), shot.labels, CAMERA, pose), shot.rgb


def test_two_views_of_the_room() -> None:
    one, other = (view_of(pose)[0] for pose in POSES)
    matches = match_views(one, other, step=1)
    assert len(matches.nearer_n) > 2000
    # What both see is one place: half a pixel of slanted wall apart at most.
    apart = np.linalg.norm(matches.points_n23[:, 0] - matches.points_n23[:, 1], axis=1)
    assert np.median(apart) < 0.02
    assert np.median(np.abs(matches.nearer_n)) < 0.01
    same = matches.labels_n2[:, 0] == matches.labels_n2[:, 1]
    assert same.mean() > 0.98  # edges are a pixel wide


def test_what_stands_before_is_not_compared() -> None:
    """The chair hides wall and floor from one of the cameras: these are not one place."""
    one, other = (view_of(pose)[0] for pose in POSES)
    matches = match_views(one, other, step=1)
    behind = (matches.labels_n2[:, 0] == WALL) & (matches.labels_n2[:, 1] == CHAIR)
    assert behind.sum() < 5
    nowhere = np.eye(4)
    nowhere[:3, 3] = (0, 0, 500)
    assert len(match_views(one, other._replace(pose=nowhere)).nearer_n) == 0


def test_labels_that_differ() -> None:
    one = view_of(POSES[0])[0]
    wrong = one._replace(labels=np.where(one.labels == TABLE, CHAIR, one.labels).astype(np.uint16))
    meter = AgreementMeter(apart=(1,))
    meter.add(one)
    meter.add(wrong)
    counts = meter.counts[1]
    share = (one.labels[::4, ::4] != TABLE).mean()
    assert counts.places == 30 * 40
    assert counts.agreed / counts.places == pytest.approx(share)
    named = one.labels[::4, ::4] != 0
    assert counts.named == named.sum()
    assert counts.named_agreed == (named & (one.labels[::4, ::4] != TABLE)).sum()
    report = agreement_report(meter.counts)['1']
    assert report['agreement'] == pytest.approx(share, abs=1e-6)
    assert report['depth_difference_mm'] < 0.01


def test_frames_apart_and_frames_without_depth() -> None:
    meter = AgreementMeter(apart=(1, 3))
    view = view_of(POSES[0])[0]
    for each in (view, None, view, view, None, view):
        meter.add(each)
    assert meter.counts[1].pairs == 1
    assert meter.counts[3].pairs == 2  # the first and the fourth, the third and the sixth


def test_unlabelled_places_do_not_count() -> None:
    view = view_of(POSES[0])[0]
    meter = AgreementMeter(apart=(1,))
    meter.add(view)
    meter.add(view._replace(labels=np.full_like(view.labels, IGNORED)))
    report = agreement_report(meter.counts)['1']
    assert (report['places'], report['agreement'], report['class_agreement']) == (0, None, None)


def test_the_map_makes_views_agree() -> None:
    """A third of the labels of every view is random: votes bring the room back."""
    rng = np.random.default_rng(0)
    voxels, meter = VoxelMap(0.1), AgreementMeter(keep_places=True)
    for pose in circle(8):
        view, rgb = view_of(pose)
        wrong = rng.random(view.labels.shape) < 1 / 3
        random = rng.integers(0, 4, view.labels.shape)
        labels = np.where(wrong, random, view.labels).astype(np.uint16)
        voxels.add(view.points, labels, np.full(labels.shape, 0.7, np.float32), rgb, pose)
        meter.add(view._replace(labels=labels))
    before, after = agreement_report(meter.counts), agreement_report(meter.counts_in_map(voxels))
    assert before['1']['agreement'] < 0.65
    assert after['1']['agreement'] > 0.95
    assert after['5']['agreement'] > 0.9
    assert after['1']['places'] > 0.999 * before['1']['places']  # few points lie on an edge


def test_kept_places_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('llmseg_ros.mapping.agreement.KEPT_PAIRS', 4)
    meter = AgreementMeter(apart=(1,), keep_places=True)
    voxels = VoxelMap(0.1)
    view, rgb = view_of(POSES[0])
    voxels.add(view.points, view.labels, np.ones(view.labels.shape, np.float32), rgb, POSES[0])
    for _ in range(40):
        meter.add(view)
    assert meter.counts[1].pairs == 39
    kept = meter.counts_in_map(voxels)[1]
    assert 2 <= kept.pairs <= 4
    assert kept.agreed == kept.places > 0
