"""Takes snapshots of a collection as clients of Hyper-V's classes do.

    snapshots.py URL COLLECTION

Prints the CollectionID of each, oldest first.
"""

import json
import sys
import uuid

from pywbem import CIMInstance, Uint8, Uint16

import cim

conn = cim.connect()
collection = cim.named(conn, cim.COLLECTION, sys.argv[2])
taken = []


def snapshot(kind, **parameters):
    """Takes one and checks all that clients rely on; its instance."""
    path, out = cim.started(cim.create(conn, collection, kind, **parameters))
    first = conn.GetInstance(path)
    assert first["JobState"] in (cim.RUNNING, cim.COMPLETED), first["JobState"]
    assert first["JobType"] == 198, first["JobType"]
    job, out = cim.completed(conn, (4096, out))
    result = cim.made(conn, path)
    assert result.classname == cim.SNAPSHOT
    assert result.path.keybindings == out["ResultingSnapshotCollection"].keybindings
    report = json.loads(result["Description"])
    assert report["cut"]["common_window_us"] >= 0, report
    assert len(report["cut"]["members"]) == 3, report
    taken.append(result.path["CollectionID"])
    return result


# Standard, under a key that the caller has chosen; again it is refused.
key = str(uuid.uuid4()).upper()
settings = CIMInstance("Msvm_VirtualSystemSnapshotSettingData", {"ElementName": "standard"})
wanted = cim.snapshot_path(key)
standard = snapshot(
    cim.STANDARD, SnapshotSettings=settings.tocimxmlstr(), ResultingSnapshotCollection=wanted)
assert standard.path["CollectionID"].upper() == key, standard.path
assert standard["ElementName"] == "standard"
code, out = cim.create(conn, collection, cim.STANDARD, ResultingSnapshotCollection=wanted)
assert code == 4 and "exists" in cim.why(out), (code, cim.why(out))

# Recovery, with nothing said at all: null, then an empty text.
plain = snapshot(cim.RECOVERY)
assert plain["ElementName"].startswith(sys.argv[2] + " - ("), plain["ElementName"]
assert plain.path["CollectionID"] != standard.path["CollectionID"]
snapshot(cim.RECOVERY, SnapshotSettings="", ResultingSnapshotCollection=None)

# What single-machine clients send for a recovery snapshot, with settings as .NET's
# GetText(CimDtd20) writes them.
CIM_DTD = """<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData">
<PROPERTY NAME="Caption" CLASSORIGIN="CIM_ManagedElement" TYPE="string"></PROPERTY>
<PROPERTY NAME="ConsistencyLevel" CLASSORIGIN="Msvm_VirtualSystemSnapshotSettingData"
 TYPE="uint8"><VALUE>2</VALUE></PROPERTY>
<PROPERTY NAME="ElementName" PROPAGATED="true" TYPE="string"><VALUE>cim dtd</VALUE></PROPERTY>
<PROPERTY NAME="GuestBackupType" TYPE="uint8"><VALUE>1</VALUE></PROPERTY>
<PROPERTY NAME="IgnoreNonSnapshottableDisks" TYPE="boolean"><VALUE>TRUE</VALUE></PROPERTY>
</INSTANCE>"""
assert snapshot(Uint16(32768), SnapshotSettings=CIM_DTD)["ElementName"] == "cim dtd"

# GetText(WmiDtd20): qualifiers, system properties, properties that nobody knows.
WMI_DTD = """<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData">\
<QUALIFIER NAME="dynamic" PROPAGATED="true" TYPE="boolean" TOSUBCLASS="false">\
<VALUE>TRUE</VALUE></QUALIFIER>\
<PROPERTY NAME="__PATH" CLASSORIGIN="___SYSTEM" TYPE="string"></PROPERTY>\
<PROPERTY NAME="__GENUS" CLASSORIGIN="___SYSTEM" TYPE="sint32"><VALUE>2</VALUE></PROPERTY>\
<PROPERTY.ARRAY NAME="__DERIVATION" CLASSORIGIN="___SYSTEM" TYPE="string"><VALUE.ARRAY>\
<VALUE>CIM_SettingData</VALUE><VALUE>CIM_ManagedElement</VALUE></VALUE.ARRAY></PROPERTY.ARRAY>\
<PROPERTY NAME="ConsistencyLevel" CLASSORIGIN="x" TYPE="uint8">\
<QUALIFIER NAME="CIMTYPE" PROPAGATED="true" TYPE="string" TOINSTANCE="true">\
<VALUE>uint8</VALUE></QUALIFIER><VALUE>2</VALUE></PROPERTY>\
<PROPERTY NAME="ElementName" TYPE="string"><VALUE>wmi &amp; dtd</VALUE></PROPERTY>\
<PROPERTY NAME="NobodyKnowsMe" TYPE="uint32"><VALUE>17</VALUE></PROPERTY></INSTANCE>"""
assert snapshot(cim.RECOVERY, SnapshotSettings=WMI_DTD)["ElementName"] == "wmi & dtd"

# Settings of a machine, with only the name to give; here as the MI serializer does.
NAME_ONLY = """<?xml version="1.0" encoding="utf-16"?>\
<INSTANCE CLASSNAME="Msvm_VirtualSystemSettingData">\
<PROPERTY NAME="ElementName" TYPE="string" MODIFIED="TRUE"><VALUE>only a name</VALUE></PROPERTY>\
</INSTANCE>"""
assert snapshot(cim.RECOVERY, SnapshotSettings=NAME_ONLY)["ElementName"] == "only a name"

# Not as text: pywbem sends an instance in its own way.
embedded = CIMInstance(
    "Msvm_VirtualSystemSnapshotSettingData",
    {"ElementName": "embedded", "ConsistencyLevel": Uint8(2)})
assert snapshot(cim.RECOVERY, SnapshotSettings=embedded)["ElementName"] == "embedded"

assert {p["CollectionID"] for p in conn.EnumerateInstanceNames(cim.SNAPSHOT)} == set(taken)
cim.print_result(taken)
