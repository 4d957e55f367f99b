"""Makes a collection, and is refused what makes no sense.

    define.py URL NAME MACHINE...
"""

import sys

from pywbem import Uint16

import cim

name, machines = sys.argv[2], sys.argv[3:]
conn = cim.connect()


def manage(expected, method, **parameters):
    code, out = cim.invoke(conn, method, cim.MANAGEMENT, **parameters)
    assert code == expected, (method, parameters, code)
    return out


systems = {i["ElementName"]: i for i in conn.EnumerateInstances("Msvm_ComputerSystem")}
assert set(machines) <= set(systems), systems
assert all(systems[machine]["EnabledState"] == 2 for machine in machines)
host = next(i for i in systems.values() if i["Caption"] == "Hosting Computer System")

path = manage(0, "DefineCollection", Name=name, Type=Uint16(0))["DefinedCollection"]
assert path.classname == cim.COLLECTION and path.namespace == cim.HYPERV_CLUSTER, path
assert conn.GetInstance(path)["ElementName"] == name
for machine in machines:
    manage(0, "AddMember", Member=systems[machine].path, Collection=path)
members = conn.AssociatorNames(path, AssocClass="Msvm_CollectedVirtualSystems")
assert {m["Name"] for m in members} == {systems[m]["Name"] for m in machines}

# What is refused, in the codes of this family.
manage(32773, "DefineCollection", Name=name, Type=Uint16(0))
manage(32773, "DefineCollection", Name="other", Type=Uint16(2))
manage(32773, "DefineCollection", Name="other", Type=Uint16(0), Id="no GUID")
manage(32776, "AddMember", Member=host.path, Collection=path)
manage(32773, "AddMember", Member=cim.snapshot_path("x"), Collection=path)
nobody = systems[machines[0]].path.copy()
nobody["Name"] = "11111111-2222-4333-8444-555555555555"
manage(32773, "AddMember", Member=nobody, Collection=path)
# The one method that succeeds where there is nothing.
manage(0, "RemoveMemberById", Member=nobody, CollectionId=path["CollectionID"])

# Taken out, named anew, put in again.
manage(0, "RemoveMember", Member=systems[machines[0]].path, Collection=path)
assert len(conn.AssociatorNames(path, AssocClass="Msvm_CollectedVirtualSystems")) == len(
    machines) - 1
manage(0, "AddMember", Member=systems[machines[0]].path, Collection=path)
manage(0, "RenameCollection", Collection=path, NewName="renamed")
assert conn.GetInstance(path)["ElementName"] == "renamed"
manage(0, "RenameCollection", Collection=path, NewName=name)

# One that is made and gone; the same in the other namespace.
gone = manage(0, "DefineCollection", Name="gone", Type=Uint16(0),
              Id="0f0f0f0f-0000-4000-8000-000000000000")["DefinedCollection"]
assert gone["CollectionID"].lower() == "0f0f0f0f-0000-4000-8000-000000000000"
other = cim.connect(cim.VIRTUALIZATION)
assert set(cim.names(other, cim.COLLECTION)) == {name, "gone"}
manage(0, "DestroyCollection", Collection=gone)
assert cim.names(conn, cim.COLLECTION) == [name]
cim.print_result(path["CollectionID"])
