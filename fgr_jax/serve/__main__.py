"""Serves a trained network on this machine: a page for a browser, and an interface of JSON.

    python -m fgr_jax.serve --workdir=runs/mine [--port=8000] [--host=127.0.0.1] [--top=5] [--nearest=3]
                            [--batch_size=8] [--max_bytes=20000000] [--step=N] [--config.FIELD=VALUE ...]

Open the address that it prints, and drop or paste an image there, choose a file or use the camera: the
page shows the most probable classes, their class activation maps over the image, and for each class the
training images that are most similar. Programs send an image to /predict; /openapi.json describes that.
The server is for one machine: other machines reach it only with --host=0.0.0.0, and everybody there may
then use it. Nothing that is uploaded is kept. --nearest=0 leaves the training images out.
--config.data.data_dir, --config.data.folder, --config.data.table and the fields of --config.runtime can
be given as well.
Ctrl-C ends it after the requests that are being answered.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

import os
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from fgr_jax import signals
from fgr_jax.errors import UserError

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from fgr_jax.inference.saved_run import TrainedNetwork, TrainedRun
    from fgr_jax.serve.classifier import Classifier
    from fgr_jax.serve.neighbors import Neighbors
    from fgr_jax.terminal import Terminal

_ENDING_S = 30  # in which requests are still answered after the signal


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_string("host", "127.0.0.1", "the address to listen at", flag_values=own)
    flags.DEFINE_integer("port", 8000, "0: any", lower_bound=0, upper_bound=65535, flag_values=own)
    flags.DEFINE_integer("top", 5, "how many classes", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("nearest", 3, "training images", lower_bound=0, flag_values=own)
    flags.DEFINE_integer("batch_size", 8, "images at once", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("max_bytes", 20_000_000, "of an image", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    fields = cli.parse_fields(argv, __doc__ or "", own)
    import uvicorn

    from fgr_jax import compilation
    from fgr_jax.distributed import chosen, data_mesh
    from fgr_jax.inference.saved_run import open_run, restore
    from fgr_jax.runs.workdir import Workdir
    from fgr_jax.serve.answers import Writer
    from fgr_jax.serve.app import build_app, is_loopback
    from fgr_jax.serve.classifier import Classifier
    from fgr_jax.terminal import Terminal

    run = open_run(Workdir.open(own.workdir), fields)
    listening = _listen(own.host, own.port)
    compilation.set_up(run.config)
    terminal = Terminal()
    mesh = data_mesh(chosen(1))
    trained = restore(run, own.step, mesh)
    neighbors = _neighbors(run, trained, mesh, terminal) if own.nearest else None
    top = min(own.top, len(run.class_names))
    largest = 1 << (own.batch_size - 1).bit_length()
    classifier = Classifier(trained, mesh, crop=run.config.data.crop, top=top, largest=largest)
    _tell_of_missing_maps(trained, run.config.data.crop, terminal)
    _compile(classifier, terminal)
    app = build_app(
        classifier,
        Writer(run, trained, neighbors),
        top=top,
        nearest=own.nearest if neighbors else 0,
        max_bytes=own.max_bytes,
        host=own.host,
    )
    settings = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=_ENDING_S, ws="none"
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=[[listening]], name="server")

    def stop(_: object) -> None:
        server.should_exit = True

    with signals.deferred(stop):
        with signals.blocked():  # in its threads
            thread.start()
        port = listening.getsockname()[1]
        terminal.line(f"http://{'localhost' if is_loopback(own.host) else own.host}:{port}")
        if not is_loopback(own.host):
            terminal.warn(f"--host={own.host}: other machines can use this server, too")
        thread.join()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens at an address.

    Raises:
      UserError: that is not possible.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        # What `create_server` says repeats the address, and the errors of `getaddrinfo` are negative.
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise UserError(
            f"--host={host} --port={port}: cannot listen there ({reason}): name another address or "
            "port, or --port=0 for one that is free"
        ) from error


def _neighbors(
    run: "TrainedRun", trained: "TrainedNetwork", mesh: "Mesh", terminal: "Terminal"
) -> "Neighbors | None":
    """Returns the training images, or None, after a line that says why, where they are gone."""
    from fgr_jax.data.source import completed, open_splits
    from fgr_jax.serve.neighbors import find_neighbors

    try:
        train, _ = open_splits(run.config.data, terminal, run.data)
        then = completed(run.data, train.identity, run.config.data, terminal)
        if not then.is_same_data(train.identity) or train.class_names != run.class_names:
            raise UserError("the training images are no longer those of the run")
        return find_neighbors(run, trained, train, mesh, terminal)
    except UserError as error:
        terminal.warn(f"no similar training images: {error}")
        return None


def _tell_of_missing_maps(trained: "TrainedNetwork", crop: int, terminal: "Terminal") -> None:
    from fgr_jax.models.network import output_shapes

    if output_shapes(trained.network, trained.variables, crop).maps is None:
        terminal.line("the network has no class activation maps, so answers have no heat maps")


def _compile(classifier: "Classifier", terminal: "Terminal") -> None:
    sizes = classifier.sizes()
    with terminal.bar("compiling", len(sizes), unit="programs", per=1) as bar:
        for done, size in enumerate(sizes, start=1):
            classifier.compile(size)
            bar.update(done)


if __name__ == "__main__":
    cli.run(main)
