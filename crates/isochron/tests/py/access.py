"""What a user may do over CIM-XML, by role: `access.py URL USER PASSWORD ROLE [CA]`.

A collection `shop` with a machine is there already.
"""

import sys

import pywbem
from cim import (
    COLLECTION, HYPERV_CLUSTER, INTEROP, MANAGEMENT, RECOVERY, SNAPSHOTS, VIRTUALIZATION,
    completed, named, service,
)
from pywbem import CIMClass, CIMInstance, CIMProperty, Uint16

ACCESS_DENIED = 2
FAMILY_ACCESS_DENIED = 32769

url, user, password, role = sys.argv[1:5]
ca = sys.argv[5] if len(sys.argv) > 5 else None
OPERATOR, ADMINISTRATOR = ("operator", "administrator"), ("administrator",)


def connect(namespace=HYPERV_CLUSTER, creds=(user, password)):
    return pywbem.WBEMConnection(url, creds, default_namespace=namespace, ca_certs=ca)


def denied(call, *args, **kwargs):
    """Whether a call is refused, by an error or by its family's return code."""
    try:
        answer = call(*args, **kwargs)
    except pywbem.CIMError as error:
        assert error.status_code == ACCESS_DENIED, error
        assert f"{user} has the role {role}" in error.status_description, error
        return True
    return isinstance(answer, tuple) and answer[0] == FAMILY_ACCESS_DENIED


def may(roles, call, *args, **kwargs):
    assert denied(call, *args, **kwargs) == (role not in roles), (role, call, args)


# Nobody else, and nobody with another password.
for creds in (None, (user, password + "x"), ("nobody", password), ("", "")):
    try:
        connect(creds=creds).EnumerateClassNames()
    except pywbem.AuthError:
        continue
    raise AssertionError(creds)

conn = connect()
assert [m["ElementName"] for m in conn.EnumerateInstances("Msvm_ComputerSystem")].count("web") == 1
shop = named(conn, COLLECTION, "shop")
snapshots, management = service(conn, SNAPSHOTS), service(conn, MANAGEMENT)

# Snapshots, in both namespaces.
may(OPERATOR, conn.InvokeMethod, "CreateSnapshot", snapshots, Collection=shop,
    SnapshotType=Uint16(9))
other = connect(VIRTUALIZATION)
may(OPERATOR, other.InvokeMethod, "CreateSnapshot", service(other, SNAPSHOTS),
    Collection=named(other, COLLECTION, "shop"), SnapshotType=Uint16(9))
if role not in OPERATOR:
    assert denied(conn.InvokeMethod, "CreateSnapshot", snapshots, Collection=shop,
                  SnapshotSettings="", SnapshotType=RECOVERY)
else:
    answer = conn.InvokeMethod("CreateSnapshot", snapshots, Collection=shop, SnapshotSettings="",
                               SnapshotType=RECOVERY)
    job, out = completed(conn, answer)
    assert job["Owner"] == user, job["Owner"]
    for snapshot in conn.EnumerateInstanceNames("Msvm_SnapshotCollection"):
        completed(conn, conn.InvokeMethod("DestroySnapshot", snapshots,
                                          AffectedSnapshotCollection=snapshot))

# Definitions.
may(ADMINISTRATOR, conn.InvokeMethod, "DefineCollection", management, Name=f"of-{user}",
    Type=Uint16(0))
may(ADMINISTRATOR, conn.InvokeMethod, "RenameCollection", management, Collection=shop,
    NewName="shop")

# What clients keep here.
namespace = CIMInstance("CIM_Namespace", {"Name": f"root/{user}"})
interop = connect(INTEROP)
may(ADMINISTRATOR, interop.CreateInstance, namespace)
if role in ADMINISTRATOR:
    mine = connect(f"root/{user}")
    mine.CreateClass(CIMClass("Mine", properties=[CIMProperty("A", "", type="string")]))
filter_ = CIMInstance("CIM_IndicationFilter", {
    "Name": f"f-{user}", "SourceNamespaces": [HYPERV_CLUSTER], "QueryLanguage": "WQL",
    "Query": "SELECT * FROM CIM_InstCreation WHERE SourceInstance ISA Msvm_ConcreteJob",
})
may(ADMINISTRATOR, interop.CreateInstance, filter_)
