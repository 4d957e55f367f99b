//! A client of the NBD protocol, as far as reading needs it: the fixed newstyle
//! handshake, simple replies to reads, structured ones to questions for
//! `base:allocation` (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>).
//!
//! One request is under way at a time on a connection. What a server says is bounded:
//! it may be killed at any moment, or be another program.

use std::io::{self, Read, Write};

const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;

const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;

const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_SET_META_CONTEXT: u32 = 10;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_META_CONTEXT: u32 = 4;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;

const CMD_READ: u16 = 0;
const CMD_BLOCK_STATUS: u16 = 7;
const CHUNK_DONE: u16 = 1;
const CHUNK_NONE: u16 = 0;
const CHUNK_BLOCK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15;
const STATE_ZERO: u32 = 2;

/// The name of the only question that is asked.
const CONTEXT: &[u8] = b"base:allocation";

/// The most bytes of an option's reply, or of a reply's chunk, that are taken.
const LIMIT: u32 = 1 << 20;
/// The most replies to one option, or chunks to one request.
const REPLIES: u32 = 64;

/// A stretch of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its bytes, never none.
    pub bytes: u64,
    /// It reads as zeroes.
    pub zero: bool,
}

/// A connection to a server that serves one disk.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    size: u64,
    context: Option<u32>,
    cookie: u64,
}

impl<S: Read + Write> Client<S> {
    /// Shakes hands. With `status`, [`status`](Self::status) can be asked, and
    /// nothing be read.
    ///
    /// # Errors
    /// The stream's, or `InvalidData`: the server speaks otherwise or refuses.
    pub fn new(stream: S, status: bool) -> io::Result<Self> {
        let mut client = Self {
            stream,
            size: 0,
            context: None,
            cookie: 0,
        };
        if client.u64()? != NBD_MAGIC || client.u64()? != OPTION_MAGIC {
            return Err(invalid("it is no NBD server"));
        }
        let flags = client.u16()?;
        if flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(invalid("it does not speak the fixed newstyle"));
        }
        let flags = flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        client.stream.write_all(&u32::from(flags).to_be_bytes())?;
        if status {
            client.option(OPT_STRUCTURED_REPLY, &[])?;
            client.replies(OPT_STRUCTURED_REPLY, |_, _| Ok(()))?;
            client.ask_context()?;
        }
        client.go()?;
        Ok(client)
    }

    /// The disk's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn ask_context(&mut self) -> io::Result<()> {
        // An export of no name, and one question.
        let mut data = Vec::new();
        data.extend_from_slice(&0_u32.to_be_bytes());
        data.extend_from_slice(&1_u32.to_be_bytes());
        data.extend_from_slice(&(CONTEXT.len() as u32).to_be_bytes());
        data.extend_from_slice(CONTEXT);
        self.option(OPT_SET_META_CONTEXT, &data)?;
        let mut context = None;
        self.replies(OPT_SET_META_CONTEXT, |kind, data| {
            if let (REP_META_CONTEXT, Some((id, CONTEXT))) = (kind, data.split_first_chunk()) {
                context = Some(u32::from_be_bytes(*id));
            }
            Ok(())
        })?;
        self.context = context;
        match context {
            Some(_) => Ok(()),
            None => Err(invalid("it does not tell where a disk is zero")),
        }
    }

    fn go(&mut self) -> io::Result<()> {
        // An export of no name, and no further questions.
        self.option(OPT_GO, &[0; 6])?;
        let mut size = None;
        self.replies(OPT_GO, |kind, data| {
            if let (REP_INFO, Some((&kind, data))) = (kind, data.split_first_chunk())
                && u16::from_be_bytes(kind) == INFO_EXPORT
            {
                let bytes = data.first_chunk().ok_or_else(|| invalid("no size"))?;
                size = Some(u64::from_be_bytes(*bytes));
            }
            Ok(())
        })?;
        self.size = size.ok_or_else(|| invalid("it does not tell the disk's size"))?;
        match self.size > i64::MAX as u64 {
            true => Err(invalid("it tells of a disk of impossible size")),
            false => Ok(()),
        }
    }

    fn option(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(16 + data.len());
        bytes.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(data);
        self.stream.write_all(&bytes)
    }

    /// The replies to an option up to the one that says yes.
    fn replies(
        &mut self,
        option: u32,
        mut each: impl FnMut(u32, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for _ in 0..REPLIES {
            if self.u64()? != OPTION_REPLY_MAGIC || self.u32()? != option {
                return Err(invalid("its reply is to something else"));
            }
            let kind = self.u32()?;
            let length = self.u32()?;
            let data = self.bytes(length)?;
            match kind {
                REP_ACK => return Ok(()),
                kind if kind & REP_ERROR != 0 => {
                    let text = String::from_utf8_lossy(&data);
                    return Err(invalid(&format!("it refuses: {text}")));
                }
                kind => each(kind, &data)?,
            }
        }
        Err(invalid("it does not come to an end"))
    }

    fn request(&mut self, command: u16, offset: u64, length: u32) -> io::Result<()> {
        self.cookie += 1;
        let mut bytes = Vec::with_capacity(28);
        bytes.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&0_u16.to_be_bytes());
        bytes.extend_from_slice(&command.to_be_bytes());
        bytes.extend_from_slice(&self.cookie.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        self.stream.write_all(&bytes)
    }

    /// Reads, no more than 32 MiB.
    ///
    /// # Errors
    /// The stream's or the disk's.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.request(CMD_READ, offset, into.len() as u32)?;
        if self.u32()? != SIMPLE_REPLY_MAGIC {
            return Err(invalid("its reply is of another kind"));
        }
        let error = self.u32()?;
        if self.u64()? != self.cookie {
            return Err(invalid("its reply is to something else"));
        }
        match error {
            0 => self.stream.read_exact(into),
            error => Err(io::Error::from_raw_os_error(error as i32)),
        }
    }

    /// Where the disk is zero, from `offset` on: one extent at least, and never more
    /// than `length` bytes (some GiB at most).
    ///
    /// # Errors
    /// The stream's or the disk's.
    pub fn status(&mut self, offset: u64, length: u32) -> io::Result<Vec<Extent>> {
        self.request(CMD_BLOCK_STATUS, offset, length)?;
        let mut extents = Vec::new();
        let mut left = u64::from(length);
        for _ in 0..REPLIES {
            if self.u32()? != CHUNK_MAGIC {
                return Err(invalid("its reply is of another kind"));
            }
            let (flags, kind) = (self.u16()?, self.u16()?);
            if self.u64()? != self.cookie {
                return Err(invalid("its reply is to something else"));
            }
            let length = self.u32()?;
            let data = self.bytes(length)?;
            match kind {
                CHUNK_NONE => (),
                CHUNK_BLOCK_STATUS => {
                    let (id, descriptors) = data
                        .split_first_chunk()
                        .ok_or_else(|| invalid("its reply is cut off"))?;
                    if Some(u32::from_be_bytes(*id)) == self.context {
                        add(descriptors, &mut left, &mut extents)?;
                    }
                }
                kind if kind & CHUNK_ERROR != 0 => {
                    let code = data
                        .first_chunk()
                        .map_or(0, |code| i32::from_be_bytes(*code));
                    return Err(io::Error::from_raw_os_error(code));
                }
                _ => return Err(invalid("its reply is of another kind")),
            }
            if flags & CHUNK_DONE != 0 {
                return match extents.is_empty() {
                    true => Err(invalid("it does not tell where the disk is zero")),
                    false => Ok(extents),
                };
            }
        }
        Err(invalid("it does not come to an end"))
    }

    fn bytes(&mut self, length: u32) -> io::Result<Vec<u8>> {
        if length > LIMIT {
            return Err(invalid("it says too much"));
        }
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> io::Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Adds descriptors (length and state, 4 bytes each) as extents, joined, and no more
/// than is left. The last one may tell of more than was asked.
fn add(descriptors: &[u8], left: &mut u64, extents: &mut Vec<Extent>) -> io::Result<()> {
    for descriptor in descriptors.chunks(8) {
        let (length, state) = descriptor
            .split_first_chunk()
            .and_then(|(length, rest)| Some((length, rest.first_chunk()?)))
            .ok_or_else(|| invalid("its reply is cut off"))?;
        let bytes = u64::from(u32::from_be_bytes(*length));
        let zero = u32::from_be_bytes(*state) & STATE_ZERO != 0;
        if bytes == 0 {
            return Err(invalid("it tells of nothing"));
        }
        let bytes = bytes.min(*left);
        *left -= bytes;
        match extents.last_mut() {
            Some(last) if last.zero == zero => last.bytes += bytes,
            _ if bytes > 0 => extents.push(Extent { bytes, zero }),
            _ => (),
        }
    }
    Ok(())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's words, and what was said to it.
    #[derive(Debug)]
    struct Script(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(into)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn words(parts: &[&[u8]]) -> Script {
        Script(io::Cursor::new(parts.concat()), Vec::new())
    }

    fn greeting() -> Vec<u8> {
        [
            &NBD_MAGIC.to_be_bytes()[..],
            &OPTION_MAGIC.to_be_bytes(),
            &3_u16.to_be_bytes(),
        ]
        .concat()
    }

    fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        [
            &OPTION_REPLY_MAGIC.to_be_bytes()[..],
            &option.to_be_bytes(),
            &kind.to_be_bytes(),
            &(data.len() as u32).to_be_bytes(),
            data,
        ]
        .concat()
    }

    fn export(size: u64) -> Vec<u8> {
        let info = [&[0, 0][..], &size.to_be_bytes(), &[0, 0]].concat();
        [reply(OPT_GO, REP_INFO, &info), reply(OPT_GO, REP_ACK, &[])].concat()
    }

    #[test]
    fn reads() {
        let answer = [
            &SIMPLE_REPLY_MAGIC.to_be_bytes()[..],
            &[0; 4],
            &1_u64.to_be_bytes(),
            b"data",
            &SIMPLE_REPLY_MAGIC.to_be_bytes(),
            &5_u32.to_be_bytes(),
            &2_u64.to_be_bytes(),
        ]
        .concat();
        let script = words(&[&greeting(), &export(4096), &answer]);
        let mut client = Client::new(script, false).unwrap();
        assert_eq!(client.size(), 4096);
        let mut data = [0; 4];
        client.read(512, &mut data).unwrap();
        assert_eq!(&data, b"data");
        assert_eq!(
            client.read(0, &mut data).unwrap_err().raw_os_error(),
            Some(5)
        );
        let said = &client.stream.1;
        // Flags, then GO with its six bytes, then two requests.
        assert_eq!(said.len(), 4 + 16 + 6 + 2 * 28);
        assert_eq!(said[26 + 16..26 + 24], 512_u64.to_be_bytes());
    }

    #[test]
    fn tells_where_a_disk_is_zero() {
        let context = [&9_u32.to_be_bytes()[..], CONTEXT].concat();
        let status = |cookie: u64, extents: &[(u32, u32)]| {
            let mut data = 9_u32.to_be_bytes().to_vec();
            for (bytes, state) in extents {
                data.extend_from_slice(&bytes.to_be_bytes());
                data.extend_from_slice(&state.to_be_bytes());
            }
            [
                &CHUNK_MAGIC.to_be_bytes()[..],
                &CHUNK_DONE.to_be_bytes(),
                &CHUNK_BLOCK_STATUS.to_be_bytes(),
                &cookie.to_be_bytes(),
                &(data.len() as u32).to_be_bytes(),
                &data,
            ]
            .concat()
        };
        let script = words(&[
            &greeting(),
            &reply(OPT_STRUCTURED_REPLY, REP_ACK, &[]),
            &reply(OPT_SET_META_CONTEXT, REP_META_CONTEXT, &context),
            &reply(OPT_SET_META_CONTEXT, REP_ACK, &[]),
            &export(1 << 30),
            &status(1, &[(512, 0), (512, 1), (1024, 3), (4096, 2)]),
            &status(2, &[(0, 0)]),
            &status(3, &[]),
        ]);
        let mut client = Client::new(script, true).unwrap();
        let extents = client.status(0, 4096).unwrap();
        let extent = |bytes, zero| Extent { bytes, zero };
        assert_eq!(
            extents,
            [extent(1024, false), extent(3072, true)],
            "joined, and no more than was asked"
        );
        assert!(client.status(0, 4096).is_err(), "an extent of nothing");
        assert!(client.status(0, 4096).is_err(), "no extent");
    }

    #[test]
    fn servers_that_speak_otherwise_are_refused() {
        let refusal = reply(OPT_GO, REP_ERROR | 1, b"no such export");
        let endless = reply(OPT_GO, 99, &[]).repeat(1000);
        let mut huge = reply(OPT_GO, REP_INFO, &[]);
        let length = huge.len();
        huge[length - 4..].fill(0xff);
        for (words_of_it, why) in [
            (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "no NBD server"),
            ([greeting(), refusal].concat(), "no such export"),
            ([greeting(), endless].concat(), "does not come to an end"),
            ([greeting(), huge].concat(), "says too much"),
            ([greeting(), export(u64::MAX)].concat(), "impossible size"),
            (
                [greeting(), reply(OPT_GO, REP_ACK, &[])].concat(),
                "disk's size",
            ),
        ] {
            let error = Client::new(words(&[&words_of_it]), false).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
