"""What a run says of itself before it trains: what it understood, and what follows from it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from fgr_jax.calendar import Calendar
from fgr_jax.config import NEVER, Config
from fgr_jax.data.prepare.contents import Contents
from fgr_jax.data.prepare.used_splits import TRAIN
from fgr_jax.data.source import Sources
from fgr_jax.models.network import Network, applied_block, description, output_shapes

_UNEQUAL = 10  # times as many images of one class as of another
_FEW_CELLS = 7  # rows or columns


def introduction(
    config: Config,
    calendar: Calendar,
    sources: Sources,
    network: Network,
    variables: Mapping[str, Any],
    start: str,
    weights: str,
    devices: int,
) -> list[str]:
    """Returns lines for the terminal.

    Args:
      config: the run.
      calendar: its durations in steps.
      sources: its splits.
      network: its network.
      variables: the network's, or their shapes.
      start: what the run starts from, in words.
      weights: which pretrained weights, with their license; empty: none, or the run is resumed.
      devices: how many it trains on.
    """
    train = sources.train
    maps = output_shapes(network, variables, config.data.crop).maps
    block = applied_block(config, maps)
    others = (f"{len(source):,} {split}" for split, source in sources.evaluated.items())
    return [
        f"data      {train.data_set}: {len(train):,} training and {' and '.join(others)} images, "
        f"{len(train.class_names)} classes",
        *train.contents.lines(),
        f"network   {description(config, network, variables, maps)}",
        f"block     {'off' if block is None else block.in_words()}",
        f"start     {start}",
        *([f"weights   {weights}"] if weights else []),
        f"training  {config.duration}, {calendar.total_steps:,} steps of {config.batch_size} images, on "
        f"{devices} × {jax.devices()[0].device_kind}",
        *(
            [f"stopping  after {patience} without a higher accuracy on the validation split"]
            if (patience := config.early_stopping) != NEVER
            else []
        ),
        *(f"advice    {line}" for line in _advice(config, calendar, train.contents, maps)),
    ]


def _advice(config: Config, calendar: Calendar, contents: Contents, maps: Any) -> list[str]:
    """Returns what is likely to cost accuracy, with the field that makes up for it."""
    lines, loss, block = [], config.loss, config.diversification
    counts = [count for count in contents.images.get(TRAIN, ()) if count]
    is_weighed = config.data.balance or loss.logit_adjustment or loss.class_weights
    if counts and max(counts) >= _UNEQUAL * min(counts) and not is_weighed:
        lines.append(
            f"the largest class has {max(counts) // min(counts)} times as many training images as the "
            "smallest, which may never be predicted: --config.loss.logit_adjustment=1 makes up for it"
        )
    if not config.pretrained and not loss.objective and calendar.is_all_gce(0):
        lines.append(
            "the weights are random, and GCE needs features to build on: --config.loss.gce_fade=auto "
            "turns cross-entropy into GCE gradually"
        )
    if maps is not None and min(maps.shape[1:3]) < _FEW_CELLS and block.alpha < 1:
        fitting = dataclasses.replace(block, fit_to_maps=True)
        if not block.fit_to_maps and fitting.on_maps(*maps.shape[1:3]) != fitting:
            lines.append(
                "the maps have few cells, and the block suppresses much of them: "
                "--config.diversification.fit_to_maps=True makes it gentler, or turns it off"
            )
    return lines
