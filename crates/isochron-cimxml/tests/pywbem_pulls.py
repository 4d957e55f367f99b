"""Pulled enumerations and queries with pywbem. The server has 25 instances of T_Many,
gives at most 20 in a page, and lets a caller have 3 enumerations open, all 5."""

import sys
import time

import pywbem
from pywbem import CIMInstanceName

url = sys.argv[1]


def connect(user):
    return pywbem.WBEMConnection(url, (user, "x"), default_namespace="root/test")


conn = connect("ada")
one = CIMInstanceName("T_Thing", {"Name": "one"})
big = CIMInstanceName("T_BigThing", {"Name": 'two "quoted" <&>'})


def fails(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except pywbem.CIMError as error:
        assert error.status_code == code, (error, code)
        return
    raise AssertionError(f"{call.__name__} succeeded and should fail with {code}")


def pulled(pull, result, most, take):
    """What is left of an enumeration, and how large its pages are."""
    found, sizes = list(take(result)), []
    while not result.eos:
        result = pull(result.context, MaxObjectCount=most)
        sizes.append(len(take(result)))
        found += take(result)
    assert result.context is None
    return found, sizes


def instances(result):
    return result.instances


def paths(result):
    return result.paths


# Pages follow one another; a page of nothing opens and keeps open.
result = conn.OpenEnumerateInstances("T_Many")
assert not result.eos and result.instances == []
result = conn.PullInstancesWithPath(result.context, MaxObjectCount=0)
assert not result.eos and result.instances == []
found, sizes = pulled(conn.PullInstancesWithPath, result, 7, instances)
assert sizes == [7, 7, 7, 4], sizes
assert [i["Name"].lstrip("0") for i in found[1:]] == [str(n) for n in range(1, 25)]
assert all(i.path.namespace == "root/test" and i.path.host for i in found)
assert found == conn.EnumerateInstances("T_Many") or [i.path.keybindings for i in found] == [
    i.path.keybindings for i in conn.EnumerateInstances("T_Many")]
# The server's own limit, and the end in the first page.
result = conn.OpenEnumerateInstances("T_Many", MaxObjectCount=1000)
assert len(result.instances) == 20 and not result.eos
assert len(conn.PullInstancesWithPath(result.context, MaxObjectCount=1000).instances) == 5
result = conn.OpenEnumerateInstances("T_Many", MaxObjectCount=20)
assert pulled(conn.PullInstancesWithPath, result, 5, instances)[1] == [5]
result = conn.OpenEnumerateInstances("T_Base", MaxObjectCount=2)
assert result.eos and result.context is None and len(result.instances) == 2
# Properties: the list comes after the filter.
(only,) = conn.OpenEnumerateInstances(
    "T_Base", MaxObjectCount=9, PropertyList=["Caption"], IncludeClassOrigin=True,
    FilterQueryLanguage="DMTF:FQL", FilterQuery="Size = 7").instances
assert only.path.keybindings == big.keybindings and list(only.properties) == ["Caption"]
shallow = conn.OpenEnumerateInstances("T_Thing", MaxObjectCount=9, DeepInheritance=False).instances
assert len(shallow) == 2 and all("Extra" not in i.properties for i in shallow)
deep = conn.OpenEnumerateInstances("T_Thing", MaxObjectCount=9).instances
assert any("Extra" in i.properties for i in deep)
assert any(i.properties["Size"].class_origin == "T_Thing" for i in conn.OpenEnumerateInstances(
    "T_Thing", MaxObjectCount=9, IncludeClassOrigin=True).instances)

# Paths, and from an instance.
result = conn.OpenEnumerateInstancePaths("T_Many", MaxObjectCount=3)
found, sizes = pulled(conn.PullInstancePaths, result, 20, paths)
assert len(found) == 25 and sizes == [20, 2] and found[0].classname == "T_Many"
(path,) = conn.OpenEnumerateInstancePaths(
    "T_Base", MaxObjectCount=9, FilterQueryLanguage="WQL",
    FilterQuery="SELECT * FROM T_BigThing WHERE Size > 5 AND Name LIKE 'TWO%'").paths
assert path.keybindings == big.keybindings and path.host
for opened in (
        conn.OpenAssociatorInstances(one, ResultRole="Dependent", MaxObjectCount=9),
        conn.OpenAssociatorInstances(one, ResultClass="T_BigThing", MaxObjectCount=0)):
    ((other,), _) = pulled(conn.PullInstancesWithPath, opened, 9, instances)
    assert other.path.keybindings == big.keybindings and other["Size"] == 7
assert conn.OpenAssociatorInstances(
    one, MaxObjectCount=9, FilterQueryLanguage="DMTF:CQL",
    FilterQuery="SELECT * FROM T_Thing WHERE Size < 7").instances == []
(path,) = conn.OpenAssociatorInstancePaths(big, Role="Dependent", MaxObjectCount=9).paths
assert path.keybindings == one.keybindings
(link,) = conn.OpenReferenceInstances(one, ResultClass="T_Link", MaxObjectCount=9).instances
assert link["Dependent"].keybindings == big.keybindings
(path,) = conn.OpenReferenceInstancePaths(one, Role="Antecedent", MaxObjectCount=9).paths
assert path.classname == "T_Link" and path.keybindings["Antecedent"] == link["Antecedent"]

# Queries.
result = conn.OpenQueryInstances(
    "WQL", "SELECT Name, Size FROM T_Thing WHERE Size >= 7", MaxObjectCount=1,
    ReturnQueryResultClass=True)
assert list(result.query_result_class.properties) == ["Name", "Size"]
found, _ = pulled(conn.PullInstances, result, 9, instances)
assert [list(i.properties) for i in found] == [["Name", "Size"]] * 2 and found[0].path is None
found = conn.ExecQuery("DMTF:CQL", "SELECT * FROM T_Thing WHERE Size = 7 OR Name = 'none'")
assert [i.path.keybindings for i in found] == [big.keybindings] and found[0]["Extra"] == 1
(found,) = conn.ExecQuery("WQL", "ASSOCIATORS OF {T_Thing.Name='one'} WHERE ResultRole = Dependent")
assert found.path.keybindings == big.keybindings
(found,) = conn.ExecQuery("WQL", "REFERENCES OF {T_Thing.Name='one'}")
assert found.classname == "T_Link"
for call in (conn.ExecQuery, conn.OpenQueryInstances):
    fails(15, call, "WQL", "SELECT FROM T_Thing")
    fails(15, call, "WQL", "SELECT * FROM T_None")
    fails(15, call, "WQL", "SELECT Nothing FROM T_Thing")
    fails(14, call, "SQL", "SELECT * FROM T_Thing")
    fails(14, call, "DMTF:FQL", "Size = 7")
    fails(3, call, "WQL", "SELECT * FROM T_Thing", namespace="root/none")

# What is not a context of this caller, namespace and kind.
result = conn.OpenEnumerateInstances("T_Many", MaxObjectCount=1)
context, namespace = result.context
bob = connect("bob")
for pull in (conn.PullInstancePaths, conn.PullInstances, bob.PullInstancesWithPath):
    fails(21, pull, result.context, MaxObjectCount=1)
fails(21, conn.PullInstancesWithPath, (context, "interop"), MaxObjectCount=1)
fails(21, bob.CloseEnumeration, result.context)
fails(21, conn.PullInstancesWithPath, ("nonsense", namespace), MaxObjectCount=1)
fails(3, conn.PullInstancesWithPath, (context, "root/none"), MaxObjectCount=1)
assert len(conn.PullInstancesWithPath(result.context, MaxObjectCount=1).instances) == 1
conn.CloseEnumeration(result.context)
fails(21, conn.CloseEnumeration, result.context)
fails(21, conn.PullInstancesWithPath, result.context, MaxObjectCount=1)

# Parameters.
for code, more in (
        (26, {"ContinueOnError": True}),
        (22, {"OperationTimeout": 0}),
        (22, {"OperationTimeout": 61}),
        (14, {"FilterQueryLanguage": "BLAH", "FilterQuery": "x = 1"}),
        (15, {"FilterQueryLanguage": "DMTF:FQL", "FilterQuery": "x ="}),
        (15, {"FilterQueryLanguage": "WQL", "FilterQuery": "SELECT Name FROM T_Base"}),
        (4, {"FilterQueryLanguage": "DMTF:FQL"}),
        (4, {"FilterQuery": "x = 1"})):
    fails(code, conn.OpenEnumerateInstances, "T_Base", **more)
    fails(code, conn.OpenEnumerateInstancePaths, "T_Base", **more)
    fails(code, conn.OpenReferenceInstances, one, **more)
    fails(code, conn.OpenAssociatorInstancePaths, one, **more)
fails(5, conn.OpenEnumerateInstances, "T_None")
fails(6, conn.OpenAssociatorInstances, CIMInstanceName("T_Thing", {"Name": "none"}))
assert conn.OpenEnumerateInstances("T_Base", OperationTimeout=60, MaxObjectCount=9,
                                   ContinueOnError=False).eos

# Limits, of one caller and of all.
held = [conn.OpenEnumerateInstances("T_Many").context for _ in range(3)]
fails(27, conn.OpenEnumerateInstances, "T_Many")
held_by_bob = [bob.OpenEnumerateInstancePaths("T_Many").context for _ in range(2)]
fails(27, bob.OpenQueryInstances, "WQL", "SELECT * FROM T_Many")
conn.CloseEnumeration(held.pop())
held_by_bob.append(bob.OpenQueryInstances("WQL", "SELECT * FROM T_Many").context)
for context in held:
    conn.CloseEnumeration(context)
for context in held_by_bob:
    bob.CloseEnumeration(context)
# Those that nobody pulls from end by themselves.
held = [conn.OpenEnumerateInstances("T_Many", OperationTimeout=1).context for _ in range(3)]

time.sleep(1.2)
fails(21, conn.PullInstancesWithPath, held[0], MaxObjectCount=1)
assert len(list(conn.IterEnumerateInstances("T_Many", MaxObjectCount=4))) == 25
print("pywbem", pywbem.__version__, "ok")
