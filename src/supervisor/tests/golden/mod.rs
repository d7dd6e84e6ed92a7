//! Stored states that are committed as bytes, and the page that lists the stored types.
//!
//! A change of a stored type changes them, and needs a new [version](super::super::format::VERSION). After an intended change,
//! this command writes them:
//!
//! ```text
//! PIDHERD_UPDATE_GOLDEN=1 cargo test --lib golden
//! ```

mod page;
mod states;

use std::path::{Path, PathBuf};

use super::super::format;
use crate::codec::{Damaged, Reader, Stored};
use crate::engine::image::Image;
use crate::linux::image::LinuxImage;

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/supervisor/tests/golden")
        .join(file)
}

/// Fails unless a file has this content. If `PIDHERD_UPDATE_GOLDEN` is set, writes the file instead.
#[track_caller]
fn compare(file: &str, current: &[u8]) {
    if std::env::var_os("PIDHERD_UPDATE_GOLDEN").is_some() {
        std::fs::write(path(file), current).unwrap();
        return;
    }
    let kept = std::fs::read(path(file)).unwrap();
    let differs = kept.iter().zip(current).position(|(kept, current)| kept != current);
    let differs = differs.unwrap_or(kept.len().min(current.len()));
    assert!(
        kept == current,
        "{file} differs from byte {differs} on. Is it an intended change of the format? Then it needs a new version."
    );
}

fn state(linux: &LinuxImage, image: &Image) -> Vec<u8> {
    format::write(format::HAND_OVER, |to| {
        linux.put(to);
        image.put(to);
    })
}

fn images(reader: &mut Reader<'_>) -> Result<(LinuxImage, Image), Damaged> {
    let images = (LinuxImage::get(reader)?, Image::get(reader)?);
    reader.end()?;
    Ok(images)
}

/// The state in a file, for an arena with this number.
fn read(file: &str, home: u32) -> (LinuxImage, Image) {
    let kept = std::fs::read(path(file)).unwrap();
    images(&mut format::read(format::HAND_OVER, &kept, home).unwrap()).unwrap()
}
