"""What is read from compiled programs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from fgr_jax.benchmark.compiled import Instruction, collectives, instructions

TEXT = """
  %all-reduce.1 = (f32[7,7,3,8]{3,2,1,0}, bf16[8]{0}, /*index=5*/s32[]) all-reduce(%a, %b, %c), x
  %gathered = f32[16,5]{1,0} all-gather(%d), dimensions={0}
  %start = (f32[4]{0}, f32[4]{0}) all-reduce-start(%e), to_apply=%add
  %done = f32[4]{0} all-reduce-done(%start)
  ROOT %sum = f32[16]{0} add(%all-reduce.1, %gathered)
"""


def test_collectives_are_read_with_their_shapes_and_bytes() -> None:
    found = collectives(TEXT)
    assert [each.kind for each in found] == ["all-reduce", "all-gather", "all-reduce"]
    assert found[0].shapes == ((7, 7, 3, 8), (8,), ())
    assert [each.size for each in found] == [4 * 7 * 7 * 3 * 8 + 2 * 8 + 4, 4 * 16 * 5, 4 * 4 * 2]


class Layers(nn.Module):
    """A strided convolution of 3×3 and a matrix product."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(6, (3, 3), (2, 2), padding=1, name="first")(x))
        return nn.Dense(5, name="second")(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def found() -> dict[str, Instruction]:
    """Of a step of gradient descent on 2 images of 8×8 pixels and 4 channels."""
    module, x = Layers(), jnp.ones((2, 8, 8, 4))

    def step(params: Any, x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> jax.Array:
            outputs: Any = module.apply(params, x)
            return jnp.sum(outputs**2)

        gradients = jax.grad(loss, argnums=(0, 1))(params, x)
        return jax.tree.map(lambda old, gradient: old - 0.1 * gradient, (params, x), gradients)

    params = module.init(jax.random.key(0), x)
    return instructions(jax.jit(step).lower(params, x).compile().as_text() or "")


def test_operations_are_those_of_the_layers(found: dict[str, Instruction]) -> None:
    """Forward once, backward twice: for the inputs and for the parameters."""
    forward = {"first": 2 * (2 * 4 * 4) * 6 * (3 * 3 * 4), "second": 2 * 2 * (4 * 4 * 6) * 5}
    for layer, expected in forward.items():
        of_layer = [each for each in found.values() if each.path == layer and each.flops]
        assert sum(each.flops for each in of_layer if not each.backward) == expected
        assert sum(each.flops for each in of_layer if each.backward) == 2 * expected


def test_parts_of_programs_are_read() -> None:
    """A fusion takes its layer from its parts, or from what it is computed from."""
    text = """
HloModule jit_step

%fused (p.0: f32[8,4], p.1: bf16[8]) -> f32[8,4] {
  %p.0 = f32[8,4]{1,0} parameter(0)
  %p.1 = bf16[8]{0} parameter(1)
  %sum = f32[8,4]{1,0} add(%p.0, %p.0), metadata={op_name="jit(f)/transpose(jvp(Net))/b/norm/add"}
  ROOT %again = f32[8,4]{1,0} negate(%sum), metadata={op_name="jit(f)/jvp(Net)/b/act/neg"}
}

ENTRY %main (a: f32[8,4], b: bf16[8]) -> f32[4,4] {
  %a = f32[8,4]{1,0} parameter(0), metadata={op_name="params[\\'b\\']"}
  %b = bf16[8]{0} parameter(1)
  %sums = f32[8,4]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused
  %product = f32[4,4]{1,0} dot(%a, %sums), lhs_contracting_dims={0}, rhs_contracting_dims={0}
  ROOT %update = f32[4,4]{1,0} negate(%product), metadata={op_name="jit(step)/neg"}
}
"""
    found = instructions(text)
    assert found == {
        "sums": Instruction("b/norm", True, 0.0, 4 * 32 + 2 * 8 + 4 * 32),
        "product": Instruction("b/norm", True, 2.0 * 8 * 16, 2 * 4 * 32 + 4 * 16),
        "update": Instruction("", False, 0.0, 2 * 4 * 16),
    }
