"""Asks a STUN server with libnice, the ICE library of GStreamer: libnice_client.py ADDRESS PORT

libnice drops a candidate that is the same as that of the host, as on loopback, so the end of gathering is all that it tells.
"""

import ctypes
import sys

import gi

gi.require_version("Nice", "0.1")
from gi.repository import GLib, Nice  # noqa: E402: the version comes first

LIMIT = 15

context = GLib.MainContext.default()
loop = GLib.MainLoop.new(context, False)
agent = Nice.Agent.new(context, Nice.Compatibility.RFC5245)
agent.set_property("stun-server", sys.argv[1])
agent.set_property("stun-server-port", int(sys.argv[2]))
agent.set_property("upnp", False)
agent.set_property("ice-tcp", False)
loopback = Nice.Address.new()
loopback.set_from_string("127.0.0.1")
assert agent.add_local_address(loopback)
stream = agent.add_stream(1)

# The bindings lack this function, without which libnice reads nothing. hash() of a GObject is its address.
nice = ctypes.CDLL("libnice.so.10")
receiver = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p
)
ignore = receiver(lambda *_: None)
nice.nice_agent_attach_recv.argtypes = [
    ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, receiver, ctypes.c_void_p,
]
assert nice.nice_agent_attach_recv(hash(agent), stream, 1, None, ignore, None)

agent.connect("candidate-gathering-done", lambda *_: loop.quit())
assert agent.gather_candidates(stream)
GLib.timeout_add_seconds(LIMIT, lambda: sys.exit(f"gathering takes longer than {LIMIT} s"))
loop.run()
print("gathered")
