"""Classes as the server shows them: what a generic client reads before any call.

    schema.py URL
"""

import pywbem

import cim

for namespace in [cim.HYPERV_CLUSTER, cim.VIRTUALIZATION]:
    conn = cim.connect(namespace)
    names = conn.EnumerateClassNames(DeepInheritance=True)
    for name in [
        "Msvm_CollectionSnapshotService", "Msvm_CollectionManagementService",
        "Msvm_CollectionReferencePointService", "Msvm_VirtualSystemCollection",
        "Msvm_ManagementCollection", "Msvm_SnapshotCollection", "Msvm_ComputerSystem",
        "Msvm_VirtualSystemSettingData", "Msvm_VirtualSystemSnapshotSettingData",
        "Msvm_ConcreteJob", "Msvm_Error", "Msvm_AffectedJobElement",
        "Msvm_CollectedVirtualSystems", "Msvm_CollectedCollections", "Msvm_CollectedSnapshots",
        "Msvm_SnapshotOfVirtualSystemCollection", "Msvm_SnapshotOfVirtualSystem",
        "Msvm_LastAppliedSnapshot", "Msvm_MostCurrentSnapshotInBranch",
    ]:
        assert name in names, name
    classes = conn.EnumerateClasses(DeepInheritance=True, LocalOnly=False)
    assert [c.classname for c in classes] == names
    # Every class can be asked for on its own, with the classes that it derives from.
    by_name = {c.classname: c for c in classes}
    for cls in classes:
        assert cls.superclass is None or cls.superclass in by_name, cls
    assert "Msvm_CollectionSnapshotService" in conn.EnumerateClassNames(
        ClassName="CIM_Service", DeepInheritance=True)
    assert [c.classname for c in conn.EnumerateClasses(ClassName="CIM_CollectionOfMSEs")]

    service = conn.GetClass("Msvm_CollectionSnapshotService", LocalOnly=False)
    assert service.superclass == "CIM_Service", service.superclass
    assert {"StartService", "StopService", "RequestStateChange"} <= set(service.methods)
    assert service.qualifiers["Description"].value
    method = service.methods["CreateSnapshot"]
    assert method.return_type == "uint32"
    # The return codes and the types of snapshots, by their names.
    said = dict(zip(method.qualifiers["ValueMap"].value, method.qualifiers["Values"].value))
    assert said["6"] == "Invalid Type" and said["4096"].endswith("Job Started"), said
    assert list(method.parameters) == [
        "Collection", "SnapshotSettings", "SnapshotType", "ResultingSnapshotCollection", "Job"]
    kinds = method.parameters["SnapshotType"]
    assert kinds.type == "uint16"
    said = dict(zip(kinds.qualifiers["ValueMap"].value, kinds.qualifiers["Values"].value))
    assert said["1"] == "Standard Snapshot" and said["2"] == "Recovery Snapshot", said
    both = method.parameters["ResultingSnapshotCollection"]
    assert both.type == "reference" and both.reference_class == "CIM_Collection"
    assert both.qualifiers["In"].value is True and both.qualifiers["Out"].value is True
    job = method.parameters["Job"]
    assert job.qualifiers["In"].value is False and job.qualifiers["Out"].value is True
    assert method.parameters["SnapshotSettings"].qualifiers["EmbeddedInstance"].value
    bare = conn.GetClass(
        "Msvm_CollectionSnapshotService", LocalOnly=False, IncludeQualifiers=False)
    assert not bare.qualifiers and not bare.methods["CreateSnapshot"].qualifiers

    collection = conn.GetClass(
        "Msvm_VirtualSystemCollection", LocalOnly=False, IncludeClassOrigin=True)
    assert collection.properties["CollectionID"].qualifiers["Key"].value is True
    assert collection.properties["InstanceID"].propagated
    states = conn.GetClass("Msvm_ConcreteJob", LocalOnly=False).properties["JobState"]
    said = dict(zip(states.qualifiers["ValueMap"].value, states.qualifiers["Values"].value))
    assert said["4"] == "Running" and said["7"] == "Completed", said
    link = conn.GetClass("Msvm_SnapshotOfVirtualSystemCollection", LocalOnly=False)
    assert link.qualifiers["Association"].value is True
    assert link.properties["Antecedent"].type == "reference"

    # CIM errors.
    cim.fails(6, conn.GetClass, "Msvm_Nothing")
    cim.fails(5, conn.EnumerateInstances, "Msvm_Nothing")
    cim.fails(3, conn.EnumerateClassNames, namespace="root/elsewhere")
    cim.fails(6, conn.GetInstance, cim.snapshot_path("00000000-0000-4000-8000-000000000000"))
    path = cim.service(conn, "Msvm_CollectionSnapshotService")
    cim.fails(17, conn.InvokeMethod, "TakeSnapshot", path)
    cim.fails(7, conn.DeleteInstance, path)
    cim.fails(7, conn.CreateClass, pywbem.CIMClass("Msvm_New"))
    cim.fails(4, conn.GetInstance, pywbem.CIMInstanceName(
        "Msvm_ConcreteJob", {"Name": "x"}, namespace=namespace))

# The server can be explored by pywbem's own means, from the interop namespace on.
server = pywbem.WBEMServer(cim.connect(cim.INTEROP))
assert server.interop_ns == cim.INTEROP, server.interop_ns
assert {cim.HYPERV_CLUSTER, cim.VIRTUALIZATION, cim.INTEROP} <= set(server.namespaces)
assert server.brand and server.version
cim.print_result(len(names))
