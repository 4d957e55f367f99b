//! What an NBD server says.
#![no_main]

use std::io::{self, Read, Write};

use isochron_backup::nbd::Client;
use libfuzzer_sys::fuzz_target;

struct Server<'a>(&'a [u8]);

impl Read for Server<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Server<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|words: &[u8]| {
    let Some((first, words)) = words.split_first() else {
        return;
    };
    let Ok(mut client) = Client::new(Server(words), first & 1 == 1) else {
        return;
    };
    for _ in 0..4 {
        if first & 1 == 1 {
            let Ok(extents) = client.status(0, 1 << 20) else {
                return;
            };
            let bytes: u64 = extents.iter().map(|extent| extent.bytes).sum();
            assert!(bytes > 0 && bytes <= 1 << 20);
        } else if client.read(0, &mut [0; 512]).is_err() {
            return;
        }
    }
});
