"""What lies at a path, and how its folders were understood.

`scan_source` reads names only, never pixels. What fits two readings is refused with a sentence that names both; a
`layout` ("part/class/subject") or a list decides.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from allkit import AllkitError
from allkit.cnmc import cnmc_place, scan_cnmc
from allkit.images import SUFFIXES, first_of
from allkit.lists import scan_list
from allkit.source import FOLD, PERSON, Scan, Source, finish_scan, frame_of, given_part, own_division, read_source

_PERSON = re.compile(PERSON, re.IGNORECASE)

_VERSION_OF_IMAGES = re.compile(
    r"(?:all|c|cnmc|data)?[ _-]?(?:idb|nmc|set)[ _-]?\d+|originals?|segmented|raw|(?:pre)?-?processed|cropped|resized|"
    r"(?:colou?r[ _-]?)?normali[sz]ed|gr[ae]y(?:scale)?|rgb|hsv",
    re.IGNORECASE,
)

_BY_SYSTEMS = re.compile(r"\..*|__macosx|@eadir|#recycle|\$recycle\.bin|lost\+found|system volume information", re.I)

_NO_CELLS = re.compile(
    r"masks?|annotations?|labels?|ground[ _-]?truth|gt|segmentations?|bbox(?:es)?|overlays?|heatmaps?|predictions?|"
    r"results?|outputs?|logs?|runs|checkpoints?|thumb(?:nail)?s?|augmented|augmentations?|aug",
    re.IGNORECASE,
)

_OTHER_IMAGES = frozenset({".jfif", ".jpe", ".gif", ".jp2", ".heic", ".svs", ".ndpi", ".czi", ".dcm", ".npy", ".ppm"})


def scan_source(source: str | Path | Source) -> Scan:
    """Return what lies at a path, of whatever kind; `AllkitError` where there is nothing to index, or two readings."""
    source = source if isinstance(source, Source) else read_source(source)
    root = source.path
    if root.is_file():
        if root.suffix.lower() not in (".csv", ".tsv"):
            raise AllkitError(f"{root} is a file: give a folder of images, or a CSV with path and label.")
        return finish_scan(scan_list(source), source)
    images, tables, left_out = _walk(root)
    if not images:
        kinds = ", ".join(sorted(suffix[1:].upper() for suffix in SUFFIXES))
        others = "".join(f" {len(files)} {why} ({files[0].name})." for why, files in left_out.items())
        raise AllkitError(f"No image found below {root} ({kinds}).{others} data/README.md shows the layouts.")
    places = [cnmc_place(image) for image in images]
    of_cnmc = sum(place is not None for place in places)
    if of_cnmc and not source.layout and 2 * of_cnmc >= len(images):
        return finish_scan(scan_cnmc(root, images, places, tables, left_out), source)
    scan = _scan_folders(source, images, left_out)
    if of_cnmc:
        scan.notes.append(
            f"{of_cnmc} of {len(images)} files have names as in C-NMC 2019; the folders were read instead."
        )
    return finish_scan(scan, source)


def _walk(root: Path) -> tuple[list[Path], list[Path], dict[str, list[Path]]]:
    """Return image files and tables below `root`, sorted, and what was passed over by reason."""
    images, tables, seen = [], [], set()
    left_out: dict[str, list[Path]] = defaultdict(list)
    unread: list[Path] = []

    def note(error: OSError) -> None:
        unread.append(Path(error.filename))

    for folder, below, files in os.walk(root, followlinks=True, onerror=note):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add(real)
        left_out["made by the system"] += [Path(folder, n) for n in below if _BY_SYSTEMS.fullmatch(n) and n[0] != "."]
        below[:] = sorted(name for name in below if not _BY_SYSTEMS.fullmatch(name))
        for name in files:
            file, suffix = Path(folder, name), os.path.splitext(name)[1].lower()
            if name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini"):
                continue
            if not _is_utf8(name) or not _is_utf8(folder):
                left_out["names that are no UTF-8: rename them"].append(file)
            elif suffix in (".csv", ".tsv"):
                tables.append(file)
            elif suffix in SUFFIXES and not file.exists():
                left_out["links to files that are not there"].append(file)
            elif suffix in SUFFIXES:
                images.append(file)
            elif suffix in _OTHER_IMAGES or (not suffix and _starts_like_an_image(file)):
                left_out["images of another kind: save them as PNG"].append(file)
    left_out["folders that may not be read"] += unread
    return sorted(images, key=str), sorted(tables, key=str), {why: files for why, files in left_out.items() if files}


def _is_utf8(name: str) -> bool:
    return name.isascii() or name.encode("utf-8", "replace").decode("utf-8") == name


def _starts_like_an_image(file: Path) -> bool:
    try:
        with open(file, "rb") as opened:
            return opened.read(8).startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"GIF8"))
    except OSError:
        return False


# Folders


def _scan_folders(source: Source, images: list[Path], left_out: dict[str, list[Path]]) -> Scan:
    """Read what each level of folders means, and make a row for each image."""
    base = source.path if source.layout else _inside_lone_folders(source.path, images)
    if not source.layout:
        images, more = _without_no_cells(base, images)
        left_out = left_out | more
        base = _inside_lone_folders(base, images)
    folders = {image: image.relative_to(base).parts[:-1] for image in images}
    if not any(folders.values()):
        raise AllkitError(
            f"The images lie directly in {base}: it takes one folder per class, or a CSV with path and label."
        )
    inside = {image: names for image, names in folders.items() if names}
    roles = source.layout or read_levels(base, list(inside.values()))
    needed = len(roles) - list(reversed(roles)).index("class")
    fits = {image: names for image, names in inside.items() if len(names) >= needed}
    others = [image for image in images if image not in fits]
    left_out = left_out | ({"outside the folders of the classes": others} if others else {})
    rows = [_folder_row(image, dict(zip(roles, names, strict=False))) for image, names in fits.items()]
    if not rows:
        raise AllkitError(f"No image below {base} lies as deep as the layout {'/'.join(roles)} says.")
    division = own_division([row["given"] for row in rows], base)
    rows = [row | {"given": part} for row, part in zip(rows, division, strict=True)]
    below = max(map(len, fits.values())) > len(roles)
    reading = f"folders {'/'.join(roles)} below {base}" + ("; folders further down mean nothing" if below else "")
    return Scan(source.path, "folders", frame_of(rows), reading, left_out)


def _folder_row(image: Path, names: Mapping[str, str]) -> dict:
    part, fold = given_part(names.get("part", "")), re.fullmatch(r"\D*(\d+)", names.get("fold", "0"))
    if ("part" in names and not part) or not fold:
        role, name = ("fold", names["fold"]) if part or "part" not in names else ("part", names["part"])
        known = "train, validation or test" if role == "part" else "one with a number, such as fold_0"
        raise AllkitError(f"{image}: the folder {name!r} is to be a {role}, and is not called {known}.")
    return {
        "path": str(image),
        "label": names["class"],
        "subject": names.get("subject"),
        "fold": int(fold[1]) if "fold" in names else None,
        "part": "train",
        "given": part,
        "name": image.name,
        "source": "folders",
    }


def _inside_lone_folders(base: Path, images: list[Path]) -> Path:
    """Step into a lone folder around everything, as archives unpack."""
    while len({image.relative_to(base).parts[0] for image in images}) == 1 and base / images[0].name != images[0]:
        inner = base / images[0].relative_to(base).parts[0]
        if all(image.parent == inner for image in images):
            break
        base = inner
    return base


def _without_no_cells(base: Path, images: list[Path]) -> tuple[list[Path], dict[str, list[Path]]]:
    """Leave out folders of masks, results, augmented copies and the like, where others are there."""
    dropped = {image: next((f for f in image.relative_to(base).parts[:-1] if _NO_CELLS.fullmatch(f)), None)
               for image in images}  # fmt: skip
    kept = [image for image, why in dropped.items() if why is None]
    if not kept:
        return images, {}
    left_out = defaultdict(list)
    for image, why in dropped.items():
        if why:
            left_out[f"in folders called {why}"].append(image)
    return kept, dict(left_out)


def read_levels(base: Path, folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return what each level of folders means ("part", "fold", "class", "subject", "*"), from the top down.

    `folders` are the names of the folders around each image below `base`. Raises AllkitError where they fit two
    readings, or none.
    """
    below: dict[str, set[str]] = defaultdict(set)
    for names in folders:
        below[names[0]].add(names[1] if len(names) > 1 else "")
    top, inner = sorted(below), set().union(*below.values()) - {""}
    divided = _levels_of_division(base, folders, below)
    if divided:
        return divided
    shown, lower = first_of(top, 4), first_of(sorted(inner), 4)
    repeated = [name for name in inner if sum(name in names for names in below.values()) > 1]
    one_each = len(top) > len(inner) > 1 and all(len(names) == 1 and "" not in names for names in below.values())
    if len(repeated) > 1 or one_each:
        if all(_PERSON.fullmatch(name) for name in top):
            return "subject", "class"
        if all(_VERSION_OF_IMAGES.fullmatch(name) for name in top):
            raise AllkitError(
                f"The folders of {base} ({shown}) hold the same folders ({lower}): the same cells twice? Point at one "
                "of them."
            )
        raise AllkitError(
            f"The folders of {base} ({shown}) hold the same folders ({lower}): which level is the class? Say it by the "
            "layout */class (or subject/class, fold/class), or class/* (or class/subject) for the upper one."
        )
    if len(top) > 1 and all(_VERSION_OF_IMAGES.fullmatch(name) for name in top):
        raise AllkitError(f"The folders of {base} ({shown}) look like collections, not classes. Point at one of them.")
    if len(top) > 2 and all(_PERSON.fullmatch(name) for name in top):
        raise AllkitError(
            f"The {len(top)} folders of {base} ({shown}) look like people, not classes: what is the class? List the "
            "images in a CSV with path, label and subject; if they are classes, say it by the layout class."
        )
    return "class", *_levels_below_class(below)


def _levels_of_division(
    base: Path, folders: Sequence[tuple[str, ...]], below: Mapping[str, set[str]]
) -> tuple[str, ...]:
    """Return what the levels mean where parts or folds lie above or below the classes; empty where none do."""
    top, inner = sorted(below), set().union(*below.values()) - {""}
    shown, lower = first_of(top, 4), first_of(sorted(inner), 4)
    for role, is_one in (("part", given_part), ("fold", FOLD.fullmatch)):
        matching = [name for name in top if is_one(name)]
        if matching and len(matching) < len(top) and role == "part":
            raise AllkitError(
                f"Of the folders of {base} ({shown}) some look like parts ({first_of(matching)}) and others do not. "
                "Put all images into such folders, or list them in a CSV with path, label and part; if all are "
                "classes, say it by the layout class."
            )
        if len(matching) == len(top):
            if any("" in names for names in below.values()):
                raise AllkitError(
                    f"The folders of {base} ({shown}) look like {role}s, not classes. Point at one of them, or list "
                    "all images in a CSV with path, label and part."
                )
            return role, *read_levels(base, [names[1:] for names in folders])
    no_classes = (_PERSON, _VERSION_OF_IMAGES)
    for role, is_one in (("part", given_part), ("fold", FOLD.fullmatch)):
        if inner and all(map(is_one, inner)) and not any(all(map(kind.fullmatch, top)) for kind in no_classes):
            if any("" in names for names in below.values()):
                raise AllkitError(
                    f"Some images of {base} lie beside folders that look like {role}s ({lower}): put all into one."
                )
            return "class", role
    return ()


def _levels_below_class(below: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Return what the folders inside the classes' folders mean."""
    inner = set().union(*below.values()) - {""}
    if not inner or any("" in names for names in below.values()):
        return ()
    apart = sum(map(len, below.values())) == len(inner)
    people = all(_PERSON.fullmatch(name) for name in inner)
    if people or (apart and min(map(len, below.values())) >= 4):
        return ("subject",)
    return ("*",)
