"""Machines on a network of a measurement's own: a network namespace and an address each, joined by a switch.

What passes between any two of them can be slowed, lost or dropped, packet by packet, and everything above is the real
thing: the kernel's TCP with its retransmissions, gRPC's keepalive, pools that do not know yet. The switch is in
userspace, in the caller's event loop: no bridge, no netfilter and no netem is needed, only root and /dev/net/tun. It
never changes a packet.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

# The block that is set aside for measurements of networks (RFC 2544).
_PREFIX = "198.18.0."
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_BURST = 64  # packets read at once, so that one busy machine does not keep the others waiting


@dataclass(frozen=True, slots=True)
class Link:
    """How packets fare between two machines, each way.

    Attributes:
        delay_s: Time on the way.
        loss: Share that gets lost.
    """

    delay_s: float = 0.0
    loss: float = 0.0


CUT = Link(loss=1.0)


@dataclass(frozen=True, slots=True)
class Machine:
    """A place to run processes.

    Attributes:
        host: Its address, which all the others reach.
        enter: What goes before a command that is to run there.
    """

    host: str
    enter: tuple[str, ...] = ()


class Network:
    """A switch and the machines on it; the caller's own namespace is the first, `here`."""

    def __init__(self, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self._ports: dict[bytes, int] = {}
        self._links: dict[tuple[bytes, bytes], Link] = {}
        self._spaces: list[str] = []
        self._name = f"mill{os.getpid()}"
        self.here = Machine(f"{_PREFIX}1")
        self.packet_count = 0

    async def __aenter__(self) -> Network:
        if os.geteuid() or not os.path.exists("/dev/net/tun"):
            raise SystemExit("needs root and /dev/net/tun")
        device = self._plug(self.here)
        _ip("address", "add", f"{self.here.host}/24", "dev", device)
        _ip("link", "set", device, "up", "txqueuelen", "10000")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self._ports.values():
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        for space in self._spaces:
            _ip("netns", "delete", space)

    def machine(self) -> Machine:
        """One more machine."""
        space = f"{self._name}-{len(self._ports) + 1}"
        made = Machine(f"{_PREFIX}{len(self._ports) + 1}", ("ip", "netns", "exec", space))
        _ip("netns", "add", space)
        self._spaces.append(space)
        device = self._plug(made)
        _ip("link", "set", device, "netns", space)
        _ip("-n", space, "address", "add", f"{made.host}/24", "dev", device)
        _ip("-n", space, "link", "set", device, "up", "txqueuelen", "10000")
        _ip("-n", space, "link", "set", "lo", "up")
        return made

    def link(self, some: Iterable[str], others: Iterable[str], link: Link | None) -> None:
        """Sets how packets fare between each of some hosts and each of others; None: as on a good network."""
        others = list(others)
        for one in some:
            for other in others:
                pair = _address(one), _address(other)
                for way in (pair, pair[::-1]):
                    if link is None:
                        self._links.pop(way, None)
                    else:
                        self._links[way] = link

    def _plug(self, machine: Machine) -> str:
        device = f"{self._name}-{machine.host.rpartition('.')[2]}"
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN_NO_PI))
        self._ports[_address(machine.host)] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._pass_on, descriptor)
        return device

    def _pass_on(self, descriptor: int) -> None:
        for _ in range(_BURST):
            try:
                packet = os.read(descriptor, 65_536)
            except OSError:  # nothing more
                return
            self.packet_count += 1
            # Source and destination, where IPv4 has them; IPv6 looking for routers is for nobody here.
            source, destination = packet[12:16], packet[16:20]
            port = self._ports.get(destination)
            if port is None:
                continue
            link = self._links.get((source, destination))
            if link is None:
                _write(port, packet)
            elif self._chance.random() >= link.loss:
                asyncio.get_running_loop().call_later(link.delay_s, _write, port, packet)


def _write(descriptor: int, packet: bytes) -> None:
    with suppress(OSError):  # a queue that is full drops, as queues do
        os.write(descriptor, packet)


def _address(host: str) -> bytes:
    return bytes(map(int, host.split(".")))


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
