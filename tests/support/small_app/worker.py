"""What is beside each instance of the small app where a test wants it so: it only lives."""

import time

from main import tell_systemd

tell_systemd(b"READY=1")
while True:
    tell_systemd(b"WATCHDOG=1")
    time.sleep(1)
