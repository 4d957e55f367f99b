//! A chain of image files, read through QEMU: one `qemu-nbd` for each disk, and the
//! connections to it.
//!
//! The chain is told file by file, so what the images say themselves of what they
//! stand on is not followed. It is opened read-only and shared: guests may have the
//! same files open. The process has all of them open when [`Server::start`] returns,
//! and ends when the `Server` is dropped or this process ends, however it does: the
//! shell around it waits for the end of its standard input.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isochron_engine::model::ImageFormat;
use isochron_engine::ports::ArchiveError;
use serde_json::{Value, json};

use crate::control::{Control, LOOK};
use crate::nbd::Client;

/// For how long the process may say nothing, while it opens files or reads.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Runs its arguments with the listening socket, which is its standard output, as the
/// one of socket activation (sd_listen_fds(3)), until its standard input ends.
const AROUND: &str = r#"
sh -c 'LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec "$@" 3>&1 >/dev/null </dev/null' sh "$@" &
exec >/dev/null
read -r nothing
kill -9 $! 2>/dev/null
wait
"#;

/// One image of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) format: ImageFormat,
}

/// A running `qemu-nbd`.
#[derive(Debug)]
pub(crate) struct Server {
    shell: Child,
    complaints: File,
    control: Arc<Control>,
    connections: Vec<Client<Stream>>,
    status: Option<Client<Stream>>,
    size: u64,
    what: String,
}

impl Server {
    /// Opens a chain, its top first, and so many connections that read.
    ///
    /// # Errors
    /// `Failed`, with what `qemu-nbd` says; `Invalid` for what is no chain.
    pub(crate) fn start(
        qemu_nbd: &Path,
        chain: &[Image],
        readers: usize,
        control: &Arc<Control>,
    ) -> Result<Self, ArchiveError> {
        let node = node(chain)?;
        let what = chain
            .first()
            .map(|image| image.path.display().to_string())
            .unwrap_or_default();
        let failed =
            |error: io::Error| ArchiveError::Failed(format!("qemu-nbd cannot be started: {error}"));
        // Connections wait in the socket's queue until the process takes them, so there
        // is no moment at which it is there and has no client.
        let directory = tempfile::Builder::new()
            .prefix("isochron-nbd.")
            .tempdir()
            .map_err(failed)?;
        // By way of the descriptor the name is short enough, wherever the directory is.
        let opened = File::open(directory.path()).map_err(failed)?;
        let path = format!("/proc/self/fd/{}/s", opened.as_raw_fd());
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let streams = (0..=readers)
            .map(|_| UnixStream::connect(&path))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        drop(directory);
        let complaints = tempfile::tempfile().map_err(failed)?;
        let shell = Command::new("sh")
            .args(["-c", AROUND, "sh"])
            .arg(qemu_nbd)
            .args(["--read-only", &format!("--shared={}", readers + 1)])
            .arg(format!("json:{node}"))
            .stdin(Stdio::piped())
            .stdout(OwnedFd::from(listener))
            .stderr(complaints.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let mut server = Self {
            shell,
            complaints,
            control: control.clone(),
            connections: Vec::new(),
            status: None,
            size: 0,
            what,
        };
        for (number, stream) in streams.into_iter().enumerate() {
            stream.set_read_timeout(Some(LOOK)).map_err(failed)?;
            stream.set_write_timeout(Some(LOOK)).map_err(failed)?;
            let stream = Stream {
                inner: stream,
                control: control.clone(),
            };
            let client = Client::new(stream, number == 0);
            let client = client.map_err(|error| server.failed("opened", &error))?;
            server.size = client.size();
            match number {
                0 => server.status = Some(client),
                _ => server.connections.push(client),
            }
        }
        Ok(server)
    }

    /// The disk's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The connection that tells where the disk is zero; there is one.
    pub(crate) fn take_status(&mut self) -> Option<Client<Stream>> {
        self.status.take()
    }

    /// A connection that reads, as many as were asked for.
    pub(crate) fn take_reader(&mut self) -> Option<Client<Stream>> {
        self.connections.pop()
    }

    /// Why it failed: that the caller stopped, or what the process said, or what
    /// happened on the connection to it.
    pub(crate) fn failed(&self, what: &str, error: &io::Error) -> ArchiveError {
        if self.control.check().is_err() {
            return ArchiveError::Cancelled;
        }
        let mut said = String::new();
        let mut file = &self.complaints;
        let _ = file.rewind();
        let _ = file.take(4096).read_to_string(&mut said);
        let said = match said.trim() {
            "" => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset => "qemu-nbd ended".to_owned(),
                _ => error.to_string(),
            },
            said => said.to_owned(),
        };
        ArchiveError::Failed(format!("{} cannot be {what}: {said}", self.what))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its standard input has the shell end qemu-nbd.
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A connection that is given up when the work is stopped.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: UnixStream,
    control: Arc<Control>,
}

impl Stream {
    fn patiently(
        &mut self,
        mut work: impl FnMut(&mut UnixStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut began = None;
        loop {
            match work(&mut self.inner) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.control.check().is_err() {
                        return Err(io::ErrorKind::ConnectionAborted.into());
                    }
                    let began = *began.get_or_insert_with(Instant::now);
                    if began.elapsed() > PATIENCE {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "qemu-nbd does not answer",
                        ));
                    }
                }
                other => return other,
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.read(into))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The chain as a block node with all nodes beneath it, in QEMU's words
/// (`BlockdevOptions`).
pub(crate) fn node(chain: &[Image]) -> Result<Value, ArchiveError> {
    let mut below = Value::Null;
    for (depth, image) in chain.iter().rev().enumerate() {
        let path = image
            .path
            .to_str()
            .filter(|_| image.path.is_absolute())
            .ok_or_else(|| {
                let path = image.path.display();
                ArchiveError::Invalid(format!("{path} is not an absolute path in UTF-8"))
            })?;
        let device = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_block_device());
        let mut node = json!({
            "driver": image.format.as_str(),
            "read-only": true,
            "force-share": true,
            "file": {
                "driver": if device { "host_device" } else { "file" },
                "filename": path,
                "read-only": true,
                "force-share": true,
            },
        });
        match image.format {
            ImageFormat::Qcow2 => node["backing"] = below,
            ImageFormat::Raw if depth == 0 => (),
            ImageFormat::Raw => {
                let why = format!("{path} is a raw image and cannot stand on another");
                return Err(ArchiveError::Invalid(why));
            }
        }
        below = node;
    }
    match below {
        Value::Null => Err(ArchiveError::Invalid("a disk has no layer".to_owned())),
        node => Ok(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str, format: ImageFormat) -> Image {
        Image {
            path: path.into(),
            format,
        }
    }

    #[test]
    fn a_chain_is_told_file_by_file() {
        let chain = [
            image("/top", ImageFormat::Qcow2),
            image("/base", ImageFormat::Raw),
        ];
        let node = node(&chain).unwrap();
        assert_eq!(node["file"]["filename"], "/top");
        assert_eq!(node["backing"]["file"]["filename"], "/base");
        assert_eq!(node["backing"]["driver"], "raw");
        let alone = super::node(&chain[..1]).unwrap();
        assert!(
            alone.as_object().unwrap()["backing"].is_null(),
            "not what the image names"
        );
        for wrong in [
            vec![],
            vec![chain[1].clone(), chain[0].clone()],
            vec![image("top", ImageFormat::Qcow2)],
        ] {
            assert!(super::node(&wrong).is_err(), "{wrong:?}");
        }
    }
}
