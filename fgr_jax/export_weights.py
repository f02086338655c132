"""Writes the weights of a run as safetensors with timm's names, torchvision's for ResNets, for PyTorch.

    python -m fgr_jax.export_weights --workdir=runs/cub --output=cub.safetensors

Then, in PyTorch:

    model = torchvision.models.resnet50(num_classes=200)
    model.load_state_dict(safetensors.torch.load_file("cub.safetensors"))
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

from collections.abc import Sequence

import safetensors.numpy
from absl import flags

from fgr_jax import compilation
from fgr_jax.errors import UserError
from fgr_jax.files.atomic import atomic_write
from fgr_jax.files.local import local_path
from fgr_jax.inference.saved_run import open_run
from fgr_jax.models.network import build_network, inference_variables
from fgr_jax.models.weights.table import to_tensors
from fgr_jax.runs import checkpoints
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_string("output", None, "a .safetensors file", required=True, flag_values=own)
    cli.parse_flags(argv, __doc__ or "", own)
    output = local_path(own.output, "--output")
    if output.suffix.lower() != ".safetensors":
        raise UserError(
            f"--output={output}: must end in .safetensors, the format that is written; torch.load does "
            "not read it, safetensors.torch.load_file does"
        )
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: the folder {output.parent} does not exist")
    run = open_run(Workdir.open(own.workdir))
    compilation.set_up(run.config)
    network = build_network(run.config, len(run.class_names))
    state = checkpoints.read_latest(run.workdir.checkpoints)
    tensors = to_tensors(inference_variables(state), network.table)
    with atomic_write(output) as unfinished:
        safetensors.numpy.save_file(tensors, unfinished)
    line = f"wrote {len(tensors)} tensors of step {int(state['step']):,} to {output}"
    Terminal().line(line)
    return 0


if __name__ == "__main__":
    cli.run(main)
