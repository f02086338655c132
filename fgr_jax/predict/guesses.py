"""The first guesses of a network, batch by batch."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from fgr_jax.distributed import batch_sharding, replicated
from fgr_jax.diversification import class_scores
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.models.network import forward
from fgr_jax.predict.pictures import Picture


class Guess(NamedTuple):
    """What the network makes of a picture; nothing, where the picture cannot be read."""

    picture: Picture
    classes: Sequence[int]  # [top], the most probable first
    probabilities: Sequence[float]  # [top]
    maps: npt.NDArray[np.float32] | None  # of these classes, [top, H, W], where they were asked for


# Of uint8 pictures `[B, crop, crop, 3]` the classes, their probabilities and, if wanted, their maps.
Look = Callable[[npt.NDArray[np.uint8]], Any]


def guesses(pictures: Iterable[Picture], look: Look, *, batch_size: int) -> Iterator[Guess]:
    """Guesses in the order of `pictures`.

    While a batch is on the devices, the one before it is handed on and the next is put together.

    Args:
      pictures: decoded, or with a problem.
      look: from `compiled_look`.
      batch_size: a multiple of the number of its devices.
    """
    on_the_way: tuple[list[Picture], Any] | None = None
    for chunk in _chunks(pictures, batch_size):
        readable = [picture.image for picture in chunk if picture.image is not None]
        shown = None
        if readable:
            blank = np.zeros((batch_size - len(readable), *readable[0].shape), np.uint8)
            shown = look(np.concatenate([np.stack(readable), blank]))
        if on_the_way is not None:
            yield from _handed_on(*on_the_way)
        on_the_way = (chunk, shown)
    if on_the_way is not None:
        yield from _handed_on(*on_the_way)


def _chunks(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    waiting = iter(pictures)
    while chunk := list(itertools.islice(waiting, size)):
        yield chunk


def _handed_on(chunk: list[Picture], shown: Any) -> Iterator[Guess]:
    rows = iter(() if shown is None else _rows(jax.device_get(shown)))
    for picture in chunk:
        classes, probabilities, maps = ([], [], None) if picture.image is None else next(rows)
        yield Guess(picture, classes, probabilities, maps)


def _rows(shown: Any) -> Iterator[tuple[list[int], list[float], Any]]:
    classes, probabilities, maps = shown
    for row in range(len(classes)):
        yield (
            classes[row].tolist(),
            probabilities[row].tolist(),
            None if maps is None else maps[row],
        )


def compiled_look(trained: TrainedNetwork, mesh: Mesh, *, top: int, with_maps: bool) -> Look:
    """The network as a function of pictures.

    Args:
      trained: the network.
      mesh: the devices.
      top: how many classes.
      with_maps: whether their maps are wanted.
    """

    @jax.jit
    def look(variables: Any, images: jax.Array) -> Any:
        maps: Any = forward(trained.network, variables, images).maps
        probabilities = jax.nn.softmax(class_scores(maps))
        best, classes = jax.lax.top_k(probabilities, top)
        if not with_maps:
            return classes, best, None
        chosen = jnp.take_along_axis(maps, classes[:, None, None, :], axis=-1)
        return classes, best, jnp.moveaxis(chosen, -1, 1)

    by_row = batch_sharding(mesh)
    variables = jax.device_put(trained.variables, replicated(mesh))
    return lambda images: look(variables, jax.device_put(images, by_row))
