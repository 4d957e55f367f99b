"""Snapshots of one machine, names and notes, as clients of Hyper-V's services do.

    single.py URL MACHINE take       snapshots in every dialect; prints their ids, the
                                     first is a standard one
    single.py URL MACHINE return ID  turns the machine off, applies, and starts it
    single.py URL MACHINE rename     the machine and a snapshot, and back
    single.py URL MACHINE clear      what is refused, then destroys all
"""

import sys

from pywbem import Uint8, Uint16, Uint32

import cim
import wmi

FULL, DISK, RECOVERY = Uint16(2), Uint16(3), Uint16(32768)
SETTINGS = "Msvm_VirtualSystemSettingData"

client = wmi.Wmi()
service = client.only("Msvm_VirtualSystemSnapshotService").path
manager = client.only("Msvm_VirtualSystemManagementService").path
machine = client.only("Msvm_ComputerSystem", ElementName=sys.argv[2]).path


def snapshots():
    return client.related(machine, SETTINGS, "Msvm_SnapshotOfVirtualSystem")


def take(kind, settings, name=None):
    out, job = client.done(service, "CreateSnapshot", machine, settings, kind)
    assert job["JobType"] == 70, job.tomof()
    # The result is what the job affects: some clients ask by class, some for anything.
    [made] = client.related(job.path, SETTINGS, "Msvm_AffectedJobElement")
    [same] = client.related(job.path, None)
    assert made.path == same.path and cim.same(made.path, out["ResultingSnapshot"])
    kinds = {2: "Realized", 3: "Recovery", 32768: "Recovery"}
    assert made["VirtualSystemType"] == f"Microsoft:Hyper-V:Snapshot:{kinds[int(kind)]}"
    assert made["IsSaved"] is (kind == FULL), made.tomof()
    if name:
        assert made["ElementName"] == name, made["ElementName"]
    [newest] = client.related(machine, SETTINGS, "Msvm_MostCurrentSnapshotInBranch")
    assert newest.path == made.path
    return made.path["InstanceID"], job.path


def taken():
    """Standard first; then nothing said, an empty text, and both DTDs."""
    settings = client.new("Msvm_VirtualSystemSnapshotSettingData", ElementName="as the CIM DTD",
                          ConsistencyLevel=Uint8(2), GuestBackupType=Uint8(1),
                          IgnoreNonSnapshottableDisks=False)
    named = client.new(SETTINGS, ElementName="with a name <only>")
    all_ = [take(FULL, client.text(named, 1), "with a name <only>"),
            take(RECOVERY, None), take(RECOVERY, ""), take(DISK, client.text(named, 2)),
            take(RECOVERY, client.text(settings, 1), "as the CIM DTD")]
    settings["ElementName"] = "as WMI's DTD & co"
    all_.append(take(RECOVERY, client.text(settings, 2), "as WMI's DTD & co"))
    assert {s.path["InstanceID"] for s in snapshots()} == {key for key, _ in all_}
    # Each grew from the one before, by the text of its path.
    parents = {s.path["InstanceID"]: s["Parent"] for s in snapshots()}
    keys = [key for key, _ in all_]
    for key, before in zip(keys, [None] + keys):
        assert (parents[key] is None) if before is None else (before in parents[key])
    # Jobs are read long after their end, as often as one likes.
    for _, job in all_:
        again = client.get(job)
        assert again["JobState"] == 7 and again["ErrorCode"] == 0, again.tomof()
    cim.print_result(keys)


def back(key):
    """As Hyper-V has it: the machine is off when a snapshot is applied."""
    client.done(machine, "RequestStateChange", Uint16(3))
    [wanted] = [s.path for s in snapshots() if s.path["InstanceID"] == key]
    _, job = client.done(service, "ApplySnapshot", wanted)
    assert job["JobType"] == 71, job.tomof()
    [applied] = client.related(machine, SETTINGS, "Msvm_LastAppliedSnapshot")
    assert applied.path == wanted
    then = client.get(machine)["EnabledState"]
    # Hyper-V leaves it saved, so its clients start it; here it may run already.
    client.done(machine, "RequestStateChange", Uint16(2))
    assert client.get(machine)["EnabledState"] == 2
    cim.print_result(int(then))


def modify(settings, dtd, **changes):
    """Changes what was read and sends all of it back, as clients do."""
    settings = client.get(settings)
    for name, value in changes.items():
        settings[name] = value
    _, job = client.done(manager, "ModifySystemSettings", client.text(settings, dtd))
    assert job is None or job["JobState"] == 7
    settings = client.get(settings.path)
    for name, value in changes.items():
        assert settings[name] == value, settings.tomof()


def rename():
    own = client.settings(machine).path
    snapshot = snapshots()[0].path
    was = client.get(snapshot)["ElementName"], client.get(snapshot)["Notes"]
    for dtd in [1, 2]:
        modify(own, dtd, ElementName=f"renamed {dtd} <&>", Notes=["one\nof two lines"])
        assert client.get(machine)["ElementName"] == f"renamed {dtd} <&>"
        modify(snapshot, dtd, ElementName=f"also {dtd}")
        modify(snapshot, dtd, Notes=was[1] + [f"by a client, {dtd}"])
    # Only what changed, as text that has nothing else.
    modify(own, 1, ElementName=sys.argv[2])
    bare = (f'<INSTANCE CLASSNAME="{SETTINGS}"><PROPERTY NAME="InstanceID" TYPE="string">'
            f'<VALUE>{snapshot["InstanceID"]}</VALUE></PROPERTY><PROPERTY NAME="ElementName" '
            f'TYPE="string"><VALUE>bare</VALUE></PROPERTY></INSTANCE>')
    client.done(manager, "ModifySystemSettings", bare)
    assert client.get(snapshot)["ElementName"] == "bare"
    summary = client.call(manager, "GetSummaryInformation", [own, snapshot],
                          [Uint32(n) for n in (1, 100, 107)])[1]["SummaryInformation"]
    assert [s["ElementName"] for s in summary] == [sys.argv[2], "bare"], summary
    assert summary[0]["EnabledState"] == 2 and len(summary[0]["Snapshots"]) == len(snapshots())
    cim.print_result([client.get(snapshot)["Notes"][1:], client.get(own)["Notes"]])


def refused(code, method, *values):
    """The call fails; what its user is shown."""
    try:
        client.done(service, method, *values)
    except wmi.Failed as failed:
        job = failed.job
        assert (failed.code, job["JobState"], job["ErrorCode"]) == (code, 10, code), job.tomof()
        result, out = client.call(job.path, "GetErrorEx")
        [error] = out["Errors"]
        assert result == 0 and error.classname == "Msvm_Error"
        assert error["Message"] == job["ErrorDescription"] == job["ErrorSummaryDescription"]
        shown = client.call(manager, "FormatError", [client.text(error, dtd) for dtd in (1, 2)])
        assert shown[0] == 0 and shown[1]["ErrorMessage"].count(error["Message"]) == 2, shown
        return error["Message"]
    raise AssertionError(f"{method} {values} succeeded")


def clear():
    host = client.only("Msvm_ComputerSystem", Caption="Hosting Computer System").path
    assert "host" in refused(4, "CreateSnapshot", host, "", FULL)
    assert "99" in refused(6, "CreateSnapshot", machine, "", Uint16(99))
    assert "SnapshotSettings" in refused(4, "CreateSnapshot", machine, "<INSTANCE", FULL)
    assert refused(4, "ApplySnapshot", client.settings(machine).path)
    one = snapshots()[0].path
    # What has memory is no base of differences.
    full = [s.path for s in snapshots() if s["VirtualSystemType"].endswith(":Realized")]
    assert "standard" in refused(1, "ConvertToReferencePoint", full[0], "")
    client.done(service, "DestroySnapshot", one)
    assert one not in [s.path for s in snapshots()]
    assert refused(4, "DestroySnapshot", one)
    # The root of what is left, and with it all that grew from it.
    left = snapshots()
    [root] = [s for s in left if s["Parent"] is None]
    _, job = client.done(service, "DestroySnapshotTree", root.path)
    assert job["JobType"] == 72, job.tomof()
    assert snapshots() == [], snapshots()
    cim.print_result(len(left))


{"take": taken, "return": back, "rename": rename, "clear": clear}[sys.argv[3]](*sys.argv[4:])
