//! Image files that no process has open: `qemu-img` makes and merges them. What
//! it wrote is on stable storage when a function returns.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isochron_engine::model::ImageFormat;
use isochron_engine::ports::{HypervisorError, LayerFile, Overlay};
use serde::Deserialize;
use tokio::process::Command;

use crate::error::{file_error, lost_task};
use crate::process;

/// For what touches only an image's header.
const SHORT: Duration = Duration::from_secs(30);
/// For what moves an image's data.
const LONG: Duration = Duration::from_secs(24 * 3600);

#[derive(Deserialize)]
struct Info {
    format: String,
    #[serde(rename = "virtual-size")]
    virtual_size: u64,
}

/// `qemu-img`.
#[derive(Clone, Debug)]
pub(crate) struct QemuImg(pub(crate) PathBuf);

impl QemuImg {
    async fn run<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        limit: Duration,
    ) -> Result<String, HypervisorError> {
        let ended = process::run(Command::new(&self.0).args(arguments), limit).await?;
        if !ended.success {
            return Err(HypervisorError::Failed(ended.complaint));
        }
        Ok(ended.output)
    }

    /// An image's format as its header says, and its size for the guest. The
    /// image may be in use.
    async fn info(&self, path: &Path, format: Option<&str>) -> Result<Info, HypervisorError> {
        let mut arguments = vec![OsStr::new("info"), "-U".as_ref(), "--output=json".as_ref()];
        if let Some(format) = format {
            arguments.extend([OsStr::new("-f"), format.as_ref()]);
        }
        arguments.push(path.as_ref());
        let text = self.run(arguments, SHORT).await?;
        serde_json::from_str(&text).map_err(|error| {
            HypervisorError::Failed(format!(
                "qemu-img's words on {} are not understood: {error}",
                path.display()
            ))
        })
    }

    /// Creates an overlay without opening its base.
    pub(crate) async fn create_overlay(
        &self,
        overlay: &Overlay,
        virtual_size: Option<u64>,
    ) -> Result<(), HypervisorError> {
        let base = &overlay.base;
        for path in [&overlay.layer.path, &base.path] {
            if !path.is_absolute() {
                return Err(HypervisorError::Invalid(format!(
                    "{} is not an absolute path",
                    path.display()
                )));
            }
        }
        let size = match virtual_size {
            Some(size) => size,
            None => {
                self.info(&base.path, Some(base.format.as_str()))
                    .await?
                    .virtual_size
            }
        };
        let size = size.to_string();
        let arguments: [&OsStr; 11] = [
            "create".as_ref(),
            "-q".as_ref(),
            "-f".as_ref(),
            ImageFormat::Qcow2.as_str().as_ref(),
            "-u".as_ref(),
            "-b".as_ref(),
            base.path.as_ref(),
            "-F".as_ref(),
            base.format.as_str().as_ref(),
            overlay.layer.path.as_ref(),
            size.as_ref(),
        ];
        self.run(arguments, SHORT).await?;
        sync_file_and_directory(&overlay.layer.path).await
    }

    /// Merges a layer into the one beneath it.
    pub(crate) async fn merge(
        &self,
        top: &LayerFile,
        base: &LayerFile,
    ) -> Result<(), HypervisorError> {
        let arguments: [&OsStr; 8] = [
            "commit".as_ref(),
            "-q".as_ref(),
            "-d".as_ref(),
            "-f".as_ref(),
            top.format.as_str().as_ref(),
            "-b".as_ref(),
            base.path.as_ref(),
            top.path.as_ref(),
        ];
        self.run(arguments, LONG).await?;
        sync_file(&base.path).await
    }

    /// Says in a layer's header what it stands on.
    pub(crate) async fn rebase(
        &self,
        layer: &LayerFile,
        base: &LayerFile,
    ) -> Result<(), HypervisorError> {
        let arguments: [&OsStr; 10] = [
            "rebase".as_ref(),
            "-q".as_ref(),
            "-u".as_ref(),
            "-f".as_ref(),
            layer.format.as_str().as_ref(),
            "-b".as_ref(),
            base.path.as_ref(),
            "-F".as_ref(),
            base.format.as_str().as_ref(),
            layer.path.as_ref(),
        ];
        self.run(arguments, SHORT).await?;
        sync_file(&layer.path).await
    }

    /// Whether the file is there and is an image of that format. Any content is
    /// a raw image.
    pub(crate) async fn is_image(&self, path: &Path, format: ImageFormat) -> bool {
        let found = match format {
            ImageFormat::Raw => self.info(path, Some(format.as_str())).await,
            ImageFormat::Qcow2 => self.info(path, None).await,
        };
        found.is_ok_and(|info| info.format == format.as_str())
    }
}

/// Writes what the host still caches of a file to stable storage.
pub(crate) async fn sync_file(path: &Path) -> Result<(), HypervisorError> {
    sync(path, |path| File::open(path)?.sync_data()).await
}

async fn sync_file_and_directory(path: &Path) -> Result<(), HypervisorError> {
    sync(path, |path| {
        File::open(path)?.sync_all()?;
        path.parent()
            .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    })
    .await
}

async fn sync(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
) -> Result<(), HypervisorError> {
    let owned = path.to_owned();
    tokio::task::spawn_blocking(move || work(&owned))
        .await
        .map_err(|error| lost_task(&error))?
        .map_err(|error| file_error("writing to stable storage:", path, &error))
}
