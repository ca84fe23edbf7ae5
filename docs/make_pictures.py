"""Makes the pictures of the README: `python docs/make_pictures.py [RUN]` writes docs/pictures from a run's models.

`cells.png` is a strip of synthetic cells with the answers of the run's MobileNet. `upload.gif` shows the upload cell
at work: the page of `allkit app` in a real browser (Debian's chromium), photographed step by step.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import allkit
from allkit.classify import classify_files
from allkit.folders import find_models, run_path
from allkit.images import brighten, brightening, read_image
from allkit.models import load_model
from allkit.plots import class_colours, ink
from allkit.runs import Run

PICTURES = Path(__file__).with_name("pictures")

PORT = 8877

WIDTH, HEIGHT = 900, 760  # pixels of the animation

_CROP = slice(75, 375)  # pixels of an image of C-NMC that hold the cell


def draw_strip(run: Path, out: Path) -> None:
    """Write a row of test cells with the answers to them; the last ones are images that get none."""
    trained = load_model(find_models(run)[-1])
    tested = Run(run).load_predictions(find_models(run)[-1].stem)
    rows = tested.groupby("label").sample(24, random_state=4)
    answers = list(classify_files(rows["path"], trained))
    given = [k for k, answer in enumerate(answers) if not answer.rejected]
    none = [k for k, answer in enumerate(answers) if answer.rejected]
    chosen = [*given[:3], *given[-3:], *none[:2]]
    images = [read_image(path)[_CROP, _CROP] for path in rows["path"].iloc[chosen]]
    factor, colours = brightening(images), class_colours(trained.classes)
    figure, axes = plt.subplots(1, len(chosen), figsize=(1.25 * len(chosen), 2.1), layout="constrained")
    for ax, image, place in zip(axes, images, chosen, strict=True):
        answer = answers[place]
        ax.imshow(brighten(image, factor))
        words, colour = "no answer", "0.4"
        if not answer.rejected:
            words, colour = f"{answer.label} {answer.probabilities[answer.label]:.0%}", colours[answer.label]
        ax.set_title(words, color=ink(colour), fontsize=11, fontweight="bold")
        ax.set_xlabel(f"in truth {rows['label'].iat[place]}", fontsize=9)
        ax.set(xticks=[], yticks=[])
    figure.supxlabel(f"Synthetic cells, drawn by a program, and what {trained.metadata['title']} answers", fontsize=9)
    figure.savefig(out, dpi=160)
    plt.close(figure)
    Image.open(out).convert("RGB").quantize(128).save(out, optimize=True)


def film_upload(address: str, out: Path) -> None:
    """Write an animation of the page: a cell, another one, two cells at once, and both networks side by side."""
    with sync_playwright() as playwright:
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
        browser = playwright.chromium.launch(**options)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(90_000)
        page.goto(address)
        frames = list(_steps(page))
        browser.close()
    pictures = [picture.convert("RGB").quantize(96) for picture, _ in frames]
    durations = [seconds * 1000 for _, seconds in frames]
    pictures[0].save(out, save_all=True, append_images=pictures[1:], duration=durations, loop=0, optimize=True)


def _steps(page: Page) -> Iterator[tuple[Image.Image, float]]:
    """Yield photographs of the page, and for how many seconds each is shown."""

    def shoot() -> Image.Image:
        return Image.open(io.BytesIO(page.screenshot()))

    def show(example: str) -> None:
        page.get_by_role("button", name=example).click()
        page.locator("h3", has_text=example).wait_for()
        page.mouse.move(5, 5)
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 150)")

    page.get_by_text("press to choose").wait_for()
    yield shoot(), 2
    page.get_by_role("button", name="synthetic ALL cell").hover()
    yield shoot(), 0.7
    show("synthetic ALL cell")
    yield shoot(), 2.5
    show("synthetic HEM cell")
    yield shoot(), 2.5
    show("two synthetic cells")
    yield shoot(), 2.5
    page.get_by_text("Show what it would say anyway").click()
    yield shoot(), 2.5
    page.get_by_label("Model").select_option(index=len(page.get_by_label("Model").locator("option").all()) - 1)
    page.wait_for_function("document.querySelectorAll('.ak-row').length > 1")
    show("synthetic ALL cell")
    page.get_by_text("Show where the network looked").click()
    page.locator("img[alt^='Grad-CAM map']").nth(1).wait_for()
    page.evaluate("window.scrollTo(0, 330)")
    page.mouse.move(5, 5)
    yield shoot(), 3


def make_pictures(run: Path) -> None:
    """Write both pictures."""
    PICTURES.mkdir(exist_ok=True)
    with allkit.saving(PICTURES / "cells.png") as strip:
        draw_strip(run, strip)
    command = [sys.executable, "-m", "allkit", "app", "--model", str(run), f"--port={PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as server:
        try:
            server.stdout.readline()  # its address, once it is served
            with allkit.saving(PICTURES / "upload.gif") as film:
                film_upload(f"http://127.0.0.1:{PORT}/", film)
        finally:
            server.terminate()


if __name__ == "__main__":
    make_pictures(run_path(sys.argv[1] if len(sys.argv) > 1 else "latest"))
