"""A name server of a measurement: which addresses a name has is decided here, from one question to the next.

It answers A questions over UDP for the names it was given, and says of all else that there is nothing. It is asked by
gRPC targets such as `dns://127.0.0.1:PORT/inference.test:50051`.
"""

from __future__ import annotations

import asyncio
import socket
import struct

_A = 1
# An answer of authority, without recursion.
_FLAGS = 0x8400
_HEADER = struct.Struct("!6H")


class Names(asyncio.DatagramProtocol):
    """Serves names on a free port.

    Args:
        host: The address to serve them on.

    Attributes:
        addresses: What each name stands for now; change it at will.
        port: Where it listens.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.addresses: dict[str, list[str]] = {}
        self.host, self.port = host, 0
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Names:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, (self.host, 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport
        self._transport.close()

    def target(self, name: str, port: int) -> str:
        """The gRPC target of every address of a name."""
        return f"dns://{self.host}:{self.port}/{name}:{port}"

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        """Answers one question."""
        assert self._transport
        number, *_ = _HEADER.unpack_from(data)
        labels, at = [], _HEADER.size
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        (kind,) = struct.unpack_from("!H", data, at + 1)
        question = data[_HEADER.size : at + 5]
        found = self.addresses.get(".".join(labels).lower(), []) if kind == _A else []
        # Each record points back at the question's name, holds for no time, and is four bytes long.
        records = (struct.pack("!HHHIH", 0xC00C, _A, 1, 0, 4) + socket.inet_aton(address) for address in found)
        answer = _HEADER.pack(number, _FLAGS, 1, len(found), 0, 0) + question + b"".join(records)
        self._transport.sendto(answer, peer)
