"""Addresses that may be called: names are resolved, and what is not on the public internet dropped.

The address that was checked is the one connected to, so a name that changes its answer between two
questions gains nothing. Hosts that the operator named are meant as they are.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass

NO_ADDRESS = "the provider's name has no address that may be called"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect to."""

    family: int
    host: str
    """In digits."""
    port: int


async def resolve(
    loop: asyncio.AbstractEventLoop, host: str, port: int, *, named: bool
) -> tuple[Address, ...]:
    """The addresses of `host`, in the system's order. Raises `OSError` when none may be called."""
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = tuple(
        Address(family, str(address[0]), port)
        for family, _, _, _, address in found
        if named or is_public(str(address[0]))
    )
    if not addresses:
        raise OSError(None, NO_ADDRESS)
    return addresses


def is_public(text: str) -> bool:
    """Whether an address in digits is one that a provider can have. An IPv4 address inside an IPv6
    one (mapped, 6to4, NAT64) counts as what it leads to."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
