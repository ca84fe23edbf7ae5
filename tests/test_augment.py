"""Augmentation: rotation by the paper's equations, balancing, training batches."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from allkit import AllkitError, augment, splits
from allkit.augment import Augmentation

ANGLES = [-90.0, 17.0, 45.0, 133.3, 270.0]


@pytest.fixture
def image():
    """Coloured noise, so that a wrong pixel or channel shows."""
    return np.random.default_rng(0).integers(0, 256, (41, 41, 3), dtype=np.uint8)


@pytest.fixture
def cell():
    """A smooth off-centre blob on black: something that interpolation does not alter much."""
    y, x = np.mgrid[0:64, 0:64]
    blob = 200 * np.exp(-((y - 26) ** 2 + (x - 38) ** 2) / 120)
    return np.repeat(blob[:, :, None], 3, axis=2).astype(np.uint8)


# ---- rotation by the equations


@pytest.mark.parametrize("angle", ANGLES)
def test_bilinear_rotation_agrees_with_scipy(image, angle):
    ours = augment.rotate_by_equations(image, angle, interpolation="bilinear")
    scipys = ndimage.rotate(image.astype(float), angle, reshape=False, order=1)
    inner = (slice(1, -1), slice(1, -1))  # SciPy lets rounding push border pixels outside
    assert np.abs(ours[inner] - scipys[inner]).max() <= 1


def test_rotation_about_another_centre_agrees_with_scipy(image):
    centre, angle = np.array([10.0, 25.0]), np.radians(30)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    ours = augment.rotate_by_equations(image, 30, centre=tuple(centre), interpolation="bilinear", fill=9)
    for channel in range(3):
        plane = image[..., channel].astype(float)
        scipys = ndimage.affine_transform(plane, matrix, centre - matrix @ centre, order=1, cval=9)
        assert np.abs(ours[..., channel] - scipys).max() <= 1


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [40, 41])
def test_minus_90_degrees_is_an_exact_quarter_turn_clockwise(interpolation, size):
    image = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    turned = augment.rotate_by_equations(image, -90, interpolation=interpolation)
    assert np.array_equal(turned, np.rot90(image, -1))


def test_a_positive_angle_turns_counter_clockwise_on_the_screen():
    image = np.zeros((21, 21), dtype=np.uint8)
    image[10, 20] = 255  # right of the middle
    assert augment.rotate_by_equations(image, 90)[0, 10] == 255  # then above it


def test_fill_paints_the_corners_and_only_them(image):
    turned = augment.rotate_by_equations(image, 45, fill=(10, 20, 30))
    assert turned[0, 0].tolist() == [10, 20, 30]
    assert turned[20, 20].tolist() == image[20, 20].tolist()
    assert turned.dtype == np.uint8
    assert turned.shape == image.shape


def test_forward_mapping_leaves_holes_where_inverse_mapping_has_none():
    white = np.full((61, 61, 3), 255, dtype=np.uint8)
    middle = (slice(20, 41), slice(20, 41))
    assert (augment.rotate_forward(white, 30)[middle] == 0).any()
    assert (augment.rotate_by_equations(white, 30)[middle] == 255).all()
    assert np.array_equal(augment.rotate_forward(white, 90), white)


def test_an_unknown_interpolation_is_refused(image):
    with pytest.raises(AllkitError, match="bilinear"):
        augment.rotate_by_equations(image, 10, interpolation="cubic")


# ---- the other changes


@pytest.mark.parametrize("kind", augment.AUGMENTATIONS)
def test_every_augmentation_changes_the_image_and_keeps_its_form(cell, kind):
    changed = augment.AUGMENTATIONS[kind](cell)
    assert changed.dtype == np.uint8
    assert changed.shape == cell.shape
    assert not np.array_equal(changed, cell)


def test_flips_are_exact_and_undo_themselves(image):
    assert np.array_equal(augment.flip(image, "horizontal"), image[:, ::-1])
    assert np.array_equal(augment.flip(augment.flip(image, "vertical"), "vertical"), image)


def test_zoom_scales_the_area(cell):
    def area(picture):
        return (picture[..., 0] > 60).sum()

    assert area(augment.zoom(cell, 1.2)) / area(cell) == pytest.approx(1.44, rel=0.1)
    assert area(augment.zoom(cell, 0.5)) / area(cell) == pytest.approx(0.25, rel=0.15)


def test_crop_enlarges_the_middle(cell):
    middle = augment.crop(cell, 0.5)
    assert abs(int(middle[20, 44, 0]) - int(cell[26, 38, 0])) <= 2
    assert np.array_equal(augment.crop(cell, 1.0), cell)
    with pytest.raises(AllkitError, match="window"):
        augment.crop(cell, 1.5)


def test_noise_follows_its_seed_and_spread():
    grey = np.full((80, 80, 3), 128, dtype=np.uint8)
    noisy = augment.add_noise(grey, 10, seed=1)
    assert np.array_equal(noisy, augment.add_noise(grey, 10, seed=1))
    assert not np.array_equal(noisy, augment.add_noise(grey, 10, seed=2))
    assert noisy.std() == pytest.approx(10, rel=0.05)


def test_edges_lie_on_the_outline():
    disc = np.zeros((60, 60, 3), dtype=np.uint8)
    y, x = np.mgrid[0:60, 0:60]
    disc[(y - 30) ** 2 + (x - 30) ** 2 < 15**2] = 180
    edges = augment.extract_edges(disc)[..., 0]
    radius = np.hypot(y - 30, x - 30)[edges > 100]
    assert len(radius)
    assert np.all(np.abs(radius - 15) < 3)


def test_edges_of_a_plain_image_are_none():
    assert augment.extract_edges(np.full((20, 20, 3), 90, dtype=np.uint8)).max() == 0


# ---- balancing


def make_index(counts, part="train"):
    rows = [(label, k) for label, n in counts.items() for k in range(n)]
    return pd.DataFrame(
        {
            "path": [f"{label}_{k}.png" for label, k in rows],
            "label": [label for label, _ in rows],
            "subject": [f"{label}{k % 4}" for label, k in rows],
            "group": [f"{label}{k % 4}" for label, k in rows],
            "part": part,
        }
    )


@dataclass(frozen=True)
class FakeSplit:
    name: str
    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    shares_subjects: bool = False
    note: str = "A note."


def test_balance_fills_every_class_and_keeps_the_originals():
    index = make_index({"ALL": 30, "HEM": 7, "Pro": 29})
    balanced = augment.balance(index, seed=1)
    assert balanced["label"].value_counts().to_dict() == {"ALL": 30, "HEM": 30, "Pro": 30}
    originals = balanced[balanced["augmentation"] == ""]
    pd.testing.assert_frame_equal(originals.drop(columns="augmentation"), index)
    assert balanced.index.equals(pd.RangeIndex(90))


def test_balance_copies_all_images_evenly_and_never_twice_alike():
    balanced = augment.balance(make_index({"ALL": 200, "HEM": 7}), seed=1)
    hem = balanced[balanced["label"] == "HEM"]
    times = hem["path"].value_counts()
    assert times.max() - times.min() <= 1
    assert not hem.duplicated(["path", "augmentation"]).any()


def test_balance_follows_its_seed():
    index = make_index({"ALL": 20, "HEM": 5})
    pd.testing.assert_frame_equal(augment.balance(index, seed=3), augment.balance(index, seed=3))
    assert not augment.balance(index, seed=3).equals(augment.balance(index, seed=4))


def test_balance_refuses_what_is_not_training_data():
    index = make_index({"ALL": 6, "HEM": 3})
    with pytest.raises(AllkitError, match="training"):
        augment.balance(index.assign(part="prelim"), seed=0)
    with pytest.raises(AllkitError, match="label"):
        augment.balance(index.assign(label=None), seed=0)
    with pytest.raises(AllkitError, match="already"):
        augment.balance(augment.balance(index, seed=0), seed=0)
    with pytest.raises(AllkitError, match="no rows"):
        augment.balance(index.iloc[:0], seed=0)


def test_balance_split_touches_training_only():
    index = make_index({"ALL": 12, "HEM": 4})
    train, rest = index[index["group"].str[-1] != "0"], index[index["group"].str[-1] == "0"]
    split = FakeSplit("by-subject", train, rest.iloc[:2], rest.iloc[2:])
    balanced = splits.balance_split(split, seed=0)
    assert balanced.train["label"].value_counts().nunique() == 1
    assert balanced.test is split.test
    assert balanced.validation is split.validation
    assert "copies" in balanced.note
    assert splits.count_leaked_copies(balanced)["leaked"].tolist() == [0, 0]


def test_the_papers_order_leaks_and_the_leak_is_counted():
    index = make_index({"ALL": 80, "HEM": 20}).assign(name="", fold=0, source="synthetic")
    split = splits.augment_then_split(index, seed=123)
    leaked = splits.count_leaked_copies(split).set_index("part")
    trained_on = set(split.train["path"])
    by_hand = sum(path in trained_on for path in split.test["path"])
    assert leaked.loc["test", "leaked"] == by_hand > 0
    assert leaked.loc["test", "share"] == pytest.approx(by_hand / len(split.test))
    assert split.shares_subjects
    assert "copies" in split.note
    assert sum(len(part) for part in (split.train, split.validation, split.test)) == 160


# ---- making the copies


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", lambda x: x),
        ("rotate:-90", lambda x: np.rot90(x, -1)),
        ("rotate:180", lambda x: np.rot90(x, 2)),
        ("flip:horizontal", lambda x: x[:, ::-1]),
        ("flip:vertical|rotate:90", lambda x: np.rot90(x[::-1], 1)),
    ],
)
def test_exact_copies_are_not_resampled(image, spec, expected):
    assert np.array_equal(augment.apply_augmentation(image, spec), expected(image))


def test_a_free_copy_equals_the_equations(cell):
    copy = augment.apply_augmentation(cell, "rotate:37")
    lesson = augment.rotate_by_equations(cell, 37, interpolation="bilinear")
    assert np.abs(copy.astype(int) - lesson).max() <= 1


def test_copies_are_filled_with_the_colour_of_the_background(cell):
    pale = np.where(cell == 0, 230, cell).astype(np.uint8)
    pale[cell > 0] = 80
    assert augment.apply_augmentation(pale, "rotate:45|zoom:0.9")[0, 0].tolist() == [230, 230, 230]


@pytest.mark.parametrize("spec", ["spin:3", "rotate:left", "flip:diagonal", "zoom:0"])
def test_a_copy_that_cannot_be_read_is_refused(image, spec):
    with pytest.raises(AllkitError):
        augment.apply_augmentation(image, spec)


# ---- training batches


@pytest.fixture
def batch():
    return np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)


def symmetries(image):
    turned = [np.rot90(image, k) for k in range(4)]
    return [*turned, *(x[:, ::-1] for x in turned)]


def test_exact_changes_only_move_pixels(batch):
    settings = Augmentation(horizontal_flip=True, vertical_flip=True, right_angles=True)
    result = augment.augment_batch(batch, settings, seed=0)
    for before, after in zip(batch, result, strict=True):
        assert any(np.array_equal(after, candidate) for candidate in symmetries(before))
    assert result.dtype == np.float32
    assert result.shape == batch.shape
    assert not np.array_equal(result, batch)


def test_nothing_switched_on_changes_nothing(batch):
    result = augment.augment_batch(batch, Augmentation(horizontal_flip=False), seed=0)
    assert np.array_equal(result, batch)


def test_the_recovered_recipe_flips_about_half(batch):
    many = np.concatenate([batch] * 10)
    result = augment.augment_batch(many, Augmentation(), seed=0)
    flipped = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(result, many, strict=True)])
    kept = np.array([np.array_equal(a, b) for a, b in zip(result, many, strict=True)])
    assert np.all(flipped | kept)
    assert 0.35 < flipped.mean() < 0.65


def test_same_seed_same_batch_and_the_input_is_left_alone(batch):
    settings = Augmentation(rotation=20, shift=0.1, zoom=0.1)
    before = batch.copy()
    first = augment.augment_batch(batch, settings, seed=(1, 2))
    assert np.array_equal(first, augment.augment_batch(batch, settings, seed=(1, 2)))
    assert not np.array_equal(first, augment.augment_batch(batch, settings, seed=(1, 3)))
    assert np.array_equal(batch, before)
    assert first.min() >= 0
    assert first.max() <= 255


def test_float_images_keep_their_range(batch):
    settings = Augmentation(rotation=20, vertical_flip=True)
    as_float = augment.augment_batch(batch.astype(np.float32), settings, seed=5)
    assert np.array_equal(as_float, augment.augment_batch(batch, settings, seed=5))


@pytest.mark.parametrize("angle", [30.0, -12.5])
def test_free_rotation_of_a_batch_equals_the_equations(cell, angle):
    moved = augment.transform_images(cell[None], angle=np.array([angle]), shift=np.zeros((1, 2)), factor=np.ones(1))[0]
    lesson = augment.rotate_by_equations(cell, angle, interpolation="bilinear")
    assert np.abs(moved - lesson).max() <= 1


def test_shift_and_zoom_go_where_they_should(cell):
    def middle(picture):
        return np.array(ndimage.center_of_mass(picture[..., 0].astype(float)))

    still = {"angle": np.zeros(1), "factor": np.ones(1)}
    moved = augment.transform_images(cell[None], shift=np.array([[5.0, -7.0]]), **still)[0]
    assert middle(moved) - middle(cell) == pytest.approx([5, -7], abs=0.2)
    larger = augment.transform_images(cell[None], angle=np.zeros(1), shift=np.zeros((1, 2)), factor=np.array([1.2]))[0]
    centre = np.array([31.5, 31.5])
    assert middle(larger) - centre == pytest.approx(1.2 * (middle(cell) - centre), abs=0.3)


def test_background_fill_leaves_no_dark_corners():
    pale = np.full((3, 32, 32, 3), 210, dtype=np.uint8)
    pale[:, 10:22, 10:22] = 90
    settings = Augmentation(rotation=45, shift=0.2, fill="background")
    assert augment.augment_batch(pale, settings, seed=0).min() >= 89
    assert augment.augment_batch(pale, Augmentation(rotation=45), seed=0).min() == 0


def test_impossible_settings_are_refused():
    with pytest.raises(AllkitError, match="below 1"):
        Augmentation(zoom=1.0)
    with pytest.raises(AllkitError, match="fill"):
        Augmentation(fill="mirror")
    with pytest.raises(AllkitError, match="square"):
        augment.augment_batch(np.zeros((1, 4, 6, 3)), Augmentation(right_angles=True), seed=0)
