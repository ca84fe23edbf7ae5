"""Notebook 07: images of the test part one by one, what is rejected, and where the network looked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from allkit import plots
from allkit.classify import Result, corrupt_images, describe_model, label_of, load_photographs
from allkit.explain import overlay
from allkit.features import cell_mask
from allkit.images import read_image
from allkit.models import TrainedModel
from allkit.runs import load_data


def describe_models(models: Mapping[str, TrainedModel]) -> str:
    """Notebook 07: return what each model has seen and how it did, a paragraph each."""
    return "\n\n".join(
        f"**{name}.** {describe_model(model)} {model.metadata['split']['note']}" for name, model in models.items()
    )


def said(answers: Sequence[Result]) -> np.ndarray:
    """Notebook 07: return what the network says of each image, whether or not the kit would reject it, (n,) of str."""
    return np.array([label_of(answer.probabilities, answer.threshold) for answer in answers])


def choose_typical(answers: Sequence[Result], labels: Sequence[str], *, each: int = 5) -> dict[str, list[int]]:
    """Notebook 07: return places of right and of wrong answers, from the least to the most sure, evenly spaced."""
    right = said(answers) == np.asarray(labels)
    sure = np.array([max(answer.probabilities.values()) for answer in answers])
    chosen = {}
    for name, places in (("right", np.flatnonzero(right)), ("wrong", np.flatnonzero(~right))):
        order = places[sure[places].argsort()]
        chosen[name] = (
            [int(order[k]) for k in np.unique(np.linspace(0, len(order) - 1, each).round().astype(int))]
            if len(order)
            else []
        )
    return chosen


def plot_typical(answers: Sequence[Result], labels: Sequence[str], chosen: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Notebook 07: show right answers above wrong ones, from the least to the most sure, with what the network says."""
    columns = max(len(places) for places in chosen.values())
    blank = np.zeros_like(answers[0].image) + np.uint8(255)
    says, pictures, titles = said(answers), [], []
    factor = plots.brightening([answers[k].image for places in chosen.values() for k in places])
    for places in chosen.values():
        for k in places:
            sure = max(answers[k].probabilities.values())
            pictures.append(plots.brighten(answers[k].image, factor))
            titles.append(f"says {says[k]}, {sure:.0%} sure\ntruth: {labels[k]}")
        pictures += [blank] * (columns - len(places))
        titles += [""] * (columns - len(places))
    counts = {name: len(places) for name, places in chosen.items()}
    alt = f"{counts['right']} test images classified correctly above {counts['wrong']} classified wrongly, by sureness."
    return plots.plot_images(pictures, titles, columns=columns, rows=list(chosen), factor=1.0, size=1.7, alt=alt)


def describe_sureness(answers: Sequence[Result], labels: Sequence[str]) -> str:
    """Notebook 07: return how sure the network is where it is right and where it is wrong, in a sentence."""
    right = said(answers) == np.asarray(labels)
    sure = np.array([max(answer.probabilities.values()) for answer in answers])
    text = f"Mean probability of the most probable class: {sure[right].mean():.0%} where it is right"
    if right.all():
        return f"{text}; it is right everywhere."
    wrong = sure[~right]
    hesitates = "less sure, but far from unsure" if wrong.mean() < sure[right].mean() else "no less sure"
    return f"{text}, {wrong.mean():.0%} where it is wrong ({len(wrong)} images): {hesitates}."


def collect_kinds(paths: Sequence[str], *, smears: str = "", seed: int = 123) -> dict[str, list[np.ndarray]]:
    """Notebook 07: return images of several kinds: test images, corrupted ones, photographs, and smears."""
    cells = [read_image(path) for path in list(paths)[:40]]
    kinds = {"test images": cells, **corrupt_images(cells[:20]), "photographs and text": load_photographs()}
    if smears:
        kinds["blood smears"] = [read_image(path) for path in load_data(smears)["path"].sample(40, random_state=seed)]
    return kinds


def plot_grad_cam(
    answers: Sequence[Result],
    labels: Sequence[str],
    chosen: Sequence[int],
    explain: Callable[[np.ndarray, str], np.ndarray],
) -> np.ndarray:
    """Notebook 07: show images above their Grad-CAM maps, with the outline of the cell."""
    says = said(answers)
    images = [answers[k].image for k in chosen]
    factor = plots.brightening(images)
    maps = [overlay(image, explain(image, says[k])) for k, image in zip(chosen, images, strict=True)]
    masks = [[cell_mask(image)] for image in images]
    titles = [f"says {says[k]}\ntruth: {labels[k]}" for k in chosen]
    alt = f"{len(images)} test images, and below each its Grad-CAM map; yellow places spoke most for the answer."
    return plots.plot_images(
        [*(plots.brighten(image, factor) for image in images), *maps],
        titles,
        columns=len(images),
        rows=["as seen", "Grad-CAM"],
        outlines=[*masks, *masks],
        factor=1.0,
        size=1.9,
        alt=alt,
    )
