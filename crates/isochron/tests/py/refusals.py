"""Every refusal of CreateSnapshot, with its return code and its sentence.

    refusals.py URL COLLECTION PROCESS

PROCESS is a member's QEMU: it is held for a while. At the end no snapshot is there
that was not there before.
"""

import os
import signal
import sys

from pywbem import CIMInstance, CIMInstanceName, Uint8, Uint16

import cim

conn = cim.connect()
collection = cim.named(conn, cim.COLLECTION, sys.argv[2])
process = int(sys.argv[3])
before = sorted(cim.names(conn, cim.SNAPSHOT))
sentences = {}


def refused(code, says, collection=collection, kind=cim.RECOVERY, **parameters):
    answer, out = cim.create(conn, collection, kind, **parameters)
    assert answer == code, (answer, code, cim.why(out))
    assert out.get("ResultingSnapshotCollection") is None, out
    # A job that failed before it began says why, in three places.
    job = conn.GetInstance(out["Job"])
    assert job["JobState"] == cim.EXCEPTION and job["ErrorCode"] == code, job.tomof()
    error = cim.error_of(conn, out["Job"])
    assert error.classname == "Msvm_Error", error
    message = error["Message"]
    assert message == job["ErrorDescription"] == job["ErrorSummaryDescription"], job.tomof()
    assert says.lower() in message.lower(), (says, message)
    assert conn.AssociatorNames(out["Job"], AssocClass="Msvm_AffectedJobElement") == []
    sentences.setdefault(int(code), message)


def settings(**properties):
    instance = CIMInstance("Msvm_VirtualSystemSnapshotSettingData", properties)
    return {"SnapshotSettings": instance.tocimxmlstr()}


# 6 Invalid Type: 0 and what is DMTF's.
for kind in [0, 3, 32767]:
    refused(6, "SnapshotType", kind=Uint16(kind))
# 1 Not Supported: a vendor's types; application consistency where no agent is.
for kind in [32769, 65535]:
    refused(1, "vendor", kind=Uint16(kind))
refused(1, "agent", **settings(ConsistencyLevel=Uint8(1)))
# 4 Invalid Parameter.
path = collection.copy()
path["CollectionID"] = "00000000-0000-4000-8000-000000000000"
refused(4, "Collection", collection=path)
path["CollectionID"] = "no GUID"
refused(4, "Collection", collection=path)
refused(4, "Collection", collection=CIMInstanceName(
    "Msvm_NoSuchClass", {"CollectionID": "x"}, namespace=cim.HYPERV_CLUSTER))
refused(4, "not a collection", collection=conn.EnumerateInstanceNames("Msvm_ComputerSystem")[0])
refused(4, "ConsistencyLevel", **settings(ConsistencyLevel=Uint8(9)))
refused(4, "GuestBackupType", **settings(GuestBackupType=Uint8(9)))
refused(4, "consistency", kind=cim.STANDARD, **settings(ConsistencyLevel=Uint8(1)))
for text in ["nonsense", "<INSTANCE", "<INSTANCE/>", "<CLASS NAME='x'/>",
             "<INSTANCE CLASSNAME='Msvm_ConcreteJob'/>", "instance of Msvm_X { };",
             "<INSTANCE CLASSNAME='Msvm_VirtualSystemSnapshotSettingData'>"
             "<PROPERTY NAME='ConsistencyLevel' TYPE='uint8'><VALUE>much</VALUE></PROPERTY>"
             "</INSTANCE>"]:
    refused(4, "SnapshotSettings", SnapshotSettings=text)
refused(4, "ResultingSnapshotCollection", ResultingSnapshotCollection=collection)
refused(4, "GUID", ResultingSnapshotCollection=cim.snapshot_path("no GUID"))
# 5 Invalid State: a collection without members, one whose operation is under way.
code, out = cim.invoke(
    conn, "DefineCollection", cim.MANAGEMENT, Name="empty", Type=Uint16(0))
refused(5, "no members", collection=out["DefinedCollection"])
cim.invoke(conn, "DestroyCollection", cim.MANAGEMENT, Collection=out["DefinedCollection"])
path, _ = cim.started(cim.create(conn, collection, cim.STANDARD, **settings(ElementName="busy")))
refused(5, "snapshot")
code, _ = cim.invoke(conn, "DestroyCollection", cim.MANAGEMENT, Collection=collection)
assert code in (32774, 32775), code

# That one is cancelled, unless its instant has come already; then it completes.
code, _ = conn.InvokeMethod("RequestStateChange", path, RequestedState=Uint16(4))
job = cim.follow(conn, path)
assert code in (0, 4097), code
assert job["JobState"] == (cim.TERMINATED if code == 0 else cim.COMPLETED), job.tomof()
assert conn.InvokeMethod("RequestStateChange", path, RequestedState=Uint16(4))[0] == 4097
if code == 0:
    assert "cancel" in cim.error_of(conn, path)["Message"]
else:
    cim.completed(conn, cim.invoke(
        conn, "DestroySnapshot", cim.SNAPSHOTS,
        AffectedSnapshotCollection=cim.named(conn, cim.SNAPSHOT, "busy")))

# 3 Timeout: a member that does not answer. What is not there to be asked is asked
# before anything is touched, so it is refused; it goes on as soon as it can.
os.kill(process, signal.SIGSTOP)
try:
    refused(3, "ring-1")
finally:
    os.kill(process, signal.SIGCONT)

# A member that stops answering when all was checked: the job fails with Timeout, or
# the call is refused as before; never is there half a snapshot.
code, out = cim.create(conn, collection, cim.RECOVERY, **settings(ElementName="late"))
os.kill(process, signal.SIGSTOP)
try:
    assert code == 4096, code
    job = cim.follow(conn, out["Job"])
finally:
    os.kill(process, signal.SIGCONT)
assert job["JobState"] in (cim.EXCEPTION, cim.COMPLETED), job.tomof()
if job["JobState"] == cim.EXCEPTION:
    assert job["ErrorCode"] == 3 and "ring-1" in job["ErrorDescription"], job.tomof()
else:
    cim.completed(conn, cim.invoke(
        conn, "DestroySnapshot", cim.SNAPSHOTS,
        AffectedSnapshotCollection=cim.named(conn, cim.SNAPSHOT, "late")))

# An export needs a directory.
one = conn.EnumerateInstanceNames(cim.SNAPSHOT)[0]
code, out = cim.invoke(conn, "ExportSnapshot", cim.SNAPSHOTS, SnapshotCollection=one)
assert code == 4 and "ExportDirectory" in cim.why(out), code
# Apply and destroy name what is not there.
nothing = cim.snapshot_path("00000000-0000-4000-8000-000000000000")
for method, parameter in [("ApplySnapshot", "SnapshotCollection"),
                          ("DestroySnapshot", "AffectedSnapshotCollection"),
                          ("ConvertToReferencePoint", "AffectedSnapshotCollection"),
                          ("ExportSnapshot", "SnapshotCollection")]:
    for path in [nothing, collection, None]:
        code, out = cim.invoke(conn, method, cim.SNAPSHOTS, **{parameter: path})
        assert code == 4 and cim.why(out), (method, path, code)

assert sorted(cim.names(conn, cim.SNAPSHOT)) == before, cim.names(conn, cim.SNAPSHOT)
cim.print_result(sentences)
