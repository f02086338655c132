"""A network: a backbone and a head (figure 2 of the paper), as a config describes them."""

import functools
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax import config as config_lib
from fgr_jax.config import Config, Diversification
from fgr_jax.errors import UserError
from fgr_jax.files.python_files import listed_or_own
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.backbones import BACKBONES
from fgr_jax.models.backbones.interface import IMAGENET_MEAN, IMAGENET_STD, Backbone, Channels
from fgr_jax.models.heads import HEADS
from fgr_jax.models.heads.interface import FromFeatures
from fgr_jax.models.weights.table import Table

BACKBONE = "backbone"  # the last stage of every backbone, in `Network.frozen` and `start`
AVERAGE = "average"  # the entry of the moving averages in a saved state
HEAD = "classifier"  # the entry of the head in a parameter tree


class Network(nn.Module):
    """Maps images to the outputs of a head.

    Attributes:
      backbone: maps images `[B, H, W, 3]` to features `[B, h, w, D]`, called with `train`. Its attribute
        `stride` is the number of pixels from one cell to the next; the others of a `Backbone` are
        optional.
      classifier: the head, which maps features to `Outputs`, called with `train`. Its parameters have
        this name. One with the attribute `takes_earlier` is also called with `earlier`, the output of
        the backbone's stage before the last, or the features themselves if all stages are frozen. One
        with the attribute `looks_again` is also called with `images`, the network's input, and
        `features_of`, the backbone. With the attribute `cellwise`, a head's scores in test mode are
        the average of its maps, and these are linear in the features of each cell.
      frozen: the frozen part: "" for nothing, a stage of the backbone for all stages up to it, or
        "backbone". It is applied in test mode in training too, and no gradient reaches it.
      pool: side of the squares of cells that features are averaged over, as the backbone's last stage.
    """

    backbone: nn.Module
    classifier: nn.Module
    frozen: str = ""
    pool: int = 1

    def __call__(self, x: Any, *, train: bool, start: str = "") -> Outputs:
        """Maps normalized images `[B, H, W, 3]` to outputs; `train` is as for `Backbone`.

        Args:
          x: the images, or the output of `start`.
          train: whether this is a step of training.
          start: a stage of the backbone, or "backbone", to continue after; "" starts with the images.
        """
        features, more = self.head_input(x, train=train, start=start)
        return self.classifier(features, train=train, **more)

    def head_input(
        self, x: Any, *, train: bool, start: str = ""
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Returns the features that the head is applied to, and its further arguments."""
        if not getattr(self.classifier, "takes_earlier", False):
            again = self._again(x, train=train, start=start)
            return x if start == BACKBONE else self.features(x, train=train, start=start), again
        *before, last = self.backbone.stages
        if self.frozen in (BACKBONE, last):
            x = x if start == BACKBONE else self.features(x, train=train, start=start)
            return x, {"earlier": x}
        x, earlier = self._with_earlier(x, train=train, start=start, also=before[-1])
        return x, {"earlier": earlier}

    def features(self, x: Any, *, train: bool, start: str = "") -> jax.Array:
        """Applies the backbone, and averages cells; the arguments are those of `__call__`."""
        # A backbone of the user's own may have no stages to continue after.
        after = {"start": start} if start else {}
        frozen = self.frozen == BACKBONE
        x = self.backbone(x, train=train and not frozen, **after)
        x = self._pooled(x)
        return jax.lax.stop_gradient(x) if frozen else x

    def _again(self, images: Any, *, train: bool, start: str) -> dict[str, Any]:
        """Returns what a head needs besides the features to look at parts of the images again."""
        if not getattr(self.classifier, "looks_again", False):
            return {}
        if start and not self.is_initializing():
            raise UserError(
                "--config.data.views: this head looks at parts of the images again, in place of which "
                "there are features: set it to 0"
            )
        # Where only the variables after `start` are wanted, there are no images.
        return {
            "images": None if start else images,
            "features_of": functools.partial(self.features, train=train),
        }

    def _with_earlier(self, x: Any, *, train: bool, start: str, also: str) -> Any:
        x, earlier = self.backbone(x, train=train, start=start, also=also)
        return self._pooled(x), earlier

    def _pooled(self, x: jax.Array) -> jax.Array:
        if self.pool > 1:
            if any(side % self.pool for side in x.shape[1:3]):
                raise UserError(
                    f"--config.network.pool={self.pool}: must divide the sides of the features, "
                    f"which have {x.shape[1]}×{x.shape[2]} cells"
                )
            squares = (self.pool, self.pool)
            return nn.avg_pool(x, squares, squares)
        return x

    @property
    def stride(self) -> int:
        """The number of pixels from one map cell to the next."""
        return self.backbone.stride * self.pool

    @property
    def origin(self) -> float:
        """The row and column of the pixel that the first map cell is centered at."""
        first: float = getattr(self.backbone, "origin", 0.0)
        return first + (self.pool - 1) / 2 * self.backbone.stride

    @property
    def table(self) -> Table:
        """The names of the variables in weight files."""
        return getattr(self.backbone, "table", ())

    @property
    def normalization(self) -> tuple[Channels, Channels]:
        """The channel means and deviations that images are normalized with."""
        mean = getattr(self.backbone, "mean", IMAGENET_MEAN)
        return mean, getattr(self.backbone, "std", IMAGENET_STD)

    @property
    def padding(self) -> tuple[int, int, int]:
        """The color, of 255, that is nearest to 0 after `normalize`, for margins of images."""
        mean, _ = self.normalization
        red, green, blue = (min(255, max(0, round(255 * float(each)))) for each in mean)
        return red, green, blue

    def normalize(self, images: jax.Array) -> jax.Array:
        """Converts uint8 `[B, H, W, 3]` to float32, standardized as the backbone takes it."""
        mean, std = (np.asarray(each, np.float32) for each in self.normalization)
        return (images.astype(jnp.float32) / 255 - mean) / std


def build_network(config: Config, num_classes: int) -> Network:
    """Builds the network that a config describes.

    Raises:
      UserError: `network.backbone` or `network.head` is unknown or fails, the backbone has no stage
        `network.frozen`, or the head does not go with the backbone or `network.head_from_features`.
    """
    section = config.network
    # A non-zero weight of L-GM selects its own head.
    head = "gaussian" if config.loss.lgm else section.head
    backbone: nn.Module = listed_or_own(
        section.backbone,
        BACKBONES,
        nn.Module,
        flag="--config.network.backbone",
        arguments=[section],
    )
    classifier: nn.Module = listed_or_own(
        head, HEADS, nn.Module, flag="--config.network.head", arguments=[section, num_classes]
    )
    options = {name: getattr(section, name) for name in ("norm_group", "drop_path", "remat")}
    if isinstance(backbone, Backbone):
        backbone = backbone.clone(**options)
    for name, value in options.items():
        if value and not isinstance(backbone, Backbone):
            raise UserError(
                f"--config.network.{name}={value}: is for the listed backbones, not for "
                f"{network_name(section)}: leave it out"
            )
    if section.frozen not in ("", BACKBONE):
        stages = backbone.stages if isinstance(backbone, Backbone) else ()
        if section.frozen not in stages:
            known = f"{BACKBONE} or one of {', '.join(stages)}" if stages else BACKBONE
            raise UserError(
                f"--config.network.frozen={section.frozen!r}: is no stage of {network_name(section)}: "
                f"must be {known}, or empty"
            )
        backbone = backbone.clone(frozen=section.frozen)
    _check_head(config, head, classifier, backbone)
    return Network(backbone, classifier, section.frozen, section.pool)


def with_all_cells(network: Network) -> Network:
    """Returns the network without `pool` if its head is `cellwise`: the scores are the same.

    The maps have all cells of the backbone, also where the network was trained on one, their average.
    """
    return network.clone(pool=1) if getattr(network.classifier, "cellwise", False) else network


def _check_head(config: Config, name: str, head: nn.Module, backbone: nn.Module) -> None:
    """Checks that the head goes with the backbone, and has what it is to be started with."""
    section = config.network
    if getattr(head, "takes_earlier", False) and not isinstance(backbone, Backbone):
        raise UserError(
            f"--config.network.head={name}: needs the output of an earlier stage of the backbone, and "
            f"{network_name(section)} has no stages: take a listed one"
        )
    if section.head_from_features and not isinstance(head, FromFeatures):
        raise UserError(
            f"--config.network.head_from_features=True: head {name} has no weights that are computed "
            "from features: set it to False"
        )


def network_name(network: config_lib.Network) -> str:
    """Returns the display name of the backbone, such as "ResNet-50"."""
    if network.backbone != "resnet":
        return network.backbone
    return f"ResNet-{network.depth}" + (f" × {network.width:g}" if network.width != 1 else "")


def description(config: Config, network: Network, variables: Any, maps: Any) -> str:
    """Describes a network, as in "ResNet-50, 23,917,832 parameters; 448×448 pixels give maps of …".

    `maps` are those of `output_shapes`.
    """
    size, params = config.data.crop, variables["params"]
    gives = "no maps" if maps is None else f"maps of {maps.shape[1]}×{maps.shape[2]} cells"
    count = f"{parameter_count(params):,} parameters"
    if network.frozen:
        trained = parameter_count(trained_part(network, params, size))
        count += f", of which {trained:,} are trained (frozen: {network.frozen})"
    return f"{network_name(config.network)}, {count}; {size}×{size} pixels give {gives}"


def applied_block(config: Config, maps: Any) -> Diversification | None:
    """Returns the diversification block as it is applied to maps in training; None where it is not.

    `maps` are those of `output_shapes`.
    """
    if maps is None:
        return None
    block = config.diversification.on_maps(*maps.shape[1:3])
    return None if block.alpha == 1 else block


def forward(network: Network, variables: Any, images: jax.Array) -> Outputs:
    """Applies the network to uint8 images `[B, H, W, 3]` in test mode: running statistics, no block."""
    outputs: Any = network.apply(variables, network.normalize(images), train=False)
    return outputs


def frozen_output(network: Network, variables: Any, images: jax.Array) -> Any:
    """Applies the frozen part of the network to uint8 images `[B, H, W, 3]`.

    Returns:
      The output of the last frozen stage: a tree of arrays with B rows.
    """
    x = network.normalize(images)
    if network.frozen == BACKBONE:
        return network.apply(variables, x, train=False, method=Network.features)
    # Where it is compiled, nothing is left of the stages after it.
    _, sown = network.apply(
        variables, x, train=False, method=Network.features, mutable=["intermediates"]
    )
    return sown["intermediates"]["backbone"][network.frozen][0]


def trained_part(network: Network, params: Any, size: int) -> Any:
    """Returns the entries of a parameter tree that are trained: those outside of the frozen part.

    They are the parameters that the network has when it starts after the frozen part.

    Args:
      network: the network.
      params: its parameters, or a tree with the same dicts, such as their shapes.
      size: side of the images in pixels.
    """
    return (
        _entries(params, _trained_variables(network, size)["params"]) if network.frozen else params
    )


def frozen_variables(network: Network, variables: Any, size: int) -> dict[str, Any]:
    """Returns the variables of the frozen part by their paths; arguments as for `trained_part`."""
    trained = flax.traverse_util.flatten_dict(_trained_variables(network, size), sep="/")
    ours = flax.traverse_util.flatten_dict(variables, sep="/")
    return {path: value for path, value in ours.items() if path not in trained}


def depths_of_params(network: Network, size: int) -> dict[str, int]:
    """Returns how many stages there are from each parameter to the head, by its path.

    They are 0 for the parameters of the head, 1 for those of the backbone's last stage, and so on; 1 for
    all of a backbone without stages. `size` is the side of the images in pixels.
    """
    backbone = network.backbone
    stages = backbone.stages if isinstance(backbone, Backbone) else (BACKBONE,)
    # The parameters that the network has when it starts after each stage.
    after = [
        flax.traverse_util.flatten_dict(
            _trained_variables(network.clone(frozen=stage), size)["params"], sep="/"
        )
        for stage in stages
    ]
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    init = functools.partial(network.init, jax.random.key(0), train=False)
    paths = flax.traverse_util.flatten_dict(jax.eval_shape(init, image)["params"], sep="/")
    return {path: sum(path not in rest for rest in after) for path in paths}


def inference_variables(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables to use the network of a saved state with.

    They are the moving averages of the run, if it has any. This is the one place that decides it.
    """
    source = state.get(AVERAGE) or state
    return {name: source[name] for name in ("params", "batch_stats") if name in source}


def frozen_output_shapes(network: Network, size: int) -> Any:
    """Returns the shapes and dtypes of `frozen_output` for one image of `size` × `size` pixels."""
    return _frozen_shapes(network, size)[0]


def _trained_variables(network: Network, size: int) -> Any:
    """Returns the shapes of the variables that the network has when it starts after its frozen part."""
    return _frozen_shapes(network, size)[1]


def _frozen_shapes(network: Network, size: int) -> tuple[Any, Any]:
    """Returns the shapes of the frozen part's output, and of the variables of what follows it."""
    try:
        return _traced_frozen_shapes(network, size)
    except TypeError:  # a network of the user's own with an attribute that has no hash
        return _traced_frozen_shapes.__wrapped__(network, size)


@functools.lru_cache(maxsize=64)  # a start asks ten times, and takes half a second to answer
def _traced_frozen_shapes(network: Network, size: int) -> tuple[Any, Any]:
    def init(start: str, x: Any) -> Any:
        variables = network.init(jax.random.key(0), x, train=False, start=start)
        return {name: variables[name] for name in ("params", "batch_stats") if name in variables}

    shape = (1, size, size, 3)
    variables = jax.eval_shape(
        functools.partial(init, ""), jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    output = jax.eval_shape(
        functools.partial(frozen_output, network), variables, jax.ShapeDtypeStruct(shape, jnp.uint8)
    )
    return output, jax.eval_shape(functools.partial(init, network.frozen), output)


def with_trained_part(params: Any, trained: Any) -> Any:
    """Returns a parameter tree with the entries of `trained` in place of its own."""
    if not isinstance(trained, Mapping):
        return trained
    return {
        name: with_trained_part(value, trained[name]) if name in trained else value
        for name, value in params.items()
    }


def _entries(tree: Any, like: Any) -> Any:
    """Returns the entries of nested dicts that `like` has too."""
    if not isinstance(like, Mapping):
        return tree
    return {name: _entries(tree[name], value) for name, value in like.items()}


def output_shapes(network: Network, variables: Any, size: int) -> Outputs:
    """Returns the shapes and dtypes of the outputs for one image of `size` × `size` pixels."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    return jax.eval_shape(functools.partial(forward, network), variables, image)


def parameter_count(params: Any) -> int:
    """Returns the number of values in a parameter tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
