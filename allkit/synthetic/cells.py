"""Drawing of one synthetic cell, whose size, colour and texture follow measurements on genuine cells.

It is a drawing, not data: nothing found on it says anything about leukemia. Its use is that the truth is known.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage
from scipy.stats import norm

from allkit import AllkitError
from allkit.classical import row_keys
from allkit.cnmc import load_manifest
from allkit.source import COLUMNS

VERSION = 5
"""Version of the drawing rules; an embedded twin of another version is made anew."""

SIDE = 450
"""Side of a training or preliminary image, pixels."""


@dataclass(frozen=True)
class SyntheticCell:
    """A synthetic cell with its truth.

    `image` is uint8 RGB, black outside the cell: (450, 450, 3), or (600, 600, 3) in the final part; `outline` (the
    whole cell), `nucleus` and `nucleoli` are bool masks of its height and width. `cues` says what was drawn. The class
    cues: `nucleus_share` (area of nucleus / area of cell), `clumping` (0 fine chromatin to 1 condensed clumps),
    `nucleoli` (how many) with `nucleolus_contrast` (0 to 1), `indentation` (depth of the cleft in the nucleus / its
    radius). The size: `area`, pixels. Without meaning for the class: `brightness` and `hue` (standard normal), `tail`
    and `cut` (0 or 1).
    """

    image: np.ndarray
    outline: np.ndarray
    nucleus: np.ndarray
    nucleoli: np.ndarray
    label: str
    subject: str
    cues: dict[str, float]


# (name, share of its variance that lies between subjects, class offset: +x for ALL and -x for HEM)
_TRAITS = {
    "size": (0.30, 0.0),
    "elongation": (0.07, 0.0),
    "raggedness": (0.20, 0.0),
    "brightness": (0.33, 0.0),
    "hue": (0.33, 0.0),
    "spread_r": (0.15, 0.0),
    "spread_g": (0.15, 0.0),
    "spread_b": (0.15, -0.15),
    "grain": (0.20, 0.0),
    "grain_scale": (0.20, 0.0),
    "rim": (0.20, 0.0),
    "shading": (0.20, 0.0),
    "nucleus_share": (0.15, 0.8),
    "clumping": (0.15, -0.9),
    "nucleoli": (0.15, 0.7),
    "indentation": (0.15, 0.45),
    "camera_noise": (0.35, 0.0),
}

CUES = ("nucleus_share", "clumping", "nucleoli", "indentation")
"""The class cues beyond size, which `difficulty` makes overlap."""

# which trait follows another one within the class, and their correlation: large cells are bright, bright ones rough
_LINKS = {
    "brightness": ("size", 0.45),
    "shading": ("brightness", 0.45),
    "grain": ("brightness", 0.55),
    "grain_scale": ("brightness", 0.5),
}

_AREA = {"ALL": (36_800, 6_900), "HEM": (28_400, 8_000)}  # px, mean and standard deviation
_AREA_RANGE = (9_000, 64_000)

_ANY_CELL = 1.5  # standard deviation of the traits of `draw_any_cell`

# grey levels by channel: of the mean over a cell, and of the spread within it
_MEAN_RGB = np.array([69.1, 29.6, 80.5])
_MEAN_RGB_SD = np.array([7.8, 4.9, 6.8])
_SD_RGB = np.array([12.5, 10.2, 10.5])  # a little above the aim: the soft edge takes some away
_SD_RGB_SD = np.array([2.0, 1.9, 1.7])

# grey levels by channel: noise of the camera on a flat part of the image, as far as the channels do not share it too
_CAMERA_NOISE = np.array([0.87, 0.68, 0.81], np.float32)[:, None, None]

_ANGLES = np.linspace(0, 2 * np.pi, 1440, endpoint=False)


def random_stream(seed: int, *words: str) -> np.random.Generator:
    """Return one independent stream per seed and words, whatever the order in which cells are drawn."""
    return np.random.default_rng([seed, *(zlib.crc32(word.encode()) for word in words)])


@functools.cache
def count_subjects() -> Mapping[tuple[str, str], Mapping[str, int]]:
    """Return C-NMC's subjects and their numbers of images, by part ("fold_0" to "fold_2", "prelim") and class."""
    files = load_manifest().dropna(subset="subject")
    part = ("fold_" + files["fold"].astype(str)).where(files["part"] == "train", "prelim")
    counts: dict[tuple[str, str], dict[str, int]] = {}
    sizes = files.groupby([part, "label", "subject"]).size().items()
    for (part, label, subject), images in sorted(sizes, key=lambda item: int(item[0][2].lstrip("H"))):
        counts.setdefault((part, label), {})[subject] = images
    return MappingProxyType({key: MappingProxyType(of_part) for key, of_part in sorted(counts.items())})


@functools.lru_cache(maxsize=8)
def _traits_of_subjects(seed: int) -> dict[str, np.ndarray]:
    """Traits of C-NMC's subjects, standard normal (one value per trait), centred within part and class.

    Centring with the numbers of images as weights keeps the class means where they were calibrated whatever
    the seed: three subjects carry a third of the healthy cells.
    """
    known: dict[str, np.ndarray] = {}
    for parts in (("fold_0", "fold_1", "fold_2"), ("prelim",)):
        for label in ("ALL", "HEM"):
            counts = {subject: n for part in parts for subject, n in count_subjects()[part, label].items()}
            values = np.stack([random_stream(seed, "subject", s).standard_normal(len(_TRAITS)) for s in counts])
            weights = np.array(list(counts.values()), dtype=float)
            values -= np.average(values, axis=0, weights=weights)
            values /= np.sqrt(np.average(values**2, axis=0, weights=weights))
            known |= dict(zip(counts, values, strict=True))
    return known


def _draw_traits(
    label: str, subject: str, rng: np.random.Generator, seed: int, subject_effect: float, difficulty: float
) -> dict[str, float]:
    """Draw the traits of one cell, each standard normal over all cells plus its class offset."""
    of_subject = _traits_of_subject(subject, seed)
    traits = _add_up(label, of_subject, rng.standard_normal(len(_TRAITS)), subject_effect, difficulty)
    # a NumPy scalar would turn the float32 fields into float64: twice as slow
    return {name: float(value) for name, value in traits.items()}


def _traits_of_subject(subject: str, seed: int) -> np.ndarray:
    known = _traits_of_subjects(seed).get(subject)
    return random_stream(seed, "subject", subject).standard_normal(len(_TRAITS)) if known is None else known


def _add_up(
    label: str, of_subject: np.ndarray, of_image: np.ndarray, subject_effect: float, difficulty: float
) -> dict[str, np.ndarray]:
    """Return each trait from the subject's part, (traits,), and that of one image or of many, (traits, n)."""
    of_subject, of_image = _link(of_subject), _link(of_image)
    sign = 1 if label == "ALL" else -1
    traits = {}
    for k, (name, (between, offset)) in enumerate(_TRAITS.items()):
        # subject_effect scales the ratio of both variances, so that their sum stays as calibrated
        share = subject_effect**2 * between / (subject_effect**2 * between + 1 - between)
        offset = sign * offset / (difficulty if name in CUES else 1)
        traits[name] = offset + np.sqrt(share) * of_subject[k] + np.sqrt(1 - share) * of_image[k]
    return traits


def _link(values: np.ndarray) -> np.ndarray:
    """Let traits follow others as `_LINKS` says; each stays standard normal."""
    named = dict(zip(_TRAITS, values, strict=True))
    for name, (leader, correlation) in _LINKS.items():
        named[name] = correlation * named[leader] + np.sqrt(1 - correlation**2) * named[name]
    return np.array(list(named.values()))


def _draw_cues(traits: dict[str, float], area: float, rng: np.random.Generator) -> dict[str, float]:
    """Turn traits into what is drawn."""
    nucleoli = int(np.clip(np.round(1.3 + 0.9 * traits["nucleoli"]), 0, 4))
    return {
        "area": area,
        "nucleus_share": float(np.clip(0.74 + 0.1 * traits["nucleus_share"], 0.45, 0.95)),
        "clumping": float(1 / (1 + np.exp(-1.6 * traits["clumping"]))),
        "nucleoli": nucleoli,
        "nucleolus_contrast": float(np.clip(0.5 + 0.2 * traits["nucleoli"], 0.1, 1)) if nucleoli else 0.0,
        "indentation": float(np.clip(0.15 + 0.13 * traits["indentation"], 0, 0.5)),
        "brightness": float(traits["brightness"]),
        "hue": float(traits["hue"]),
        "tail": float(rng.random() < 0.13),
        "cut": float(rng.random() < 0.2),
    }


def _draw_radius(traits: dict[str, float], cues: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Draw the outline as a radius per angle (`_ANGLES`), pixels, with the cell's area."""
    eccentricity = np.clip(0.47 + 0.15 * traits["elongation"], 0.05, 0.8)
    axes = np.sqrt(1 - eccentricity**2)
    turned = _ANGLES - rng.uniform(0, 2 * np.pi)
    radius = axes / np.sqrt((axes * np.cos(turned)) ** 2 + np.sin(turned) ** 2)
    ragged = np.exp(0.35 * traits["raggedness"])
    # frayed on one side rather than all round, as a segmentation leaves it
    frayed = 0.3 + 1.2 * _bump(rng.uniform(0, 2 * np.pi), 0.7)
    radius *= 1 + ragged * (0.035 * _waves(3, 9, rng) + 0.011 * frayed * _waves(10, 70, rng))
    if rng.random() < 0.3:
        radius *= 1 - rng.uniform(0.04, 0.14) * _bump(rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.12))
    return radius * np.sqrt(2 * cues["area"] / (radius**2).sum() * _ANGLES.size / (2 * np.pi))


def _waves(lowest: int, highest: int, rng: np.random.Generator) -> np.ndarray:
    """Random closed wave over the angles: these orders, longer ones higher; standard deviation about 1."""
    orders = np.arange(lowest, highest + 1)
    sizes = (orders / lowest) ** -1.3
    spectrum = np.zeros(_ANGLES.size // 2 + 1, dtype=complex)
    spectrum[orders] = sizes * (rng.standard_normal(orders.size) + 1j * rng.standard_normal(orders.size))
    return np.fft.irfft(spectrum, _ANGLES.size) * (_ANGLES.size / 2) / np.sqrt((sizes**2).sum())


def _bump(centre: float, width: float) -> np.ndarray:
    """Gaussian over the angles, 1 at `centre`, of the given width in radians."""
    away = (_ANGLES - centre + np.pi) % (2 * np.pi) - np.pi
    return np.exp(-0.5 * (away / width) ** 2)


def _noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise smoothed to `sigma` pixels, mean 0 and standard deviation 1; float32."""
    step = max(1, int(sigma / 1.2))  # coarse noise is drawn coarsely and enlarged: much faster
    small = tuple(-(-side // step) + 2 for side in shape)
    field = ndimage.gaussian_filter(rng.standard_normal(small, dtype=np.float32), sigma / step, mode="wrap")
    if step > 1:
        large = Image.fromarray(field).resize((small[1] * step, small[0] * step), Image.Resampling.BICUBIC)
        field = np.asarray(large)
    field = field[: shape[0], : shape[1]]
    return (field - field.mean()) / field.std()


def _step(distance: np.ndarray, width: float) -> np.ndarray:
    """0 outside, 1 inside, smooth over `width` pixels."""
    t = np.clip(distance * (1 / width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _at(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Look up the radius at every pixel's angle, 0 to 2 pi; float32."""
    fine = np.interp(np.arange(8 * _ANGLES.size + 1) / 8, np.arange(_ANGLES.size + 1), np.append(radius, radius[0]))
    return fine.astype(np.float32)[(angle * (8 * _ANGLES.size / (2 * np.pi))).astype(np.int32)]


def draw_cell(
    label: str,
    *,
    subject: str = "",
    number: int = 0,
    seed: int = 0,
    subject_effect: float = 1.0,
    difficulty: float = 1.0,
) -> SyntheticCell:
    """Draw one synthetic cell, 450×450, with its truth; the same arguments always give the same cell.

    The cells of one subject share stain, brightness, size and texture; `number` says which of them it is. Any name
    will do; subjects of C-NMC (such as "11", "H3") look as they do in the twin of this `seed`. `subject_effect` is how
    much subjects differ: 0 not at all, 1 as measured on genuine cells. The larger `difficulty` (above 0), the more the
    class cues beyond size overlap.
    """
    check_parameters(subject_effect, difficulty)
    if label not in ("ALL", "HEM"):
        raise AllkitError(f"no synthetic cells of class {label!r}; choose ALL or HEM")
    traits, rng = _begin_cell(label, subject, number, seed, subject_effect, difficulty)
    mean, sd = _AREA[label]
    area = float(np.clip(mean + sd * traits["size"], *_AREA_RANGE))
    return _draw(traits, area, rng, label, subject.upper())


def ideal_log_odds(label: str, subject: str, number: int, seed: int, subject_effect: float, difficulty: float) -> float:
    """Return the log-odds of ALL against HEM for a cell of `draw_cell`, from the very numbers that it is drawn with.

    Nobody can do better on average who does not know the subject: this is the ceiling for whatever looks at the image.
    Both classes are taken to be equally frequent.
    """
    traits, _ = _begin_cell(label, subject, number, seed, subject_effect, difficulty)
    area = _AREA[label][0] + _AREA[label][1] * traits["size"]
    correlation = _LINKS["brightness"][1]  # brightness follows the size within the class
    odds = 0.0
    for sign, (mean, sd) in zip((1, -1), _AREA.values(), strict=True):
        size = (area - mean) / sd
        odds += sign * (norm.logpdf(size) - np.log(sd))
        odds += sign * norm.logpdf(traits["brightness"], correlation * size, np.sqrt(1 - correlation**2))
    for name, (_, offset) in _TRAITS.items():
        odds += 2 * traits[name] * offset / (difficulty if name in CUES else 1)
    return float(odds)


def _begin_cell(
    label: str, subject: str, number: int, seed: int, subject_effect: float, difficulty: float
) -> tuple[dict[str, float], np.random.Generator]:
    """Return the traits of a cell, and the stream from which the rest of it is drawn."""
    subject = subject.upper()
    rng = random_stream(seed, label, subject, str(number))
    return _draw_traits(label, subject, rng, seed, subject_effect, difficulty), rng


def draw_any_cell(number: int, *, seed: int = 0) -> SyntheticCell:
    """Draw a cell of no class and no subject, 450×450; `number` says which.

    Every trait is drawn by itself and far wider than in the twin, so that most of these cells look like none of its.
    """
    return _draw(*_any_cell(number, seed))


def any_cell_traits(number: int, *, seed: int = 0) -> dict[str, float]:
    """Return the numbers behind a cell of `draw_any_cell`, each with mean 0 and standard deviation 1."""
    traits, area, _ = _any_cell(number, seed)
    size = (area - np.mean(_AREA_RANGE)) / (np.ptp(_AREA_RANGE) / 12**0.5)
    return {name: value / _ANY_CELL for name, value in traits.items()} | {"size": float(size)}


def _any_cell(number: int, seed: int) -> tuple[dict[str, float], float, np.random.Generator]:
    """Return traits and area of a cell, and the stream from which the rest of it is drawn."""
    rng = random_stream(seed, "any cell", str(number))
    traits = dict(zip(_TRAITS, (_ANY_CELL * rng.standard_normal(len(_TRAITS))).tolist(), strict=True))
    return traits, float(rng.uniform(*_AREA_RANGE)), rng


def _draw(
    traits: dict[str, float], area: float, rng: np.random.Generator, label: str = "", subject: str = ""
) -> SyntheticCell:
    cues = _draw_cues(traits, area, rng)
    radius = _draw_radius(traits, cues, rng)
    layers, origin = _draw_box(radius, traits, cues, rng)
    image, (outline, nucleus, nucleoli) = _place(*layers, origin, rng)
    cues["nucleus_share"] = float(nucleus.sum() / outline.sum())
    cues["area"] = float(outline.sum())
    return SyntheticCell(image, outline, nucleus, nucleoli, label, subject, cues)


def draw_numbers(
    subjects: int,
    cells: int,
    *,
    subject_effect: float = 1.0,
    difficulty: float = 1.0,
    seed: int = 0,
    first_subject: int = 0,
    first_cell: int = 0,
) -> pd.DataFrame:
    """Draw the numbers behind many cells without drawing the cells: thousands in a second.

    There are `subjects` in each class, none of them of C-NMC, with `cells` each; another `first_subject` gives other
    subjects, another `first_cell` other cells of the same ones. For the rest see `draw_cell`. One row per cell: the
    columns of an index (see `allkit.data`), and the traits that `draw_cell` starts from, each about standard normal.
    """
    check_parameters(subject_effect, difficulty)
    tables = []
    for label in ("ALL", "HEM"):
        for subject in (f"{label}-{first_subject + k}" for k in range(subjects)):
            numbers = range(first_cell, first_cell + cells)
            streams = (random_stream(seed, label, subject, str(number)) for number in numbers)
            of_images = np.array([stream.standard_normal(len(_TRAITS)) for stream in streams]).T
            traits = _add_up(label, _traits_of_subject(subject, seed), of_images, subject_effect, difficulty)
            names = [f"{subject}-{number}" for number in numbers]
            tables.append(pd.DataFrame({"path": names, "label": label, "subject": subject, "name": names, **traits}))
    table = pd.concat(tables, ignore_index=True)
    known = table.assign(
        group=table["subject"], fold=pd.NA, part="train", source="synthetic", given=None, positive="ALL"
    )
    return known[[*COLUMNS, *_TRAITS]]


def draw_numbers_of(
    index: pd.DataFrame, *, subject_effect: float = 1.0, difficulty: float = 1.0, seed: int = 0
) -> pd.DataFrame:
    """Draw the numbers behind a cell for each image of an index that has labels and subjects, by `row_keys`.

    As `draw_numbers`, for people who are there: C-NMC's have as many cells as they have. Images with the same `content`
    have the same numbers, and so have copies.
    """
    check_parameters(subject_effect, difficulty)
    index = index.assign(key=row_keys(index))
    cells, tables = index.drop_duplicates("path"), []
    for (label, subject), rows in cells.groupby(["label", "subject"]):
        streams = (random_stream(seed, label, subject, path) for path in rows["path"])
        of_images = np.array([stream.standard_normal(len(_TRAITS)) for stream in streams]).T
        traits = _add_up(label, _traits_of_subject(subject, seed), of_images, subject_effect, difficulty)
        tables.append(pd.DataFrame(traits).set_axis(rows["path"]))
    numbers = pd.concat(tables).loc[cells["path"]]
    numbers = numbers.groupby(cells["content"].fillna(cells["path"]).to_numpy()).transform("first")
    return numbers.loc[index["path"]].set_axis(index["key"])[lambda table: ~table.index.duplicated()]


def check_parameters(subject_effect: float, difficulty: float) -> None:
    """Raise AllkitError where one of them is out of range."""
    if not subject_effect >= 0:
        raise AllkitError(f"subject_effect is {subject_effect}; choose 0 (subjects alike) or more")
    if not difficulty > 0:
        raise AllkitError(f"difficulty is {difficulty}; choose a number above 0 (1: as calibrated)")


def _draw_box(
    radius: np.ndarray, traits: dict[str, float], cues: dict[str, float], rng: np.random.Generator
) -> tuple[tuple[np.ndarray, list[np.ndarray]], np.ndarray]:
    """Draw the cell in a box around it: colours uint8 (h, w, 3); outline, nucleus, nucleoli bool (h, w); its middle."""
    outer = _add_neighbour(radius, rng) if cues["tail"] else radius
    outer = np.minimum(outer, SIDE / 2 - 12)
    ends = outer * np.sin(_ANGLES), outer * np.cos(_ANGLES)
    rows, columns = (slice(int(end.min()) - 3, int(end.max()) + 4) for end in ends)
    y, x = np.mgrid[rows, columns].astype(np.float32)
    r, angle = np.sqrt(x * x + y * y), np.arctan2(y, x) % (2 * np.pi)
    inside = _at(outer, angle) - r
    if cues["cut"]:
        inside = np.minimum(inside, _cut(x, y, radius, rng))
    core = _draw_nucleus(radius, cues, rng)
    in_nucleus = np.minimum(_at(core, angle) - r, inside - 2)
    colours, nucleoli = _draw_colours(inside, in_nucleus, angle, (x, y), traits, cues, rng)
    if cues["tail"]:
        _colour_neighbour(colours, r - _at(radius, angle), inside, rng)
    masks = [inside > 0, in_nucleus > 0, (nucleoli > 0) & (in_nucleus > 0)]
    return (colours, masks), np.array([-rows.start, -columns.start])


def _add_neighbour(radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lengthen the outline on one side, raggedly: a piece of a neighbour that the segmentation left there."""
    piece = _bump(rng.uniform(0, 2 * np.pi), rng.uniform(0.06, 0.55))
    return radius * (1 + rng.uniform(0.15, 1.1) * piece * np.clip(1 + 0.4 * _waves(3, 30, rng), 0, 2))


def _colour_neighbour(colours, outside, inside, rng) -> None:
    """Paint what lies outside the cell proper: paler and greyer than the cell, as plasma and red cells are."""
    share = _step(outside - 3, 6)[..., None] * (inside > 0)[..., None]
    pale = np.array([90, 53, 88]) * rng.normal(1, 0.15) + rng.normal(0, 1) * np.array([8, -4, -10])
    field = pale.astype(np.float32) * (1 + 0.05 * _noise(inside.shape, 4, rng))[..., None]
    colours[...] = np.round(np.clip(colours * (1 - share) + field * share, 0, 255))


def _cut(x: np.ndarray, y: np.ndarray, radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance inside straight edges, where the segmentation cut a corner or a side off; pixels."""
    size = float(np.sqrt((radius**2).mean()))
    across, along = ((x, y), (y, x))[rng.integers(2)]
    signs = rng.choice([-1, 1], 2)
    return np.maximum(
        rng.uniform(0.86, 0.98) * size - signs[0] * across, rng.uniform(-1, 0.3) * size - signs[1] * along
    )


def _draw_nucleus(radius: np.ndarray, cues: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Draw the nucleus' outline, radius per angle: follows the cell's, with a cleft; pixels."""
    shape = 0.6 * radius + 0.4 * radius.mean()
    cleft = cues["indentation"] * _bump(rng.uniform(0, 2 * np.pi), rng.uniform(0.16, 0.3))
    wobble = 0.02 * np.cos(_ANGLES * rng.integers(2, 5) + rng.uniform(0, 2 * np.pi))
    core = np.minimum(shape * (1 - cleft + wobble), radius)
    return core * np.sqrt(cues["nucleus_share"] * (radius**2).sum() / (core**2).sum())


def _draw_colours(inside, in_nucleus, angle, grid, traits, cues, rng) -> tuple[np.ndarray, np.ndarray]:
    """Colour the box: structure first, then each channel brought to the cell's mean and spread; and the nucleoli."""
    shape = inside.shape
    nucleus = _step(in_nucleus, 5)
    spots = _draw_nucleoli(in_nucleus, grid, cues, rng)
    chromatin, clumps = _draw_chromatin(shape, traits, cues, rng)
    light = nucleus * (chromatin + spots) + _draw_shading(shape, grid, traits, rng)
    cytoplasm = (1 - nucleus) * (1.1 + 0.18 * _noise(shape, 3.6, rng))
    # lateral chromatic shift: blue on one side of the cell, red on the other, as in the genuine images
    lean = np.cos(angle - rng.uniform(0, 2 * np.pi))
    light -= 0.35 * (1 + lean) * np.exp(-(((inside - 16) / 14) ** 2))
    red = nucleus * (0.2 * _noise(shape, 5, rng) + 0.6 * spots + 0.5 * clumps)
    rim = 4.5 * float(np.exp(0.25 * traits["rim"])) * np.exp(-np.maximum(inside - 1, 0) / 3)
    fields = (
        light + red + 0.5 * cytoplasm + rim * (1 - 0.3 * lean),
        0.75 * light + 1.5 * cytoplasm + 1.2 * rim,
        0.7 * light - 0.5 * red + 2.1 * cytoplasm + rim * (1 + 0.3 * lean),
    )
    mask = inside > 0
    soft = np.clip(0.25 + 0.55 * inside, 0, 1)
    mean, spread = _draw_stain(traits, rng)
    colours = np.zeros((*shape, 3), dtype=np.uint8)
    camera = _draw_camera_noise(shape, traits, rng)
    for k, field in enumerate(fields):
        colours[..., k] = _bring_to(field, camera[k], mask, soft, float(mean[k]), float(spread[k]))
    return colours, spots


def _draw_camera_noise(shape, traits, rng) -> np.ndarray:
    """Fine noise of camera and compression, most of it common to the channels; grey levels, (3, height, width)."""
    common = _noise(shape, 0.65, rng)
    noise = np.stack([common + 0.78 * _noise(shape, 0.65, rng) for _ in range(3)])
    return _CAMERA_NOISE * float(np.exp(0.36 * traits["camera_noise"])) * noise


def _draw_shading(shape, grid, traits, rng) -> np.ndarray:
    """Slow changes of brightness across the cell: uneven light, uneven thickness."""
    turned = rng.uniform(0, 2 * np.pi)
    slope = (float(np.cos(turned)) * grid[0] + float(np.sin(turned)) * grid[1]) * (1.7 / max(shape))
    slope *= float(rng.standard_normal())
    return 0.34 * float(np.exp(0.85 * traits["shading"])) * (_noise(shape, 25, rng) + slope)


def _draw_chromatin(shape, traits, cues, rng) -> np.ndarray:
    """Chromatin: fine bright grain, turning into dark condensed clumps with pale gaps; mean about 0."""
    scale = float(np.exp(0.28 * traits["grain_scale"]))
    fine = _noise(shape, 3.3 * scale, rng)
    fine = 0.8 * fine + 0.3 * (fine**2 - 1)
    grain = 0.44 * float(np.exp(0.25 * traits["grain"]))
    clumps = 1 - 2 * _step(0.9 * _noise(shape, 10, rng) + 0.22 * _noise(shape, 4.2, rng) + 0.5, 2.6)
    c = cues["clumping"]
    # clumps replace both finer and coarser structure: the spectrum changes in between, where a network that
    # sees 64 to 96 pixels can find it, and hardly in the single numbers of allkit.features
    return grain * (1 - 0.6 * c) * fine + 1.3 * c * clumps + 0.5 * (1 - 0.45 * c) * _noise(shape, 14, rng), c * clumps


def _draw_nucleoli(in_nucleus, grid, cues, rng) -> np.ndarray:
    """Pale round spots within the nucleus, brightness above the chromatin."""
    spots = np.zeros(in_nucleus.shape, dtype=np.float32)
    ys, xs = np.nonzero(in_nucleus > 0.25 * in_nucleus.max())
    for _ in range(int(cues["nucleoli"])):
        k = rng.integers(ys.size)
        radius = rng.uniform(9, 15)
        around = np.s_[max(0, ys[k] - 20) : ys[k] + 21, max(0, xs[k] - 20) : xs[k] + 21]
        away = np.hypot(grid[0][around] - grid[0][0, xs[k]], grid[1][around] - grid[1][ys[k], 0])
        spots[around] = np.maximum(spots[around], _step(radius - away, 13))
    return 3.6 * cues["nucleolus_contrast"] * spots


def _draw_stain(traits, rng) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of each channel inside the cell, grey levels."""
    hue = np.array([0.2, 0.07, -0.22]) * traits["hue"]
    mean = _MEAN_RGB + _MEAN_RGB_SD * (0.975 * traits["brightness"] + hue)
    spread = np.array([traits["spread_r"], traits["spread_g"], traits["spread_b"]])
    # a cell with more structure also spreads wider
    common = 0.5 * spread.mean() * np.sqrt(3) + 0.5 * traits["shading"] + 0.35 * traits["grain"]
    spread = common + 0.6 * spread
    skewed = (np.exp(0.45 * spread) - 1.11) / 0.53  # mean 0, spread 1 again
    return mean, np.maximum(_SD_RGB + _SD_RGB_SD * skewed, 5)


def _bring_to(field, noise, mask, soft, mean, spread) -> np.ndarray:
    """Scale a field so that the channel has this mean and standard deviation inside the cell, and add the noise."""
    inside = field[mask]
    scale = spread / float(inside.std())
    level = (field * scale + (mean - scale * float(inside.mean())) + noise) * soft
    return np.round(np.clip(level, 12, 255)) * mask


def _place(box, masks, origin, rng) -> tuple[np.ndarray, list[np.ndarray]]:
    """Put the box into a black image of 450×450, its centre near the middle."""
    outline = masks[0]
    rows, columns = outline.sum(axis=1), outline.sum(axis=0)
    centre = np.array([np.average(np.arange(n.size), weights=n) for n in (rows, columns)])
    # a neighbour's piece or a cut moves the centre of mass off the middle, as in genuine images
    centre = 0.75 * centre + 0.25 * origin
    corner = np.round((SIDE - 1) / 2 + rng.normal(0, 4.8e-5 * outline.sum(), 2) - centre).astype(int)
    pad = [(c, SIDE - c - side) for c, side in zip(corner, outline.shape, strict=True)]
    # a box that sticks out is cut off: it is empty there
    keep = tuple(slice(max(0, -a), n - max(0, -b)) for (a, b), n in zip(pad, outline.shape, strict=True))
    pad = [(max(0, a), max(0, b)) for a, b in pad]
    image = np.pad(box[keep], [*pad, (0, 0)])
    return image, [np.pad(mask[keep], pad) for mask in masks]
