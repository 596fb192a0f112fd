use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use super::*;
use crate::listener::bind_udp;
use crate::socket::{Arrived, DatagramSocket};

fn listening(text: &str) -> UdpSocket {
    UdpSocket::listening(bind_udp(text.parse().unwrap()).unwrap()).unwrap()
}

/// What a socket receives until so many datagrams have come: sender, destination, payload.
async fn receive(socket: &UdpSocket, count: usize) -> Vec<(SocketAddr, Option<IpAddr>, Vec<u8>)> {
    let (mut batch, mut all) = (ReceiveBatch::default(), Vec::new());
    while all.len() < count {
        poll_fn(|cx| socket.poll_receive(cx, &mut batch)).await.unwrap();
        for mut received in batch.iter_mut() {
            let (from, to, expected) = (received.from, received.to, received.count());
            let before = all.len();
            all.extend(received.datagrams().map(|bytes| (from, to, bytes.to_vec())));
            assert_eq!(all.len() - before, expected);
        }
    }
    all
}

async fn send(socket: &UdpSocket, batch: &mut SendBatch) -> SendOutcome {
    let outcome = poll_fn(|cx| socket.poll_send(cx, batch)).await;
    assert!(batch.is_empty());
    outcome
}

#[tokio::test]
async fn datagrams_of_all_sizes_arrive_whole_and_in_order() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = listening(address);
        let client = UdpSocket::to_backends(&server.local()).unwrap();
        let sizes = [1200, 1200, 1200, 7, 0, 0, 1, MAX_DATAGRAM, 1200, 1300, 1300, 1];
        let payload = |number: usize, size: usize| vec![u8::try_from(number).unwrap(); size];
        let mut batch = SendBatch::default();
        for (number, size) in sizes.into_iter().enumerate() {
            batch.push(server.local(), None, &payload(number, size));
        }
        let outcome = send(&client, &mut batch).await;
        let bytes = sizes.iter().sum::<usize>() as u64;
        assert_eq!(outcome, SendOutcome { sent: sizes.len() as u64, bytes, refused: 0 });
        let all = receive(&server, sizes.len()).await;
        for (number, ((from, to, bytes), size)) in all.iter().zip(sizes).enumerate() {
            assert_eq!(*bytes, payload(number, size), "datagram {number}");
            assert_eq!((from.port(), *to), (client.local().port(), Some(server.local().ip())));
        }
    }
}

#[tokio::test]
async fn many_datagrams_leave_together_and_are_told_apart() {
    let (one, other) = (listening("127.0.0.1:0"), listening("127.0.0.1:0"));
    let client = UdpSocket::to_backends(&one.local()).unwrap();
    let mut batch = SendBatch::default();
    // More than a message carries, and then two destinations by turns.
    for number in 0..200u8 {
        batch.push(one.local(), None, &[number; 900]);
    }
    for number in 0..100u8 {
        batch.push(one.local(), None, &[number; 10]);
        batch.push(other.local(), None, &[number; 11]);
    }
    assert!(!batch.is_empty());
    assert_eq!(send(&client, &mut batch).await.sent, 400);
    let at_one = receive(&one, 300).await;
    let expected =
        (0..200u8).map(|number| vec![number; 900]).chain((0..100u8).map(|number| vec![number; 10]));
    assert!(at_one.iter().map(|(_, _, bytes)| bytes).eq(&expected.collect::<Vec<_>>()));
    assert_eq!(receive(&other, 100).await.len(), 100);
}

#[tokio::test]
async fn what_was_joined_can_be_passed_on_joined() {
    let (first, second) = (listening("127.0.0.1:0"), listening("127.0.0.1:0"));
    let client = UdpSocket::to_backends(&first.local()).unwrap();
    let mut batch = SendBatch::default();
    [5; 950].chunks(100).for_each(|bytes| batch.push(first.local(), None, bytes));
    assert_eq!(send(&client, &mut batch).await.sent, 10);
    let mut received = ReceiveBatch::default();
    let mut left = 10;
    while left > 0 {
        poll_fn(|cx| first.poll_receive(cx, &mut received)).await.unwrap();
        for message in received.iter_mut() {
            left -= message.count();
            batch.push_received(second.local(), None, &message);
        }
    }
    assert_eq!(send(&first, &mut batch).await.bytes, 950);
    let sizes: Vec<usize> = receive(&second, 10).await.iter().map(|(_, _, bytes)| bytes.len()).collect();
    assert_eq!(sizes, [100, 100, 100, 100, 100, 100, 100, 100, 100, 50]);
}

/// RFC 9331 §3, RFC 9000 §13.4: a mark that is lost on the way stops its use.
#[tokio::test]
async fn marks_leave_with_their_datagrams_and_are_passed_on() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (first, second) = (listening(address), listening(address));
        let mut uplinks = Uplinks::new(8).unwrap();
        let uplink = uplinks.take(first.local(), 0, std::time::Instant::now()).unwrap();
        let mut batch = SendBatch::default();
        // Neighbours with one mark leave as one message, and each mark stays with what it came with.
        let marks: Vec<u8> = (0..200).map(|number| [0, 0, 2, 2, 2, 1, 3, 0][number % 8]).collect();
        for (number, mark) in marks.iter().enumerate() {
            batch.push_marked(first.local(), None, *mark, &[u8::try_from(number).unwrap(); 300]);
        }
        assert!(uplinks.send(&uplink, &mut batch).0);
        let (mut received, mut all) = (ReceiveBatch::default(), Vec::new());
        for (socket, to) in [(&first, Some(second.local())), (&second, None)] {
            all.clear();
            while all.len() < marks.len() {
                poll_fn(|cx| socket.poll_receive(cx, &mut received)).await.unwrap();
                for mut message in received.iter_mut() {
                    if let Some(to) = to {
                        batch.push_received(to, None, &message);
                    }
                    let ecn = message.ecn;
                    all.extend(message.datagrams().map(|bytes| (bytes[0], ecn)));
                }
            }
            let expected = marks.iter().enumerate().map(|(number, mark)| (number as u8, *mark));
            assert!(all.iter().copied().eq(expected), "{address}: {all:?}");
            if to.is_some() {
                send(&first, &mut batch).await;
            }
        }
        // What backends send arrives at an uplink with its mark as well.
        batch.push_marked(uplinks_address(&uplinks, &uplink, &first).await, None, 3, b"reply");
        send(&first, &mut batch).await;
        let marks = poll_fn(|cx| uplinks.poll_event(cx, &mut received).map(|event| event.map(drop))).await;
        marks.unwrap();
        assert_eq!(received.iter_mut().map(|message| message.ecn).collect::<Vec<_>>(), [3]);
    }
}

/// Where the socket of an uplink to `at` is bound.
async fn uplinks_address(uplinks: &Uplinks, uplink: &Uplink, at: &UdpSocket) -> SocketAddr {
    let mut batch = SendBatch::default();
    batch.push(at.local(), None, b"where");
    assert!(uplinks.send(uplink, &mut batch).0);
    receive(at, 1).await[0].0
}

#[tokio::test]
async fn an_answer_comes_from_the_address_that_was_asked() {
    let server = listening("0.0.0.0:0");
    let client = UdpSocket::to_backends(&server.local()).unwrap();
    let mut batch = SendBatch::default();
    for last in [1, 2, 3] {
        batch.push(([127, 0, 0, last], server.local().port()).into(), None, b"who");
    }
    send(&client, &mut batch).await;
    for (from, to, _) in receive(&server, 3).await {
        let from = SocketAddr::from(([127, 0, 0, 1], from.port()));
        batch.push(from, to, b"I");
    }
    send(&server, &mut batch).await;
    let asked: Vec<u8> = receive(&client, 3)
        .await
        .iter()
        .map(|(from, ..)| match from.ip() {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(_) => 0,
        })
        .collect();
    assert_eq!(asked, [1, 2, 3]);
}

#[tokio::test]
async fn a_datagram_that_is_refused_takes_no_other_with_it() {
    let server = listening("127.0.0.1:0");
    let client = UdpSocket::to_backends(&server.local()).unwrap();
    let mut batch = SendBatch::default();
    batch.push(server.local(), None, b"first");
    // Broadcasts need SO_BROADCAST.
    batch.push("255.255.255.255:9".parse().unwrap(), None, b"refused");
    batch.push(server.local(), None, &[0; MAX_DATAGRAM + 1]);
    batch.push(server.local(), None, b"last");
    let outcome = send(&client, &mut batch).await;
    assert_eq!((outcome.sent, outcome.refused), (2, 2));
    let all = receive(&server, 2).await;
    assert_eq!((&*all[0].2, &*all[1].2), (&b"first"[..], &b"last"[..]));
}

#[tokio::test]
async fn where_a_device_does_not_cut_each_datagram_leaves_alone() {
    let server = listening("127.0.0.1:0");
    let client = UdpSocket::to_backends(&server.local()).unwrap();
    let mut batch = SendBatch::default();
    for number in 0..150u8 {
        batch.push(server.local(), None, &[number; 20]);
    }
    let (all, outcome) = client.without_segments(&mut batch);
    assert_eq!((all, outcome.sent, outcome.bytes), (true, 150, 3000));
    let numbers: Vec<u8> = receive(&server, 150).await.iter().map(|(_, _, bytes)| bytes[0]).collect();
    assert_eq!(numbers, (0..150).collect::<Vec<u8>>());
}

#[tokio::test]
async fn memory_is_freed_when_it_is_not_needed() {
    let server = listening("127.0.0.1:0");
    let (mut received, mut batch) = (ReceiveBatch::default(), SendBatch::default());
    batch.push(server.local(), None, b"x");
    send(&server, &mut batch).await;
    poll_fn(|cx| server.poll_receive(cx, &mut received)).await.unwrap();
    received.rest();
    assert_eq!(received.iter_mut().count(), 1);
    received.rest();
    assert_eq!(received.iter_mut().count(), 0);
}

#[test]
fn a_batch_takes_what_a_writer_has_written() {
    let to: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut batch = SendBatch::default();
    let written = batch.write(1350, |room| {
        assert_eq!(room.len(), 1350);
        room[..4].copy_from_slice(b"abcd");
        Ok::<_, ()>((4, to, None))
    });
    assert_eq!(written, Ok(4));
    assert_eq!(batch.write(10, |_| Err("done")), Err("done"));
    assert_eq!(batch.write(10, |_| Ok::<_, ()>((0, to, None))), Ok(0));
    assert!(!batch.is_empty() && !batch.is_full());
    for _ in 0..300 {
        batch.push(to, None, &[]);
    }
    assert!(batch.is_full());
    batch.clear();
    assert!(batch.is_empty() && !batch.is_full());
}

/// A socket that receives what it sends.
#[derive(Debug)]
struct Mirror {
    local: SocketAddr,
    sent: RefCell<VecDeque<(SocketAddr, Vec<u8>)>>,
}

impl DatagramSocket for Mirror {
    fn local(&self) -> SocketAddr {
        self.local
    }

    fn poll_receive(&self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Arrived> {
        let Some((from, bytes)) = self.sent.borrow_mut().pop_front() else { return Poll::Pending };
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Poll::Ready(Arrived { from, to: self.local.ip(), length: bytes.len() })
    }

    fn send(&self, to: SocketAddr, _: Option<IpAddr>, bytes: &[u8]) {
        self.sent.borrow_mut().push_back((to, bytes.to_vec()));
    }
}

#[tokio::test]
async fn a_socket_may_be_another_than_the_kernels() {
    for address in ["192.0.2.1:9", "[2001:db8::1]:9"] {
        let local: SocketAddr = address.parse().unwrap();
        let socket = UdpSocket::plugged(Mirror { local, sent: RefCell::default() });
        socket.never_fragment().unwrap();
        assert_eq!(socket.local(), local);
        let mut batch = SendBatch::default();
        for number in 0..200u8 {
            batch.push(local, None, &vec![number; usize::from(number)]);
        }
        [7; 250].chunks(100).for_each(|bytes| batch.push(local, None, bytes));
        let outcome = send(&socket, &mut batch).await;
        assert_eq!((outcome.sent, outcome.bytes, outcome.refused), (203, 199 * 100 + 250, 0));
        let all = receive(&socket, 203).await;
        let expected = (0..200u8).map(|number| vec![number; usize::from(number)]);
        let expected = expected.chain([vec![7; 100], vec![7; 100], vec![7; 50]]);
        assert!(all.iter().map(|(from, to, bytes)| (*from, *to, bytes.clone())).eq(expected.map(|bytes| (
            local,
            Some(local.ip()),
            bytes
        ))));
        let mut received = ReceiveBatch::default();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(socket.poll_receive(&mut cx, &mut received).is_pending());
    }
}
