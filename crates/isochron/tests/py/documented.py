"""The tables of docs/cim.md against the server, and its discovery as a client of
profiles does it.

    documented.py URL USER PASSWORD PAGE
"""

import re
import sys

import pywbem

HYPERV = ["root/HyperVCluster/v2", "root/virtualization/v2"]
INTEROP, CIMV2 = "interop", "root/cimv2"
OF_A_SERVICE = {"SystemCreationClassName", "SystemName", "CreationClassName", "Name"}
# "Not Supported" of each family.
REFUSED = {1, 32770}

url, user, password, page = sys.argv[1:]
conn = pywbem.WBEMConnection(url, (user, password))


def tables():
    """The rows of "## Classes": its section, and its cells by the table's heads."""
    text = open(page, encoding="utf-8").read()
    text = text.split("\n## Classes\n")[1].split("\n## ")[0]
    section, heads = None, None
    for line in text.splitlines():
        if line.startswith("### "):
            section = line[4:]
        if not line.startswith("|"):
            heads = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if heads is None:
            heads = cells
        elif not set(line) <= set("|-"):
            yield section, dict(zip(heads, cells, strict=True))


def words(cell):
    """What a cell has in code type."""
    return re.findall("`([^`]*)`", cell)


def one(namespace, classname):
    """Any instance of a class of which a row says that there are some."""
    if classname == "Msvm_ComputerSystem":
        found = conn.ExecQuery("WQL", f"SELECT * FROM {classname} WHERE Caption LIKE 'Virtual%'",
                               namespace)
        return found[0].path
    return next(iter(names(namespace, classname)))


def names(namespace, classname):
    found = conn.EnumerateInstanceNames(classname, namespace)
    return [name for name in found if name.classname == classname]


def check(namespace, section, row):
    classnames = words(row["class"])
    if section == "In parameters only":
        for classname in classnames:
            assert conn.GetClass(classname, namespace) and not names(namespace, classname)
        return classnames[0]
    [classname] = classnames
    cls = conn.GetClass(classname, namespace, LocalOnly=False)
    there = names(namespace, classname)
    if "keys" in row:
        keys = {p.name for p in cls.properties.values() if "key" in p.qualifiers}
        told = OF_A_SERVICE if row["keys"] == "of a service" else set(words(row["keys"]))
        assert keys == told, (classname, keys)
        made = "clients made" in row["instances"] or row["instances"] == "the same"
        assert bool(there) != (row["instances"] == "none" or made), (classname, there)
        if row["instances"].startswith("one"):
            assert len(there) == 1, classname
    elif "from" in row:
        ends = {p.name: p for p in cls.properties.values() if p.type == "reference"}
        assert set(words(row["from"]) + words(row["to"])) == set(ends), (classname, ends)
        assert there, classname
    else:
        raise AssertionError(f"{classname}: a row of nothing")
    if "methods" not in row:
        return classname
    served, refused = words(row["methods"]), words(row["refused methods"])
    assert set(served) | set(refused) == set(cls.methods), (classname, cls.methods)
    for method in served + refused:
        # Without parameters: what is served finds them missing.
        code, _ = conn.InvokeMethod(method, one(namespace, classname))
        assert (code in REFUSED) == (method in refused), (classname, method, code)
    return classname


rows = list(tables())
for namespace in HYPERV:
    told = {check(namespace, section, row) for section, row in rows if "In `" not in section}
    # Whatever has instances is on the page; profiles are said to be here as well.
    for classname in conn.EnumerateClassNames(namespace, DeepInheritance=True):
        if classname not in told | {"CIM_RegisteredProfile"}:
            assert not names(namespace, classname), classname
for namespace in [INTEROP, CIMV2]:
    told = {check(namespace, section, row) for section, row in rows if f"`{namespace}`" in section}
    assert told, namespace
    for classname in conn.EnumerateClassNames(namespace, DeepInheritance=True):
        assert classname in told or not names(namespace, classname), classname

# As profiles are used: found by name, and what follows each by it (DSP1033).
server = pywbem.WBEMServer(conn)
assert server.interop_ns == INTEROP
assert set(server.namespaces) == {INTEROP, CIMV2, *HYPERV}, server.namespaces
for organization, name, version, central in [
    ("DMTF", "Profile Registration", "1.0.0", "CIM_ObjectManager"),
    ("DMTF", "Indications", "1.2.2", "CIM_IndicationService"),
    ("DMTF", "Indications", "1.1.0", "CIM_IndicationService"),
]:
    [profile] = server.get_selected_profiles(organization, name, version)
    [path] = server.get_central_instances(profile.path)
    assert path.classname == central, path
    assert conn.GetInstance(path)["ElementName"]
print(len(rows))
