"""Destroys snapshots, all of them in this order: destroy.py URL COLLECTION-ID..."""

import sys

import cim

conn = cim.connect()
for key in sys.argv[2:]:
    path = cim.snapshot_path(key)
    settings = conn.AssociatorNames(path, AssocClass="Msvm_CollectedSnapshots")
    job, _ = cim.completed(
        conn, cim.invoke(conn, "DestroySnapshot", cim.SNAPSHOTS, AffectedSnapshotCollection=path))
    assert job["JobType"] == 72, job["JobType"]
    cim.fails(6, conn.GetInstance, path)
    for setting in settings:
        cim.fails(6, conn.GetInstance, setting)
cim.print_result(cim.names(conn, cim.SNAPSHOT))
