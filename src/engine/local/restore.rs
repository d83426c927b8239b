//! Reading images back: restoring disks, and verifying what is stored.
//!
//! Pieces are read by several threads and written where they belong; pieces that are all zero are
//! not written, so that a restored disk is as sparse as it can be. Every piece is checked against
//! its SHA-256 before it is used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustic_core::repofile::{BlobType, Node};
use rustic_core::{BlobId, DataId, IndexedFullStatus, Repository};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::capture::disk_nodes;
use super::disk::write_qcow2;
use super::instance::{DiskFormat, InstanceDocument};
use super::objects::sync_directory;
use super::record::{MANIFEST_FILE, Manifest};
use super::repository::{CHUNK_BYTES, Stored, describe};
use crate::engine::{
    EngineError, Progress, RestoreRequest, Restored, RestoredDisk, Verified, Watcher,
};
use crate::policy::schema::quoted;

/// The file that gets the description of a restored instance.
const INSTANCE_FILE: &str = "instance.yaml";
/// More threads than this only wait for the disk.
const THREADS_MAX: usize = 4;

type Reader = Repository<IndexedFullStatus>;

/// The manifest of an image.
pub fn manifest(reader: &Reader, stored: &Stored) -> Result<Manifest, String> {
    let path = Path::new(&stored.record.source.name).join(MANIFEST_FILE);
    let node = reader
        .node_from_path(stored.snapshot.tree, &path)
        .map_err(|error| format!("{MANIFEST_FILE}: {}", describe(&error)))?;
    let mut bytes = Vec::new();
    for id in node.content.iter().flatten() {
        bytes.extend_from_slice(&piece(reader, id)?);
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("{MANIFEST_FILE}: {error}"))
}

/// One piece, checked.
pub fn piece(reader: &Reader, id: &DataId) -> Result<Bytes, String> {
    let blob = BlobId::from(*id);
    let bytes = reader.get_blob_cached(&blob, BlobType::Data).map_err(|error| describe(&error))?;
    let found = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
    if found == blob.to_hex().as_str() {
        Ok(bytes)
    } else {
        Err(format!("piece {blob} holds other bytes than it should"))
    }
}

/// Restores an image.
pub fn restore(
    reader: &Reader,
    stored: &Stored,
    request: &RestoreRequest,
    watcher: &dyn Watcher,
) -> Result<Restored, EngineError> {
    let failed =
        |message: String| EngineError::Failed(format!("{}: {message}", stored.snapshot.label));
    let manifest = manifest(reader, stored).map_err(failed)?;
    let nodes = disk_nodes(reader, &stored.snapshot, &manifest).map_err(failed)?;
    let names: Vec<&str> = manifest.disks.iter().map(|disk| disk.device_name.as_str()).collect();
    if let Some(unknown) = request.disks.iter().find(|disk| !names.contains(&disk.as_str())) {
        return Err(EngineError::Refused(format!(
            "the image has no disk {unknown}; it has {}",
            names.join(", ")
        )));
    }
    let wanted =
        |name: &str| request.disks.is_empty() || request.disks.iter().any(|disk| disk == name);
    let extension = if request.qcow2 { "qcow2" } else { "raw" };
    let disks: Vec<DiskJob<'_>> = manifest
        .disks
        .iter()
        .zip(&nodes)
        .filter(|(disk, _)| wanted(&disk.device_name))
        .map(|(disk, node)| DiskJob {
            name: &disk.device_name,
            file: format!("{}.{extension}", disk.device_name),
            size: disk.size_bytes,
            node,
        })
        .collect();
    refuse_to_overwrite(request, &disks)?;
    let text = describe_instance(&manifest, request, &disks).map_err(failed)?;
    if let Err(mistakes) = super::instance::read_text(&text) {
        return Err(EngineError::Refused(format!(
            "the restored machine would not be a valid instance; nothing was written: {mistakes}"
        )));
    }
    let target = |error: std::io::Error| failed(format!("{}: {error}", request.to.display()));
    fs::create_dir_all(&request.to).map_err(target)?;
    let directory = File::open(&request.to).map_err(target)?;
    if directory.try_lock().is_err() {
        return Err(EngineError::Refused(format!(
            "another restore is writing into {}; choose another directory",
            request.to.display()
        )));
    }
    let total = disks.iter().map(|disk| disk.size).sum();
    let done = AtomicU64::new(0);
    let advance = |bytes: u64| {
        let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        watcher.progress(Progress { done, total });
    };
    let mut restored = Vec::new();
    let mut whole = Vec::new();
    for disk in &disks {
        let path = request.to.join(&disk.file);
        let (file, written) = write_disk(reader, disk, &path, request.qcow2, watcher, &advance)?;
        whole.push((file, path.clone()));
        restored.push(RestoredDisk {
            name: disk.name.to_owned(),
            path,
            size_bytes: disk.size,
            padding_bytes: if request.qcow2 { sectors(disk.size) - disk.size } else { 0 },
            written_bytes: written,
        });
    }
    let instance = put_in_place(request, &text, whole).map_err(failed)?;
    Ok(Restored { image: stored.snapshot.label.clone(), instance, disks: restored })
}

/// Puts whole files in their places, the description last: where it is, the disks beside it are its
/// own.
fn put_in_place(
    request: &RestoreRequest,
    text: &str,
    mut whole: Vec<(NamedTempFile, PathBuf)>,
) -> Result<PathBuf, String> {
    let target = |error: std::io::Error| format!("{}: {error}", request.to.display());
    let instance = request.to.join(INSTANCE_FILE);
    let mut description = beside(&instance).map_err(target)?;
    description
        .write_all(text.as_bytes())
        .and_then(|()| description.as_file().sync_all())
        .map_err(target)?;
    if request.overwrite {
        match fs::remove_file(&instance) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(target(error)),
            _ => {}
        }
    }
    whole.push((description, instance.clone()));
    for (file, path) in whole {
        let placed =
            if request.overwrite { file.persist(&path) } else { file.persist_noclobber(&path) };
        placed.map_err(|error| format!("{}: {}", path.display(), error.error))?;
    }
    sync_directory(&request.to).map_err(target)?;
    Ok(instance)
}

/// A disk to be restored.
struct DiskJob<'a> {
    name: &'a str,
    file: String,
    size: u64,
    node: &'a Node,
}

fn refuse_to_overwrite(request: &RestoreRequest, disks: &[DiskJob<'_>]) -> Result<(), EngineError> {
    let files = disks.iter().map(|disk| disk.file.as_str()).chain([INSTANCE_FILE]);
    let there: Vec<String> = files
        .map(|file| request.to.join(file))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if there.is_empty() || request.overwrite {
        return Ok(());
    }
    Err(EngineError::Refused(format!(
        "{} there already; choose another directory or add --overwrite",
        match there.as_slice() {
            [one] => format!("{one} is"),
            several => format!("{} are", several.join(", ")),
        }
    )))
}

/// What takes the bytes of a disk.
trait DiskSink: Sync {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()>;
}

impl DiskSink for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.write_all_at(bytes, offset)
    }
}

/// `imago` allocates while it writes, so one piece at a time.
struct Qcow2Sink(Mutex<super::disk::Qcow2Writer>);

impl DiskSink for Qcow2Sink {
    fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_at(bytes, offset)
    }
}

/// A new file beside the place of another, readable by nobody else, that is gone again unless it is
/// put in place.
fn beside(path: &Path) -> std::io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".partial")
        .tempfile_in(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a disk beside its place. Returns the whole file and the bytes written.
fn write_disk(
    reader: &Reader,
    disk: &DiskJob<'_>,
    path: &Path,
    qcow2: bool,
    watcher: &dyn Watcher,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<(NamedTempFile, u64), EngineError> {
    let failed =
        |error: &dyn std::fmt::Display| EngineError::Failed(format!("{}: {error}", path.display()));
    let io = |error: std::io::Error| failed(&error);
    let partial = beside(path).map_err(io)?;
    let result = if qcow2 {
        let writer = write_qcow2(partial.path(), sectors(disk.size)).map_err(io)?;
        let sink = Qcow2Sink(Mutex::new(writer));
        let written = write_pieces(reader, disk, &sink, watcher, advance);
        let writer = sink.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        written.and_then(|written| {
            writer.finish().map(|()| written).map_err(|error| error.to_string())
        })
    } else {
        let file = partial.as_file();
        file.set_len(disk.size).map_err(io)?;
        let written = write_pieces(reader, disk, file, watcher, advance);
        written.and_then(|written| {
            file.sync_all().map(|()| written).map_err(|error| error.to_string())
        })
    };
    match result {
        Ok(written) => Ok((partial, written)),
        Err(_) if watcher.is_cancelled() => Err(EngineError::Interrupted),
        Err(message) => Err(failed(&message)),
    }
}

/// The size of a disk in whole sectors of 512 bytes, which is how QEMU counts in qcow2 files.
fn sectors(bytes: u64) -> u64 {
    bytes.next_multiple_of(512)
}

fn write_pieces(
    reader: &Reader,
    disk: &DiskJob<'_>,
    sink: &dyn DiskSink,
    watcher: &dyn Watcher,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<u64, String> {
    let written = AtomicU64::new(0);
    let pieces: Vec<&DataId> = disk.node.content.iter().flatten().collect();
    for_each_piece(&pieces, watcher, |index, id| {
        let bytes = piece(reader, id)?;
        let offset = index as u64 * CHUNK_BYTES as u64;
        if offset + bytes.len() as u64 > disk.size {
            return Err("it is longer than the image says".to_owned());
        }
        if bytes.iter().any(|byte| *byte != 0) {
            sink.write_at(&bytes, offset).map_err(|error| error.to_string())?;
            written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        advance(bytes.len() as u64);
        Ok(())
    })?;
    Ok(written.into_inner())
}

/// Does something with each piece, on several threads; stops at the first failure.
pub fn for_each_piece<'a>(
    pieces: &[&'a DataId],
    watcher: &dyn Watcher,
    work: impl Fn(usize, &'a DataId) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<String>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(id) = pieces.get(index) else { break };
                    let done = if watcher.is_cancelled() {
                        Err("interrupted".to_owned())
                    } else {
                        work(index, id)
                    };
                    if let Err(message) = done {
                        failure
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(message);
                        next.store(pieces.len(), Ordering::Relaxed);
                        break;
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The instance file of the restored machine: as it was, with what was asked for otherwise. It is
/// a machine of its own, so it does not keep the id.
fn describe_instance(
    manifest: &Manifest,
    request: &RestoreRequest,
    disks: &[DiskJob<'_>],
) -> Result<String, String> {
    let mut document: InstanceDocument = manifest.instance.clone();
    document.metadata.id = None;
    if let Some(name) = &request.name {
        document.metadata.name.clone_from(name);
    }
    if let Some(machine_type) = &request.machine_type {
        document.spec.machine_type.clone_from(machine_type);
    }
    document.metadata.labels.extend(request.labels.clone());
    document.spec.disks.retain_mut(|spec| {
        let Some(disk) = disks.iter().find(|disk| disk.name == spec.device_name) else {
            return false;
        };
        spec.path.clone_from(&disk.file);
        spec.format = Some(if request.qcow2 { DiskFormat::Qcow2 } else { DiskFormat::Raw });
        true
    });
    let yaml = quoted(serde_yaml::to_string(&document).map_err(|error| error.to_string())?);
    Ok(format!("# restored from {}, captured at {}\n{yaml}", manifest.name, manifest.captured_at))
}

/// Where a piece belongs: image, disk and position by their numbers.
struct Place {
    image: usize,
    disk: usize,
    position: usize,
}

/// Reads back and checks every piece of these images; a piece that several share is read once.
pub fn verify(reader: &Reader, images: &[Stored], watcher: &dyn Watcher) -> Vec<Verified> {
    let mut results = Vec::new();
    let mut users: BTreeMap<BlobId, Vec<Place>> = BTreeMap::new();
    let mut disk_names: Vec<Vec<String>> = Vec::new();
    let mut sizes: BTreeMap<BlobId, u64> = BTreeMap::new();
    for (image, stored) in images.iter().enumerate() {
        let mut verified =
            Verified { image: stored.snapshot.label.clone(), checked_bytes: 0, damage: Vec::new() };
        let nodes = manifest(reader, stored).and_then(|manifest| {
            let nodes = disk_nodes(reader, &stored.snapshot, &manifest)?;
            Ok(manifest.disks.into_iter().zip(nodes).collect::<Vec<_>>())
        });
        let mut names = Vec::new();
        match nodes {
            Err(message) => verified.damage.push(message),
            Ok(nodes) => {
                for (disk, (captured, node)) in nodes.into_iter().enumerate() {
                    for (position, id) in node.content.iter().flatten().enumerate() {
                        let blob = BlobId::from(*id);
                        users.entry(blob).or_default().push(Place { image, disk, position });
                        let offset = position as u64 * CHUNK_BYTES as u64;
                        let left = captured.size_bytes.saturating_sub(offset);
                        sizes.insert(blob, left.min(CHUNK_BYTES as u64));
                    }
                    names.push(captured.device_name);
                }
            }
        }
        disk_names.push(names);
        results.push(verified);
    }
    let ids: Vec<DataId> = users.keys().map(|id| DataId::from(**id)).collect();
    let pieces: Vec<&DataId> = ids.iter().collect();
    let (done, total) = (AtomicU64::new(0), sizes.values().sum());
    let damaged: Mutex<BTreeMap<BlobId, String>> = Mutex::new(BTreeMap::new());
    let outcome = for_each_piece(&pieces, watcher, |_, id| {
        let blob = BlobId::from(*id);
        match piece(reader, id) {
            Ok(bytes) => {
                let done =
                    done.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
                watcher.progress(Progress { done, total });
            }
            Err(message) => {
                damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(blob, message);
            }
        }
        Ok(())
    });
    let damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (blob, places) in &users {
        for Place { image, disk, position } in places {
            let verified = &mut results[*image];
            match damaged.get(blob) {
                None => verified.checked_bytes += sizes.get(blob).copied().unwrap_or(0),
                Some(message) => {
                    let (name, offset) =
                        (&disk_names[*image][*disk], *position as u64 * CHUNK_BYTES as u64);
                    verified.damage.push(format!("disk {name} at byte {offset}: {message}"));
                }
            }
        }
    }
    if let Err(message) = outcome {
        for verified in &mut results {
            verified.damage.push(message.clone());
        }
    }
    results
}
