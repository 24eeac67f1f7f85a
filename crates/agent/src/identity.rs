//! The machine's own key and the id it was made with.

use std::io;
use std::path::Path;

use arcadia_crypto::{RsaBits, RsaKeyPair, Zeroizing, b64, pem_decode, pem_encode_secret};
use arcadia_kernel::{Entropy, EntropyExt as _};
use uuid::Uuid;

use crate::accounts::{Accounts, Owner};
use crate::files::{Ownership, read_bounded, write_atomic};
use crate::layout::{KEY, Part, VM_ID};
use crate::{AgentFault, Layout};

const FILE_BYTES_MAX: u64 = 64 * 1024;
const PEM_LABEL: &str = "PRIVATE KEY";

/// Who the machine is to the site: an id and an RSA-2048 key, made together on the machine. They outlive a failed
/// `connect`, so that trying again finds the same machine; `disconnect` ends them.
#[derive(Clone, Debug)]
pub struct MachineIdentity {
    pub vm_id: Uuid,
    pub key: RsaKeyPair,
}

impl MachineIdentity {
    /// `None` when none was made yet, or only half of one.
    pub(crate) fn load(layout: &Layout) -> Result<Option<Self>, AgentFault> {
        let Some(vm_id) = load_vm_id(&layout.part(Part::Certs).join(VM_ID))? else { return Ok(None) };
        let Some(key) = load_key(layout)? else { return Ok(None) };
        Ok(Some(Self { vm_id, key }))
    }

    pub(crate) fn load_or_make(
        layout: &Layout,
        accounts: &Accounts,
        entropy: &dyn Entropy,
    ) -> Result<Self, AgentFault> {
        if let Some(identity) = Self::load(layout)? {
            return Ok(identity);
        }
        let identity = Self { vm_id: entropy.uuid(), key: RsaKeyPair::generate(RsaBits::Bits2048)? };
        let pem = pem_encode_secret(PEM_LABEL, &identity.key.to_pkcs8_der()?);
        let write = |name: &str, content: &[u8], owner: Owner| {
            let ownership = Ownership { accounts, owner, mode: 0o600 };
            let path = layout.part(Part::Certs).join(name);
            layout
                .open_part(Part::Certs)
                .and_then(|folder| write_atomic(&folder, name, content, ownership, entropy))
                .map_err(|fault| AgentFault::file("cannot write", &path, fault))
        };
        // The id comes last: without it the key counts for nothing.
        write(KEY, pem.as_bytes(), Owner::Himds)?;
        write(VM_ID, identity.vm_id.to_string().as_bytes(), Owner::Root)?;
        Ok(identity)
    }

    pub(crate) fn remove(layout: &Layout) -> Result<(), AgentFault> {
        for name in [VM_ID, KEY] {
            let path = layout.part(Part::Certs).join(name);
            layout
                .remove(Part::Certs, name)
                .map_err(|fault| AgentFault::file("cannot remove", &path, fault))?;
        }
        Ok(())
    }

    /// `clientPublicKey` of the machine resource: base64 of the PKCS#1 form.
    pub fn public_key(&self) -> String {
        b64(&self.key.public().to_pkcs1_der())
    }
}

/// The key alone, for signing in.
pub(crate) fn load_key(layout: &Layout) -> Result<Option<RsaKeyPair>, AgentFault> {
    let path = &layout.part(Part::Certs).join(KEY);
    let Some(bytes) = load(path)? else { return Ok(None) };
    let text = std::str::from_utf8(&bytes).map_err(|fault| AgentFault::content(path, fault))?;
    let blocks = pem_decode(text).map_err(|fault| AgentFault::content(path, fault))?;
    let block = blocks.iter().find(|block| block.label == PEM_LABEL);
    let block = block.ok_or_else(|| AgentFault::content(path, "it holds no private key"))?;
    RsaKeyPair::from_pkcs8_der(&block.der).map(Some).map_err(|fault| AgentFault::content(path, fault))
}

fn load_vm_id(path: &Path) -> Result<Option<Uuid>, AgentFault> {
    let Some(bytes) = load(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    text.trim().parse().map(Some).map_err(|fault| AgentFault::content(path, fault))
}

fn load(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, AgentFault> {
    match read_bounded(path, FILE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(AgentFault::file("cannot read", path, fault)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcadia_crypto::SystemEntropy;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn made_once_kept_private_and_removed_whole() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let accounts = Accounts::default();
        layout.prepare(&accounts).unwrap();
        assert!(MachineIdentity::load(&layout).unwrap().is_none());
        let made = MachineIdentity::load_or_make(&layout, &accounts, &SystemEntropy).unwrap();
        let again = MachineIdentity::load_or_make(&layout, &accounts, &SystemEntropy).unwrap();
        assert_eq!((made.vm_id, made.public_key()), (again.vm_id, again.public_key()));
        let mode =
            std::fs::metadata(layout.part(Part::Certs).join(KEY)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(
            std::fs::read_to_string(layout.part(Part::Certs).join(KEY))
                .unwrap()
                .starts_with("-----BEGIN PRIVATE KEY-----\n")
        );
        MachineIdentity::remove(&layout).unwrap();
        MachineIdentity::remove(&layout).unwrap();
        assert!(MachineIdentity::load(&layout).unwrap().is_none());
    }

    #[test]
    fn a_damaged_key_is_a_fault_and_not_a_new_identity() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        let accounts = Accounts::default();
        layout.prepare(&accounts).unwrap();
        MachineIdentity::load_or_make(&layout, &accounts, &SystemEntropy).unwrap();
        std::fs::write(
            layout.part(Part::Certs).join(KEY),
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        )
        .unwrap();
        let fault = MachineIdentity::load_or_make(&layout, &accounts, &SystemEntropy).unwrap_err();
        assert!(fault.to_string().contains("machine.key"), "{fault}");
    }
}
