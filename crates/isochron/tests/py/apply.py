"""Applies a snapshot: apply.py URL COLLECTION-ID"""

import sys

import cim

conn = cim.connect()
path = cim.snapshot_path(sys.argv[2])
job, _ = cim.completed(
    conn, cim.invoke(conn, "ApplySnapshot", cim.SNAPSHOTS, SnapshotCollection=path))
assert job["JobType"] == 71, job["JobType"]
for setting in conn.Associators(path, AssocClass="Msvm_CollectedSnapshots"):
    applied = conn.Associators(setting.path, AssocClass="Msvm_LastAppliedSnapshot")
    assert [m["Name"] for m in applied] == [setting["VirtualSystemIdentifier"]], applied
cim.print_result(path["CollectionID"])
