"""Local hosts: Debian root file systems booted by systemd-nspawn on a bridge of their own.

Everything that is made lies below one directory or carries the lab's name, and only that is ever ended or removed:
processes are found by the directory they run in, the bridge and the nftables table by name.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# An interface name holds 15 characters; "af-" is ours.
WATCHES = 1024
NAME = re.compile(r"^[a-z][a-z0-9-]{0,10}$")
SSH_BANNER = b"SSH-"


class LabError(Exception):
    """What could not be done, in one line."""


@dataclass(frozen=True)
class Host:
    """One local host: its name, the image it boots and its addresses."""

    name: str
    suite: str
    address: str
    address6: str


@dataclass(frozen=True)
class Lab:
    """A named set of local hosts on a network of their own."""

    name: str
    network: str
    network6: str
    directory: Path
    authorized_key: str
    binds: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise LabError(f"lab name {self.name!r}: a letter, then at most ten letters, digits or dashes")

    @property
    def bridge(self) -> str:
        return f"af-{self.name}"

    @property
    def table(self) -> str:
        return f"agentfleet_lab_{self.name.replace('-', '_')}"

    @property
    def hosts_directory(self) -> Path:
        return self.directory / "hosts" / self.name

    def gateway(self) -> str:
        return str(next(ipaddress.ip_network(self.network).hosts()))

    def gateway6(self) -> str:
        return str(next(ipaddress.ip_network(self.network6).hosts()))

    def root_of(self, host: str) -> Path:
        return self.hosts_directory / host / "root"


def address6(network6: str, address: str) -> str:
    """The host's IPv6 address: the network's prefix and the last number of its IPv4 address, read as it is written."""
    return str(ipaddress.ip_network(network6).network_address) + address.rsplit(".", 1)[1]


def run(*command: str, stdin: str | None = None) -> str:
    """The command's output; LabError with its last line when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise LabError(f"{' '.join(command[:4])}: {said[-1]}")
    return done.stdout


def nspawn_processes(root: Path) -> list[int]:
    """Process ids of the systemd-nspawn that runs in ROOT: the directory is ours, so the process is."""
    wanted = f"--directory={root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in words and b"systemd-nspawn" in os.path.basename(words[0]):
            found.append(int(entry.name))
    return sorted(found)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def gone(pid: int) -> bool:
    """Whether the process has ended, be it as a zombie that its parent has not read yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll CONDITION every 50 ms; whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def answers_ssh(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            connection.settimeout(2)
            return connection.recv(4) == SSH_BANNER
    except OSError:
        return False


def mounted(path: Path) -> bool:
    return any(line.split(" ")[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def power_off(lab: Lab, host: str) -> bool:
    """Pull the plug: no shutdown, the disk stays as it is. True when the host ran."""
    processes = nspawn_processes(lab.root_of(host))
    for pid in processes:
        # The container's first process dies with its whole PID namespace; nspawn then sees its child gone.
        for child in children(pid):
            os.kill(child, signal.SIGKILL)
        if not wait_for(partial(gone, pid), 5):
            os.kill(pid, signal.SIGKILL)
            wait_for(partial(gone, pid), 5)
    remove_cgroups(lab, host)
    return bool(processes)


def remove_host(lab: Lab, host: str) -> bool:
    """End the host and delete its disk. True when there was something to remove."""
    changed = power_off(lab, host)
    root = lab.root_of(host)
    while mounted(root):
        run("umount", str(root))
        changed = True
    if root.parent.exists():
        shutil.rmtree(root.parent)
        changed = True
    return changed


def known_hosts(lab: Lab) -> list[str]:
    """Names of the hosts that this lab has a disk for, whatever the inventory says now."""
    return sorted(entry.name for entry in lab.hosts_directory.iterdir()) if lab.hosts_directory.exists() else []


def holder(network: str, shown: str) -> str | None:
    """The interface that has an address of NETWORK already, out of the lines of `ip -o -4 address show`."""
    wanted = ipaddress.ip_network(network)
    for line in shown.splitlines():
        _number, interface, _family, address, *_rest = line.split()
        if ipaddress.ip_interface(address).network.overlaps(wanted):
            return interface
    return None


def network_up(lab: Lab) -> bool:
    """Make the bridge and the way out. True when something was made."""
    gateway = f"{lab.gateway()}/{ipaddress.ip_network(lab.network).prefixlen}"
    gateway6 = f"{lab.gateway6()}/{ipaddress.ip_network(lab.network6).prefixlen}"
    changed = False
    if not Path(f"/sys/class/net/{lab.bridge}").exists():
        # What is sent to its hosts would go there, and they would seem dead.
        if other := holder(lab.network, run("ip", "-o", "-4", "address", "show")):
            lost = f", or end that lab: lab_name={other[3:]} lab_state=down" if other.startswith("af-") else ""
            raise LabError(f"{lab.network} is the network of {other}: choose another with lab_network{lost}")
        run("ip", "link", "add", lab.bridge, "type", "bridge")
        changed = True
    shown = run("ip", "-o", "address", "show", "dev", lab.bridge)
    for address in (gateway, gateway6):
        if f" {address} " not in shown:
            run("ip", "address", "replace", address, "dev", lab.bridge)
            changed = True
    run("ip", "link", "set", lab.bridge, "up")
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    if forward.read_text().strip() != "1":
        forward.write_text("1")
        changed = True
    # All hosts' systemd share it, six each: of the kernel's 128 the twentieth host gets none, and does not boot.
    watches = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(watches.read_text()) < WATCHES:
        watches.write_text(str(WATCHES))
        changed = True
    rules = (
        f"table ip {lab.table} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat;\n"
        f'    ip saddr {lab.network} oifname != "{lab.bridge}" masquerade\n'
        "  }\n}\n"
    )
    if lab.table not in run("nft", "list", "tables").split():
        run("nft", "-f", "-", stdin=rules)
        changed = True
    return changed


def network_down(lab: Lab) -> bool:
    changed = False
    if Path(f"/sys/class/net/{lab.bridge}").exists():
        run("ip", "link", "delete", lab.bridge)
        changed = True
    if shutil.which("nft") and lab.table in run("nft", "list", "tables").split():
        run("nft", "delete", "table", "ip", lab.table)
        changed = True
    return changed


def resolvers() -> list[str]:
    """Name servers that a host behind the bridge can reach: the controller's own, without its loopback stub."""
    servers = []
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        if os.path.exists(path):
            servers += re.findall(r"^nameserver\s+(\S+)", Path(path).read_text(), re.MULTILINE)
    return [server for server in dict.fromkeys(servers) if not server.startswith("127.")] or ["9.9.9.9"]


def write(root: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def prepare_disk(lab: Lab, host: Host, image: Path) -> None:
    """A disk of its own over the shared image, with the host's name, addresses and keys."""
    root = lab.root_of(host.name)
    for part in ("root", "upper", "work"):
        (root.parent / part).mkdir(parents=True, exist_ok=True)
    fresh = not (root.parent / "image").exists()
    if not mounted(root):
        layers = f"lowerdir={image},upperdir={root.parent / 'upper'},workdir={root.parent / 'work'}"
        run("mount", "-t", "overlay", f"af-{lab.name}-{host.name}", "-o", layers, str(root))
    if not fresh:
        return
    write(root, "etc/hostname", f"{host.name}\n")
    # sudo asks for the host's own address; without this line it waits for a name server.
    write(root, "etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{host.address} {host.name}\n")
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    write(root, "etc/resolv.conf", "".join(f"nameserver {server}\n" for server in resolvers()))
    prefix = ipaddress.ip_network(lab.network).prefixlen
    prefix6 = ipaddress.ip_network(lab.network6).prefixlen
    write(
        root,
        "etc/systemd/network/10-lab.network",
        f"[Match]\nName=host0\n\n[Network]\nAddress={host.address}/{prefix}\nAddress={host.address6}/{prefix6}\n"
        f"Gateway={lab.gateway()}\nIPv6AcceptRA=no\nLinkLocalAddressing=ipv6\n",
    )
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    write(root, "root/.ssh/authorized_keys", lab.authorized_key.strip() + "\n", 0o600)
    for old in (root / "etc/ssh").glob("ssh_host_*"):
        old.unlink()
    key = root / "etc/ssh/ssh_host_ed25519_key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(key))
    write(root.parent, "image", image.name)


def cgroup_roots() -> list[Path]:
    """Where systemd's own hierarchy is mounted: one place, or two on a hybrid layout."""
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(words[1]) for words in lines if words[2] == "cgroup2" or "name=systemd" in words[3].split(",")]


def cgroups_of(lab: Lab, host: str) -> list[Path]:
    return [root / f"agentfleet-{lab.name}-{host}" for root in cgroup_roots()]


def members(cgroup: Path) -> list[int]:
    """Ids of the processes in a cgroup and below it."""
    found = []
    for directory, _children, _files in os.walk(cgroup):
        try:
            found += [int(line) for line in Path(directory, "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            continue
    return found


def is_empty(cgroup: Path) -> bool:
    return not members(cgroup)


def remove_cgroups(lab: Lab, host: str) -> None:
    """End what is left in the host's own cgroups, then remove them."""
    for cgroup in cgroups_of(lab, host):
        for pid in members(cgroup):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not wait_for(partial(is_empty, cgroup), 10):
            raise LabError(f"{host}: processes {members(cgroup)} do not end")
        for directory, _children, _files in os.walk(cgroup, topdown=False):
            wait_for(partial(removed, directory), 5)


def removed(cgroup: str) -> bool:
    """Remove an empty cgroup; the kernel may still hold it for a moment after its last process."""
    try:
        os.rmdir(cgroup)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


def boot(lab: Lab, host: Host) -> None:
    root = lab.root_of(host.name)
    # A systemd that runs the controller gives each host a scope. Where there is none, hosts that share a cgroup
    # remove each other's units' cgroups at boot ("Failed to spawn executor"), so each gets its own here.
    managed = Path("/run/systemd/system").exists()
    cgroups = [] if managed else cgroups_of(lab, host.name)
    for cgroup in cgroups:
        cgroup.mkdir(exist_ok=True)
    enter = "".join(f"echo $$ >{cgroup}/cgroup.procs; " for cgroup in cgroups)
    binds = [f"--bind={outside}:{inside}" for outside, inside in lab.binds]
    for outside, _inside in lab.binds:
        Path(outside).mkdir(parents=True, exist_ok=True)
    with open(root.parent / "console.log", "ab") as console:
        subprocess.Popen(
            [
                "sh",
                "-ec",
                # This is what nspawn ends with when the host reboots.
                enter + 'while status=0; "$@" || status=$?; [ $status = 133 ]; do :; done',
                "enter",
                "systemd-nspawn",
                "--quiet",
                f"--directory={root}",
                f"--machine={lab.name}-{host.name}",
                f"--hostname={host.name}",
                "--boot",
                f"--network-bridge={lab.bridge}",
                "--register=no",
                *([] if managed else ["--keep-unit"]),
                "--resolv-conf=off",
                "--timezone=off",
                "--console=pipe",
                # Docker and a loop mount inside a host need these.
                "--capability=all",
                # With it a host would try to load kernel modules at boot, and fail.
                "--drop-capability=CAP_SYS_MODULE",
                "--system-call-filter=@keyring bpf add_key keyctl request_key",
                *binds,
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            # Debian 13's systemd refuses to boot on a controller with a hybrid cgroup layout without it.
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )


def console_tail(lab: Lab, host: str) -> str:
    log = lab.hosts_directory / host / "console.log"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][:200] if lines else "its console said nothing"


def inside(leader: int, *command: str) -> str:
    """What a command says in the host; its network need not work for that."""
    done = subprocess.run(
        ["nsenter", f"--target={leader}", "--mount", "--pid", "--net", "--", *command],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=20,
    )
    return " / ".join((done.stdout or done.stderr).strip().splitlines())


def silence(lab: Lab, host: str) -> str:
    """Why a host may not answer: what its console, its systemd and its network say."""
    leaders = [child for pid in nspawn_processes(lab.root_of(host)) for child in children(pid)]
    if not leaders:
        return f"it does not run; {console_tail(lab, host)}"
    said = []
    for command in (
        ("systemctl", "is-system-running"),
        ("systemctl", "list-jobs", "--no-legend", "--no-pager"),
        ("ip", "-brief", "address"),
        ("journalctl", "--no-pager", "--quiet", "--boot", "--priority=warning", "--lines=5", "--output=cat"),
    ):
        with suppress(OSError, subprocess.TimeoutExpired):
            said.append(inside(leaders[0], *command))
    return "; ".join([console_tail(lab, host), *filter(None, said)])


def hosts_up(lab: Lab, hosts: Iterable[Host], images: dict[str, Path], seconds: float = 120) -> list[str]:
    """Boot the hosts that do not run; the names of those. Returns when every host answers on port 22."""
    booted = []
    hosts = list(hosts)
    for host in hosts:
        root = lab.root_of(host.name)
        image = images[host.suite]
        made_of = root.parent / "image"
        if nspawn_processes(root):
            continue
        power_off(lab, host.name)
        if root.parent.exists() and (not made_of.exists() or made_of.read_text() != image.name):
            remove_host(lab, host.name)
        prepare_disk(lab, host, image)
        boot(lab, host)
        booted.append(host.name)
    for host in hosts:
        if not wait_for(partial(answers_ssh, host.address), seconds):
            raise LabError(f"{host.name} ({host.address}) does not answer on port 22: {silence(lab, host.name)}")
    return booted


def known_hosts_lines(lab: Lab, hosts: Iterable[Host]) -> list[str]:
    lines = []
    for host in hosts:
        key = (lab.root_of(host.name) / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        lines.append(f"{host.address} {key[0]} {key[1]}")
    return lines
