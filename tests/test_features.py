"""Measuring one cell: known shapes give known numbers."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from allkit import AllkitError, images
from allkit.features import FEATURES, cell_mask, measure_cell, measure_cells, measure_files


def _ellipse(a: float, b: float, side: int = 450, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Bool mask of an ellipse with these half axes (along rows, along columns)."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return ((y - shift[0]) / a) ** 2 + ((x - shift[1]) / b) ** 2 <= 1


def _paint(mask: np.ndarray, colour=(70, 30, 80)) -> np.ndarray:
    return (mask[..., None] * np.array(colour)).astype(np.uint8)


def test_a_plain_ellipse_gives_the_numbers_of_geometry():
    numbers = measure_cell(_paint(_ellipse(60, 100)))
    assert numbers["area"] == pytest.approx(math.pi * 60 * 100, rel=0.005)
    assert numbers["bbox_side"] == pytest.approx(200, abs=2)
    assert numbers["eccentricity"] == pytest.approx(0.8, abs=0.01)  # sqrt(1 - 0.6²)
    assert numbers["solidity"] > 0.98
    assert numbers["centroid_distance"] == pytest.approx(0, abs=0.1)
    assert numbers["background_share"] == pytest.approx(1 - numbers["area"] / 450**2)
    assert [numbers[name] for name in ("mean_r", "mean_g", "mean_b")] == [70, 30, 80]
    assert [numbers[name] for name in ("std_r", "std_g", "std_b", "texture")] == pytest.approx([0] * 4, abs=1e-3)


def test_position_and_background_do_not_change_what_is_measured_inside():
    middle, aside = (measure_cell(_paint(_ellipse(60, 80, shift=shift))) for shift in ((0, 0), (30, -40)))
    assert aside["centroid_distance"] == pytest.approx(50, abs=0.1)
    for name in set(FEATURES) - {"centroid_distance"}:
        assert aside[name] == pytest.approx(middle[name], abs=1e-4), name


def test_a_notch_lowers_solidity():
    mask = _ellipse(100, 100)
    mask[225:, 200:250] = False
    assert measure_cell(_paint(mask))["solidity"] < 0.93


def test_specks_and_holes_do_not_count_as_shape():
    mask = _ellipse(80, 80)
    image = _paint(mask)
    image[5:9, 5:9] = 200  # dirt
    image[220:224, 220:224] = 0  # a black pixel group inside
    assert np.array_equal(cell_mask(image), mask)
    assert measure_cell(image)["bbox_side"] == pytest.approx(160, abs=2)


def test_texture_sees_fine_structure_and_correlation_its_scale():
    from scipy.ndimage import gaussian_filter

    mask, rng = _ellipse(100, 100), np.random.default_rng(0)
    numbers = {}
    for sigma in (2, 12):
        field = gaussian_filter(rng.standard_normal(mask.shape), sigma)
        image = _paint(mask).astype(float) + 8 * (field / field.std())[..., None]
        numbers[sigma] = measure_cell(np.clip(image * mask[..., None], 0, 255).astype(np.uint8))
    assert numbers[2]["texture"] > 2 * numbers[12]["texture"]
    assert numbers[2]["corr_12"] < 0.1 < 0.5 < numbers[12]["corr_12"]
    # a Gaussian field of sigma s has the correlation exp(-d² / 4 s²)
    assert numbers[2]["corr_4"] == pytest.approx(math.exp(-1), abs=0.08)


def test_the_rim_does_not_count_as_texture():
    mask = _ellipse(100, 100)
    rim = mask & ~_ellipse(96, 96)
    image = _paint(mask)
    image[rim] = (110, 70, 120)
    assert measure_cell(image)["std_r"] > 5
    assert measure_cell(image)["texture"] < 2.5


@pytest.mark.parametrize("image", [np.zeros((50, 60, 3), np.uint8), np.full((50, 60, 3), 90, np.uint8)])
def test_every_number_is_finite_even_without_a_cell_or_without_background(image):
    numbers = measure_cell(image)
    assert tuple(numbers) == FEATURES
    assert np.isfinite(list(numbers.values())).all()


def test_tiny_parts_are_measured_too():
    image = np.zeros((20, 20, 3), np.uint8)
    image[4, 4:9] = 100
    assert measure_cell(image)["area"] == 5


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), float), np.zeros((9, 9, 4), np.uint8)]
)
def test_other_arrays_are_refused(image):
    with pytest.raises(AllkitError, match="uint8"):
        measure_cell(image)


def test_a_table_has_one_row_per_image_of_the_index(twin):
    from allkit.data import load_index

    index = load_index(twin).sample(12, random_state=0)
    table = measure_cells(index)
    assert table.index.equals(index.index)
    assert list(table.columns) == list(FEATURES)
    assert (table.dtypes == "float64").all()
    from PIL import Image

    row = index.index[0]
    image = np.asarray(Image.open(index.loc[row, "path"]))
    if len(image) == 450:
        assert table.loc[row].to_dict() == pytest.approx(measure_cell(image))


def test_a_final_test_image_measures_as_the_same_cell_on_450_pixels(twin):
    from allkit.data import load_index

    index = load_index(twin)
    final = index[index["part"] == "final"].head(2)
    table = measure_cells(final)
    assert table["background_share"].between(0.6, 0.96).all()
    assert np.allclose(table["area"], (1 - table["background_share"]) * 450**2)


@pytest.fixture
def cells(tmp_path, monkeypatch) -> list[str]:
    """Files, in a folder of their own, beside an empty cache."""
    monkeypatch.setenv("ALLKIT_CACHE", str(tmp_path / "cache"))
    files = [tmp_path / f"{k}.txt" for k in range(5)]
    for k, file in enumerate(files):
        file.write_text("cell " * (k + 1), encoding="utf-8")
    return [str(file) for file in files]


_MEASURED: list[str] = []


def _measure_length(path: str, word: str = "") -> dict[str, float]:
    _MEASURED.append(path)
    text = Path(path).read_text(encoding="utf-8")
    if "damaged" in text:
        raise AllkitError(f"{path} is damaged")
    return {"length": len(text + word)}


def _measured_now(paths: list[str], **more) -> tuple[list[float], list[str]]:
    """Return the lengths, and which files were looked at for it."""
    _MEASURED.clear()
    return measure_files(_measure_length, paths, **more)["length"].tolist(), sorted(_MEASURED)


def test_a_file_is_measured_once_until_it_changes(cells):
    assert _measured_now(cells[:3]) == ([5, 10, 15], cells[:3])
    assert _measured_now(cells) == ([5, 10, 15, 20, 25], cells[3:])
    assert _measured_now([cells[4], cells[0], cells[4]]) == ([25, 5, 25], [])
    Path(cells[1]).write_text("another cell", encoding="utf-8")
    assert _measured_now(cells) == ([5, 12, 15, 20, 25], [cells[1]])
    assert _measured_now(cells[:2], more=["", "wide"]) == ([5, 16], cells[:2])  # not the cell as it is
    assert _measured_now(cells[:2], more=["", "wide"]) == ([5, 16], [])


def test_what_was_measured_before_an_error_is_kept(cells):
    Path(cells[4]).write_text("damaged", encoding="utf-8")
    with pytest.raises(AllkitError, match=r"4\.txt"):
        _measured_now(cells)
    assert _measured_now(cells[:4]) == ([5, 10, 15, 20], [])


@pytest.mark.filterwarnings("ignore:The cache")
def test_a_store_that_cannot_be_used_is_done_without(cells, tmp_path, monkeypatch):
    _measured_now(cells)
    store = next((tmp_path / "cache").glob("*.sqlite"))
    whole = store.read_bytes()
    for damaged in (b"not a database" * 100, whole[:4096] + bytes(len(whole) - 4096), whole[:5000], b""):
        store.write_bytes(damaged)
        assert _measured_now(cells) == ([5, 10, 15, 20, 25], cells)
    monkeypatch.setenv("ALLKIT_CACHE", str(Path(cells[0]) / "no folder"))
    with pytest.warns(UserWarning, match="cannot be used.*kept in memory"):
        assert _measured_now(cells) == ([5, 10, 15, 20, 25], cells)


def test_the_oldest_measurements_make_room_for_new_ones(cells, monkeypatch):
    monkeypatch.setattr(images, "CACHE_ROWS", 3)
    _measured_now(cells)
    assert _measured_now(cells) == ([5, 10, 15, 20, 25], cells[:2])


def test_a_file_that_is_gone_is_named(cells):
    with pytest.raises(images.ImageError, match=r"gone\.txt cannot be opened"):
        _measured_now(["gone.txt"])


def test_an_index_without_paths_is_refused():
    with pytest.raises(AllkitError, match="path"):
        measure_cells(pd.DataFrame({"file": ["a.png"]}))


@pytest.mark.shared
def test_genuine_cells_measure_as_published(cnmc_folder):
    """The table the twin is calibrated to, on other genuine images: a check of the definitions."""
    from allkit.data import load_index

    index = load_index(cnmc_folder)
    index = index[index["label"].notna() & (index["fold"] != 1)].groupby("label").head(40)
    means = measure_cells(index).groupby(index["label"]).mean().mean()
    expected = {"mean_r": 70, "mean_g": 30.5, "mean_b": 80, "std_r": 12, "std_g": 9, "std_b": 10.5}
    for name, value in expected.items():
        assert means[name] == pytest.approx(value, rel=0.2), name
    assert means["texture"] == pytest.approx(3.0, abs=0.6)
    assert means["corr_4"] == pytest.approx(0.88, abs=0.04)
    assert means["corr_12"] == pytest.approx(0.57, abs=0.08)
    assert means["solidity"] > 0.94
