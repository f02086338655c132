"""The server's page in a browser: every way in, by mouse and keyboard, wide and narrow."""

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from browser import opened
from playwright.sync_api import Page
from served import an_image, ask

SHOWN = "#result:not([hidden])"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "<b>hinge.jpg"
    path.write_bytes(an_image(3, 120, 160))
    return path


def names(page: Page) -> list[str]:
    return page.locator(".class bdi").all_inner_texts()


@pytest.mark.parametrize("width", [1100, 340])
def test_a_chosen_image_is_classified(address: str, image: Path, width: int) -> None:
    expected = ask(address, image.read_bytes(), "?nearest=3")["predictions"]
    with opened(f"{address}/", width=width, height=900) as (page, wrong):
        page.wait_for_selector("#about:not(:empty)")
        page.set_input_files("#file", image)
        page.wait_for_selector(SHOWN)
        assert names(page) == [each["class"] for each in expected]
        shares = page.locator(".share").all_inner_texts()
        assert shares == [f"{each['probability']:.1%}" for each in expected]
        assert page.locator("#status").inner_text().startswith(expected[0]["class"])
        # All images have arrived, and nothing is wider than the window.
        page.wait_for_function("[...document.images].every((image) => image.naturalWidth)")
        assert page.locator(".thumbnails img").count() == len(expected[0]["nearest"])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width < 400:  # one below the other
            boxes = [page.locator(part).bounding_box() for part in ("#image", "#classes")]
            above, below = (box for box in boxes if box)
            assert above["y"] + above["height"] <= below["y"]
    assert not wrong


def test_the_keyboard_is_enough(address: str, image: Path) -> None:
    with opened(f"{address}/", width=1000, height=900) as (page, wrong):
        page.wait_for_selector("#about:not(:empty)")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Space")
        chooser.value.set_files(image)
        page.wait_for_selector(SHOWN)
        first = page.get_attribute("#image", "src")
        page.keyboard.press("Tab")  # the camera
        page.keyboard.press("Tab")  # the classes
        page.keyboard.press("ArrowDown")
        assert page.locator(".class input").nth(1).is_checked()
        second = page.get_attribute("#image", "src")
        assert second != first
        assert names(page)[1] in (page.get_attribute("#image", "alt") or "")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert page.get_attribute("#image", "src") not in (first, second)
        assert page.get_attribute("#image", "alt") == "The image"
    assert not wrong


_SEND = """async ([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "image", { type: "" }));
  const options = { bubbles: true, cancelable: true };
  dispatchEvent(kind === "drop" ? new DragEvent("drop", { ...options, dataTransfer: transfer })
                                : new ClipboardEvent("paste", { ...options, clipboardData: transfer }));
}"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted(address: str, image: Path, kind: str) -> None:
    expected = [each["class"] for each in ask(address, image.read_bytes())["predictions"]]
    with opened(f"{address}/", width=1000, height=900) as (page, wrong):
        page.wait_for_selector("#about:not(:empty)")
        page.evaluate(_SEND, [kind, base64.b64encode(image.read_bytes()).decode()])
        page.wait_for_selector(SHOWN)
        assert names(page) == expected
    assert not wrong


def test_the_camera_is_used(address: str) -> None:
    with opened(f"{address}/", width=1000, height=900) as (page, wrong):
        page.wait_for_selector("#about:not(:empty)")
        page.click("#open-camera")
        page.click("#take:enabled")
        page.wait_for_selector(SHOWN)
        assert names(page)
        page.click("#close-camera")
        assert page.locator("#camera").is_hidden()
        live = "document.getElementById('video').srcObject.getTracks().map((t) => t.readyState)"
        assert page.evaluate(live) == ["ended"]
    assert not wrong


def test_what_is_no_image_is_said_and_the_next_one_works(
    address: str, image: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    with opened(f"{address}/", width=1000, height=900) as (page, wrong):
        page.wait_for_selector("#about:not(:empty)")
        page.set_input_files("#file", text)
        page.wait_for_selector("#status.error")
        assert page.locator("#status").inner_text().startswith("the image ")
        assert page.locator("#result").is_hidden()
        page.set_input_files("#file", image)
        page.wait_for_selector(SHOWN)
        assert page.locator("#status.error").count() == 0
    # Browsers note the status of every response.
    assert [each for each in wrong if "422" not in each] == []


def test_a_server_that_has_ended_is_said(address: str, image: Path) -> None:
    with opened(f"{address}/", width=1000, height=900) as (page, _):
        page.wait_for_selector("#about:not(:empty)")
        page.route("**/predict*", lambda route: route.abort())
        page.set_input_files("#file", image)
        page.wait_for_selector("#status.error")
        assert (
            page.locator("#status").inner_text()
            == "The server does not answer. Is it still running?"
        )


def test_the_interface_is_described_where_it_is(address: str) -> None:
    with urllib.request.urlopen(f"{address}/openapi.json") as answer:
        described: dict[str, Any] = json.load(answer)
    assert described["openapi"].startswith("3.")
    assert set(described["paths"]) == {"/predict", "/model", "/training/{index}"}
