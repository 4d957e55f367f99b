"""Changes what a machine does, as clients of Msvm_ComputerSystem do.

    power.py URL MACHINE STATE...

STATE is a RequestedState. Prints for each the return code, the job's type and error,
and the EnabledState in which the machine then is.
"""

import sys

from pywbem import Uint16

import cim
import wmi

client = wmi.Wmi()
machine = client.only("Msvm_ComputerSystem", ElementName=sys.argv[2])
seen = []
for state in map(int, sys.argv[3:]):
    code, out = client.call(machine.path, "RequestStateChange", Uint16(state))
    job = client.get(out["Job"])
    if code == wmi.STARTED:
        try:
            job = client.wait(out)
            assert job["ErrorCode"] == 0 and job["PercentComplete"] == 100, job.tomof()
        except wmi.Failed as failed:
            job = failed.job
    else:
        assert job["JobState"] == 10 and job["ErrorCode"] == code, job.tomof()
    # The job leads to the machine and to nothing else, whether it went well or not.
    affected = client.related(job.path, None)
    assert [a.path["Name"] for a in affected] in ([machine.path["Name"]], []), affected
    assert affected or code != wmi.STARTED
    now = client.get(machine.path)
    seen.append({"code": int(code), "type": int(job["JobType"]), "state": int(job["JobState"]),
                 "error": job["ErrorDescription"], "enabled": int(now["EnabledState"]),
                 "on_time": int(now["OnTimeInMilliseconds"] or 0),
                 "process": int(now["ProcessID"] or 0),
                 "saved": client.settings(machine.path)["IsSaved"]})
cim.print_result(seen)
