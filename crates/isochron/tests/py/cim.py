"""What the scripts share: a connection, method calls, jobs followed to their end.

Nothing here works around the server: the calls are pywbem's own, and what comes
back is checked as a client of Hyper-V's classes would rely on it.
"""

import json
import sys
import time

import pywbem
from pywbem import CIMInstanceName, Uint16

HYPERV_CLUSTER = "root/HyperVCluster/v2"
VIRTUALIZATION = "root/virtualization/v2"
INTEROP = "interop"

SNAPSHOTS = "Msvm_CollectionSnapshotService"
MANAGEMENT = "Msvm_CollectionManagementService"
COLLECTION = "Msvm_VirtualSystemCollection"
SNAPSHOT = "Msvm_SnapshotCollection"

STANDARD, RECOVERY = Uint16(1), Uint16(2)
RUNNING, COMPLETED, TERMINATED, EXCEPTION = 4, 7, 8, 10


def connect(namespace=HYPERV_CLUSTER):
    return pywbem.WBEMConnection(sys.argv[1], default_namespace=namespace)


def fails(code, call, *args, **kwargs):
    """The call must end in this CIM error, with a sentence."""
    try:
        call(*args, **kwargs)
    except pywbem.CIMError as error:
        assert error.status_code == code, (error, code)
        assert error.status_description, error
        return
    raise AssertionError(f"{call.__name__} {args} succeeded and should fail with {code}")


def service(conn, classname):
    """A service's path: each class of services has one instance."""
    [path] = conn.EnumerateInstanceNames(classname)
    return path


def invoke(conn, method, classname, **parameters):
    return conn.InvokeMethod(method, service(conn, classname), **parameters)


def named(conn, classname, name):
    """The path of the one instance with this ElementName."""
    found = [i.path for i in conn.EnumerateInstances(classname) if i["ElementName"] == name]
    assert len(found) == 1, (classname, name, found)
    return found[0]


def names(conn, classname):
    return [instance["ElementName"] for instance in conn.EnumerateInstances(classname)]


def same(one, other):
    """Whether two paths name one object; some replies name the host, some do not."""
    return (one.classname, one.keybindings, one.namespace) == (
        other.classname, other.keybindings, other.namespace)


def snapshot_path(key):
    return CIMInstanceName(SNAPSHOT, {"CollectionID": key}, namespace=HYPERV_CLUSTER)


def started(answer):
    """Checks the reply that starts a job; the job's path, and the out-parameters."""
    code, out = answer
    assert code == 4096, (code, why(out))
    path = out["Job"]
    assert isinstance(path, CIMInstanceName) and path.classname == "Msvm_ConcreteJob", path
    return path, out


def follow(conn, path):
    """Reads a job by its path as clients do: while it is in state 4."""
    percent = -1
    until = time.monotonic() + 240
    while True:
        job = conn.GetInstance(path)
        assert job["PercentComplete"] >= percent, (job["PercentComplete"], percent)
        percent = job["PercentComplete"]
        assert percent <= 100 and job["JobStatus"], job
        if job["JobState"] != RUNNING:
            return job
        assert time.monotonic() < until, job.tomof()
        time.sleep(0.1)


def completed(conn, answer):
    """The job that the reply started, which must complete; the out-parameters too."""
    path, out = started(answer)
    job = follow(conn, path)
    assert job["JobState"] == COMPLETED, (job["JobState"], job["ErrorDescription"])
    assert job["PercentComplete"] == 100 and job["ErrorCode"] == 0
    assert error_of(conn, path) is None
    # It stays to be read for five minutes.
    assert str(job["TimeBeforeRemoval"]) == "00000000000500.000000:000", job["TimeBeforeRemoval"]
    return conn.GetInstance(path), out


def error_of(conn, job):
    """What GetErrorEx says of a job: its one error, or None."""
    code, out = conn.InvokeMethod("GetErrorEx", job)
    assert code == 0, code
    errors = out.get("Errors") or []
    assert len(errors) <= 1, errors
    single = conn.InvokeMethod("GetError", job)[1].get("Error")
    assert (single is None) == (not errors), (single, errors)
    return errors[0] if errors else None


def why(out):
    job = out.get("Job")
    return job and connect().GetInstance(job)["ErrorDescription"]


def made(conn, job):
    """The one element that a job affected, and how."""
    affected = conn.Associators(job, AssocClass="Msvm_AffectedJobElement")
    assert len(affected) == 1, affected
    [link] = conn.References(job, ResultClass="Msvm_AffectedJobElement")
    assert list(link["ElementEffects"]) == [5], link["ElementEffects"]
    return affected[0]


def create(conn, collection, kind, **parameters):
    return invoke(
        conn, "CreateSnapshot", SNAPSHOTS, Collection=collection, SnapshotType=kind, **parameters
    )


def print_result(value):
    print(json.dumps(value))
