"""Guests under libvirt, snapshotted together as a script does it that wants to be fast.

One thread per guest and a barrier between the steps; overlays are created
beforehand. The first line on standard input says what to start, each further one
what to do: `prepare`, `cut` or `undo`. For each a line of JSON comes back: null, or
what went wrong. At the end of its input the guests are ended.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from xml.sax.saxutils import escape, quoteattr

import libvirt

# Nothing of the host's: no user, service, cgroup or namespace.
CONFIGURATION = """security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
"""

SNAPSHOT = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
)


def disks(guest):
    """Target, file, overlay and format of each disk."""
    for number, disk in enumerate(guest["disks"]):
        overlay = disk["path"] + ".script"
        yield "vd" + "abcdefgh"[number], disk["path"], overlay, disk["format"]


def domain_xml(guest, environment):
    """A lab guest in libvirt's words; what it has no words for is QEMU's."""
    devices = "".join(
        f"""<disk type='file' device='disk'>
        <driver name='qemu' type={quoteattr(form)} cache={quoteattr(disk["cache"])}/>
        <source file={quoteattr(path)}/><target dev='{target}' bus='virtio'/></disk>"""
        for disk, (target, path, _, form) in zip(guest["disks"], disks(guest))
    )
    arguments = ["-qmp", f"unix:{guest['monitor']},server=on,wait=off"]
    for number, nic in enumerate(guest["nics"]):
        arguments += ["-netdev", f"{nic['netdev']},id=net{number}"]
        # Far from where libvirt puts its own.
        place = f"bus=pcie.0,addr={16 + number:#x}"
        device = f"virtio-net-pci,netdev=net{number},mac={nic['mac']},romfile=,{place}"
        arguments += ["-device", device]
    arguments = "".join(f"<qemu:arg value={quoteattr(text)}/>" for text in arguments)
    variables = "".join(
        f"<qemu:env name={quoteattr(name)} value={quoteattr(value)}/>"
        for name, value in environment.items()
    )
    return f"""<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <name>{escape(guest["name"])}</name>
      <memory unit='MiB'>{guest["memory_mib"]}</memory>
      <vcpu>{guest["cpus"]}</vcpu>
      <cpu mode='maximum'/>
      <os>
        <type arch='x86_64' machine={quoteattr(guest["machine"])}>hvm</type>
        <kernel>{escape(guest["kernel"])}</kernel>
        <initrd>{escape(guest["initrd"])}</initrd>
        <cmdline>{escape(guest["append"])}</cmdline>
      </os>
      <features><acpi/></features>
      <devices>
        <emulator>{escape(shutil.which("qemu-system-x86_64"))}</emulator>
        {devices}
        <serial type='file'><source path={quoteattr(guest["serial_log"])} append='on'/></serial>
        <serial type='unix'><source mode='bind' path={quoteattr(guest["pulse"])}/></serial>
        <controller type='usb' model='none'/>
        <memballoon model='none'/>
      </devices>
      <qemu:commandline>{arguments}{variables}</qemu:commandline>
    </domain>"""


def prepare(guest, _domain, _barrier):
    for _, path, overlay, form in disks(guest):
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", path, overlay]
        subprocess.run(create, check=True)


def cut(guest, domain, barrier):
    overlays = "".join(
        f"<disk name='{target}' snapshot='external'><source file={quoteattr(overlay)}/></disk>"
        for target, _, overlay, _ in disks(guest)
    )
    barrier.wait()
    domain.suspend()
    try:
        barrier.wait()
        snapshot = f"<domainsnapshot><disks>{overlays}</disks></domainsnapshot>"
        domain.snapshotCreateXML(snapshot, SNAPSHOT)
        barrier.wait()
    finally:
        domain.resume()


def undo(guest, domain, _barrier):
    for target, _, overlay, _ in disks(guest):
        domain.blockCommit(target, None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        while True:
            time.sleep(0.01)
            try:
                domain.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
                break
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE:
                    raise
        os.remove(overlay)


def at_once(step, guests, domains):
    """Does a step with all of them, each in a thread; raises what one raised."""
    barrier = threading.Barrier(len(domains))
    errors = []

    def one(guest, domain):
        try:
            step(guest, domain, barrier)
        except threading.BrokenBarrierError:
            pass  # Another one's error says why.
        except Exception as error:
            barrier.abort()
            errors.append(f"{guest['name']}: {error}")

    threads = [threading.Thread(target=one, args=both) for both in zip(guests, domains)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise RuntimeError("; ".join(errors))


def answer(error=None):
    print(json.dumps(error), flush=True)


def events():
    while True:
        libvirt.virEventRunDefaultImpl()


def main():
    task = json.loads(sys.stdin.readline())
    root, guests = task["root"], task["guests"]
    os.makedirs(f"{root}/etc")
    with open(f"{root}/etc/qemu.conf", "w", encoding="utf-8") as file:
        file.write(CONFIGURATION)
    # What fails is raised as well.
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=events, daemon=True).start()
    domains = []
    try:
        # The whole of libvirt within this process.
        connection = libvirt.open(f"qemu:///embed?root={root}")
        for guest in guests:
            xml = domain_xml(guest, task["environment"])
            domains.append(connection.createXML(xml))
        answer()
        for line in sys.stdin:
            step = {"prepare": prepare, "cut": cut, "undo": undo}[line.strip()]
            try:
                at_once(step, guests, domains)
                answer()
            except RuntimeError as error:
                answer(str(error))
    except libvirt.libvirtError as error:
        answer(str(error))
    finally:
        for domain in domains:
            domain.destroy()


main()
