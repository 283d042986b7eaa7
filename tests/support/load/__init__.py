"""An open-loop load on a service, and an exact account of what became of it.

with Load(url, site, tls, key, rate=50, streams=20, seen=stored(fleet)) as load:
    load.mark("during")
    ...
    load.mark("after")
assert load.failures == []
load.count().duplicated, load.percentile(0.99, "during")
"""

from .client import Load
from .on import load_on
from .records import REQUEST, SOCKET, STREAM, Count, Record
from .seen import asked, stored

__all__ = ["REQUEST", "SOCKET", "STREAM", "Count", "Load", "Record", "asked", "load_on", "stored"]
