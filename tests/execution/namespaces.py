"""Machines with addresses of their own, on this one: network namespaces at one bridge.

A cable that is taken down carries nothing, and no end of it learns that: connections hang, as they
do when a machine is cut off. A process that is killed closes its connections, which tests less.
"""

from __future__ import annotations

import os
import subprocess


def ip(*words: str) -> str:
    """Calls ``ip`` of iproute2; returns what it prints."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=True)
    return done.stdout


class Network:
    """Some namespaces; the machine itself is not in their network.

    Raises:
        FileNotFoundError: iproute2 is not installed.
        CalledProcessError: no rights to make namespaces, or a kernel without them.
    """

    def __init__(self, size: int) -> None:
        self._name = f"h{os.getpid()}"  # names of interfaces have at most 15 characters
        self._bridge, self.size = f"{self._name}-br", 0
        ip("link", "add", self._bridge, "type", "bridge")
        ip("link", "set", self._bridge, "up")
        for node in range(size):
            ip("netns", "add", self._space(node))
            self.size += 1
            ip("link", "add", self._cable(node), "type", "veth",
               "peer", "name", "eth0", "netns", self._space(node))  # fmt: skip
            ip("link", "set", self._cable(node), "master", self._bridge, "up")
            within = ("-n", self._space(node))
            ip(*within, "address", "add", f"{self.address(node)}/24", "dev", "eth0")
            ip(*within, "link", "set", "lo", "up")
            ip(*within, "link", "set", "eth0", "up")
            ip(*within, "route", "add", "default", "dev", "eth0")  # how Ray finds its own address

    def _space(self, node: int) -> str:
        return f"{self._name}-{node}"

    def _cable(self, node: int) -> str:
        return f"{self._name}-v{node}"

    def address(self, node: int) -> str:
        return f"10.213.7.{node + 1}"

    def inside(self, node: int) -> list[str]:
        """Before a command: runs it in the node's namespace."""
        return ["ip", "netns", "exec", self._space(node)]

    def cut(self, node: int) -> None:
        """Takes its cable down."""
        ip("link", "set", self._cable(node), "down")

    def mend(self, node: int) -> None:
        """Brings its cable up."""
        ip("link", "set", self._cable(node), "up")

    def end(self) -> None:
        """Ends every process of the namespaces."""
        for node in range(self.size):
            if found := ip("netns", "pids", self._space(node)).split():
                subprocess.run(["kill", "-9", *found], check=False)  # some end meanwhile

    def close(self) -> None:
        """Ends every process, and takes the namespaces away."""
        self.end()
        for node in range(self.size):
            ip("link", "delete", self._cable(node))
            ip("netns", "delete", self._space(node))
        ip("link", "delete", self._bridge)
