//! What runs on backends: servers that say who they are, and servers that send back what they are sent.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};

/// Starts the servers of a backend in the namespace of the calling thread. They end with the test.
pub(crate) fn serve(name: String) {
    let listener = TcpListener::bind("[::]:8080").unwrap();
    let tcp_name = name.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let name = tcp_name.clone();
            std::thread::spawn(move || {
                let mut question = [0; 4];
                while stream.read_exact(&mut question).is_ok() && stream.write_all(name.as_bytes()).is_ok() {}
            });
        }
    });
    // A socket that is bound to all addresses answers from that of its interface, and not from the service's.
    for address in ["[::]:8080", "10.9.0.1:8082", "[fd00:9::1]:8082"] {
        let socket = UdpSocket::bind(address).unwrap();
        let name = name.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(name.as_bytes(), client);
            }
        });
    }
    let listener = TcpListener::bind("[::]:8081").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut stream);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
}
