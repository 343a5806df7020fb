import asyncio
import socket

import uvicorn
from uvicorn.server import ServerState

from effnet.serving.protocol import PatientProtocol


async def _no_delay_of_an_accepted_connection():
    config = uvicorn.Config(lambda scope: None, log_config=None)
    config.load()
    accepted = asyncio.get_running_loop().create_future()

    class Watched(PatientProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            connection = transport.get_extra_info("socket")
            accepted.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def protocol():
        return Watched(config=config, server_state=ServerState(), app_state={})

    listener = socket.create_server(("127.0.0.1", 0))
    async with await asyncio.get_running_loop().create_server(protocol, sock=listener) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        no_delay = await accepted
        writer.close()
        await writer.wait_closed()
    return no_delay


def test_a_response_does_not_wait_for_the_acknowledgement_of_its_head():
    assert asyncio.run(_no_delay_of_an_accepted_connection())
