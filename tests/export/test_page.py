"""The page that classifies images, opened from the disk in Chromium."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import opened
from onnx_in_browser import runtime
from PIL import Image
from playwright.sync_api import Page, expect
from saved_runs import saved
from tiny_run import small_config

from fgr_jax.data.images import CENTER
from fgr_jax.data.images.crops import crops_at
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.export import __main__ as export
from fgr_jax.export.page import model_of
from fgr_jax.inference.heatmaps import at_pixels
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.models.network import forward
from fgr_jax.runs.workdir import Workdir

NAMES = ("</script><script>alert(1)</script>", "<!--", "Ünïcode 鳥", "&amp;")


@pytest.fixture(scope="module")
def workdir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with names of classes that would end a script, and with letters of several kinds."""
    return saved(small_config(data_dir), tmp_path_factory.mktemp("page") / "run", NAMES)


@pytest.fixture(scope="module")
def page(workdir: Path) -> Iterator[Page]:
    """The page, in a window as narrow as a telephone."""
    options = ["--format=page", f"--onnxruntime_web={runtime()}"]
    assert export.main(["export", f"--workdir={workdir}", *options]) == 0
    with opened(workdir / "export" / "model.html", width=360, height=740) as (page, wrong):
        expect(page.get_by_role("status")).to_have_text("Ready.", timeout=60_000)
        yield page
    assert wrong == []  # no request, no error


def png(image: Any) -> bytes:
    written = io.BytesIO()
    Image.fromarray(image).save(written, "PNG")
    return written.getvalue()


def choose(page: Page, content: bytes, name: str = "image.png") -> None:
    payload: Any = {"name": name, "mimeType": "image/png", "buffer": content}
    page.locator("#file").set_input_files([payload])


def noise(seed: int, side: int = 36) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def expected(workdir: Path, image: Any) -> tuple[list[str], Any, Any]:
    """The names of the classes, and the run's probabilities and maps."""
    run = open_run(Workdir.open(workdir))
    trained = restore(run, None, data_mesh())
    (crop,) = crops_at(image, run.config.data, [CENTER])
    outputs: Any = forward(
        trained.network, jax.device_get(trained.variables), jnp.asarray(crop[None])
    )
    return run.class_names, jax.nn.softmax(outputs.scores)[0], outputs.maps


def test_an_image_gets_the_probabilities_of_the_run(page: Page, workdir: Path) -> None:
    """Where nothing is resized, to 1e-5; as a file, pasted and dropped."""
    for seed, way in enumerate(("file", "paste", "drop")):
        image = noise(seed)
        names, probabilities, maps = expected(workdir, image)
        order = np.argsort(-probabilities, kind="stable")
        if way == "file":
            choose(page, png(image))
        else:
            give(page, way, png(image))
        first = f"{names[order[0]]}, {100 * probabilities[order[0]]:.1f}%"
        expect(page.get_by_role("status")).to_have_text(first)
        found = page.evaluate("[...shown.outputs.probabilities.data]")
        np.testing.assert_allclose(found, probabilities, atol=1e-5)
        largest = float(np.abs(maps).max())
        found = page.evaluate("[...shown.outputs.maps.data]")
        np.testing.assert_allclose(found, np.ravel(maps), atol=1e-5 * max(1, largest))
        listed = [row.split("\n")[0] for row in page.locator("#classes button").all_inner_texts()]
        assert listed == [names[index] for index in order[:5]]
        assert sorted(listed) == sorted(NAMES)


def give(page: Page, way: str, content: bytes) -> None:
    """Pastes or drops a file."""
    page.evaluate(
        """([way, content]) => {
          const data = new DataTransfer();
          const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
          data.items.add(new File([bytes], "image.png", {type: "image/png"}));
          const event = way === "paste"
            ? new ClipboardEvent("paste", {clipboardData: data})
            : new DragEvent("drop", {dataTransfer: data, cancelable: true});
          document.dispatchEvent(event);
        }""",
        [way, base64.b64encode(content).decode()],
    )


def test_a_heat_map_of_each_class_with_the_keyboard_alone(page: Page) -> None:
    choose(page, png(noise(7)))
    expect(page.get_by_role("status")).to_have_text(re.compile(r", \d+\.\d%"))
    pixels = "$('image').toDataURL()"
    buttons = page.locator("#classes button")
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "true")
    first = page.evaluate(pixels)
    buttons.nth(0).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(buttons.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(buttons.nth(1)).to_be_focused()
    assert page.evaluate(pixels) != first
    page.locator("#heat").press("Space")  # without heat, the crop itself
    crop = """(() => {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 32;
      canvas.getContext("2d").putImageData(shown.image, 0, 0);
      return canvas.toDataURL();
    })()"""
    assert page.evaluate(pixels) == page.evaluate(crop)
    page.locator("#heat").press("Space")


def test_heat_maps_are_those_of_predict(page: Page) -> None:
    maps = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    found = page.evaluate(
        """values => {
          const before = {...geometry};
          Object.assign(geometry, {stride: 8, origin: 3.5});
          const heat = [...heatOf({dims: [1, 3, 4, 2], data: values}, 1, 32)];
          Object.assign(geometry, before);
          return heat;
        }""",
        maps.ravel().tolist(),
    )
    heat = at_pixels(np.maximum(maps[:, :, 1], 0), 32, 8, 3.5)
    # OpenCV interpolates with weights of 1/32.
    np.testing.assert_allclose(np.reshape(found, (32, 32)), heat, atol=0.06)


@pytest.mark.parametrize("method", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (35, 36)])
def test_images_are_cropped_as_those_of_the_run(
    page: Page, workdir: Path, method: str, shape: tuple[int, int]
) -> None:
    """Of a gradient, which all interpolations keep."""
    data = open_run(Workdir.open(workdir)).config.data
    data.resize_method, data.resize, data.crop = method, 37, 32
    rows, columns = np.linspace(0, 255, shape[0]), np.linspace(0, 255, shape[1])
    image = np.stack(np.broadcast_arrays(rows[:, None], columns, 99.0), -1).astype(np.uint8)
    padding = (10, 200, 30)
    (wanted,) = crops_at(image, data, [CENTER], padding)
    found = page.evaluate(
        """async ([content, changes]) => {
          const before = {...geometry};
          Object.assign(geometry, changes);
          const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
          const image = cropped(await createImageBitmap(new Blob([bytes])));
          Object.assign(geometry, before);
          return [...image.data];
        }""",
        [
            base64.b64encode(png(image)).decode(),
            {"resize_method": method, "resize": 37, "crop": 32, "padding": padding},
        ],
    )
    difference = np.abs(np.reshape(found, (32, 32, 4))[:, :, :3] - wanted.astype(float))
    # A shift by a pixel is 7 levels of a side of 37 pixels, and more of the edges of margins.
    assert np.quantile(difference, 0.9) <= 3
    assert difference.mean() <= 2


def test_what_is_no_image_is_told_and_the_page_is_narrow(page: Page) -> None:
    choose(page, b"nothing", "image.png")
    expect(page.get_by_role("status")).to_have_text(re.compile("cannot be used as an image"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    choose(page, png(noise(1)))
    expect(page.get_by_role("status")).to_have_text(re.compile(r", \d+\.\d%"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format=page"], "--format=page needs --onnxruntime_web=FOLDER"),
        (["--format=page", "--onnxruntime_web=/nowhere"], r"=/nowhere: has no dist/ort\.wasm\.min"),
        (["--onnxruntime_web=/nowhere"], "--onnxruntime_web=/nowhere: is for --format=page"),
    ],
)
def test_the_folder_of_the_runtime_is_checked(options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export.main(["export", "--workdir=nowhere", *options])


def test_the_network_in_the_page_is_verified(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = saved(small_config(data_dir), tmp_path / "run")
    options = ["--format=page", f"--onnxruntime_web={runtime()}", f"--output={tmp_path}/a.html"]
    assert export.main(["export", f"--workdir={workdir}", *options, "--verify"]) == 0
    assert "all predictions are those of the run on 27 images" in capsys.readouterr().out
    assert export.main(["export", f"--workdir={workdir}", f"--output={tmp_path}/a.onnx"]) == 0
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert model_of(text) == (tmp_path / "a.onnx").read_bytes()
