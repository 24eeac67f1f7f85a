//! A machine's folder in a backup: what it is made of, and the identity that it has.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use tar::{Builder, EntryType, Header};

/// Of one run of the machine only: its process, its log, its sockets and the challenges that are open.
const LEFT_OUT: [&str; 4] = ["run.json", "status", "holder.log", "var-opt-azcmagent/tokens"];

/// Adds all that lasts in a machine's folder, with its owners. Fails where this user may not read it.
pub fn copy<W: Write>(folder: &Path, out: &mut Builder<W>) -> io::Result<()> {
    add_folder(folder, Path::new(""), out)
}

fn add_folder<W: Write>(root: &Path, below: &Path, out: &mut Builder<W>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let kept = below.join(entry?.file_name());
        if LEFT_OUT.iter().any(|name| kept == Path::new(name)) {
            continue;
        }
        match add(root, &kept, out) {
            // The agent replaces files by new ones.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn add<W: Write>(root: &Path, kept: &Path, out: &mut Builder<W>) -> io::Result<()> {
    let path = root.join(kept);
    let found = fs::symlink_metadata(&path)?;
    let mut header = Header::new_gnu();
    header.set_metadata(&found);
    if found.is_dir() {
        out.append_data(&mut header, kept, io::empty())?;
        add_folder(root, kept, out)
    } else if found.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        out.append_link(&mut header, kept, fs::read_link(&path)?)
    } else if found.is_file() {
        // The machine's users may put a link or a pipe in its place meanwhile.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&path)?;
        let opened = file.metadata()?;
        if !opened.is_file() {
            return Ok(());
        }
        header.set_metadata(&opened);
        let bytes = opened.size();
        header.set_size(bytes);
        // Exactly as long as was said, whatever is written to it meanwhile.
        out.append_data(&mut header, kept, file.chain(io::repeat(0)).take(bytes))
    } else {
        Ok(())
    }
}
