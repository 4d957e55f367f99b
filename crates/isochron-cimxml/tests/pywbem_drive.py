"""Drives the test server with pywbem: every operation, and what must fail."""

import sys
from datetime import timedelta

import pywbem
from pywbem import CIMClassName, CIMDateTime, CIMInstance, CIMInstanceName, CIMProperty
from pywbem import Uint8, Uint16, Uint32, Uint64

AWKWARD = "a<b>&\"c\" 'd' \u00e9\U0001f600 ]]> \ttab\nline\r\nend  "
url = sys.argv[1]
conn = pywbem.WBEMConnection(
    url, ("user", "secret"), default_namespace="root/test", stats_enabled=True)


def fails(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except pywbem.CIMError as error:
        assert error.status_code == code, (error, code)
        assert error.status_description, error
        return
    raise AssertionError(f"{call.__name__} succeeded and should fail with {code}")


# Classes.
assert conn.EnumerateClassNames() == ["T_Base", "T_Many", "T_Settings", "T_Link"]
assert set(conn.EnumerateClassNames(DeepInheritance=True)) == {
    "T_Base", "T_Thing", "T_BigThing", "T_Many", "T_Settings", "T_Link"}
assert conn.EnumerateClassNames(ClassName="T_Base", DeepInheritance=True) == ["T_Thing", "T_BigThing"]
thing = conn.GetClass("T_Thing", LocalOnly=False, IncludeClassOrigin=True)
assert list(thing.properties) == [
    "Name", "Caption", "Size", "Delta", "Ratio", "Letter", "On", "When", "Tags", "Settings"]
assert thing.superclass == "T_Base"
assert thing.properties["Name"].qualifiers["Key"].value is True
assert thing.properties["Name"].qualifiers["Key"].overridable is False
assert thing.properties["Name"].class_origin == "T_Base" and thing.properties["Name"].propagated
assert thing.properties["Size"].value == 5 and thing.properties["Tags"].array_size == 4
assert thing.properties["Settings"].qualifiers["EmbeddedInstance"].value == "T_Settings"
assert thing.qualifiers["Description"].value == "A thing"
work = thing.methods["Work"]
assert work.return_type == "uint32" and work.qualifiers["Description"].value == "Works"
assert work.parameters["Job"].reference_class == "T_Thing"
assert work.parameters["Job"].qualifiers["Out"].value is True
assert work.parameters["All"].is_array and work.parameters["Numbers"].type == "uint16"
local = conn.GetClass("T_Thing")  # LocalOnly is true by default
assert "Name" not in local.properties and "Size" in local.properties
assert local.properties["Size"].class_origin is None
bare = conn.GetClass("T_Thing", LocalOnly=False, IncludeQualifiers=False, PropertyList=["size", "no"])
assert list(bare.properties) == ["Size"] and not bare.qualifiers and bare.methods
assert not bare.methods["Work"].parameters["Job"].qualifiers
assert not conn.GetClass("T_Thing", LocalOnly=False, PropertyList=[]).properties
assert conn.GetClass("T_Base", LocalOnly=False).qualifiers["Description"].value == (
    "What all <things> share")
classes = conn.EnumerateClasses(DeepInheritance=True, LocalOnly=False)
assert len(classes) == 6 and classes[1].methods
fails(5, conn.GetClass, "T_Nothing")
fails(3, conn.EnumerateClassNames, namespace="root/elsewhere")

# Qualifier types.
key, values = conn.EnumerateQualifiers()
assert key.scopes["PROPERTY"] and not key.scopes.get("METHOD") and key.value is False
assert not key.overridable and values.is_array and values.value is None and values.translatable
assert conn.GetQualifier("key").name == "Key"
fails(6, conn.GetQualifier, "None")

# Instances.
one = CIMInstanceName("T_Thing", {"Name": "one"})
inst = conn.GetInstance(one)
assert inst["Caption"] == AWKWARD, inst["Caption"]
assert inst["Size"] == Uint64(2**64 - 1) and isinstance(inst["Size"], Uint64)
assert inst["Delta"] == -(2**63) and inst["Ratio"] == 1e300
assert inst["Letter"] == "\u20ac" and inst["On"] is True
assert inst["When"] == CIMDateTime("20260102030405.123456+060")
assert inst["Tags"] == ["x", AWKWARD]
assert inst["Settings"].classname == "T_Settings"
assert inst["Settings"]["Text"] == AWKWARD and inst["Settings"]["Level"] == Uint16(3)
assert inst.properties["Size"].class_origin is None
inst = conn.GetInstance(one, IncludeClassOrigin=True, PropertyList=["SIZE", "Nonsense"])
assert inst.properties["Size"].class_origin == "T_Thing" and list(inst.properties) == ["Size"]
assert not conn.GetInstance(one, PropertyList=[]).properties
instances = conn.EnumerateInstances("T_Base")
assert [i.classname for i in instances] == ["T_Thing", "T_BigThing"]
big = instances[1].path
assert big.keybindings["Name"] == 'two "quoted" <&>' and big.namespace == "root/test"
assert instances[1]["Caption"] == "bell\ufffd and \ufffd"
shallow = conn.EnumerateInstances("T_Base", DeepInheritance=False)
assert set(shallow[1].properties) == {"Name", "Caption"}
assert conn.EnumerateInstanceNames("T_BigThing") == [big]
assert conn.GetInstance(big)["Extra"] == Uint8(1)
fails(6, conn.GetInstance, CIMInstanceName("T_Thing", {"Name": "none"}))
fails(5, conn.EnumerateInstances, "T_Nothing")
fails(4, conn.GetInstance, one, PropertyList=[None])

# Associations, between instances and between classes.
host = url.split("//")[1]
objects = conn.Associators(one)
assert [o.path.keybindings["Name"] for o in objects] == ['two "quoted" <&>']
assert objects[0].path.host == host and objects[0].path.namespace == "root/test"
assert conn.AssociatorNames(one) == [objects[0].path]
assert conn.AssociatorNames(one, ResultClass="T_BigThing", AssocClass="t_link") == [objects[0].path]
assert conn.AssociatorNames(one, Role="Dependent") == []
assert conn.AssociatorNames(one, ResultRole="Dependent") == [objects[0].path]
links = conn.References(one)
assert links[0]["Antecedent"] == CIMInstanceName("T_Thing", {"Name": "one"}, namespace="root/test")
names = conn.ReferenceNames(big, ResultClass="T_Link", Role="Dependent")
assert names[0].keybindings["Dependent"].keybindings["Name"] == 'two "quoted" <&>'
assert conn.ReferenceNames(big, Role="Antecedent") == []
found = conn.Associators(CIMClassName("T_Thing"), IncludeQualifiers=True)
assert [c.classname for _, c in found] == ["T_BigThing"] and found[0][0].host == host
assert conn.AssociatorNames("T_BigThing", ResultClass="T_Base") == conn.AssociatorNames(
    "T_BigThing"), "T_BigThing is a T_Thing and plays both roles"
assert {c.classname for c in conn.AssociatorNames("T_BigThing")} == {"T_Thing", "T_BigThing"}
assert [c.classname for c in conn.ReferenceNames("T_BigThing", Role="Dependent")] == ["T_Link"]
assert conn.ReferenceNames("T_Thing", Role="Dependent") == []
assert [c.classname for _, c in conn.References("T_Thing")] == ["T_Link"]
assert conn.ReferenceNames("T_Settings") == []
fails(4, conn.AssociatorNames, "T_Nothing")

# Writes.
new = CIMInstance("T_Thing", {"Name": "three", "Size": Uint64(1), "Tags": ["a", None]})
path = conn.CreateInstance(new)
assert path == CIMInstanceName("T_Thing", {"Name": "three"}, namespace="root/test")
assert conn.GetInstance(path)["Tags"] == ["a", None]
fails(11, conn.CreateInstance, new)
change = CIMInstance("T_Thing", {"Caption": "c", "On": True}, path=path)
conn.ModifyInstance(change, PropertyList=["Caption", "Size"])
changed = conn.GetInstance(path)
assert changed["Caption"] == "c" and changed["Size"] == 5 and "On" not in changed
conn.ModifyInstance(change)
assert conn.GetInstance(path)["On"] is True
fails(12, conn.ModifyInstance, change, PropertyList=["Nonsense"])
conn.DeleteInstance(path)
fails(6, conn.DeleteInstance, path)

# Methods.
settings = CIMInstance("T_Settings", {
    "Text": AWKWARD,
    "Inner": CIMProperty("Inner", CIMInstance("T_Settings", {"Text": AWKWARD}),
                         type="string", embedded_object="instance")})
at = CIMDateTime("20260102030405.123456-300")
value, out = conn.InvokeMethod(
    "Work", one, Other=big, Settings=settings, Numbers=[Uint16(1), Uint16(65535)], At=at,
    Big=Uint64(2**64 - 1))
assert value == Uint32(4096)
assert out["At"] == at and out["Big"] == Uint64(2**64 - 2) and out["Numbers"] == [1, 65535]
assert out["Job"].keybindings["Name"] == 'two "quoted" <&>' and out["Job"].namespace == "root/test"
assert [p and p.keybindings["Name"] for p in out["All"]] == ["one", None, 'two "quoted" <&>']
# pywbem sends the carriage return bare, so that it arrives as XML has it: as none.
sent = AWKWARD.replace("\r", "")
assert out["Settings"]["Text"] == sent and out["Settings"]["Inner"]["Text"] == sent
value, out = conn.InvokeMethod("Work", one, Settings="just <text>", At=timedelta(seconds=90))
assert out.get("Job") is None and out["Settings"] == "just <text>"
assert out["At"] == CIMDateTime(timedelta(seconds=90))
assert conn.InvokeMethod("Add", "T_Thing", A=Uint32(2), B=Uint32(40)) == (Uint32(42), {})
assert conn.InvokeMethod("Add", CIMClassName("T_Thing"), A="2", B="40")[0] == 42
fails(17, conn.InvokeMethod, "Nonsense", one)
fails(6, conn.InvokeMethod, "Work", CIMInstanceName("T_Thing", {"Name": "none"}))
fails(1, conn.InvokeMethod, "Panic", "T_Thing")
assert conn.InvokeMethod("Add", "T_Thing", A=Uint32(1), B=Uint32(1))[0] == 2, "it still serves"

# What this server does not have is NOT_SUPPORTED, each time.
fails(7, conn.CreateClass, pywbem.CIMClass("T_New"))
fails(7, conn.DeleteClass, "T_Thing")
fails(7, conn.SetQualifier, key)
fails(7, conn.DeleteQualifier, "Key")
# pywbem finds out by itself whether there are pull operations.
conn = pywbem.WBEMConnection(url, default_namespace="root/test", use_pull_operations=None,
                             stats_enabled=True)
assert len(list(conn.IterEnumerateInstances("T_Base"))) == 2
assert "EnumerateInstances" not in dict(conn.statistics.snapshot())

# The server's own time reaches the statistics.
for _ in range(20):
    conn.EnumerateInstances("T_Base")
statistics = dict(conn.statistics.snapshot())["EnumerateInstances"]
assert statistics.count >= 20
assert 0 < statistics.avg_server_time <= statistics.avg_time, statistics.avg_server_time
print("pywbem", pywbem.__version__, "ok")
