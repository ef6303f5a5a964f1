//! The file of the newest lines and the full ones beside it: appending, turning over, syncing.
//!
//! Used by one thread. Knows nothing of what a line says; a line ends with a newline and has no other.

use super::Options;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why the audit log cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file or its folder cannot be opened.
    #[error("the audit log {path} cannot be opened for appending: {kind}; see audit.file in the configuration", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// What is there is neither a plain file nor a device such as `/dev/stdout`.
    #[error("the audit log {path} is no plain file; name another as audit.file in the configuration", path = .path.display())]
    Kind {
        /// What is there.
        path: PathBuf,
    },
    /// The thread that writes cannot be started.
    #[error("the audit log cannot be kept: no thread can be started: {0}")]
    Thread(io::Error),
}

/// The files of one audit log.
pub(super) struct Files {
    options: Options,
    file: File,
    /// Bytes in the file up to the end of the last whole line.
    size: u64,
    /// Length at which the next turn-over is tried; none for a device.
    turn_at: Option<u64>,
    /// Whether the last write failed, so that a part of a line may stand at the end.
    torn: bool,
}

impl Files {
    pub(super) fn open(options: Options) -> Result<Self, Fault> {
        let fault = |error: io::Error| Fault::Open { path: options.file.clone(), kind: error.kind() };
        if let Some(parent) = options.file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(fault)?;
        }
        // Asked before it is opened: to open a pipe would wait for its reader.
        let kind = fs::metadata(&options.file).map(|metadata| metadata.file_type());
        let is_device = kind.as_ref().is_ok_and(FileTypeExt::is_char_device);
        if kind.is_ok_and(|kind| !kind.is_file() && !kind.is_char_device()) {
            return Err(Fault::Kind { path: options.file });
        }
        let mut file = append(&options.file).map_err(fault)?;
        let size = if is_device { 0 } else { end_line(&options.file, &mut file).map_err(fault)? };
        let turn_at = (!is_device).then_some(options.max_bytes);
        Ok(Self { options, file, size, turn_at, torn: false })
    }

    /// Appends lines in order, and tells how many of them were written, from the first on. `failed` is called when the files
    /// could not be turned over, which stops no line.
    pub(super) fn append<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>, mut failed: impl FnMut()) -> usize {
        let (mut written, mut waiting, mut piece) = (0, 0, Vec::new());
        for line in lines {
            let full = self.turn_at.is_some_and(|at| self.size + (piece.len() + line.len()) as u64 > at);
            if full && self.size + piece.len() as u64 > 0 {
                if !self.write(&piece) {
                    return written;
                }
                written += std::mem::take(&mut waiting);
                piece.clear();
                if let Err(error) = self.turn_over() {
                    failed();
                    tracing::error!(error = %error, "the audit log could not be turned over; it goes on in the same file");
                    self.turn_at = Some(self.size + self.options.max_bytes);
                }
            }
            piece.extend_from_slice(line);
            waiting += 1;
        }
        if self.write(&piece) { written + waiting } else { written }
    }

    fn write(&mut self, lines: &[u8]) -> bool {
        match self.try_write(lines) {
            Ok(()) => {
                self.size += lines.len() as u64;
                true
            }
            Err(error) => {
                self.torn = true;
                tracing::error!(error = %error, "the audit log could not be written");
                false
            }
        }
    }

    fn try_write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn && self.turn_at.is_some() {
            self.file.set_len(self.size)?;
        }
        self.torn = false;
        self.file.write_all(lines)
    }

    /// Moves the full file aside, the others one further, and begins a new one. What the files hold is never touched but for the
    /// oldest, which goes.
    fn turn_over(&mut self) -> io::Result<()> {
        let Options { file, max_bytes, keep } = &self.options;
        self.file.sync_data()?;
        for number in (1..*keep).rev() {
            rename(&numbered(file, number), &numbered(file, number + 1))?;
        }
        rename(file, &numbered(file, 1))?;
        // The descriptor goes on to name the file that was moved, should there be no new one.
        self.file = append(file)?;
        (self.size, self.turn_at) = (0, Some(*max_bytes));
        // Best effort: without it a power cut may undo the renaming, and nothing is lost by that.
        if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let _ = File::open(parent).and_then(|parent| parent.sync_all());
        }
        Ok(())
    }

    /// Syncs what was written.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self.turn_at {
            Some(_) => self.file.sync_data(),
            None => Ok(()),
        }
    }
}

/// Opens a file for appending; a new one is for this user alone.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Ends the last line if it was left unfinished, and tells the length.
fn end_line(path: &Path, file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if size == 0 {
        return Ok(0);
    }
    let mut last = [0];
    let mut reader = File::open(path)?;
    reader.seek(SeekFrom::End(-1))?;
    reader.read_exact(&mut last)?;
    if last == *b"\n" {
        return Ok(size);
    }
    file.write_all(b"\n")?;
    Ok(size + 1)
}

/// `<file>.<number>`.
fn numbered(file: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(format!(".{number}"));
    name.into()
}

/// Renames a file; nothing happens when it is not there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn options(folder: &Path, max_bytes: u64, keep: u32) -> Options {
        Options { file: folder.join("logs/audit.jsonl"), max_bytes, keep }
    }

    fn append_all(files: &mut Files, lines: &[&str]) -> usize {
        files.append(lines.iter().map(|line| line.as_bytes()), || panic!("a file was not turned over"))
    }

    fn read(folder: &Path, name: &str) -> Option<String> {
        fs::read_to_string(folder.join("logs").join(name)).ok()
    }

    #[test]
    fn full_files_move_aside_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(options(folder.path(), 8, 2)).unwrap();
        assert_eq!(append_all(&mut files, &["one\n", "two\n", "three\n"]), 3);
        assert_eq!(append_all(&mut files, &["four\n"]), 1);
        // A line longer than a file has one of its own.
        assert_eq!(append_all(&mut files, &["longer than a file\n", "five\n"]), 2);
        assert_eq!(read(folder.path(), "audit.jsonl").as_deref(), Some("five\n"));
        assert_eq!(read(folder.path(), "audit.jsonl.1").as_deref(), Some("longer than a file\n"));
        assert_eq!(read(folder.path(), "audit.jsonl.2").as_deref(), Some("four\n"));
        assert_eq!(read(folder.path(), "audit.jsonl.3"), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("logs/audit.jsonl")), 0o600);
        assert_eq!(mode(&folder.path().join("logs")), 0o700);
    }

    #[test]
    fn lines_are_added_to_those_of_the_process_before() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(append_all(&mut Files::open(options(folder.path(), 100, 1)).unwrap(), &["one\n", "unfin"]), 2);
        let mut files = Files::open(options(folder.path(), 100, 1)).unwrap();
        append_all(&mut files, &["two\n"]);
        assert_eq!(read(folder.path(), "audit.jsonl").as_deref(), Some("one\nunfin\ntwo\n"));
        assert_eq!(files.size, 14);
    }

    #[test]
    fn what_is_torn_is_taken_off_before_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(options(folder.path(), 100, 1)).unwrap();
        append_all(&mut files, &["one\n"]);
        // A write that got half-way: part of a line, and the word that it failed.
        files.file.write_all(b"ha").unwrap();
        files.torn = true;
        append_all(&mut files, &["two\n"]);
        assert_eq!(read(folder.path(), "audit.jsonl").as_deref(), Some("one\ntwo\n"));
    }

    #[test]
    fn a_full_disk_is_told_and_a_line_that_fits_later_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(Options { file: "/dev/full".into(), max_bytes: 8, keep: 1 }).unwrap();
        assert_eq!(append_all(&mut files, &["one\n", "longer than a file\n"]), 0);
        let mut good = Files::open(options(folder.path(), 100, 1)).unwrap();
        std::mem::swap(&mut files.file, &mut good.file);
        assert_eq!(append_all(&mut files, &["two\n"]), 1);
        assert_eq!(read(folder.path(), "audit.jsonl").as_deref(), Some("two\n"));
    }

    #[test]
    fn files_that_cannot_be_turned_over_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::open(options(folder.path(), 4, 1)).unwrap();
        // A folder in the way of the full file.
        fs::create_dir_all(folder.path().join("logs/audit.jsonl.1/in-the-way")).unwrap();
        let mut failures = 0;
        assert_eq!(files.append([b"one\n".as_slice(), b"two\n", b"six\n"].into_iter(), || failures += 1), 3);
        // It is tried again each time as much again was written.
        assert_eq!((read(folder.path(), "audit.jsonl").as_deref(), failures), (Some("one\ntwo\nsix\n"), 2));
    }

    #[test]
    fn a_folder_is_no_audit_log() {
        let folder = tempfile::tempdir().unwrap();
        let told = Files::open(Options { file: folder.path().into(), max_bytes: 8, keep: 1 }).err().unwrap();
        assert!(matches!(told, Fault::Kind { .. }), "{told}");
        let told = Files::open(Options { file: "/proc/nothing/audit".into(), max_bytes: 8, keep: 1 }).err().unwrap();
        assert!(told.to_string().contains("audit.file"), "{told}");
    }
}
