"""Walks from the host to the settings of a member's snapshot, by associations alone.

    walk.py URL COLLECTION SNAPSHOTS

SNAPSHOTS is how many snapshots of the collection there are.
"""

import json
import sys

import cim

conn = cim.connect()
name, count = sys.argv[2], int(sys.argv[3])

# Host -> service -> (by name) collection -> members.
[host] = [i for i in conn.EnumerateInstances("Msvm_ComputerSystem")
          if i["Caption"] == "Hosting Computer System"]
services = conn.AssociatorNames(host.path, AssocClass="Msvm_HostedService")
assert cim.SNAPSHOTS in [s.classname for s in services], services
[service] = conn.AssociatorNames(host.path, ResultClass=cim.SNAPSHOTS)
[back] = conn.AssociatorNames(service, Role="Dependent", ResultRole="Antecedent")
assert cim.same(back, host.path), back
assert conn.GetInstance(service)["ElementName"]
guests = conn.Associators(host.path, AssocClass="Msvm_HostedDependency")
collection = cim.named(conn, cim.COLLECTION, name)
members = conn.Associators(collection, AssocClass="Msvm_CollectedVirtualSystems")
assert {m["ElementName"] for m in members} == {"ring-0", "ring-1", "ring-2"}
assert {m.path["Name"] for m in members} <= {g.path["Name"] for g in guests}

# Collection -> snapshots -> settings of each member -> machine.
snapshots = conn.Associators(collection, AssocClass="Msvm_SnapshotOfVirtualSystemCollection")
assert len(snapshots) == count == len(cim.names(conn, cim.SNAPSHOT)), len(snapshots)
kinds, parents = set(), {}
for snapshot in snapshots:
    [back] = conn.AssociatorNames(snapshot.path, ResultRole="Antecedent",
                                  AssocClass="Msvm_SnapshotOfVirtualSystemCollection")
    assert cim.same(back, collection), back
    settings = conn.Associators(snapshot.path, AssocClass="Msvm_CollectedSnapshots")
    assert len(settings) == 3, settings
    for setting in settings:
        assert setting.classname == "Msvm_VirtualSystemSettingData"
        assert setting["ElementName"] == snapshot["ElementName"]
        [machine] = conn.Associators(setting.path, AssocClass="Msvm_SnapshotOfVirtualSystem")
        assert machine["Name"] == setting["VirtualSystemIdentifier"]
        assert machine["ElementName"] in {"ring-0", "ring-1", "ring-2"}
        [whole] = conn.AssociatorNames(setting.path, AssocClass="Msvm_CollectedSnapshots")
        assert cim.same(whole, snapshot.path), whole
        kinds.add(setting["VirtualSystemType"])
        parents[setting.path["InstanceID"]] = setting["Parent"]
        # The member's own part of the evidence.
        part = json.loads(setting["Notes"][0])
        assert part["resumed_at_us"] >= part["stopped_at_us"] > 0, part
        standard = setting["VirtualSystemType"].endswith("Snapshot:Realized")
        assert setting["IsSaved"] is standard
        assert part["memory"] == ("background" if standard else "none"), part
assert kinds == {"Microsoft:Hyper-V:Snapshot:Realized", "Microsoft:Hyper-V:Snapshot:Recovery"}

# Parents make a line of each machine's snapshots, as long as there are snapshots.
for machine in members:
    mine = conn.AssociatorNames(machine.path, AssocClass="Msvm_SnapshotOfVirtualSystem")
    assert len(mine) == count, mine
    [newest] = conn.AssociatorNames(machine.path, AssocClass="Msvm_MostCurrentSnapshotInBranch")
    length, at = 0, newest["InstanceID"]
    while at is not None:
        length += 1
        parent = parents[at]
        at = None
        if parent is not None:
            at = parent["InstanceID"] if hasattr(parent, "keybindings") else next(
                key for key in parents if key in parent)
    assert length == count, (length, count)
    [own] = conn.Associators(machine.path, AssocClass="Msvm_SettingsDefineState")
    assert own["VirtualSystemType"] == "Microsoft:Hyper-V:System:Realized"

# Links have both ends; where nothing is linked there is nothing, and no error.
links = conn.References(snapshots[0].path, ResultClass="Msvm_CollectedSnapshots")
assert len(links) == 3 and all(
    cim.same(link["Collection"], snapshots[0].path) for link in links)
assert len(conn.ReferenceNames(collection, ResultClass="Msvm_CollectedVirtualSystems")) == 3
assert conn.AssociatorNames(collection, AssocClass="Msvm_CollectedCollections") == []
assert conn.AssociatorNames(collection, Role="Dependent",
                            AssocClass="Msvm_SnapshotOfVirtualSystemCollection") == []
cim.fails(4, conn.AssociatorNames, collection, AssocClass="Msvm_Nothing")
cim.fails(6, conn.AssociatorNames, cim.snapshot_path("00000000-0000-4000-8000-000000000000"))

# The other namespace shows the same, under its own paths.
other = cim.connect(cim.VIRTUALIZATION)
assert len(other.EnumerateInstances(cim.SNAPSHOT)) == count
assert all(p.namespace == cim.VIRTUALIZATION for p in other.EnumerateInstanceNames(cim.SNAPSHOT))
cim.print_result(sorted(kinds))
