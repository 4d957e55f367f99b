"""Runs pywbem's own end2end tests, as they are in its sources, against the daemon.

    end2end.py URL SOURCES DIRECTORY USER PASSWORD

Prints how many passed, and why tests were skipped. DIRECTORY takes what the tests
write. Two things are set right around them, both about this host and not about the
server:

- The listener binds to the address '', which means all of them by its documentation;
  pywbem 1.9.1 asks the system for the address of the name '', and there is none.
- The address that indications are sent to is found by the route to a public host.
  Here it is loopback: tests need no network, and open no port to it.
"""

import collections
import os
import pathlib
import socket
import sys

import pytest

import cim

URL, SOURCES, DIRECTORY, USER, PASSWORD = sys.argv[1:]
LOOPBACK = "127.0.0.1"

SERVER = f"""
vault_file: es_vault.yml
default: isochron
servers:
  isochron:
    description: isochron
    user_defined:
      url: {URL}
      default_namespace: {cim.HYPERV_CLUSTER}
      capabilities: [interop, namespaces, profiles]
"""
VAULT = f"""
secrets:
  isochron:
    user: {USER}
    password: {PASSWORD}
"""

resolve, reach = socket.getaddrinfo, socket.socket.connect


def getaddrinfo(host, *args, **kwargs):
    return resolve(LOOPBACK if host == "" else host, *args, **kwargs)


def connect(self, address):
    if self.type == socket.SOCK_DGRAM and self.family == socket.AF_INET:
        address = (LOOPBACK, address[1])
    return reach(self, address)


class Results:
    """Counts what becomes of each test."""

    def __init__(self):
        self.passed = collections.Counter()
        self.skipped = collections.Counter()
        self.failed = []

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.split("::")[-1].split("[")[0]
        if report.failed:
            self.failed.append((report.nodeid, report.longreprtext))
        elif report.skipped:
            _, _, reason = report.longrepr
            self.skipped[reason.rsplit(": ")[-1]] += 1
        elif report.when == "call":
            self.passed[name] += 1


os.chdir(DIRECTORY)
pathlib.Path("tests").symlink_to(pathlib.Path(SOURCES) / "tests")
pathlib.Path("es_server.yml").write_text(SERVER, encoding="utf-8")
pathlib.Path("es_vault.yml").write_text(VAULT, encoding="utf-8")
socket.getaddrinfo, socket.socket.connect = getaddrinfo, connect
results = Results()
code = pytest.main(
    ["-q", "-p", "no:cacheprovider", "--es-file", "es_server.yml",
     "--es-schema-file", "tests/end2endtest/es_schema.yml", "tests/end2endtest"],
    plugins=[results])
assert code == pytest.ExitCode.OK and not results.failed, (code, results.failed)
cim.print_result({"passed": results.passed, "skipped": results.skipped})
