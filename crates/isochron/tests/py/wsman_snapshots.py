"""The main job over WS-Management: finds a collection, snapshots it, follows the job,
lists the result, applies it and destroys it.

    wsman_snapshots.py URL take COLLECTION FAMILY CONNECTION
    wsman_snapshots.py URL finish ID FAMILY CONNECTION

CONNECTION is what pypsrp's WSMan takes, as JSON. Prints the snapshot's CollectionID.
"""

import json
import sys

from wsman import Client, ET, OptionSet, WSManFaultError, selecting

_, _, step, wanted, family, connection = sys.argv
client = Client(family, **json.loads(connection))

SETTINGS = """<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData">
<PROPERTY NAME="ElementName" TYPE="string"><VALUE>by WS-Management</VALUE></PROPERTY>
<PROPERTY NAME="ConsistencyLevel" TYPE="uint8"><VALUE>2</VALUE></PROPERTY></INSTANCE>"""

if step == "take":
    [(collection, instance)] = client.query(
        "SELECT * FROM Msvm_VirtualSystemCollection WHERE ElementName = '%s'" % wanted)
    assert client.get(collection)["CollectionID"] == instance["CollectionID"]
    machines = client.associated(collection, "Msvm_ComputerSystem")
    assert len(machines) == 3, machines
    assert all(machine["EnabledState"] == "2" for _, machine in machines), machines

    # A snapshot of a type that there is not: the method says so, by its return value.
    code, _ = client.invoke(
        "Msvm_CollectionSnapshotService", "CreateSnapshot", Collection=collection,
        SnapshotSettings="", SnapshotType=77)
    assert code in (4, 6), code
    started = client.invoke(
        "Msvm_CollectionSnapshotService", "CreateSnapshot", Collection=collection,
        SnapshotSettings=SETTINGS, SnapshotType=2, ResultingSnapshotCollection=None)
    job = client.completed(started)
    assert job["JobType"] == "198" and job["PercentComplete"] == "100", job
    [(snapshot, instance)] = client.associated(started[1]["Job"], "Msvm_SnapshotCollection")
    assert instance["ElementName"] == "by WS-Management", instance
    assert len(client.associated(snapshot, "Msvm_VirtualSystemSettingData")) == 3
    print(json.dumps(instance["CollectionID"]))
else:
    [(snapshot, instance)] = [
        (reference, found) for reference, found in client.enumerate("Msvm_SnapshotCollection")
        if found["CollectionID"] == wanted]
    service = "Msvm_CollectionSnapshotService"
    job = client.completed(client.invoke(service, "ApplySnapshot", SnapshotCollection=snapshot))
    assert job["JobType"] == "71", job
    client.completed(
        client.invoke(service, "DestroySnapshot", AffectedSnapshotCollection=snapshot))
    try:
        client.get(snapshot)
    except WSManFaultError as fault:
        assert fault.code == 2150858752, fault
    else:
        raise AssertionError("it is still there")
    print(json.dumps(wanted))
