//! The section `[engines]`: server programs of this machine, for proofs and for clusters that are restored here.

use super::section::Section;
use crate::redis::engines::PROGRAMS;
use std::path::{Path, PathBuf};

/// Reads the section; no programs means those on the path.
pub(super) fn read(mut section: Section<'_>, base: &Path) -> Vec<PathBuf> {
    let texts = section.texts("programs");
    if texts.len() > PROGRAMS {
        section.fault("programs", &format!("must be at most {PROGRAMS} programs"));
    }
    let mut programs = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let program = base.join(text);
        if !program.is_file() {
            section.fault(&format!("programs[{index}]"), &format!("{} is no file", program.display()));
        }
        programs.push(program);
    }
    section.end();
    programs
}
