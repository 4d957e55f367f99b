//! The file of leaves of an export's disk.
#![no_main]

use isochron_backup::digest::BLOCK;
use isochron_backup::leaves::LeafReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(size) = bytes.get(8..16) else {
        return;
    };
    let size = u64::from_le_bytes(size.try_into().unwrap_or_default()) % (1 << 48);
    let Ok(mut leaves) = LeafReader::new(bytes, size) else {
        return;
    };
    let mut blocks = 0;
    loop {
        let run = match leaves.next(1000) {
            Ok(Some(run)) => run,
            Ok(None) => break,
            // Nobody reads on after a failure.
            Err(_) => return,
        };
        assert!(run.blocks() > 0 && run.blocks() <= 1000);
        blocks += run.blocks();
        if blocks > 1 << 20 {
            return;
        }
    }
    if leaves.finish().is_ok() {
        assert_eq!(blocks, size.div_ceil(BLOCK));
    }
});
