"""An emulator of Google Cloud Storage as a process: python bucket_emulator.py PORT.

It is that of the package gcp-storage-emulator, in which TensorStore misses two things that the service
has: the generation of an object in the header of a download, and uploads and downloads on the
condition that an object has, or has not, a certain generation. And gcsfs misses that an object is moved:
it asks for it again and again, for half a minute, before it makes a copy.
"""

import sys
import threading
from http import HTTPStatus
from typing import Any

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

_plain_get, _plain_insert = objects.get, objects.insert
_one_at_a_time = threading.Lock()


def _generation(storage: Any, bucket: str, name: str) -> str:
    """Of an object; "0" where there is none, as in the service's conditions."""
    try:
        return str(storage.get_file_obj(bucket, name)["generation"])
    except NotFound:
        return "0"


def _get(request: Any, response: Any, storage: Any, *arguments: Any) -> None:
    if request.query.get("alt") == ["media"]:
        found = _generation(storage, request.params["bucket_name"], request.params["object_id"])
        if request.query.get("ifGenerationNotMatch") == [found] and found != "0":
            response.status = HTTPStatus.NOT_MODIFIED
            return
        if request.query.get("ifGenerationMatch", [found]) != [found]:
            response.status = HTTPStatus.PRECONDITION_FAILED
            return
        response["x-goog-generation"] = found
    _plain_get(request, response, storage, *arguments)


def _insert(request: Any, response: Any, storage: Any, *arguments: Any) -> None:
    with _one_at_a_time:
        if "ifGenerationMatch" in request.query:
            found = _generation(storage, request.params["bucket_name"], request.query["name"][0])
            if request.query["ifGenerationMatch"] != [found]:
                response.status = HTTPStatus.PRECONDITION_FAILED
                return
        _plain_insert(request, response, storage, *arguments)


def _move(request: Any, response: Any, storage: Any, *_: Any) -> None:
    bucket, name = request.params["bucket_name"], request.params["object_id"]
    with _one_at_a_time:
        try:
            moved = objects._copy(
                request.base_url, storage, bucket, name, bucket, request.params["to"]
            )
            storage.delete_file(bucket, name)
        except NotFound:
            response.status = HTTPStatus.NOT_FOUND
            return
    response.json(moved)


if __name__ == "__main__":
    objects.get, objects.insert = _get, _insert
    from gcp_storage_emulator import server  # now: it takes the handlers as they are

    move = r"^/storage/v1/b/(?P<bucket_name>[-.\w]+)/o/(?P<object_id>.*[^/]+)/moveTo/o/(?P<to>.*[^/]+)$"
    server.HANDLERS = ((move, {server.POST: _move}), *server.HANDLERS)
    server.create_server(
        "localhost", int(sys.argv[1]), in_memory=True, default_bucket="bucket"
    ).run()
