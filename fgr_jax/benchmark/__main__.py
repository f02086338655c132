"""Measures the speed of training, input and prediction, and the cost of the block and GCE.

    python -m fgr_jax.benchmark --config=configs/cub.py [--part=PART] [--rounds=N] [--classes=N]
                                [--examples=N] [--pictures=N] [--config.FIELD=VALUE ...]

PART is
  step         the training step with cross-entropy, with GCE, and with block and GCE
  heads        the training step with each head, its parameters and operations
  layers       the time of each layer in a training step, its operations and bytes
  pytorch      the training step of a ResNet beside PyTorch's, which must be installed
  input        decoded images per second, compared with a bare OpenCV loop
  predict      images per second of `predict`, compared with the bare network
  records      the cost of fingerprints and checkpoints
  determinism  the cost of deterministic kernels, on a GPU
  scaling      the bytes that a step exchanges between devices, and a prediction for TPU v4 and H100;
               on one CPU: JAX_NUM_CPU_DEVICES=8 python -m fgr_jax.benchmark --part=scaling ...
  all          all of them except heads, layers, pytorch and scaling

Steps are timed on synthetic images with the config's batch size and resolution, on all devices; these
parts only need jax, flax, optax, ml_collections and numpy. Variants take turns, and ratios are medians
over the rounds, so that they hold on a busy machine.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

from collections.abc import Sequence

from absl import flags

_PARTS = [
    "step",
    "heads",
    "layers",
    "pytorch",
    "input",
    "predict",
    "records",
    "determinism",
    "scaling",
    "all",
]


def main(argv: Sequence[str]) -> int:
    """Runs the parts and returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_enum("part", "all", _PARTS, "what to measure", flag_values=own)
    flags.DEFINE_integer("rounds", 20, "timed rounds", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("classes", 200, "number of classes", lower_bound=2, flag_values=own)
    flags.DEFINE_integer(
        "pictures", None, "images in a round of input or predict", lower_bound=1, flag_values=own
    )
    flags.DEFINE_integer("examples", 5994, "examples in an epoch", lower_bound=1, flag_values=own)
    config = cli.parse(argv, __doc__ or "", own).config
    # Each part imports what it needs: a GPU machine without tfds and Grain can time the step, and --help
    # does without JAX.
    from fgr_jax.distributed import compute_deterministically

    if own.part in ("determinism", "all"):
        from fgr_jax.benchmark.determinism_cost import has_gpu, print_determinism_cost

        # This part comes first: it needs the GPU to itself, and processes without our flags.
        if own.part == "determinism" or has_gpu():
            print_determinism_cost(config, classes=own.classes, rounds=own.rounds)
    compute_deterministically(config.deterministic)
    if own.part in ("step", "all"):
        from fgr_jax.benchmark.step_time import print_step_times

        print_step_times(config, classes=own.classes, rounds=own.rounds)
    if own.part == "heads":
        from fgr_jax.benchmark.step_time import print_head_times

        print_head_times(config, classes=own.classes, rounds=own.rounds)
    if own.part == "layers":
        from fgr_jax.benchmark.layers import print_layers

        print_layers(config, classes=own.classes, rounds=own.rounds)
    if own.part == "pytorch":
        from fgr_jax.benchmark.pytorch_speed import print_beside_pytorch

        print_beside_pytorch(config, classes=own.classes, rounds=own.rounds)
    if own.part in ("records", "all"):
        from fgr_jax.benchmark.record_cost import print_record_cost

        print_record_cost(config, classes=own.classes, examples=own.examples, rounds=own.rounds)
    if own.part in ("input", "all"):
        from fgr_jax.benchmark.input_speed import print_input_speed

        print_input_speed(config, count=own.pictures or 4096, rounds=own.rounds)
    if own.part in ("predict", "all"):
        from fgr_jax.benchmark.predict_speed import print_predict_speed

        print_predict_speed(
            config, classes=own.classes, count=own.pictures or 64, rounds=own.rounds
        )
    if own.part == "scaling":
        from fgr_jax.benchmark.scaling import print_scaling

        print_scaling(config, classes=own.classes, examples=own.examples)
    return 0


if __name__ == "__main__":
    cli.run(main)
