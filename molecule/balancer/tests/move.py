"""move.py [WEIGHTS]: make a backend's weights those of a JSON object, if one is given; print all of them."""

import json
import sys

sys.path.insert(0, "/usr/local/lib/agentfleet")
import haproxy

runtime = haproxy.Runtime()
with haproxy.locked(haproxy.STATE_FILE):
    if sys.argv[1:]:
        haproxy.set_weights(runtime, "agent", json.loads(sys.argv[1]), 15)
        haproxy.save_state(runtime, haproxy.STATE_FILE, haproxy.CONFIG)
print(json.dumps({name: server.weight for name, server in runtime.servers("agent").items()}))
