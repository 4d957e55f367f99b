"""Tries to apply a snapshot that has lost a file: damaged.py URL COLLECTION-ID"""

import sys

import cim

conn = cim.connect()
path = cim.snapshot_path(sys.argv[2])
code, out = cim.invoke(conn, "ApplySnapshot", cim.SNAPSHOTS, SnapshotCollection=path)
assert code == 2, code  # Failed
job = conn.GetInstance(out["Job"])
assert job["JobState"] == cim.EXCEPTION and job["ErrorCode"] == 2, job.tomof()
message = cim.error_of(conn, out["Job"])["Message"]
assert "missing" in message, message
cim.print_result(message)
