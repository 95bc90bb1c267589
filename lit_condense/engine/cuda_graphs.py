"""The only file that records a GPU's work: launched once from Python, replayed as one CUDA graph ever after."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Outputs: TypeAlias = tuple[Tensor | None, ...]
Play: TypeAlias = Callable[[], None]

WARM_UPS = 2
"""Calls before a recording: compilers, cuDNN and the allocator settle first."""

THREADS = "thread_local"
"""Other threads (a data loader's, NCCL's) may use the GPU while one records."""

MOST_RECORDINGS = 16
"""Of one function; further shapes are launched from Python. Each holds the memory of its intermediate results."""


class CudaGraphed:
    """A function of tensors that a GPU repeats by itself.

    An update of a small network is some thousand kernels of some microseconds: launching them takes longer than they
    do. The first call for shapes of arguments runs the function and records it; later ones copy their arguments to
    where the recording reads them, and replay. Kernels and results are the same. Where recording fails, the function
    is called from then on, with one warning.

    Args:
        function: From tensors to tensors that are off the graph; it draws nothing and waits for nothing.
        fixed: What it reads besides and what may change in place between calls, weights above all. Where one of them
            has moved in memory, everything is recorded anew.
        recorded: False only calls the function.
    """

    def __init__(self, function: Callable[..., Outputs], fixed: Sequence[Tensor], recorded: bool) -> None:
        self.recorded = recorded
        self._function = function
        self._fixed = fixed
        self._places: list[int] = []
        self._recordings: dict[tuple[object, ...], CudaGraph] = {}

    def __call__(self, *arguments: Tensor) -> Outputs:
        """Return the function's outputs, which stay as they are until anything is replayed."""
        if not self.recorded:
            return self._function(*arguments)
        places = [tensor.data_ptr() for tensor in self._fixed]
        if places != self._places:
            self._places = places
            self._recordings.clear()
        signature = tuple((argument.shape, argument.dtype) for argument in arguments)
        recording = self._recordings.get(signature)
        if recording is None:
            if len(self._recordings) >= MOST_RECORDINGS:
                return self._function(*arguments)
            try:
                recording = self._recordings[signature] = CudaGraph(self._function, arguments)
            except RuntimeError as error:
                self.recorded = False
                warnings.warn(
                    f"A CUDA graph could not be recorded here ({str(error).strip().splitlines()[0]}); going on "
                    "without, slower. model.engine.record: false does the same without this warning.",
                    stacklevel=2,
                )
                return self._function(*arguments)
        return recording(arguments)


class CudaGraph:
    """One recorded call.

    Args:
        function: What is recorded.
        arguments: As it is called first.
    """

    def __init__(self, function: Callable[..., Outputs], arguments: Sequence[Tensor]) -> None:
        self._arguments = [argument.detach().clone() for argument in arguments]
        self._play, self._outputs = cuda_graph(lambda: function(*self._arguments))

    def __call__(self, arguments: Sequence[Tensor]) -> Outputs:
        """Replay it for other arguments of the same shapes."""
        torch._foreach_copy_(self._arguments, [argument.detach() for argument in arguments])
        self._play()
        return self._outputs


def cuda_graph(call: Callable[[], Outputs]) -> tuple[Play, Outputs]:
    """Record a call as a CUDA graph: on a stream of its own, after some that are not recorded."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_anchor(torch.cuda.current_device()).pool(), capture_error_mode=THREADS):
        outputs = call()
    return graph.replay, outputs


@functools.cache
def _anchor(device: int) -> torch.cuda.CUDAGraph:
    """Return a recording whose memory all others of a device share, because they are replayed one after the other.

    It lives as long as the process: memory that no recording owns any more cannot be given to new ones.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode=THREADS):
        torch.zeros(1, device=torch.device("cuda", device))
    return graph


def copied(outputs: Outputs) -> list[Tensor | None]:
    """Return copies of outputs, which the next call leaves alone."""
    present = [tensor for tensor in outputs if tensor is not None]
    copies = [torch.empty_like(tensor) for tensor in present]
    if present:
        torch._foreach_copy_(copies, present)
    remaining = iter(copies)
    return [None if tensor is None else next(remaining) for tensor in outputs]
