"""Collections, as clients of Hyper-V's collection services do; everything by position.

    collective.py URL NAME MACHINE...   defines NAME, and `all NAME` around it; takes, finds,
                                        applies and destroys; prints a snapshot's id that stays
    collective.py URL --cancel NAME PROCESS   cancels; PROCESS is a member's QEMU
"""

import os
import signal
import sys
import time

from pywbem import Uint8, Uint16

import cim
import wmi

SETTINGS = "Msvm_VirtualSystemSettingData"
STANDARD, RECOVERY, OF_MACHINES = Uint16(1), Uint16(2), Uint16(32768)

client = wmi.Wmi(cim.HYPERV_CLUSTER)
service = client.only("Msvm_CollectionSnapshotService").path
manager = client.only("Msvm_CollectionManagementService").path


def define(name, kind, members):
    out, _ = client.done(manager, "DefineCollection", name, None, Uint16(kind))
    collection = out["DefinedCollection"]
    for member in members:
        client.done(manager, "AddMember", member, collection)
    return collection


def take(collection, kind, settings):
    out, job = client.done(service, "CreateSnapshot", collection, settings, kind)
    assert job["JobType"] == 198, job.tomof()
    # Some clients take the only thing that the job leads to, whatever it is.
    [made] = client.related(job.path, None)
    [link] = client.conn.References(job.path, ResultClass="Msvm_AffectedJobElement")
    assert list(link["ElementEffects"]) == [5], link["ElementEffects"]
    assert made.classname == "Msvm_SnapshotCollection"
    assert cim.same(made.path, out["ResultingSnapshotCollection"])
    parts = client.related(made.path, SETTINGS, "Msvm_CollectedSnapshots")
    suffix = "Realized" if kind == STANDARD else "Recovery"
    assert {p["VirtualSystemType"] for p in parts} == {f"Microsoft:Hyper-V:Snapshot:{suffix}"}
    return made, parts, job.path


def use(name, machines):
    systems = {i["ElementName"]: i.path for i in
               client.conn.EnumerateInstances("Msvm_ComputerSystem")}
    shop = define(name, 0, [systems[m] for m in machines])
    every = define(f"all {name}", 1, [shop])
    settings = client.new("Msvm_VirtualSystemSnapshotSettingData", ConsistencyLevel=Uint8(2))
    named = client.new(SETTINGS, ElementName="kept")
    jobs, made = [], []
    for kind, text in [(RECOVERY, None), (RECOVERY, ""), (OF_MACHINES, client.text(settings, 1)),
                       (RECOVERY, client.text(settings, 2)), (RECOVERY, client.text(named, 1)),
                       (STANDARD, client.text(named, 2))]:
        snapshot, parts, job = take(shop, kind, text)
        assert len(parts) == len(machines), parts
        made.append(snapshot)
        jobs.append(job)
    assert made[-1]["ElementName"] == "kept" and made[-2]["ElementName"] == "kept"
    # Of a collection of collections; asked for in the other namespace.
    other = wmi.Wmi(cim.VIRTUALIZATION)
    seen = other.only("Msvm_ManagementCollection", ElementName=f"all {name}").path
    there = other.only("Msvm_CollectionSnapshotService").path
    out, _ = other.done(there, "CreateSnapshot", seen, "", RECOVERY)
    assert len(other.related(out["ResultingSnapshotCollection"], SETTINGS)) == len(machines)
    other.done(there, "DestroySnapshot", out["ResultingSnapshotCollection"])

    _, job = client.done(service, "ApplySnapshot", made[-1].path)
    assert job["JobType"] == 71, job.tomof()
    for machine in machines:
        [applied] = client.related(systems[machine], SETTINGS, "Msvm_LastAppliedSnapshot")
        [whole] = client.related(applied.path, "Msvm_SnapshotCollection")
        assert whole.path == made[-1].path
        assert client.get(systems[machine])["EnabledState"] == 2
    for snapshot in made[:-1]:
        _, job = client.done(service, "DestroySnapshot", snapshot.path)
        assert job["JobType"] == 72, job.tomof()
    [left] = client.related(shop, "Msvm_SnapshotCollection")
    assert left.path == made[-1].path
    # Well after their end, and after their results are gone.
    for job in jobs:
        assert client.get(job)["JobState"] == 7
    client.done(manager, "DestroyCollection", every)
    cim.print_result(left.path["CollectionID"])


def cancel(name, process):
    """Cancelled while a member holds it up; everything is as it was."""
    shop = client.only("Msvm_VirtualSystemCollection", ElementName=name).path
    before = client.related(shop, "Msvm_SnapshotCollection")
    cancelled, until = 0, time.monotonic() + 120
    while not cancelled:
        assert time.monotonic() < until, "no job could be cancelled"
        code, out = client.call(service, "CreateSnapshot", shop, "", STANDARD)
        os.kill(process, signal.SIGSTOP)
        try:
            assert code == wmi.STARTED, code
            job = client.get(out["Job"])
            if job["Cancellable"]:
                code, _ = client.call(job.path, "RequestStateChange", Uint16(4))
                assert code in (0, 4097), code
                cancelled = code == 0
        finally:
            os.kill(process, signal.SIGCONT)
        try:
            client.wait(out)
            assert not cancelled, "it was cancelled and completed"
            client.done(service, "DestroySnapshot", out["ResultingSnapshotCollection"])
        except wmi.Failed as failed:
            job = failed.job
            # 8 Terminated; otherwise the member did not answer in time.
            assert job["JobState"] == (8 if cancelled else 10), job.tomof()
    assert job["ErrorCode"] and "cancel" in job["ErrorDescription"], job.tomof()
    code, out = client.call(job.path, "GetErrorEx")
    assert code == 0 and "cancel" in out["Errors"][0]["Message"], out
    assert client.related(job.path, None) == []
    assert job["Cancellable"] is False
    code, _ = client.call(job.path, "RequestStateChange", Uint16(5))
    assert code == 4097, code
    after = client.related(shop, "Msvm_SnapshotCollection")
    assert [s.path for s in after] == [s.path for s in before]
    cim.print_result(job["ErrorDescription"])


if sys.argv[2] == "--cancel":
    cancel(sys.argv[3], int(sys.argv[4]))
else:
    use(sys.argv[2], sys.argv[3:])
