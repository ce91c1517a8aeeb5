"""Asks a STUN server with aioice, the ICE library of aiortc: aioice_client.py ADDRESS PORT"""

import asyncio
import sys

from aioice.candidate import Candidate
from aioice.ice import StunProtocol, server_reflexive_candidate


async def main(server):
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(lambda: StunProtocol(None), local_addr=("127.0.0.1", 0))
    host, port = protocol.transport.get_extra_info("sockname")
    protocol.local_candidate = Candidate(
        foundation="host", component=1, transport="udp", priority=1, host=host, port=port, type="host"
    )
    mapped = await server_reflexive_candidate(protocol, server)
    print(mapped.type, mapped.host, "same port" if mapped.port == port else "another port")


asyncio.run(main((sys.argv[1], int(sys.argv[2]))))
