"""A group of processes that runs one case after another: the group is started once, by Lightning, as torchrun's is."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch.distributed import TCPStore

from tests.distributed import cases
from tests.processes import LOOPBACK, ended, process, wait_for


@contextmanager
def meeting_point():
    """The port of a store on this machine, which no other machine can reach."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        store = TCPStore(
            "127.0.0.1",
            port,
            is_master=True,
            timeout=timedelta(seconds=60),
            wait_for_workers=False,
            master_listen_fd=os.dup(listening.fileno()),
        )
        yield port
        del store


def _member(function, rank, world_size, port, *args):
    """Be one process of a group, as torchrun's agent would have started it."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        GROUP_RANK="0",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_RUN_ID="tests",
        TORCHELASTIC_USE_AGENT_STORE="True",
        GLOO_SOCKET_IFNAME=LOOPBACK,
    )
    function(rank, world_size, *args)


def run_group(function, world_size, folder, *args, seconds=100):
    """Run ``function(rank, world_size, *args)`` in a group of processes; return exit codes and what each printed."""
    logs = [Path(folder) / f"rank{rank}.log" for rank in range(world_size)]
    with meeting_point() as port:
        members = [
            process(_member, function, rank, world_size, port, *args, log=logs[rank]) for rank in range(world_size)
        ]
        with ended(members):
            codes = wait_for(members, seconds)
    return codes, [log.read_text() for log in logs]


def _run_cases(rank, world_size, folder, names):
    for name in names:
        torch.save(cases.run(name, devices=world_size, strategy="ddp"), Path(folder) / f"{name}.{rank}.pt")


def results_of(names, world_size, folder, seconds=100):
    """Run cases in one group; return for each case what every rank kept of it."""
    codes, logs = run_group(_run_cases, world_size, folder, str(folder), list(names), seconds=seconds)
    assert codes == [0] * world_size, "\n".join(log[-3000:] for log in logs)
    return {name: [torch.load(Path(folder) / f"{name}.{rank}.pt") for rank in range(world_size)] for name in names}
