"""`llmseg segment`: images, a video or a camera in, labels, overlays and numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmseg_ros.cli.common import (
    CommandError,
    ConfigOption,
    check_rules,
    note,
    parse_classes_and_rules,
    printable,
    progress,
    resolve_config,
    track,
    waiting,
)
from llmseg_ros.cli.segment_images import (
    about_results,
    find_images,
    found_in_words,
    output_stems,
    read_image,
    refuse_overwriting,
    result_as_json,
    write_images,
)
from llmseg_ros.files import write_json

if TYPE_CHECKING:
    from llmseg_ros.class_rules import Given
    from llmseg_ros.segmenter import Segmenter


def segment(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar='IMAGE',
            help='Image files, folders of them, or quoted globs; or one video file, or the number '
            'of a camera (./0 is a file named 0).',
        ),
    ],
    classes: Annotated[
        str,
        typer.Option(help='Class names separated by commas, or a class file.'),
    ],
    config: ConfigOption = None,
    out: Annotated[Path, typer.Option(metavar='DIR', help='Where the results go.')] = Path(
        'llmseg_output'
    ),
    json: Annotated[
        Path | None,
        typer.Option(
            metavar='FILE', help='Of images: also write scores, areas, boxes and timings here.'
        ),
    ] = None,
    labels: Annotated[
        bool, typer.Option('--labels', help='Of a video: also write a label image per frame.')
    ] = False,
) -> None:
    """Segment images, a video or a camera by class names.

    Writes NAME_labels.png (a palette image of class ids) and NAME_overlay.png per image.

    Of a video or camera it writes overlay.mp4, each frame at its time, and frames.csv with share
    of the pixels and score of each class in each frame. Ctrl-C ends it, with what is done kept.

    \b
    Examples:
      llmseg segment photos/ --classes "cat, sofa" --out result --json result.json
      llmseg segment clip.mp4 --classes "dog" --out result --labels
      llmseg segment 0 --classes "cup, keyboard" --out result
    """
    from llmseg_ros.frame_sources import is_camera, is_video_name

    names, rules = parse_classes_and_rules(classes)

    def load() -> Segmenter:
        return load_segmenter(resolve_config(config), names, rules)

    moving = [text for text in images if is_camera(text) or is_video_name(text)]
    if not moving:
        if labels:
            raise typer.BadParameter('--labels is of videos: of images they are always written')
        segment_images(images, load, out, json)
        return
    if len(images) > 1:
        raise CommandError(f'{printable(moving[0])} is a video or a camera: give it alone')
    if json:
        raise typer.BadParameter('--json is of images: the numbers of a video are in frames.csv')
    from llmseg_ros.cli.segment_video import segment_video

    segment_video(moving[0], out, labels, load)


def segment_images(
    images: Sequence[str], load: Callable[[], Segmenter], out: Path, json: Path | None
) -> None:
    """Segment image files, and write labels and overlays.

    Args:
        images: files, folders and globs.
        load: loads the segmenter.
        out: folder of the results.
        json: file of the numbers, where they are wanted.

    Raises:
        CommandError: there are none, or some could not be segmented, after the others are done.
    """
    paths = find_images(images, out)
    stems = [out / stem for stem in output_stems(paths)]
    refuse_overwriting(paths, stems)
    out.mkdir(parents=True, exist_ok=True)
    segmenter = load()
    results: list[dict[str, Any]] = []
    for path, stem in track(list(zip(paths, stems, strict=True)), 'segmenting'):
        try:
            rgb = read_image(path, segmenter.config.images.sixteen_bit)
            result = segmenter.segment(rgb)
        except (ValueError, MemoryError) as error:
            note(f'{path}: {error}')
            results.append({'image': str(path), 'error': str(error)})
            continue
        print(f'{printable(path)}: {found_in_words(result)}', flush=True)
        written = write_images(stem, rgb, result)
        results.append({'image': str(path), **written, **result_as_json(result)})
    failed = sum('error' in result for result in results)
    if json:
        write_json(json, {**about_results(segmenter), 'images': results})
    if failed:
        raise CommandError(f'{failed} of {len(paths)} images could not be segmented')


def load_segmenter(config: Path, names: Sequence[str], rules: Given = ()) -> Segmenter:
    """Load the model for classes and their rules, saying on stderr which names were refused.

    Where a language model is set it is asked for what is missing, and waited for, so that every
    image sees the same subclasses; without an answer the classes stand under what is known.
    """
    from llmseg_ros.config_files import load_config
    from llmseg_ros.evaluation.variants import SubclassesError, load_with_known, look_up_subclasses

    accepted = accepted_names(names)
    check_rules(rules, accepted)
    settings = load_config(config)
    try:
        settings, known = look_up_subclasses(settings, accepted, progress)
    except SubclassesError as error:
        note(f'{error.__cause__}; going on with the subclasses that are known')
        settings = replace(settings, subclasses=replace(settings.subclasses, llm='off'))
        settings, known = look_up_subclasses(settings, accepted, progress)
    with waiting('loading the model'):
        segmenter = load_with_known(settings, accepted, known, rules)
    for sentence in segmenter.notes:
        note(sentence)
    return segmenter


def accepted_classes(value: str) -> tuple[list[str], Given]:
    """Return the names as `accepted_names` of what is given with --classes, and their rules.

    Raises:
        CommandError: there is no such file, or all names or any rule are refused.
    """
    names, rules = parse_classes_and_rules(value)
    accepted = accepted_names(names)
    check_rules(rules, accepted)
    return accepted, rules


def accepted_names(names: Sequence[str]) -> list[str]:
    """Return the names that a class list takes; say on stderr which it refuses or merges.

    Raises:
        CommandError: it refuses all of them.
    """
    from llmseg_ros.classes import clean_names

    accepted, messages = clean_names(names)
    for message in messages:
        note(message)
    if names and not accepted:
        raise CommandError('none of the class names can be used, give others with --classes')
    if not accepted:
        note('no class names, so everything is background')
    return accepted
