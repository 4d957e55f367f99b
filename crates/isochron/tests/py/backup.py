"""Backs a collection up through CIM: in full, then as what changed, then merged.

Arguments: the collection's name, and a directory for the exports. Prints what was made.
"""

import sys

import pywbem
from pywbem import CIMInstance, CIMInstanceName, Uint16

import cim

POINTS = "Msvm_CollectionReferencePointService"
POINT = "Msvm_ReferencePointCollection"
PART = "Msvm_VirtualSystemReferencePoint"
EXPORT_JOB = "Msvm_CollectionReferencePointExportJob"

conn = cim.connect()
name, directory = sys.argv[2:4]
collection = cim.named(conn, cim.COLLECTION, name)


def text(classname, **properties):
    return CIMInstance(classname, properties).tocimxmlstr()


def snapshot(called):
    settings = text("Msvm_VirtualSystemSnapshotSettingData", ElementName=called)
    _, out = cim.completed(conn, cim.create(conn, collection, cim.RECOVERY,
                                            SnapshotSettings=settings))
    return out["ResultingSnapshotCollection"]


def settings_of_snapshot(base=None, intent=1):
    properties = {"CopyVmStorage": True, "BackupIntent": Uint16(intent)}
    if base is not None:
        properties["DifferentialBackupBase"] = base.to_wbem_uri()
    return text("Msvm_CollectionSnapshotExportSettingData", **properties)


def export(which, to, **how):
    job, _ = cim.completed(conn, cim.invoke(
        conn, "ExportSnapshot", cim.SNAPSHOTS, SnapshotCollection=which,
        ExportDirectory=f"{directory}/{to}", ExportSettingData=settings_of_snapshot(**how)))
    assert job["JobType"] == 62, job.tomof()


# In full; then the snapshot becomes a reference point.
monday = snapshot("monday")
export(monday, "monday")
job, out = cim.completed(conn, cim.invoke(
    conn, "ConvertToReferencePoint", cim.SNAPSHOTS, AffectedSnapshotCollection=monday))
base = out["ResultingReferencePointCollection"]
assert job["JobType"] == 200, job.tomof()
assert conn.GetInstance(base)["ReferencePointType"] == 2
cim.fails(pywbem.CIM_ERR_NOT_FOUND, conn.GetInstance, monday)

# What changed since, and a full one made of it.
tuesday = snapshot("tuesday")
export(tuesday, "tuesday", base=base)
export(tuesday, "merged", base=base, intent=2)

# A reference point of now, of which one machine's disk is exported: the job lists it.
settings = text("Msvm_CollectionReferencePointSettingData", ConsistencyLevel=pywbem.Uint8(2))
job, out = cim.completed(conn, cim.invoke(
    conn, "CreateReferencePoint", POINTS, Collection=collection,
    ReferencePointSettings=settings, ReferencePointType=Uint16(2)))
point = out["ResultingReferencePointCollection"]
assert job["JobType"] == 205 and cim.same(cim.made(conn, job.path).path, point), job.tomof()
parts = conn.Associators(point, AssocClass="Msvm_CollectedReferencePoints")
part = parts[0]
assert part.classname == PART and part["HasAssociatedData"] is True, part.tomof()
assert len(part["VirtualDiskIdentifiers"]) == len(part["ResilientChangeTrackingIdentifiers"]) > 0
chosen = CIMInstance("Msvm_VirtualMachineToDisks", {
    "VirtualMachineId": part["VirtualSystemIdentifier"],
    "DisksToExport": [part["VirtualDiskIdentifiers"][0]]})
how = text("Msvm_CollectionReferencePointExportSettingData",
           BaseReferencePointCollection=base.to_wbem_uri(),
           VirtualMachinesToDisksToExport=[chosen.tocimxmlstr()])
code, out = cim.invoke(conn, "ExportReferencePoint", POINTS, ReferencePointCollection=point,
                       ExportDirectory=f"{directory}/part", ExportSettingData=how)
assert code == 4096, (code, cim.why(out))
assert isinstance(out["Job"], CIMInstanceName) and out["Job"].classname == EXPORT_JOB, out
job = cim.follow(conn, out["Job"])
assert job["JobState"] == cim.COMPLETED, job.tomof()
assert job["BaseReferencePointGroupId"] == base["CollectionID"], job.tomof()
assert list(job["VirtualMachineId"]) == [part["VirtualSystemIdentifier"]], job.tomof()
disks = list(job["ExportedDisks"])
assert len(disks) == 1 and disks[0].startswith(f"{directory}/part/"), job.tomof()

# Type 1 says why not, and nothing is written outside of what is open.
code, out = cim.invoke(conn, "CreateReferencePoint", POINTS, Collection=collection,
                       ReferencePointType=Uint16(1))
assert code == 1 and "log based" in cim.why(out), code
cim.fails(pywbem.CIM_ERR_ACCESS_DENIED, cim.invoke, conn, "ExportSnapshot", cim.SNAPSHOTS,
          SnapshotCollection=tuesday, ExportDirectory="/etc/backup")

named = {"AffectedReferencePointCollection": point}
job, _ = cim.completed(conn, cim.invoke(conn, "RemoveAssociatedData", POINTS, **named))
assert job["JobType"] == 207 and conn.GetInstance(part.path)["HasAssociatedData"] is False
job, _ = cim.completed(conn, cim.invoke(conn, "DestroyReferencePoint", POINTS, **named))
assert job["JobType"] == 208
[left] = conn.EnumerateInstanceNames(POINT)
assert left["CollectionID"] == base["CollectionID"]
cim.print_result({"snapshot": tuesday["CollectionID"], "disk": disks[0]})
