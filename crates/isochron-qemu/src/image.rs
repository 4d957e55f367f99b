//! Image files that no process has open: `qemu-img` makes and merges them. What
//! it wrote is on stable storage when a function returns.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use isochron_engine::model::{Changes, ImageFormat};
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
    #[serde(rename = "full-backing-filename")]
    backing: Option<PathBuf>,
}

/// A stretch of an image, in the words of `qemu-img map`.
#[derive(Deserialize)]
struct Stretch {
    start: u64,
    length: u64,
    /// The image itself says what it reads as, data or zeroes.
    present: bool,
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

    /// The blocks that a layer's own file covers, with data or zeroes. Its base is not
    /// opened, and must be what the header says; a guest may have the layer open.
    pub(crate) async fn allocated(
        &self,
        layer: &LayerFile,
        base: &LayerFile,
    ) -> Result<Changes, HypervisorError> {
        let mut changes = Changes::none();
        let info = self.info(&layer.path, Some(layer.format.as_str())).await?;
        if layer.format == ImageFormat::Raw {
            changes.touch(0..info.virtual_size);
            return Ok(changes);
        }
        let same = match &info.backing {
            Some(backing) => backing == &base.path || same_file(backing, &base.path).await?,
            None => false,
        };
        if !same {
            return Err(HypervisorError::Invalid(format!(
                "{} does not say that it stands on {}",
                layer.path.display(),
                base.path.display()
            )));
        }
        let path = layer.path.to_str().ok_or_else(|| {
            HypervisorError::Failed(format!("{} is no text", layer.path.display()))
        })?;
        let image = serde_json::json!({
            "driver": layer.format.as_str(),
            "file": { "driver": "file", "filename": path },
            "backing": null,
        });
        let image = format!("json:{image}");
        let arguments = ["map", "-U", "--output=json", &image];
        let line = |text: &str| {
            let text = text.trim_matches(['[', ']', ',', ' ']);
            if text.is_empty() {
                return Ok(());
            }
            let stretch: Stretch = serde_json::from_str(text)?;
            if stretch.present {
                changes.touch(stretch.start..stretch.start.saturating_add(stretch.length));
            }
            Ok(())
        };
        let ended = process::run_lines(Command::new(&self.0).args(arguments), LONG, line).await?;
        match ended.success {
            true => Ok(changes),
            false => Err(HypervisorError::Failed(ended.complaint)),
        }
    }

    /// The size of the disk that an image holds; it may be in use.
    pub(crate) async fn virtual_size(&self, layer: &LayerFile) -> Result<u64, HypervisorError> {
        let info = self.info(&layer.path, Some(layer.format.as_str())).await?;
        Ok(info.virtual_size)
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

/// Whether two names are of one file.
async fn same_file(one: &Path, other: &Path) -> Result<bool, HypervisorError> {
    let resolve = async |path: &Path| match tokio::fs::canonicalize(path).await {
        Ok(resolved) => Ok(Some(resolved)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error("reading", path, &error)),
    };
    let (one, other) = (resolve(one).await?, resolve(other).await?);
    Ok(one.is_some() && one == other)
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
