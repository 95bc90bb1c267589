"""Which kernels attention takes where its gradient is differentiated again, or where several networks are one."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch.nn.attention import SDPBackend, sdpa_kernel


def plain_attention() -> AbstractContextManager[None]:
    """Compute attention from matrix products and a softmax inside the block.

    PyTorch's fused kernels (flash, memory-efficient, cuDNN) have a first derivative only, and no rule for ``vmap``. The
    choice is the process's and is read where a kernel is picked: in eager code at each call, in what is compiled or
    recorded at the first one.
    """
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context
