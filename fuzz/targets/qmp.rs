//! What QEMU says on its management socket (docs/interop/qmp-spec), cut into reads of
//! any size.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| isochron_qemu::fuzzing::qmp(input.1, input.0.into()));
