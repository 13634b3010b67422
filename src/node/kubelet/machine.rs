//! What the kubelet reports of the machine it runs on (cAdvisor's machine info upstream).

use std::net::{IpAddr, UdpSocket};
use std::path::Path;

/// The machine's sizes and names. Read once: a lab's machine does not grow.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    pub cpus: usize,
    pub memory_bytes: u64,
    pub storage_bytes: u64,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
}

impl Machine {
    /// Reads /proc, /etc and the file system under `root_dir`; what cannot be read stays empty.
    pub fn read(root_dir: &Path) -> Self {
        let line = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: meminfo(&line("/proc/meminfo"), "MemTotal:").unwrap_or(0),
            storage_bytes: nix::sys::statvfs::statvfs(root_dir)
                .map_or(0, |fs| fs.blocks().saturating_mul(fs.fragment_size())),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")).unwrap_or_else(|| "Linux".into()),
        }
    }
}

/// A row of /proc/meminfo, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let row = text.lines().find(|row| row.starts_with(key))?;
    let kilobytes: u64 = row.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

fn os_image(text: &str) -> Option<String> {
    let value = text.lines().find_map(|row| row.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches('"').to_owned())
}

/// The address this host would use towards `server` (`https://HOST:PORT`): upstream asks the default route.
pub fn address_towards(server: &str) -> Option<IpAddr> {
    let host = server.strip_prefix("https://")?.split('/').next()?;
    // Connecting a datagram socket sends nothing; it only asks the routing table.
    let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(host).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_and_os_release_are_read_as_they_are_written() {
        assert_eq!(meminfo("MemTotal:       2048 kB\nMemFree: 1 kB", "MemTotal:"), Some(2 << 20));
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n").as_deref(),
            Some("Debian GNU/Linux 12")
        );
    }
}
