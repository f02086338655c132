"""The server: its answers, what it refuses, many requests at once, and its end."""

import base64
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import JPEG, an_image, ask, served
from starlette.testclient import TestClient
from tiny_run import QUIET, ROOT

from fgr_jax.data.images import decode
from fgr_jax.data.source import open_splits
from fgr_jax.distributed import data_mesh
from fgr_jax.inference.heatmaps import over_center_crop
from fgr_jax.inference.saved_run import TrainedNetwork, TrainedRun, open_run, restore
from fgr_jax.inference.thumbnails import as_jpeg
from fgr_jax.predict.files import ImageFile
from fgr_jax.predict.predictions import Prediction, Predictor
from fgr_jax.runs.workdir import Workdir
from fgr_jax.serve import uploads
from fgr_jax.serve.answers import Options, Writer
from fgr_jax.serve.app import build_app
from fgr_jax.serve.batching import Batcher
from fgr_jax.serve.classifier import Classifier
from fgr_jax.serve.neighbors import Neighbors, find_neighbors

MAX_BYTES = 200_000
TOP, NEAREST = 3, 2


@pytest.fixture(scope="module")
def run(workdir: Path) -> TrainedRun:
    return open_run(Workdir.open(workdir))


@pytest.fixture(scope="module")
def trained(run: TrainedRun) -> TrainedNetwork:
    return restore(run, None, data_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def neighbors(run: TrainedRun, trained: TrainedNetwork) -> Neighbors:
    source, _ = open_splits(run.config.data, QUIET, run.data)
    return find_neighbors(run, trained, source, data_mesh(jax.devices()[:1]), QUIET)


@pytest.fixture(scope="module")
def classifier(run: TrainedRun, trained: TrainedNetwork) -> Classifier:
    mesh = data_mesh(jax.devices()[:1])
    return Classifier(trained, mesh, crop=run.config.data.crop, top=TOP, largest=4)


@pytest.fixture(scope="module")
def client(
    run: TrainedRun, trained: TrainedNetwork, classifier: Classifier, neighbors: Neighbors
) -> Iterator[TestClient]:
    app = build_app(
        classifier,
        Writer(run, trained, neighbors),
        top=TOP,
        nearest=NEAREST,
        max_bytes=MAX_BYTES,
        host="127.0.0.1",
    )
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    return json.loads((ROOT / "fgr_jax" / "serve" / "page" / "openapi.json").read_text())


def check_schema(answer: Any, name: str, schemas: dict[str, Any]) -> None:
    jsonschema.validate(answer, {**schemas, "$ref": f"#/components/schemas/{name}"})


def image_of(url: str) -> np.ndarray:
    return decode(base64.b64decode(url.removeprefix("data:image/jpeg;base64,")))


def predicted(run: TrainedRun, trained: TrainedNetwork, encoded: bytes) -> Prediction:
    """What `predict` says."""
    predictor = Predictor(
        trained,
        data_mesh(jax.devices()[:1]),
        crop=run.config.data.crop,
        batch_size=1,
        top=TOP,
        with_maps=True,
    )
    crop = uploads.read(encoded, run.config.data, None).crop
    return next(predictor.predict([ImageFile(Path("x"), crop)]))


@pytest.mark.parametrize(("height", "width"), [(40, 56), (90, 30), (36, 36), (1200, 700)])
def test_answers_are_those_of_predict(
    run: TrainedRun,
    trained: TrainedNetwork,
    client: TestClient,
    schemas: dict[str, Any],
    height: int,
    width: int,
) -> None:
    encoded = an_image(height, height, width)
    answer = client.post(f"/predict?heatmaps=1&nearest={NEAREST}", content=encoded, headers=JPEG)
    assert answer.status_code == 200
    body = answer.json()
    check_schema(body, "Answer", schemas)
    assert (body["height"], body["width"]) == (height, width)
    expected = predicted(run, trained, encoded)
    assert [each["class"] for each in body["predictions"]] == [
        run.class_names[index] for index in expected.classes
    ]
    probabilities = [each["probability"] for each in body["predictions"]]
    np.testing.assert_allclose(probabilities, expected.probabilities, rtol=1e-5)
    shown = image_of(body["image"])
    assert max(shown.shape) == min(640, max(height, width))
    upload = uploads.read(encoded, run.config.data, None, to_show=True)
    network = trained.network
    assert upload.shown is not None
    assert expected.maps is not None
    for each, activation in zip(body["predictions"], expected.maps, strict=True):
        overlaid = over_center_crop(
            upload.shown, activation, upload.canvas, network.stride, network.origin
        )
        as_sent = decode(as_jpeg(overlaid, uploads.JPEG_QUALITY)).astype(int)
        assert np.abs(image_of(each["heatmap"]) - as_sent).mean() < 0.5
        assert len(each["nearest"]) == NEAREST


def test_what_is_not_asked_for_is_left_out(client: TestClient, schemas: dict[str, Any]) -> None:
    body = client.post("/predict?top=1", content=an_image(0), headers=JPEG).json()
    check_schema(body, "Answer", schemas)
    assert body.keys() == {"width", "height", "predictions"}
    assert [each.keys() for each in body["predictions"]] == [{"class", "probability"}]


def test_the_model_is_described(
    client: TestClient, run: TrainedRun, schemas: dict[str, Any]
) -> None:
    body = client.get("/model").json()
    check_schema(body, "Model", schemas)
    assert body["classes"] == run.class_names
    assert client.get("/openapi.json").json() == schemas


def test_a_training_image_is_nearest_to_itself(
    run: TrainedRun, client: TestClient, neighbors: Neighbors
) -> None:
    source, _ = open_splits(run.config.data, QUIET, run.data)
    found = 0
    for index in range(0, len(source), 5):
        example = source[index]
        body = client.post(
            f"/predict?nearest={NEAREST}", content=example.encoded_image, headers=JPEG
        ).json()
        for each in body["predictions"]:
            similarities = [other["similarity"] for other in each["nearest"]]
            assert similarities == sorted(similarities, reverse=True)
            if each["class"] == run.class_names[example.label]:
                assert each["nearest"][0]["image"] == f"training/{index}"
                assert each["nearest"][0]["similarity"] == pytest.approx(1, abs=2e-3)
                found += 1
                image = client.get(f"/{each['nearest'][0]['image']}")
                assert image.headers["content-type"] == "image/jpeg"
                mine = decode(example.encoded_image)
                assert np.abs(decode(image.content).astype(int) - mine).mean() < 6
    assert found > 2
    assert len(neighbors) == len(source)


def test_features_are_kept_and_belong_to_the_images(
    workdir: Path, run: TrainedRun, trained: TrainedNetwork, neighbors: Neighbors
) -> None:
    source, _ = open_splits(run.config.data, QUIET, run.data)
    (kept,) = workdir.glob("training_features-*.npz")
    mesh = data_mesh(jax.devices()[:1])
    before = kept.stat().st_mtime_ns
    again = find_neighbors(run, trained, source, mesh, QUIET)
    assert kept.stat().st_mtime_ns == before
    features = np.ones(again._directions.shape[1])
    assert again.nearest(features, 0, 3) == neighbors.nearest(features, 0, 3)
    whole = kept.read_bytes()
    for other in (whole[: len(whole) // 2], b"", whole.replace(b"identity", b"identitx")):
        kept.write_bytes(other)
        found = find_neighbors(run, trained, source, mesh, QUIET)
        assert found.nearest(features, 0, 3) == neighbors.nearest(features, 0, 3)
        assert kept.read_bytes() != other


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "message"),
    [
        ("/predict", JPEG, b"", 400, "the body is empty"),
        ("/predict", JPEG, b"no image", 422, "the image "),
        ("/predict", JPEG, an_image(0)[:200], 422, "the image "),
        ("/predict", JPEG, b"x" * (MAX_BYTES + 1), 413, "an image may have up to 200,000 bytes"),
        ("/predict", {"content-type": "text/plain"}, an_image(0), 415, "content type 'text/plain'"),
        ("/predict", {**JPEG, "origin": "http://other.example"}, an_image(0), 403, "other.example"),
        ("/predict", {**JPEG, "origin": "null"}, an_image(0), 403, "pages of null"),
        ("/predict?top=0", JPEG, an_image(0), 400, "top='0': must be a whole number from 1 to 3"),
        ("/predict?top=4", JPEG, an_image(0), 400, "top='4'"),
        ("/predict?top=²", JPEG, an_image(0), 400, "top='²'"),
        ("/predict?nearest=9", JPEG, an_image(0), 400, "nearest='9'"),
        ("/predict?heatmaps=x", JPEG, an_image(0), 400, "heatmaps='x': must be 0 or 1"),
        ("/predict?topp=1", JPEG, an_image(0), 400, "unknown parameter 'topp'"),
        ("/predict?top=1&top=2", JPEG, an_image(0), 400, "top is given twice"),
        ("/other", JPEG, an_image(0), 404, "Not Found"),
    ],
)
def test_what_cannot_be_answered_is_an_error_in_json(
    client: TestClient,
    schemas: dict[str, Any],
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    message: str,
) -> None:
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == status
    check_schema(answer.json(), "Error", schemas)
    assert message in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_a_body_without_a_length_is_limited_too(client: TestClient) -> None:
    chunks = (b"x" * 10_000 for _ in range(1_000))
    answer = client.post("/predict", content=chunks, headers=JPEG)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path",
    ["training/-1", "training/100000", "training/x", "training/%2e%2e",
     "training/..%2f..%2fconfig.json", "..%2fpyproject.toml", "page/index.html", "training/¹"],
)  # fmt: skip
def test_no_file_is_named_by_a_request(client: TestClient, path: str) -> None:
    answer = client.get(f"/{path}")
    assert answer.status_code == 404
    assert answer.json().keys() == {"error"}


def test_only_this_machine_is_answered(client: TestClient) -> None:
    """A page elsewhere may resolve a name of its own to this machine."""
    answer = client.get("/model", headers={"host": "rebound.example"})
    assert answer.status_code == 400
    assert client.get("/model", headers={"host": "127.0.0.1:8000"}).status_code == 200


def test_every_response_keeps_the_page_to_this_server(client: TestClient) -> None:
    for path in ("/", "/page.js", "/engine.js", "/style.css", "/model", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["x-content-type-options"] == "nosniff"


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_upload_is_an_error_of_the_server(client: TestClient, data: st.DataObject) -> None:
    """Arbitrary bytes, and images in which bytes are changed, cut out or repeated."""
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".webp", ".bmp", ".tiff"]))
    encoded = bytearray(an_image(data.draw(st.integers(0, 5)), suffix=suffix))
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 8))):
            place = data.draw(st.integers(0, len(encoded) - 1))
            encoded[place] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            del encoded[data.draw(st.integers(0, len(encoded) - 1)) :]
    else:
        encoded = bytearray(data.draw(st.binary(max_size=200)))
    answer = client.post("/predict?heatmaps=1", content=bytes(encoded), headers=JPEG)
    assert answer.status_code in (200, 400, 422), answer.text
    assert answer.status_code == 200 or answer.json().keys() == {"error"}


def test_what_comes_together_is_computed_together() -> None:
    batches = []
    first_is_running, may_end = threading.Event(), threading.Event()

    def compute(items: Any) -> list[int]:
        batches.append(list(items))
        first_is_running.set()
        may_end.wait()
        return [10 * item for item in items]

    batcher: Batcher[int, int] = Batcher(compute, 4)
    with ThreadPoolExecutor(7) as threads:
        first = threads.submit(batcher.submit, 0)
        first_is_running.wait()
        others = []
        for item in range(1, 7):
            others.append(threads.submit(batcher.submit, item))
            while len(batcher._waiting) < item:  # in this order
                time.sleep(0.001)
        may_end.set()
        assert [each.result() for each in (first, *others)] == [0, 10, 20, 30, 40, 50, 60]
    assert batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_an_error_of_a_batch_ends_no_later_batch() -> None:
    def compute(items: Any) -> list[int]:
        if 0 in items:
            raise RuntimeError("of the device")
        return list(items)

    batcher: Batcher[int, int] = Batcher(compute, 1)
    with pytest.raises(RuntimeError, match="of the device"):
        batcher.submit(0)
    assert batcher.submit(1) == 1


@pytest.fixture
def server(workdir: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    with served(workdir) as (process, address):
        yield process, address


def test_many_at_once_lose_none_and_the_end_waits_for_them(
    server: tuple[subprocess.Popen, str],
) -> None:
    process, address = server
    images = [an_image(seed) for seed in range(8)]

    def classify(number: int) -> Any:
        return ask(address, images[number % 8])

    alone = [classify(number) for number in range(8)]
    with ThreadPoolExecutor(200) as threads:
        together = list(threads.map(classify, range(200)))
    for number, answer in enumerate(together):
        expected = alone[number % 8]["predictions"]
        assert [each["class"] for each in answer["predictions"]] == [
            each["class"] for each in expected
        ]
        np.testing.assert_allclose(
            [each["probability"] for each in answer["predictions"]],
            [each["probability"] for each in expected],
            rtol=1e-4,
        )
    # A request that is under way when the signal comes: its second half arrives after it.
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        half = len(images[0]) // 2
        head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
        head += f"Content-Length: {len(images[0])}\r\n\r\n"
        slow.sendall(head.encode() + images[0][:half])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        slow.sendall(images[0][half:])
        answer = b""
        while chunk := slow.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == alone[0]
    assert process.wait(timeout=30) == 0
    _, errors = process.communicate()
    assert not errors


def test_a_port_in_use_is_one_line(workdir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "fgr_jax.serve", f"--workdir={workdir}", f"--port={port}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"--port={port}: cannot listen there (Address already in use)" in done.stderr


def test_a_network_that_has_diverged_still_answers_in_json(
    run: TrainedRun, trained: TrainedNetwork, classifier: Classifier, schemas: dict[str, Any]
) -> None:
    upload = uploads.read(an_image(1), run.config.data, None)
    answer = classifier([upload.crop])[0]
    diverged = answer._replace(probabilities=np.full_like(answer.probabilities, np.nan))
    written = Writer(run, trained, None).write(upload, diverged, Options(TOP, False, 0))
    json.dumps(written, allow_nan=False)
    check_schema(written, "Answer", schemas)
    assert [each["probability"] for each in written["predictions"]] == [0.0] * TOP
