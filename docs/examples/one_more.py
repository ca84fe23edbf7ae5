"""One more network and one more class: MobileNetV2, and burst cells beside ALL and HEM."""

from pathlib import Path

from PIL import Image, ImageFilter

from allkit.data import load_index
from allkit.models import Backbone, predict_index, register_backbone
from allkit.splits import split_data
from allkit.synthetic import draw_cell
from allkit.train import build_from_profile, get_profile, train_model

MOBILENETV2 = Backbone(
    title="MobileNetV2",
    application="MobileNetV2",
    stages=r"block_(?P<block>\d+)_|(?P<stem>Conv1|bn_Conv1|expanded_conv)|(?P<top>Conv_1|out_relu)",
    weights_file="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{size}_no_top.h5",
    widths={alpha: str(alpha) for alpha in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)},
)


def draw_classes(folder: Path, images: int) -> None:
    """Write a folder of synthetic cells for each class; BURST, the new one, is a cell smeared beyond recognition."""
    for label, source, blur in (("ALL", "ALL", 0), ("HEM", "HEM", 0), ("BURST", "ALL", 25)):
        (folder / label).mkdir(parents=True)
        for number in range(images):
            cell = Image.fromarray(draw_cell(source, subject=f"{label}{number}", number=number).image)
            cell.filter(ImageFilter.GaussianBlur(blur)).save(folder / label / f"{number}.png")


def train_and_predict(folder: Path, **settings):
    """Train MobileNetV2 on a folder of folders; return its predictions table of the test part."""
    register_backbone("mobilenetv2", MOBILENETV2)
    index = load_index(folder)
    split = split_data(index, "image")  # nobody knows whose cells these are: a leak cannot be excluded
    profile = get_profile("quick", "mobilenetv2", index, weights="none", split="image", allow_leak=True, **settings)
    model = build_from_profile("mobilenetv2", profile, index["label"].nunique())
    return predict_index(train_model(model, split, profile).trained, split.test)
