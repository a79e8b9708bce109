"""`llmseg subclasses`: look up, ask for, check and exchange subclasses and contrasts."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmseg_ros.cli.common import (
    CommandError,
    ConfigOption,
    is_like_a_path,
    note,
    parse_classes,
    print_table,
    resolve_config,
    waiting,
)
from llmseg_ros.cli.subclasses_check import check_on_images, refuse_wrong_use
from llmseg_ros.files import replacing, write_json, writing

if TYPE_CHECKING:
    from llmseg_ros.config import SegmenterConfig, SubclassesConfig
    from llmseg_ros.encoders.base import Encoder
    from llmseg_ros.subclasses.quality import Filtered
    from llmseg_ros.subclasses.resolver import Kind, Resolver, Subclasses

AGES = ((86_400, 'd'), (3_600, 'h'), (60, 'min'), (1, 's'))


def subclasses(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar='NAME...', help='Class names, apart by blanks or commas, or a class file.'
        ),
    ] = None,
    contrasts: Annotated[
        bool,
        typer.Option(
            '--contrasts', help='Show what is near the classes or taken for them instead.'
        ),
    ] = False,
    refresh: Annotated[bool, typer.Option('--refresh', help='Ask the model again.')] = False,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar='zero-shot|few-shot|FILE', help='Prompt; a file has {n} and {class} in it.'
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option('--n', min=1, max=100, help='Subclasses to ask for.')
    ] = None,
    model: Annotated[str | None, typer.Option(help='Language model.')] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar='URL', help='OpenAI-compatible server, as far as /v1.')
    ] = None,
    store: Annotated[
        Path | None, typer.Option(metavar='FILE', help='Where answers are kept.')
    ] = None,
    quality: Annotated[
        bool | None,
        typer.Option('--filter/--no-filter', help='Drop subclasses that would harm.'),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar='FILE.yaml', help='Write what is kept as a subclass file.'),
    ] = None,
    force: Annotated[
        bool, typer.Option('--force', help='Let --export overwrite the file.')
    ] = False,
    imported: Annotated[
        Path | None,
        typer.Option('--import', metavar='FILE.yaml', help='Put a subclass file into the store.'),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            '--prune',
            help='Forget answers for other settings than these, and those without a name.',
        ),
    ] = False,
    offline: Annotated[bool, typer.Option('--offline', help='Never touch the network.')] = False,
    check: Annotated[
        list[str] | None,
        typer.Option(
            metavar='IMAGES',
            help='Tell which subclasses ever win over their class name on these images: a folder, '
            'a file or a quoted glob; also several times.',
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar='DIR', help='Of --check: write a sheet of pictures for each class.'),
    ] = None,
    config: ConfigOption = None,
    json: Annotated[
        Path | None, typer.Option(metavar='FILE', help='Also write the table here.')
    ] = None,
) -> None:
    """Show the subclasses of classes, and what the quality filter leaves of them.

    They come from your own subclass file, curated packs, the store, and last the language model.
    With --refresh, --prompt, --n, --model or --base-url only the model's answers count, from the
    store or asked now. The key is read from OPENAI_API_KEY.

    With --contrasts: what competes with the classes as background, where background.contrasts is
    on, from the same sources.

    \b
    Examples:
      llmseg subclasses dog mug
      llmseg subclasses boat --contrasts
      llmseg subclasses cat --base-url http://127.0.0.1:8000/v1 --model llama3.2
      llmseg subclasses cat --check photos/ --out sheets
    """
    from llmseg_ros.classes import clean_names
    from llmseg_ros.config_files import load_config

    cleaned, messages = clean_names(name for item in names or () for name in split_names(item))
    for message in messages:
        note(message)
    if not cleaned and (names or export or json or not (imported or prune)):
        raise typer.BadParameter('name at least one class')
    if refresh and offline:
        raise typer.BadParameter('--refresh asks the model again and --offline forbids it')
    if contrasts and (prompt is not None or export is not None):
        what = '--prompt' if prompt is not None else '--export'
        raise typer.BadParameter(f'{what} is for subclasses, without --contrasts')
    if force and export is None:
        raise typer.BadParameter('--force is for --export')
    if check or out:
        refuse_wrong_use(names or (), check or (), out, contrasts or not cleaned)
    if export is not None and os.path.lexists(export) and not force:
        raise CommandError(f'{export} exists: name another file, or overwrite it with --force')
    whole = load_config(resolve_config(config))
    settings = adjust(
        whole.subclasses,
        prompt=prompt,
        n=n,
        model=model,
        base_url=base_url,
        store=None if store is None else str(store),
        llm='off' if offline else None,
    )
    model_only = refresh or any(value is not None for value in (prompt, n, model, base_url))
    resolver = open_resolver(settings, create_store=bool(imported or prune))
    try:
        if imported is not None:
            import_pack(resolver, imported, settings.n)
        if prune:
            prune_store(resolver)
        if not cleaned:
            return
        kind: Kind = 'contrasts' if contrasts else 'subclasses'
        found, failures = look_up(resolver, cleaned, model_only, refresh, offline, kind)
        origins = {name: resolver.origin(name, found[name], kind) for name in cleaned}
        known = {name: resolver.resolve(name) for name in cleaned}
    finally:
        resolver.close()
    wanted = settings.filter if quality is None else quality
    if contrasts:
        checked = check_quality_of_contrasts(found, known, resolver, whole, wanted)
    else:
        checked = check_quality(found, whole, wanted)
    print_table(
        ('name', 'kept', 'dropped', 'source', 'age'),
        [table_row(name, found[name], checked[name]) for name in cleaned],
    )
    if export is not None and (any(origins.values()) or not failures):
        export_pack(export, checked, origins)
    on_images = {}
    if check:
        kept = {
            name: dataclasses.replace(found[name], names=checked[name].kept) for name in cleaned
        }
        on_images = {item['name']: item for item in check_on_images(kept, whole, check, out)}
    if json is not None:
        rows = [as_json(name, found[name], checked[name]) for name in cleaned]
        write_json(json, [{**row, 'check': on_images.get(row['name'])} for row in rows])
    if failures:
        raise CommandError(failures[0])


def split_names(given: str) -> list[str]:
    """Return the names in a class file, or between the commas of what is given, as of --classes."""
    if is_like_a_path(given):
        return parse_classes(given)
    return [name for name in given.split(',') if name.strip()] or [given]


def adjust(settings: SubclassesConfig, **given: Any) -> SubclassesConfig:
    """Put what the command line says in place of the configuration's."""
    return dataclasses.replace(settings, **{k: v for k, v in given.items() if v is not None})


def open_resolver(settings: SubclassesConfig, create_store: bool) -> Resolver:
    """Open packs and store, the latter made where it is needed."""
    from llmseg_ros.subclasses.resolver import Resolver
    from llmseg_ros.subclasses.store import default_store_path

    if create_store and not settings.store:
        settings = dataclasses.replace(settings, store=str(default_store_path()))
    return Resolver(settings)


def look_up(
    resolver: Resolver,
    names: Sequence[str],
    model_only: bool,
    refresh: bool,
    offline: bool,
    kind: Kind,
) -> tuple[dict[str, Subclasses], list[str]]:
    """Find the subclasses or contrasts of every name, several at a time; say what failed."""
    from llmseg_ros.subclasses.completion import in_one_line
    from llmseg_ros.subclasses.llm import MAX_AT_ONCE, LlmError
    from llmseg_ros.subclasses.resolver import Subclasses

    failures: dict[str, str] = {}

    def find(name: str) -> Subclasses:
        if model_only:
            known = resolver.answered(name, kind) or Subclasses((), 'name')
        else:
            known = resolver.resolve(name, kind)
        missing = refresh or known.source == 'name'
        if offline or not missing or not (model_only or resolver.can_ask):
            return known
        try:
            return resolver.ask(name, refresh, kind)
        except LlmError as error:
            failures[name] = f'{name}: {error}'
            return known

    with waiting('asking the language model'), ThreadPoolExecutor(MAX_AT_ONCE) as pool:
        found = dict(zip(names, pool.map(find, names), strict=True))
    for failure in list(failures.values())[1:]:
        note(failure)
    unknown = [name for name, item in found.items() if item.source == 'name']
    if unknown and not (offline or resolver.can_ask or failures):
        note(f'no {kind} of {", ".join(unknown)}: set a language model, see --help')
    for name in unknown:
        if name not in failures and (said := resolver.said(name, kind)):
            note(f'{name}: no name in what the language model answered: {in_one_line(said)}')
    return found, list(failures.values())


def check_quality(
    found: dict[str, Subclasses], config: SegmenterConfig, wanted: bool
) -> dict[str, Filtered]:
    """Filter subclasses as the segmenter does."""
    from llmseg_ros.subclasses.quality import check_subclasses

    return check_subclasses(found, wanted, encoder_for([found], config, wanted))


def check_quality_of_contrasts(
    found: dict[str, Subclasses],
    known: dict[str, Subclasses],
    resolver: Resolver,
    config: SegmenterConfig,
    wanted: bool,
) -> dict[str, Filtered]:
    """Filter contrasts as the segmenter does, beside the subclasses that its filter keeps."""
    from llmseg_ros.contrasts import check_contrasts
    from llmseg_ros.subclasses.quality import check_subclasses, meaning_of

    encoder = encoder_for([found, known], config, wanted)
    kept = check_subclasses(known, wanted, encoder)
    names = {name: resolver.names_taken(name, kept[name].kept) for name in found}
    return check_contrasts(found, names, None if encoder is None else meaning_of(encoder))


def encoder_for(
    lists: Iterable[dict[str, Subclasses]], config: SegmenterConfig, wanted: bool
) -> Encoder | None:
    """Load the encoder where the filter compares by meaning: what a language model named."""
    asked = any(item.answered and item.names for found in lists for item in found.values())
    return load_encoder(config) if wanted and asked else None


def load_encoder(config: SegmenterConfig) -> Encoder | None:
    """Load the configured encoder for its text side; None, with a note, where it isn't here."""
    from llmseg_ros.encoders import EncoderUnavailable, create_encoder

    try:
        with waiting('loading the encoder'):
            return create_encoder(config)
    except EncoderUnavailable as error:
        note(f'{error}; names are checked by their spelling alone')
        return None


def import_pack(resolver: Resolver, path: Path, n: int) -> None:
    """Put the lists of a subclass file into the store, as the language model's answers."""
    from llmseg_ros.classes import name_key
    from llmseg_ros.subclasses.packs import load_pack
    from llmseg_ros.subclasses.parse import parse_answer
    from llmseg_ros.subclasses.resolver import imported_answer
    from llmseg_ros.subclasses.store import Answer

    pack = load_pack(path)
    assert resolver.store is not None
    for key, name in pack.keys.items():
        origin = pack.origins.get(name) or pack.origin
        origin = f'{path.name}{f": {origin}" if origin else ""}'
        lists: dict[Kind, tuple[str, ...] | None] = {
            'subclasses': pack.classes[name],
            'contrasts': pack.contrasts.get(name),
        }
        for kind, names in lists.items():
            if names is None:
                continue
            text = imported_answer(names, origin)
            lost = len(names) - len(parse_answer(text, n))
            if lost and key == name_key(name):
                note(f'{name}: {lost} {kind} are left out, repeated or more than --n {n}')
            resolver.store.put(resolver.question(key, kind), Answer(text, time.time()))
    note(f'{len(pack.classes)} classes put into {resolver.store.path}')


def prune_store(resolver: Resolver) -> None:
    """Forget answers that these settings never use, or that hold no name."""
    assert resolver.store is not None
    kept = resolver.store.all()
    used = (resolver.question(''), resolver.question('', 'contrasts'))
    useless = [
        question
        for question, answer in kept.items()
        if dataclasses.replace(question, class_key='') not in used
        or resolver.names_in(answer) is None
    ]
    resolver.store.delete(useless)
    note(f'{len(useless)} of {len(kept)} answers forgotten in {resolver.store.path}')


def export_pack(path: Path, checked: dict[str, Filtered], origins: dict[str, str]) -> None:
    """Write what is kept as a subclass file, with the source of every list.

    Classes without a source are left out: in a file they would never be asked for again.

    Raises:
        CommandError: there is nothing to write.
    """
    from llmseg_ros.subclasses.packs import write_pack

    lists = {name: item.kept for name, item in checked.items() if origins[name]}
    left_out = [name for name in checked if name not in lists]
    if not lists:
        raise CommandError(f'{path} is not written: no subclasses of {", ".join(left_out)}')
    with writing(path), replacing(path) as partial:
        write_pack(partial, f'llmseg subclasses, {time.strftime("%Y-%m-%d")}', lists, origins)
    without = f', without {", ".join(left_out)}: no subclasses' if left_out else ''
    note(f'wrote {path}{without}')


def table_row(name: str, found: Subclasses, checked: Filtered) -> tuple[str, ...]:
    """Return the cells of a class."""
    dropped = '; '.join(f'{drop.name}: {drop.reason}' for drop in checked.dropped)
    age = '-' if found.asked_at is None else age_in_words(time.time() - found.asked_at)
    return name, ', '.join(checked.kept) or '-', dropped or '-', found.source, age


def age_in_words(seconds: float) -> str:
    """Write an age in its largest unit, such as '3 d'."""
    for unit, word in AGES:
        if seconds >= unit:
            return f'{int(seconds // unit)} {word}'
    return 'now'


def as_json(name: str, found: Subclasses, checked: Filtered) -> dict[str, Any]:
    """Return what the table says of a class, as data."""
    return {
        'name': name,
        'kept': list(checked.kept),
        'dropped': [dataclasses.asdict(drop) for drop in checked.dropped],
        'taken': list(checked.taken),
        'source': found.source,
        'asked_at': found.asked_at,
    }
