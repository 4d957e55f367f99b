//! What a file of saved memory begins with: QEMU's migration stream, which tells the
//! machine type first (QEMU, `migration/savevm.c`: `qemu_savevm_state_header`,
//! `vmstate_configuration`). All else is QEMU's to read.
//!
//! ```text
//!   4 bytes   "QEVM"
//!   4 bytes   the stream's version, 3
//!   1 byte    7: a configuration follows
//!   4 bytes   the length of
//!             the machine type
//! ```
//!
//! Numbers are big-endian.

use std::io::{self, Read};

const BEGINNING: [u8; 9] = *b"QEVM\0\0\0\x03\x07";
/// Longer than any machine type's name.
const LONGEST: u32 = 256;

/// The exact machine type of the process that was saved.
///
/// # Errors
/// `InvalidData`: it is no such stream; or it cannot be read.
pub(crate) fn machine_type(mut stream: impl Read) -> io::Result<String> {
    let none = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no memory that QEMU saved",
        )
    };
    let mut fill = |bytes: &mut [u8]| match stream.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(none()),
        read => read,
    };
    let (mut beginning, mut length) = ([0; 9], [0; 4]);
    fill(&mut beginning)?;
    fill(&mut length)?;
    let length = u32::from_be_bytes(length);
    if beginning != BEGINNING || length > LONGEST {
        return Err(none());
    }
    let mut name = vec![0; length as usize];
    fill(&mut name)?;
    // It becomes a part of an option of QEMU's.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+".contains(byte);
    match String::from_utf8(name) {
        Ok(name) if !name.is_empty() && name.as_bytes().iter().all(plain) => Ok(name),
        _ => Err(none()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_type_is_read_and_nothing_else_taken_for_one() {
        let stream = |name: &[u8]| {
            let length = u32::try_from(name.len()).unwrap().to_be_bytes();
            [b"QEVM\0\0\0\x03\x07", &length[..], name, b"\x01ram"].concat()
        };
        let read = |stream: &[u8]| machine_type(stream).map_err(|error| error.kind());
        let good = stream(b"pc-q35-7.2");
        assert_eq!(read(&good), Ok("pc-q35-7.2".to_owned()));
        let none = Err(io::ErrorKind::InvalidData);
        for length in 0..4 + 4 + 1 + 4 + 10 {
            assert_eq!(read(&good[..length]), none, "cut at {length}");
        }
        for at in 0..9 {
            let mut other = good.clone();
            other[at] ^= 0x20;
            assert_eq!(read(&other), none, "changed at {at}");
        }
        for name in [
            &b""[..],
            b"q35,accel=kvm",
            b"q35\xff",
            b"q 35",
            &[b'q'; 300],
        ] {
            assert_eq!(read(&stream(name)), none, "{name:?}");
        }
    }
}
