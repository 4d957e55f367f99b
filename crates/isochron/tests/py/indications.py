"""Subscribes as WBEMSubscriptionManager does, and is told of a job's steps, of a
snapshot and of a collection, in both namespaces.

    indications.py URL PORT MACHINE     the first time; leaves one subscription
    indications.py URL PORT             after a restart: it still holds

The listener is at PORT.
"""

import sys
import threading
import time

import pywbem
from pywbem import CIMInstance, CIMInstanceName, Uint16, WBEMListener, WBEMServer
from pywbem import WBEMSubscriptionManager

import cim

PORT = int(sys.argv[2])
LISTENER = f"http://127.0.0.1:{PORT}"
JOBS = ("SELECT * FROM __InstanceModificationEvent WITHIN 2"
        " WHERE TargetInstance ISA 'Msvm_ConcreteJob'")
# What is asked for, by the name that indications carry it under.
FILTERS = {
    "jobs": (cim.HYPERV_CLUSTER, "WQL", JOBS),
    "ends": (cim.VIRTUALIZATION, "DMTF:CQL",
             "SELECT * FROM CIM_InstModification WHERE SourceInstance ISA Msvm_ConcreteJob"
             " AND SourceInstance.Msvm_ConcreteJob::JobState = 7"),
    "new": (cim.VIRTUALIZATION, "DMTF:CQL",
            "SELECT * FROM CIM_InstCreation WHERE SourceInstance ISA CIM_Collection"),
    "gone": (cim.HYPERV_CLUSTER, "DMTF:CQL",
             "SELECT * FROM CIM_InstDeletion WHERE SourceInstance ISA CIM_Collection"),
}


class Told:
    """What the listener was told."""

    def __init__(self):
        self.condition = threading.Condition()
        self.indications = []

    def tell(self, indication, host):
        assert host == "127.0.0.1", host
        with self.condition:
            self.indications.append(indication)
            self.condition.notify_all()

    def classes(self):
        return [i.classname for i in self.indications]

    def wait(self, what, there):
        """Waits until that is so of one indication, and gives it."""
        found = []

        def is_there():
            found[:] = [i for i in self.indications if there(i)]
            return found

        with self.condition:
            assert self.condition.wait_for(is_there, 60), (what, self.classes())
        return found[0]


def named(indication, name, source="SourceInstance"):
    return indication[source].get("ElementName") == name


def collection(conn, name):
    """Defines a collection, by its path."""
    code, out = cim.invoke(conn, "DefineCollection", cim.MANAGEMENT, Name=name, Type=Uint16(0))
    assert code == 0, code
    return out["DefinedCollection"]


def in_order(told):
    """Every destination has one sequence, without a gap and from its beginning."""
    numbers = [i["SequenceNumber"] for i in told.indications]
    contexts = {i["SequenceContext"] for i in told.indications}
    assert numbers == list(range(len(numbers))), numbers
    assert len(contexts) == 1, contexts
    return contexts.pop()


def first(told, machine):
    conn = cim.connect()
    server = WBEMServer(conn)
    profiles = server.get_selected_profiles("DMTF", "Indications")
    assert {p["RegisteredVersion"] for p in profiles} == {"1.2.2", "1.1.0"}, profiles
    for profile in profiles:
        [service] = server.get_central_instances(profile.path, "CIM_IndicationService",
                                                 "CIM_System", ["CIM_HostedService"])
        assert conn.GetInstance(service)["FilterCreationEnabled"] is True
    manager = WBEMSubscriptionManager("isochron")
    identifier = manager.add_server(server)
    destination = manager.add_destination(identifier, LISTENER, destination_id="test")
    assert destination["PersistenceType"] == 3
    for key, (namespace, language, query) in FILTERS.items():
        added = manager.add_filter(identifier, namespace, query, query_language=language,
                                   filter_id=key)
        [subscription] = manager.add_subscriptions(identifier, added.path, destination.path)
        assert subscription["SubscriptionState"] == 2
        assert conn.GetInstance(subscription.path)["Filter"] == added.path
        cim.fails(pywbem.CIM_ERR_FAILED, conn.DeleteInstance, added.path)
    cim.fails(pywbem.CIM_ERR_INVALID_QUERY, manager.add_filter, identifier,
              cim.VIRTUALIZATION, "SELECT nothing", query_language="WQL", filter_id="bad")
    cim.fails(pywbem.CIM_ERR_QUERY_LANGUAGE_NOT_SUPPORTED, manager.add_filter, identifier,
              cim.VIRTUALIZATION, "SELECT * FROM CIM_InstCreation", query_language="SQL",
              filter_id="bad")
    assert len(manager.get_all_filters(identifier)) == len(FILTERS)
    # Another manager finds what this one left.
    other = WBEMSubscriptionManager("isochron")
    again = other.add_server(WBEMServer(conn))
    assert len(other.get_owned_subscriptions(again)) == len(FILTERS)

    shop = collection(conn, "shop")
    told.wait("the collection", lambda i: i.classname == "CIM_InstCreation" and named(i, "shop"))
    [system] = [i.path for i in conn.EnumerateInstances("Msvm_ComputerSystem")
                if i["ElementName"] == machine]
    code, _ = cim.invoke(conn, "AddMember", cim.MANAGEMENT, Member=system, Collection=shop)
    assert code == 0, code

    # Every step of a job, in order, to its end; the snapshot that it makes.
    answer = cim.create(conn, shop, cim.RECOVERY)
    job = cim.completed(conn, answer)[0]
    snapshot = cim.made(conn, job.path)

    def of_job(indication, source):
        return indication[source].get("InstanceID") == job["InstanceID"]

    told.wait("the job's end", lambda i: i.classname == "CIM_InstModification"
              and of_job(i, "SourceInstance"))
    told.wait("the job's end in WQL", lambda i: i.classname == "__InstanceModificationEvent"
              and of_job(i, "TargetInstance") and i["TargetInstance"]["JobState"] == 7)
    steps = [i for i in told.indications if i.classname == "__InstanceModificationEvent"
             and of_job(i, "TargetInstance")]
    percent = [i["TargetInstance"]["PercentComplete"] for i in steps]
    assert percent == sorted(percent) and percent[-1] == 100, percent
    for before, after in zip(steps, steps[1:]):
        state = before["TargetInstance"]["JobState"]
        assert after["PreviousInstance"]["JobState"] == state, (before, after)
    new = told.wait("the snapshot", lambda i: i.classname == "CIM_InstCreation"
                    and i["SourceInstance"].classname == cim.SNAPSHOT)
    assert new["IndicationFilterName"] == "pywbemfilter:isochron:new", new.tomof()
    assert new["SourceInstance"]["CollectionID"] == snapshot["CollectionID"]
    path = CIMInstanceName.from_wbem_uri(f"/{new['SourceInstanceModelPath']}")
    assert conn.GetInstance(path)["CollectionID"] == snapshot["CollectionID"]

    destroyed = cim.invoke(conn, "DestroySnapshot", cim.SNAPSHOTS,
                           AffectedSnapshotCollection=snapshot.path)
    cim.completed(conn, destroyed)
    told.wait("the snapshot's end", lambda i: i.classname == "CIM_InstDeletion"
              and i["SourceInstance"].classname == cim.SNAPSHOT)
    cim.invoke(conn, "DestroyCollection", cim.MANAGEMENT, Collection=shop)
    told.wait("the collection's end", lambda i: i.classname == "CIM_InstDeletion"
              and named(i, "shop"))
    in_order(told)

    # All that is this manager's goes; one subscription of nobody's stays.
    count = len(told.indications)
    manager.remove_server(identifier)
    assert not conn.EnumerateInstances("CIM_IndicationSubscription", namespace=cim.INTEROP)
    stays = CIMInstance("CIM_ListenerDestinationCIMXML", {"Destination": LISTENER})
    stays = conn.CreateInstance(stays, namespace=cim.INTEROP)
    made = CIMInstance("CIM_IndicationFilter", {
        "SourceNamespaces": [cim.VIRTUALIZATION], "QueryLanguage": "WQL",
        "Query": "SELECT * FROM CIM_InstCreation WHERE SourceInstance.ElementName = 'later'"})
    made = conn.CreateInstance(made, namespace=cim.INTEROP)
    link = CIMInstance("CIM_IndicationSubscription", {"Filter": made, "Handler": stays})
    conn.CreateInstance(link, namespace=cim.INTEROP)
    time.sleep(0.5)
    assert len(told.indications) == count, told.classes()


def second(told):
    conn = cim.connect()
    later = collection(conn, "later")
    told.wait("the collection", lambda i: named(i, "later"))
    in_order(told)
    cim.invoke(conn, "DestroyCollection", cim.MANAGEMENT, Collection=later)


told = Told()
listener = WBEMListener("127.0.0.1", http_port=PORT)
listener.add_callback(told.tell)
listener.start()
try:
    if len(sys.argv) > 3:
        first(told, sys.argv[3])
    else:
        second(told)
finally:
    listener.stop()
cim.print_result(len(told.indications))
