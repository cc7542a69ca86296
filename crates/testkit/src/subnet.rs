//! A range of loopback addresses for one local cluster: `127.A.B.0/24`, one address per node.
//!
//! Every node of every cluster listens on the same ports, each on its own address. So that
//! several clusters can run on one machine, each claims a range by creating a file that names the
//! cluster's folder; creation is exclusive. A claim lapses when the cluster is gone: its record
//! no longer exists, or it belonged to a process that no longer runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::process::ProcessName;

/// The three leading numbers of a cluster's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet(pub u8, pub u8);

impl Subnet {
    /// The address of the node at this place.
    pub fn address(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.0, self.1, host)
    }

    fn file(self, claims: &Path) -> PathBuf {
        claims.join(format!("127.{}.{}", self.0, self.1))
    }
}

/// What a claim's file says.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    /// The cluster's folder.
    folder: PathBuf,
    /// Who the cluster ends with; nobody for one that outlives its starter.
    owner: Option<ProcessName>,
    /// Who made the claim: it holds while the cluster's record is not written yet.
    claimed_by: ProcessName,
}

impl Claim {
    fn holds(&self) -> bool {
        let owned = self.owner.as_ref().is_none_or(ProcessName::is_alive);
        owned && (self.folder.join(crate::record::FILE).exists() || self.claimed_by.is_alive())
    }
}

/// Claims a range for the cluster in this folder whose nodes will listen on these ports.
pub fn claim(folder: &Path, owner: Option<&ProcessName>, ports: &[u16]) -> anyhow::Result<Subnet> {
    claim_in(&claims_folder(), folder, owner, ports)
}

/// Gives the range back, if this cluster still holds it.
pub fn release(subnet: Subnet, folder: &Path) {
    release_in(&claims_folder(), subnet, folder);
}

fn claims_folder() -> PathBuf {
    std::env::temp_dir().join(format!("holdfast-subnets-{}", rustix::process::getuid().as_raw()))
}

fn claim_in(
    claims: &Path,
    folder: &Path,
    owner: Option<&ProcessName>,
    ports: &[u16],
) -> anyhow::Result<Subnet> {
    fs::create_dir_all(claims).with_context(|| format!("create {}", claims.display()))?;
    let claimed_by = ProcessName::own().context("name this process")?;
    let claim = Claim { folder: folder.to_path_buf(), owner: owner.cloned(), claimed_by };
    let text = serde_json::to_vec_pretty(&claim)?;
    // Starting at a place of its own, a process seldom meets another one's claims.
    let first = u32::from_ne_bytes(claim.claimed_by.pid.to_ne_bytes());
    for step in 0..RANGES {
        let place = first.wrapping_mul(7).wrapping_add(step) % RANGES;
        let subnet = Subnet(64 + (place / 254) as u8, 1 + (place % 254) as u8);
        if take(&subnet.file(claims), &text)? {
            if is_free(subnet, ports) {
                return Ok(subnet);
            }
            fs::remove_file(subnet.file(claims))?;
        }
    }
    bail!("every loopback range is taken: see {} for who holds them", claims.display())
}

const RANGES: u32 = 64 * 254;

/// Creates the claim's file, over a lapsed one too; `false` when somebody holds it.
fn take(file: &Path, text: &[u8]) -> anyhow::Result<bool> {
    if let Ok(old) = fs::read(file) {
        // A file without sense is one that is being written just now.
        let lapsed = serde_json::from_slice::<Claim>(&old).is_ok_and(|claim| !claim.holds());
        if !lapsed {
            return Ok(false);
        }
        // Of two who see the same lapsed claim one renames it away, and one finds nothing.
        let aside = file.with_extension(format!("lapsed-{}", std::process::id()));
        if fs::rename(file, &aside).is_err() {
            return Ok(false);
        }
        fs::remove_file(&aside)?;
    }
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(mut created) => {
            created.write_all(text).with_context(|| format!("write {}", file.display()))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(|| format!("create {}", file.display())),
    }
}

/// Whether nobody listens there, for whatever reason.
fn is_free(subnet: Subnet, ports: &[u16]) -> bool {
    let bindable =
        |host| ports.iter().all(|port| TcpListener::bind((subnet.address(host), *port)).is_ok());
    (1..=3).all(bindable)
}

fn release_in(claims: &Path, subnet: Subnet, folder: &Path) {
    let file = subnet.file(claims);
    let claim = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Claim>(&text).ok());
    if claim.is_some_and(|claim| claim.folder == folder) {
        let _ = fs::remove_file(file);
        // Only the last one out finds it empty.
        let _ = fs::remove_dir(claims);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().expect("a temporary folder");
        let (claims, cluster) = (root.path().join("claims"), root.path().join("cluster"));
        fs::create_dir(&cluster).expect("a folder");
        (root, claims, cluster)
    }

    #[test]
    fn two_clusters_never_get_the_same_range() {
        let (_root, claims, cluster) = folders();
        let first = claim_in(&claims, &cluster, None, &[]).expect("a range");
        let second = claim_in(&claims, &cluster, None, &[]).expect("a range");
        assert_ne!(first, second);
    }

    #[test]
    fn a_range_whose_owner_is_gone_is_given_out_again() {
        let (_root, claims, cluster) = folders();
        fs::write(cluster.join(crate::record::FILE), "{}").expect("a record");
        let mut gone = ProcessName::own().expect("own name");
        gone.start_ticks += 1;
        let first = claim_in(&claims, &cluster, Some(&gone), &[]).expect("a range");
        let second = claim_in(&claims, &cluster, Some(&gone), &[]).expect("a range");
        assert_eq!(first, second);
    }

    #[test]
    fn a_range_with_a_listener_is_passed_over() {
        let (_root, claims, cluster) = folders();
        let free = claim_in(&claims, &cluster, None, &[7_471]).expect("a range");
        release_in(&claims, free, &cluster);
        let _stranger = TcpListener::bind((free.address(2), 7_471)).expect("listen");
        assert_ne!(claim_in(&claims, &cluster, None, &[7_471]).expect("a range"), free);
    }

    #[test]
    fn only_the_holder_releases_a_range() {
        let (_root, claims, cluster) = folders();
        let held = claim_in(&claims, &cluster, None, &[]).expect("a range");
        release_in(&claims, held, Path::new("/another/folder"));
        assert!(held.file(&claims).exists());
        release_in(&claims, held, &cluster);
        assert!(!claims.exists());
    }
}
