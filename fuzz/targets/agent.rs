//! What a guest says on its agent's line (docs/interop/qemu-ga-ref): whatever comes
//! before it, the answer that was asked for is found.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| isochron_qemu::fuzzing::agent(input.1, input.0.into()));
