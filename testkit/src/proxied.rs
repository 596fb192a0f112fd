//! Headers of the PROXY protocol, written by hand, and HAProxy as their sender.

use crate::process::Process;
use crate::tools::Tool;
use crate::{poll, seconds};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use tempfile::TempDir;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2, whatever it says.
pub fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// A header of version 2 for a client, with these TLVs.
pub fn v2_of(from: SocketAddr, to: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut family = 0x11;
    for ip in [from.ip(), to.ip()] {
        match ip {
            IpAddr::V4(ip) => rest.extend(ip.octets()),
            IpAddr::V6(ip) => {
                family = 0x21;
                rest.extend(ip.octets());
            }
        }
    }
    rest.extend(from.port().to_be_bytes());
    rest.extend(to.port().to_be_bytes());
    rest.extend(tlvs);
    v2(0x21, family, &rest)
}

/// A TLV.
pub fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// A running HAProxy that passes connections on to a gateway, killed when dropped.
#[derive(Debug)]
pub struct HaProxy {
    /// Where it listens.
    pub address: SocketAddr,
    _process: Process,
    _dir: TempDir,
}

impl HaProxy {
    /// Starts; `sends` is what it says of its clients, such as `send-proxy-v2`.
    pub fn start(to: SocketAddr, sends: &str) -> HaProxy {
        let address = crate::ports::reserve();
        let dir = tempfile::Builder::new().prefix("testkit-haproxy-").tempdir().unwrap();
        let config = format!(
            "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
             listen l\n  bind {address}\n  server s {to} {sends}\n"
        );
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(Tool::Haproxy.path().expect("haproxy"));
        command.arg("-db").arg("-f").arg(&file);
        let process = Process::spawn(command);
        let up = poll(seconds(10), || TcpStream::connect(address).ok());
        assert!(up.is_some(), "haproxy does not start: {}", process.tail(20));
        HaProxy { address, _process: process, _dir: dir }
    }
}
