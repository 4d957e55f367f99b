"""Snapshots a collection with a disk that cannot be snapshotted.

    ignore_disks.py URL COLLECTION
"""

import sys

from pywbem import CIMInstance

import cim

conn = cim.connect()
collection = cim.named(conn, cim.COLLECTION, sys.argv[2])
settings = CIMInstance("Msvm_VirtualSystemSnapshotSettingData", {"ElementName": "kept"})
for refused in [None, False]:
    if refused is not None:
        settings["IgnoreNonSnapshottableDisks"] = refused
    code, out = cim.create(
        conn, collection, cim.RECOVERY, SnapshotSettings=settings.tocimxmlstr())
    assert code == 1 and "scratch" in cim.why(out), (code, cim.why(out))
settings["IgnoreNonSnapshottableDisks"] = True
cim.completed(conn, cim.create(
    conn, collection, cim.RECOVERY, SnapshotSettings=settings.tocimxmlstr()))
cim.print_result(cim.names(conn, cim.SNAPSHOT))
