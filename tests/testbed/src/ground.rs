//! What a world stands on: a folder, a block of ports and two ranges of loopback
//! addresses that no other world on this machine uses.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Worlds that can run at once on one machine.
const WORLDS: u8 = 32;
/// Below the kernel's range for clients (from 32768), so that no client can take
/// the port of a component that is stopped for a while.
const FIRST_PORT: u16 = 21_000;
const PORTS: u16 = 32;
const PREFIX: &str = "serin-testbed-";

/// The address ranges and ports of world number `world`.
#[derive(Debug)]
pub(crate) struct Slot {
    world: u8,
    next_port: u16,
    /// Bound as long as the world is there: a lock that needs no file, holds
    /// between users, and goes with the process.
    _claim: TcpListener,
}

impl Slot {
    pub(crate) fn claim() -> Result<Slot> {
        for world in 0..WORLDS {
            let address = Ipv4Addr::new(127, services_octet(world), 255, 250);
            // Taken, or not to be had: the next.
            if let Ok(claim) = TcpListener::bind((address, FIRST_PORT)) {
                return Ok(Slot {
                    world,
                    next_port: FIRST_PORT + u16::from(world) * PORTS,
                    _claim: claim,
                });
            }
        }
        bail!("{WORLDS} testbeds run on this machine already; stop one")
    }

    pub(crate) fn port(&mut self) -> Result<u16> {
        let end = FIRST_PORT + (u16::from(self.world) + 1) * PORTS;
        while self.next_port < end {
            let port = self.next_port;
            self.next_port += 1;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        bail!("no free port is left below {end}")
    }

    /// The range of Services' cluster IPs.
    pub(crate) fn service_range(&self) -> String {
        format!("{}.0.0/16", self.service_prefix())
    }

    fn service_prefix(&self) -> String {
        format!("127.{}", services_octet(self.world))
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            services: services_octet(self.world),
            pods: 244 - self.world,
        }
    }
}

fn services_octet(world: u8) -> u8 {
    96 + world
}

/// From what the API says to where things listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    services: u8,
    pods: u8,
}

impl Addresses {
    /// The pod IP with number `n`, as the API shows it. EndpointSlices refuse
    /// loopback addresses, so it is one of `10.244.0.0/16`, which nothing dials.
    pub(crate) fn pod_ip(self, n: u16) -> Ipv4Addr {
        let [high, low] = n.to_be_bytes();
        Ipv4Addr::new(10, 244, high, low)
    }

    /// Where the pod with this IP listens.
    pub(crate) fn of_pod(self, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        match ip.octets() {
            [10, 244, high, low] => Some(Ipv4Addr::new(127, self.pods, high, low)),
            _ => None,
        }
    }

    pub(crate) fn is_service(self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(ip) if ip.octets()[..2] == [127, self.services])
    }
}

/// The world's folder. It goes with the world, unless it is kept.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    pub(crate) fn make() -> Result<Folder> {
        sweep();
        let path = tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep();
        // Under its name it is locked from the first moment, so that no sweep takes it.
        let lock = locked(&path.join("lock.new"))?.context("a new folder is locked already")?;
        std::fs::rename(path.join("lock.new"), path.join("lock"))?;
        Ok(Folder { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn keep(&self) {
        // Without the mark a later world may sweep the folder away: no harm now.
        let _ = std::fs::write(self.path.join("kept"), "");
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.path.join("kept").exists()
    }

    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of worlds that were killed before they could do it, and those kept long ago.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        let ours = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        let lock = path.join("lock");
        // A folder without a lock file is being made at this moment.
        if !ours || !lock.exists() || is_young(&path.join("kept")) {
            continue;
        }
        if let Ok(Some(_)) = locked(&lock) {
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

/// Whether this mark was set less than two days ago.
fn is_young(mark: &Path) -> bool {
    let set = std::fs::metadata(mark).and_then(|about| about.modified());
    set.is_ok_and(|set| {
        set.elapsed()
            .is_ok_and(|age| age < Duration::from_secs(2 * 86_400))
    })
}

/// A lock file's handle, unless another has it; the lock goes with the handle.
fn locked(path: &Path) -> Result<Option<File>> {
    let file = File::create(path)?;
    Ok(file.try_lock().is_ok().then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_worlds_share_nothing() {
        let (mut one, mut two) = (Slot::claim().expect("one"), Slot::claim().expect("two"));
        assert_ne!(one.service_range(), two.service_range());
        assert_ne!(one.port().expect("a port"), two.port().expect("a port"));
        let ip = one.addresses().pod_ip(258);
        assert_eq!(ip, Ipv4Addr::new(10, 244, 1, 2));
        assert_ne!(one.addresses().of_pod(ip), two.addresses().of_pod(ip));
        assert_eq!(one.addresses().of_pod(Ipv4Addr::LOCALHOST), None);
    }
}
