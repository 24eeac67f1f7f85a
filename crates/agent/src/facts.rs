//! What the machine says of itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::read_bounded;

const FILE_BYTES_MAX: u64 = 1024 * 1024;
const TEXT_CHARACTERS_MAX: usize = 256;

/// The files that facts are read from; others for tests.
#[derive(Clone, Debug)]
pub struct FactSources {
    pub passwd: PathBuf,
    pub group: PathBuf,
    pub os_release: PathBuf,
    pub cpu_info: PathBuf,
    pub memory_info: PathBuf,
    /// Where `sys_vendor` and `product_name` are.
    pub firmware: PathBuf,
}

impl Default for FactSources {
    fn default() -> Self {
        Self {
            passwd: "/etc/passwd".into(),
            group: "/etc/group".into(),
            os_release: "/etc/os-release".into(),
            cpu_info: "/proc/cpuinfo".into(),
            memory_info: "/proc/meminfo".into(),
            firmware: "/sys/class/dmi/id".into(),
        }
    }
}

/// Facts of the operating system and hardware, in the words of the machine resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `linux`.
    pub os_name: String,
    /// The kernel's release.
    pub os_version: String,
    /// `Ubuntu 24.04.1 LTS`.
    pub os_sku: String,
    pub machine_fqdn: String,
    /// `manufacturer`, `model`, `logicalCoreCount`, ...; all text, as the resource has them.
    pub detected: BTreeMap<String, String>,
}

impl Facts {
    pub fn read(sources: &FactSources) -> Self {
        let uname = rustix::system::uname();
        let text = |value: &std::ffi::CStr| clean(&value.to_string_lossy());
        let mut detected = BTreeMap::from([("cloudprovider".to_owned(), "N/A".to_owned())]);
        for (name, file) in [("manufacturer", "sys_vendor"), ("model", "product_name")] {
            detected.insert(name.to_owned(), clean(&read(&sources.firmware.join(file))));
        }
        let cpus = read(&sources.cpu_info).lines().filter(|line| line.starts_with("processor")).count();
        detected.insert("logicalCoreCount".to_owned(), cpus.to_string());
        if let Some(bytes) = memory_bytes(&read(&sources.memory_info)) {
            detected.insert("totalPhysicalMemoryInBytes".to_owned(), bytes.to_string());
        }
        Self {
            os_name: "linux".to_owned(),
            os_version: text(uname.release()),
            os_sku: os_release(&read(&sources.os_release), "PRETTY_NAME")
                .unwrap_or_else(|| "Linux".to_owned()),
            machine_fqdn: text(uname.nodename()),
            detected,
        }
    }

    /// The machine's name without its domain.
    pub fn host_name(&self) -> &str {
        self.machine_fqdn.split('.').next().unwrap_or("")
    }
}

fn read(path: &Path) -> String {
    read_bounded(path, FILE_BYTES_MAX)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn clean(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(TEXT_CHARACTERS_MAX).collect()
}

/// A value of an os-release file, which quotes like a shell.
fn os_release(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='))?;
    let value = clean(value.trim().trim_matches(['"', '\'']));
    (!value.is_empty()).then_some(value)
}

fn memory_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_from_files_that_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let sources = FactSources {
            os_release: write("os", "NAME=x\nPRETTY_NAME=\"Ubuntu 18.04.6 LTS\"\n"),
            cpu_info: write("cpu", "processor\t: 0\nmodel name: y\n\nprocessor\t: 1\n"),
            memory_info: write("mem", "MemFree: 1 kB\nMemTotal:        2048 kB\n"),
            firmware: folder.path().to_owned(),
            ..FactSources::default()
        };
        write("sys_vendor", "QEMU\n");
        let facts = Facts::read(&sources);
        assert_eq!(facts.os_sku, "Ubuntu 18.04.6 LTS");
        assert_eq!(facts.detected["manufacturer"], "QEMU");
        assert_eq!(facts.detected["model"], "");
        assert_eq!(facts.detected["logicalCoreCount"], "2");
        assert_eq!(facts.detected["totalPhysicalMemoryInBytes"], "2097152");
        assert!(!facts.os_version.is_empty() && !facts.machine_fqdn.is_empty());
        assert_eq!(os_release("PRETTY_NAME=\n", "PRETTY_NAME"), None);
    }
}
