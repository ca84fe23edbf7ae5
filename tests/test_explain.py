"""Maps of what a network looks at: they point where they should, and the scores say so."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from scale_bars import (
    count_changes,
    cover_corner,
    evaluate_one_category,
    find_scale_bar,
    find_scale_bars,
    swap_corner,
)

from allkit import AllkitError, plots
from allkit.augment import apply_augmentation, load_part, stamp_mark
from allkit.backend import keras
from allkit.data import load_index
from allkit.evaluate import evaluate_predictions
from allkit.explain import build_grad_cam, build_occlusion, split_network
from allkit.features import cell_mask
from allkit.images import load_images, prepare_image, read_image
from allkit.lessons.saliency import (
    average_scores,
    centre_blob,
    choose_cells,
    compare_maps,
    load_masks,
    overlap,
    plant_shortcut,
    pointing_game,
    prepare_mask,
    random_map,
    score_maps,
)
from allkit.lessons.training import rescale_cell
from allkit.models import BACKBONES, TrainedModel, build_model, predict_index
from allkit.splits import split_by_image
from allkit.synthetic import draw_cell, load_truth

METADATA = {"classes": ["ALL", "HEM"], "input": {"image_size": 32, "crop": None}}


@pytest.fixture(scope="module")
def corner_network():
    """A network that says ALL the more, the brighter the top left quarter is; it sees nothing else."""
    inputs = keras.Input((32, 32, 3), name="image")
    corner = keras.layers.Cropping2D(((0, 16), (0, 16)))(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(name="head_pool")(corner)
    outputs = keras.layers.Dense(2, activation="softmax", name="probabilities")(pooled)
    model = keras.Model(inputs, outputs)
    model.get_layer("probabilities").set_weights([np.array([[0.01, -0.01]] * 3), np.array([-1.0, 1.0])])
    return TrainedModel(model, METADATA)


@pytest.fixture
def corner():
    mask = np.zeros((32, 32), dtype=bool)
    mask[:16, :16] = True
    return mask


@pytest.fixture(scope="module")
def cell():
    return draw_cell("ALL", subject="11", seed=3)


@pytest.fixture(scope="module")
def index(twin):
    rows = load_index(twin)
    return rows[rows["part"] == "train"].reset_index(drop=True)


def test_occlusion_points_where_the_network_looks(corner_network, corner):
    image = np.full((32, 32, 3), 200, np.uint8)
    image[0], image[-1], image[:, 0], image[:, -1] = 0, 0, 0, 0  # a dark rim: patches are filled with black
    heat = build_occlusion(corner_network)(image, "ALL")
    assert heat.shape == (32, 32)
    assert heat.dtype == np.float32
    assert heat.max() == 1
    assert pointing_game(heat, corner) == 1
    assert overlap(heat, corner) > 0.8
    assert heat[20:, 20:].max() == 0
    assert build_occlusion(corner_network)(image, "HEM").max() == 0  # bright places speak against HEM


def test_occlusion_changes_nothing_where_the_patch_has_the_colour_of_the_place(corner_network):
    black = np.zeros((32, 32, 3), np.uint8)
    assert build_occlusion(corner_network)(black, "ALL").max() == 0


def test_the_mean_hides_texture_and_leaves_outline_and_background(corner_network):
    image = np.zeros((32, 32, 3), np.uint8)
    image[6:26, 6:26] = 120
    assert build_occlusion(corner_network, fill="background")(image, "ALL").max() == 1
    assert build_occlusion(corner_network, fill="mean")(image, "ALL").max() == 0  # a plain square: no texture to hide


def test_occlusion_refuses_what_it_does_not_know(corner_network):
    with pytest.raises(AllkitError, match="fill"):
        build_occlusion(corner_network, fill="white")
    with pytest.raises(AllkitError, match="no class 'ill'"):
        build_occlusion(corner_network)(np.zeros((32, 32, 3), np.uint8), "ill")


@pytest.mark.parametrize("name", ["mobilenet", "efficientnetb3"])
def test_the_network_is_cut_at_a_finer_map_without_a_bypass(name):
    """At 64 px the last map has two places a side; both halves must still give the network's own answer."""
    model = build_model(name, 64, alpha=0.25, pooling="avg", seed=1)
    image = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype(np.float32)
    backbone, head, last = split_network(model, 7)
    assert 7 <= backbone.outputs[0].shape[1] < 16
    assert split_network(model, 1)[0].outputs[0].shape[1] == 2
    assert last(head(backbone(image))).numpy() == pytest.approx(model(image).numpy(), abs=1e-5)
    with pytest.raises(AllkitError, match="fewer"):
        split_network(model, 200)


@pytest.mark.parametrize("name", ["mobilenet", "efficientnetb3"])
def test_grad_cam_sees_every_depth_that_the_head_sees(name):
    """Each depth is cut where the head pools it, and both classes are explained differently."""
    model = build_model(name, 64, alpha=0.25, depths="several", seed=1)
    backbone, head, last = split_network(model, 7)
    maps = BACKBONES[name].depths
    assert [found.shape[-1] for found in backbone.outputs] == [model.get_layer(d).output.shape[-1] for d in maps]
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    answer = model(image[None].astype(np.float32)).numpy()
    assert last(head(backbone(image[None].astype(np.float32)))).numpy() == pytest.approx(answer, abs=1e-5)
    trained = TrainedModel(model, METADATA | {"input": {"image_size": 64, "crop": None}})
    found = {label: build_grad_cam(trained)(image, label) for label in ("ALL", "HEM")}
    assert all(0 <= heat.min() <= heat.max() <= 1 for heat in found.values())
    assert not np.allclose(found["ALL"], found["HEM"])


def test_scores_of_maps_inside_outside_and_everywhere(corner):
    inside, outside = corner.astype(float), (~corner).astype(float)
    assert pointing_game(inside, corner) == overlap(inside, corner) == 1
    assert pointing_game(outside, corner) == overlap(outside, corner) == 0
    flat = np.ones((32, 32))
    assert pointing_game(flat, corner) == overlap(flat, corner) == 0.25  # the mask's share of the area
    assert pointing_game(0 * flat, corner) == overlap(0 * flat, corner) == 0
    with pytest.raises(AllkitError, match="same shape"):
        overlap(np.ones((16, 16)), corner)


def test_baseline_maps_know_nothing_of_the_image():
    blob = centre_blob(40)
    middle = np.zeros((40, 40), dtype=bool)
    middle[10:30, 10:30] = True
    assert blob.max() == pytest.approx(1)
    assert pointing_game(blob, middle) == 1
    assert overlap(blob, middle) > 0.4
    assert np.array_equal(random_map(40, 7, 1), random_map(40, 7, 1))
    assert not np.array_equal(random_map(40, 7, 1), random_map(40, 7, 2))
    hits = [pointing_game(random_map(40, 8, k), middle) for k in range(400)]
    assert 0.15 < np.mean(hits) < 0.4  # a quarter of the area


def test_masks_follow_the_image_through_crop_and_resize(twin, index):
    path = index["path"].iloc[0]
    masks = load_masks(path, load_truth)
    assert masks["cell"].shape == (450, 450)
    assert (masks["nucleus"] & ~masks["cell"]).sum() == 0
    seen, mask = prepare_image(read_image(path), 96, 300), prepare_mask(masks["cell"], 96, 300)
    differ = mask ^ cell_mask(seen)
    assert differ.mean() < 0.02  # the soft rim only
    assert prepare_mask(load_truth(path).nucleus, 96, 300).sum() < mask.sum()


def test_masks_of_a_cell_that_nobody_drew(tmp_path, cell):
    from PIL import Image

    Image.fromarray(cell.image).save(tmp_path / "cell.png")
    masks = load_masks(str(tmp_path / "cell.png"), load_truth)
    assert list(masks) == ["cell"]
    assert (masks["cell"] ^ cell.outline).mean() < 0.01


def test_scores_are_averaged_over_subjects(corner):
    cells = pd.DataFrame({"path": [f"{k}.png" for k in range(12)], "subject": [f"S{k // 2}" for k in range(12)]})
    cells["group"] = cells["subject"]
    maps = {"good": [corner.astype(float)] * 12, "bad": [(~corner).astype(float)] * 12}
    scores = score_maps(cells, maps, [{"corner": corner}] * 12)
    assert len(scores) == 24
    table = average_scores(scores, "pointing", against="bad")
    assert list(table.index) == ["good", "bad"]
    assert table.loc["good", ["value", "low", "high"]].tolist() == [1, 1, 1]
    assert table["verdict"].tolist() == ["above", "inconclusive"]
    assert table.loc["good", ["resampled", "units"]].tolist() == ["subjects", 6]
    few = average_scores(scores[scores["subject"].isin(["S0", "S1"])], "pointing", against="bad")
    assert few["low"].isna().all()
    assert set(few["verdict"]) == {"inconclusive"}
    unknown = average_scores(scores.assign(subject=pd.NA), "overlap", against="good")
    assert unknown.loc["bad", ["verdict", "resampled", "units"]].tolist() == ["below", "images", 12]


def test_maps_of_two_networks_are_compared_pixel_by_pixel():
    first = random_map(32, 6, 0)
    assert compare_maps([first], [first])[0] == pytest.approx(1)
    assert compare_maps([first], [1 - first])[0] == pytest.approx(-1)
    assert np.isnan(compare_maps([first], [np.zeros((32, 32))])[0])


def test_cells_are_chosen_from_many_subjects(index):
    chosen = choose_cells(index, 30, seed=1)
    assert len(chosen) == 30
    assert chosen["path"].is_unique
    assert chosen["subject"].nunique() == min(30, index["subject"].nunique())
    assert chosen.equals(choose_cells(index, 30, seed=1))
    unknown = choose_cells(index.assign(subject=pd.NA), 10, seed=1)
    assert len(unknown) == 10


def test_the_mark_is_where_it_is_said_to_be(cell):
    marked = stamp_mark(cell.image, "bottom right", share=0.1)
    changed = (marked != cell.image).any(axis=2)
    assert changed[-45:, -45:].all()
    assert changed.sum() == 45 * 45
    assert np.array_equal(apply_augmentation(cell.image, "mark:bottom right"), stamp_mark(cell.image, "bottom right"))
    with pytest.raises(AllkitError, match="top left"):
        stamp_mark(cell.image, "middle")


def test_a_shortcut_is_planted_in_one_class(index):
    part = plant_shortcut(index, ["HEM"], share=0.8, seed=4)
    marked = part["augmentation"] == "mark:top left"
    assert set(part.loc[marked, "label"]) == {"HEM"}
    assert 0.5 < marked.sum() / (part["label"] == "HEM").sum() < 1
    assert part.equals(plant_shortcut(index, ["HEM"], share=0.8, seed=4))
    rows = part.iloc[[int(np.flatnonzero(marked)[0]), int(np.flatnonzero(~marked)[0])]].reset_index(drop=True)
    images, plain = load_part(rows, image_size=64, crop=300), load_images(rows, image_size=64, crop=300)
    assert (images[0] != plain[0]).any(axis=2)[:8, :8].all()
    assert np.array_equal(images[1], plain[1])
    with pytest.raises(AllkitError, match="originals"):
        plant_shortcut(part, ["ALL"])


def test_predictions_see_the_mark_and_any_other_change(index, corner_network):
    rows = index.head(6).reset_index(drop=True)
    plain = predict_index(corner_network, rows)
    marked = predict_index(corner_network, plant_shortcut(rows, list(set(rows["label"])), share=1.0))
    assert (marked["p_ALL"] > plain["p_ALL"]).all()
    assert predict_index(corner_network, rows, change=lambda image, path: image).equals(plain)
    dark = predict_index(corner_network, rows, change=lambda image, path: image * 0)
    assert dark["p_ALL"].to_numpy() == pytest.approx(1 / (1 + np.exp(2)), abs=1e-4)


@pytest.mark.parametrize("area", [15_000, 30_000, 45_000])
def test_a_rescaled_cell_has_the_area_asked_for(area):
    for number in range(4):
        image = draw_cell("HEM", subject="H3", number=number).image
        scaled = rescale_cell(image, area)
        assert scaled.shape == image.shape
        assert cell_mask(scaled).sum() == pytest.approx(area, rel=0.03)
        assert scaled[:10].max() == scaled[-10:].max() == 0
        assert abs(scaled[cell_mask(scaled)].mean() - image[cell_mask(image)].mean()) < 2


def test_rescaling_knows_its_limits(cell):
    black = np.zeros((50, 50, 3), np.uint8)
    assert np.array_equal(rescale_cell(black, 100), black)
    with pytest.raises(AllkitError, match="above 0"):
        rescale_cell(cell.image, 0)


def test_a_corner_is_covered_by_what_lies_beside_it():
    image = np.arange(50, dtype=np.uint8)[None, :, None] * np.ones((40, 1, 3), np.uint8)
    covered = cover_corner(image, "bottom right")
    assert np.array_equal(covered[35:, 42:, 0], np.tile(np.arange(41, 33, -1), (5, 1)))
    assert np.array_equal(covered[:35], image[:35])
    left = cover_corner(image, "bottom left")
    assert np.array_equal(left[35:, :8, 0], np.tile(np.arange(15, 7, -1), (5, 1)))
    swapped = swap_corner(image, image * 0 + 99, "bottom right")
    assert (swapped != image).any(axis=2).sum() == 5 * 8
    assert np.all(swapped[35:, 42:] == 99)
    with pytest.raises(AllkitError, match="no common corner"):
        swap_corner(image, image[:20], "top left")


def smear(kind: str) -> np.ndarray:
    """A pale picture with a purple cell in the corner, and a scale bar over it."""
    image = np.full((224, 224, 3), (225, 225, 240), np.uint8)
    image[190:224, 196:224] = (110, 70, 190)
    if kind.startswith("black"):
        image[205:222, 191:220] = 255
    if kind == "black, long":
        image[216:218, 191:] = 0
    elif kind == "black on a white box":
        image[212:216, 198:202] = 20
    elif kind == "red":
        image[213:217, 200:203] = (220, 60, 70)
    return image


@pytest.mark.parametrize("kind", ["black, long", "black on a white box", "red", "none"])
def test_a_scale_bar_is_found_and_told_from_a_cell(kind):
    assert find_scale_bar(smear(kind)) == kind


def test_a_cell_on_black_has_no_scale_bar(cell):
    assert find_scale_bar(cell.image) == "none"
    assert find_scale_bar(stamp_mark(cell.image, "bottom right")) == "none"


def test_bars_of_genuine_smears_tell_the_class(smears_folder):
    index = load_index(smears_folder).groupby("label").head(80).reset_index(drop=True)
    split = split_by_image(index)
    kinds = [find_scale_bars(part["path"]) for part in (split.train, split.test)]
    assert "none" not in set(kinds[0])
    predictions = evaluate_one_category(split, *kinds)
    assert evaluate_predictions(predictions)["balanced_accuracy"] > 0.35


def test_a_category_predicts_by_its_training_shares(index):
    split = split_by_image(index)
    kinds = split.train["label"].map({"ALL": "a", "HEM": "b"}).to_numpy()
    tested = split.test["label"].map({"ALL": "a", "HEM": "b"}).to_numpy()
    assert evaluate_predictions(evaluate_one_category(split, kinds, tested))["accuracy"] == 1
    new = evaluate_one_category(split, kinds, np.full(len(tested), "unseen"))
    share = (split.train["label"] == "ALL").mean()
    assert new["p_ALL"].to_numpy() == pytest.approx(share)


def test_changed_answers_are_counted():
    before = pd.DataFrame({"path": ["a", "b"], "label": ["ALL", "HEM"], "p_ALL": [0.9, 0.2], "p_HEM": [0.1, 0.8]})
    after = before.assign(p_ALL=[0.4, 0.2], p_HEM=[0.6, 0.8])
    found = count_changes(before, after)
    assert found["changed"] == 0.5
    assert found["moved"] == pytest.approx(0.25)
    assert found["accuracy"] == 0.5
    with pytest.raises(AllkitError, match="different images"):
        count_changes(before, after.assign(path=["a", "c"]))


def test_figures_of_maps_and_scores(cell):
    picture, mask = cell.image, {"cell": cell.outline, "nucleus": cell.nucleus}
    outlines = [[], mask.values()] * 2
    axes = plots.plot_images([picture] * 4, ["a", "b"], columns=2, rows=["x", "y"], outlines=outlines)
    assert axes.shape == (2, 2)
    assert axes[0, 1].get_title() == "b"
    assert axes[1, 0].get_ylabel() == "y"
    assert len(axes[0, 1].collections) == 2
    assert not axes[0, 0].collections
    table = pd.DataFrame({"value": [0.5, 1.0], "low": [0.4, np.nan], "high": [0.6, np.nan]}, index=["map", "blob"])
    ax = plots.plot_intervals(pd.concat({"cell": table, "nucleus": table}).swaplevel(), xlabel="share")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cell", "nucleus", "no interval"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["map", "blob"]
