"""move.py [WEIGHTS]: make a backend's weights those of a JSON object, if one is given; print all of them."""

import json
import sys

sys.path.insert(0, "/usr/local/lib/agentfleet/edge")
from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy

runtime = haproxy.Runtime()
if sys.argv[1:]:
    haproxy.move(runtime, "agent", json.loads(sys.argv[1]), haproxy.STATE_FILE, haproxy.CONFIG)
print(json.dumps({name: server.weight for name, server in runtime.servers("agent").items()}))
