"""The main job over WS-Management by wsmanio's client of CIM: finds a collection,
snapshots it, follows the job, lists the result, applies it and destroys it.

    wsmanio_snapshots.py URL COLLECTION ENDPOINT USER PASSWORD

Prints the snapshot's CollectionID.
"""

import asyncio
import json
import os
import sys

from wsmanio import CimClient
from wsmanio.exceptions import WSManFaultError

_, _, wanted, endpoint, user, password = sys.argv

SETTINGS = """<INSTANCE CLASSNAME="Msvm_VirtualSystemSnapshotSettingData">
<PROPERTY NAME="ElementName" TYPE="string"><VALUE>by wsmanio</VALUE></PROPERTY></INSTANCE>"""


async def main():
    async with CimClient(endpoint, user, password) as client:
        host = client.cimv2
        [system] = await (await host.query("SELECT * FROM Win32_OperatingSystem")).all()
        assert system.OSType == "36", system

        cim = client.namespace("root/HyperVCluster/v2")

        async def found(query):
            return await (await cim.query(query)).all()

        [shop] = await found(
            f"SELECT * FROM Msvm_VirtualSystemCollection WHERE ElementName = '{wanted}'")
        machines = await found(
            f"ASSOCIATORS OF {{Msvm_VirtualSystemCollection.CollectionID='{shop.CollectionID}'}}"
            " WHERE ResultClass = Msvm_ComputerSystem")
        assert [machine.EnabledState for machine in machines] == ["2", "2", "2"], machines

        service = cim.Msvm_CollectionSnapshotService
        job = await service.CreateSnapshot(
            Collection=cim.Msvm_VirtualSystemCollection(CollectionID=shop.CollectionID),
            SnapshotSettings=SETTINGS, SnapshotType="2")
        assert (job.JobState, job.PercentComplete) == ("7", "100"), job
        [made] = await found(
            f"ASSOCIATORS OF {{Msvm_ConcreteJob.InstanceID='{job.InstanceID}'}}"
            " WHERE ResultClass = Msvm_SnapshotCollection")
        assert made.ElementName == "by wsmanio", made
        snapshot = cim.Msvm_SnapshotCollection(CollectionID=made.CollectionID)
        assert (await snapshot.get()).Caption == made.Caption

        job = await service.ApplySnapshot(SnapshotCollection=snapshot)
        assert job.JobType == "71", job
        await service.DestroySnapshot(AffectedSnapshotCollection=snapshot)
        try:
            await snapshot.get()
        except WSManFaultError as fault:
            assert fault.code == 2150858752, fault
        else:
            raise AssertionError("it is still there")
        print(json.dumps(made.CollectionID))


asyncio.run(main())
# pyreqwest's thread that told of the last answer may still wait for the interpreter's
# lock. If the interpreter ends first, Python 3.12 unwinds that thread and aborts.
sys.stdout.flush()
os._exit(0)
