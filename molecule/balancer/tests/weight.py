"""weight.py SERVER WEIGHT: set one weight at the runtime socket, as somebody might by hand."""

import sys

sys.path.insert(0, "/usr/local/lib/agentfleet/edge")
from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy

haproxy.Runtime().set_weight("agent", sys.argv[1], int(sys.argv[2]))
