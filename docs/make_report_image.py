"""Draws look-alike beetles, trains on them, and takes the screenshot docs/images/report.jpg.

python docs/make_report_image.py FOLDER

FOLDER keeps the images and the run: a second call only renews the report and the screenshot.
"""

import itertools
import subprocess
import sys
from pathlib import Path
from shutil import which

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

SIDE, DRAWN = 192, 576  # pixels of an image, and of the canvas that it is drawn on
KINDS = ("banded", "broken band", "clubbed", "collared", "four-spotted", "two-spotted")
GROUNDS = (95, 150, 120), (120, 165, 150), (140, 175, 190), (110, 140, 165)  # blue, green, red
WINGS = (35, 45, 110), (45, 75, 120), (50, 90, 60), (95, 85, 40), (110, 60, 45)
DATA = "data.name=folder", "data.folder=beetles", "data.data_dir=tfds", "data.resize=144"
TRAINING = "duration=18 epochs", "loss.gce_start=10 epochs", "optimizer.learning_rate=0.02"


def beetle(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Draws a beetle in a pose, size and color of its own, BGR uint8 `[SIDE, SIDE, 3]`."""
    ground = np.full((DRAWN, DRAWN, 3), rng.choice(GROUNDS), np.float32)
    for cells, deviation in ((5, 14), (24, 9), (96, 7)):
        light = rng.normal(0, deviation, (cells, cells)).astype(np.float32)
        ground += cv2.resize(light, (DRAWN, DRAWN), interpolation=cv2.INTER_CUBIC)[:, :, None]
    canvas = np.clip(ground, 0, 255).astype(np.uint8)
    wing = rng.choice(WINGS) * rng.uniform(0.8, 1.2) + rng.uniform(-12, 12, 3)
    pale = wing + rng.uniform(0.04, 0.5) * (np.array((165, 235, 255)) - wing)
    dark, middle = 0.35 * wing, DRAWN / 2 + rng.uniform(-30, 30, 2)
    size, turn = rng.uniform(0.9, 1.1), rng.uniform(0, 360)  # degrees
    axes = cv2.getRotationMatrix2D((0, 0), -turn, size)[:, :2]

    def line(width: int, color: np.ndarray, *points: tuple[float, float]) -> None:
        corners = np.rint(np.array(points) @ axes.T + middle).astype(np.int32)
        cv2.polylines(canvas, [corners], False, color.tolist(), round(size * width), cv2.LINE_AA)

    def oval(x: float, y: float, width: float, height: float, color: np.ndarray) -> None:
        box = (list(axes @ (x, y) + middle), (2 * size * width, 2 * size * height), turn)
        cv2.ellipse(canvas, box, color.tolist(), -1, cv2.LINE_AA)

    for side in (-1, 1):
        for root, knee, foot in ((-60, -110, -170), (10, 0, 50), (80, 130, 210)):
            bend = rng.uniform(-14, 14)
            line(11, dark, (0, root), (side * 125, knee + bend), (side * 165, foot + bend))
        tip = (side * (85 + rng.uniform(-12, 12)), -235 + rng.uniform(-10, 10))
        line(8, dark, (side * 20, -150), (side * 45, -195), tip)
        if kind == "clubbed":
            oval(*tip, 17, 17, dark)
    oval(0, -145, 42, 38, dark)  # head
    oval(0, -95, 70, 50, 0.75 * wing)  # collar
    oval(0, 60, 98, 150, wing)
    oval(-32, 10, 20, 62, 0.85 * wing + 38)  # a highlight
    line(5, dark, (0, -85), (0, 205))
    for side in (-1, 1):
        if "band" in kind:
            line(24, pale, (side * 88, 62), (side * 34 if kind == "broken band" else 0, 72))
        for y in {"four-spotted": (0, 120), "two-spotted": (120,)}.get(kind, ()):
            oval(side * 46, y, 19, 19, pale)
    if kind == "collared":
        line(15, pale, (-62, -110), (-30, -128), (30, -128), (62, -110))
    image = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.clip(image + rng.normal(0, 7, image.shape), 0, 255).astype(np.uint8)


def main(folder: Path) -> None:
    root, run = Path(__file__).resolve().parents[1], folder / "runs/beetles"
    rng = np.random.default_rng(0)
    for split, kind in itertools.product(("train", "test"), KINDS):
        (folder / "beetles" / split / kind).mkdir(parents=True, exist_ok=True)
        for number in range(0 if run.exists() else 300 if split == "train" else 80):
            cv2.imwrite(f"{folder}/beetles/{split}/{kind}/{number:03}.png", beetle(rng, kind))
    command = [
        sys.executable,
        "-m",
        "fgr_jax.main",
        f"--config={root}/configs/quickstart_scratch.py",
    ]
    command += [f"--config.{setting}" for setting in (*DATA, *TRAINING)]
    (run / "report.html").unlink(missing_ok=True)  # the run, if it is finished, writes it again
    subprocess.run([*command, "--workdir=runs/beetles"], cwd=folder, check=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1600})
        page.goto((run / "report.html").as_uri())
        page.locator("#gallery").screenshot(path=root / "docs/images/report.jpg", quality=80)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
