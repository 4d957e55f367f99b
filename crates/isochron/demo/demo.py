#!/usr/bin/env python3
"""Snapshots a collection of running virtual machines through CIM-XML.

What you need to drive Isochron from Python: pywbem, and the classes that
Hyper-V has for this. Every call is printed, and what came back.

    demo.py URL define   COLLECTION VM...
    demo.py URL snapshot --type standard --name monday COLLECTION...
    demo.py URL apply    SNAPSHOT
"""

import argparse
import json
import os
import sys
import time

import pywbem
from pywbem import CIMInstance, Uint16

NAMESPACE = "root/HyperVCluster/v2"
SNAPSHOT_TYPE = {"standard": Uint16(1), "recovery": Uint16(2)}

COMPLETED = 0  # a method's return value: done
JOB_STARTED = 4096  # "parameters checked, job started"
JOB_RUNNING = 4  # Msvm_ConcreteJob.JobState
JOB_COMPLETED = 7


class Failed(Exception):
    """A call that came to nothing, as a sentence."""


# --- calls ---------------------------------------------------------------------


def call(conn, method, service, **parameters):
    """Calls a method of a service (each has one instance) and prints it."""
    [path] = conn.EnumerateInstanceNames(service)
    shown = ", ".join(f"{name}={short(value)}" for name, value in parameters.items())
    print(f"{method}({shown})")
    code, out = conn.InvokeMethod(method, path, **parameters)
    returned = "".join(f", {name}={short(value)}" for name, value in out.items())
    print(f"  {service} -> {code}{returned}")
    if code == JOB_STARTED:
        follow(conn, out["Job"])
    elif code != COMPLETED:
        # A refused snapshot call leaves a job that says why.
        job = conn.GetInstance(out["Job"]) if out.get("Job") else {}
        raise Failed(f"{method} returned {code}: {job.get('ErrorDescription') or 'refused'}")
    return out


def follow(conn, path):
    """Reads a job by its path until it has ended; anything but 7 is a failure."""
    shown = None
    while True:
        job = conn.GetInstance(path)
        now = job["JobState"], job["JobStatus"]
        if now != shown:
            print(f"  JobState {now[0]:<2} {job['PercentComplete']:>3} %  {now[1]}")
            shown = now
        if job["JobState"] != JOB_RUNNING:
            break
        time.sleep(0.1)
    if job["JobState"] != JOB_COMPLETED:
        raise Failed(f"the job ended in state {job['JobState']}: {job['ErrorDescription']}")


def short(value):
    """A parameter's value, short enough for a line."""
    if isinstance(value, pywbem.CIMInstanceName):
        keys = value.keybindings
        key = keys.get("CollectionID") or keys.get("InstanceID") or keys.get("Name")
        return f"{key[:8]}..."
    if isinstance(value, str) and value.startswith("<INSTANCE"):
        return "<INSTANCE ...>"
    return repr(value) if isinstance(value, str) else str(value)


def named(conn, classname, name):
    """The path of the one instance of a class that has this ElementName."""
    found = [i.path for i in conn.EnumerateInstances(classname) if i["ElementName"] == name]
    if len(found) != 1:
        raise Failed(f"there are {len(found)} instances of {classname} named {name}")
    return found[0]


# --- what can be done -----------------------------------------------------------


def define(conn, name, machines):
    """Makes a collection of virtual machines."""
    service = "Msvm_CollectionManagementService"
    # Type 0: a collection of virtual systems.
    out = call(conn, "DefineCollection", service, Name=name, Type=Uint16(0))
    for machine in machines:
        call(
            conn,
            "AddMember",
            service,
            Member=named(conn, "Msvm_ComputerSystem", machine),
            Collection=out["DefinedCollection"],
        )


def snapshot(conn, collection, kind, name):
    """Snapshots all members of a collection at one instant; returns the evidence."""
    # How to do it is text: an embedded instance. This one gives the name; of a
    # recovery snapshot, ConsistencyLevel 1 would have file systems frozen as well.
    settings = CIMInstance("Msvm_VirtualSystemSnapshotSettingData", {"ElementName": name})
    if kind == "recovery":
        settings["ConsistencyLevel"] = Uint16(2)
    out = call(
        conn,
        "CreateSnapshot",
        "Msvm_CollectionSnapshotService",
        Collection=named(conn, "Msvm_VirtualSystemCollection", collection),
        SnapshotSettings=settings.tocimxmlstr(),
        SnapshotType=SNAPSHOT_TYPE[kind],
    )
    # What the job made is the one element that it affected.
    [made] = conn.Associators(out["Job"], AssocClass="Msvm_AffectedJobElement")
    print(f"  Msvm_AffectedJobElement -> {made.classname} {short(made.path)}")
    print(f"  {made['Caption']}")
    assert made.path.keybindings == out["ResultingSnapshotCollection"].keybindings
    # Of each member there is a snapshot as well: a settings object.
    members = conn.AssociatorNames(made.path, AssocClass="Msvm_CollectedSnapshots")
    # The evidence for the instant is the snapshot collection's description.
    report = json.loads(made["Description"])
    window = report["cut"]["common_window_us"]
    print(f"  Msvm_CollectedSnapshots -> {len(members)} members; all stood still for {window} us")
    return report


def apply(conn, name):
    """Returns all members of a snapshot to it."""
    call(
        conn,
        "ApplySnapshot",
        "Msvm_CollectionSnapshotService",
        SnapshotCollection=named(conn, "Msvm_SnapshotCollection", name),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="such as http://127.0.0.1:5988")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("define", help="make a collection")
    verb.add_argument("collection")
    verb.add_argument("machine", nargs="+")
    verb = verbs.add_parser("snapshot", help="snapshot collections, one after the other")
    verb.add_argument("--type", choices=SNAPSHOT_TYPE, default="standard")
    verb.add_argument("--name", required=True, help="of the snapshot; may hold {collection}")
    verb.add_argument("--report", help="file that takes the cut reports, as JSON")
    verb.add_argument("collection", nargs="+")
    verb = verbs.add_parser("apply", help="return a collection to a snapshot")
    verb.add_argument("snapshot")
    options = parser.parse_args()

    # One of the daemon's users, where it wants to know (`isochron user add`), and on
    # https its certificate (`isochron tls show`).
    user = os.environ.get("ISOCHRON_USER")
    conn = pywbem.WBEMConnection(
        options.url,
        (user, os.environ["ISOCHRON_PASSWORD"]) if user else None,
        default_namespace=NAMESPACE,
        ca_certs=os.environ.get("ISOCHRON_CA"),
    )
    if options.verb == "define":
        define(conn, options.collection, options.machine)
    elif options.verb == "apply":
        apply(conn, options.snapshot)
    else:
        reports = []
        for collection in options.collection:
            name = options.name.format(collection=collection)
            reports.append(snapshot(conn, collection, options.type, name))
        if options.report:
            with open(options.report, "w", encoding="utf-8") as file:
                json.dump(reports, file)


if __name__ == "__main__":
    try:
        main()
    except (Failed, pywbem.Error) as error:
        sys.exit(f"demo.py: {error}")
