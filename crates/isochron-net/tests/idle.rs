//! Neither thousands of connections that say nothing nor ones that dribble keep
//! others from being served.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use isochron_net::{Files, Limits, Listener, Patience, Tls, make_self_signed, serve};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A server that answers every request with `yes`.
async fn start(tls: Option<Arc<Tls>>, limits: Limits, headers: Duration) -> Running {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let listener = Listener::new(tcp, "test", tls, limits);
    let (stop, stopped) = oneshot::channel::<()>();
    let patience = Patience {
        headers,
        shutdown: Duration::from_secs(5),
    };
    let task = tokio::spawn(serve(
        listener,
        patience,
        |_, place| {
            let place = Arc::clone(place);
            service_fn(move |_| {
                let _busy = place.busy();
                async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("yes")))) }
            })
        },
        async {
            let _ = stopped.await;
        },
    ));
    Running {
        address,
        stop,
        task,
    }
}

impl Running {
    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap();
    }

    /// What a request is answered.
    async fn ask(&self) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// Lets this process have as many descriptors as it may.
fn many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[tokio::test]
async fn thousands_that_say_nothing_keep_nobody_out() {
    many_descriptors();
    let hour = Duration::from_secs(3600);
    let server = start(None, Limits::default(), hour).await;
    let mut silent = Vec::new();
    for number in 0..2000 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if number % 2 == 0 {
            // What never ends is not a request yet. It may be gone already.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nX: ").await;
        }
        silent.push(stream);
        if number % 200 == 0 {
            assert!(server.ask().await.ends_with("yes"), "{number}");
        }
    }
    assert!(server.ask().await.ends_with("yes"));
    // The first had to go, the last is there.
    let mut one = [0; 1];
    let first = silent.first_mut().unwrap().read(&mut one).await;
    assert!(matches!(first, Ok(0) | Err(_)), "{first:?}");
    let last = silent.last_mut().unwrap();
    last.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(last.read(&mut one).await.unwrap(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_dribbles_ends_in_time() {
    let short = Duration::from_millis(200);
    let server = start(None, Limits::default(), short).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    // A line now and then does not put it off.
    let mut number = 0;
    while stream
        .write_all(format!("X-{number}: y\r\n").as_bytes())
        .await
        .is_ok()
    {
        number += 1;
        assert!(number < 3000, "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(server.ask().await.ends_with("yes"));
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files {
        certificate: directory.path().join("certificate.pem"),
        key: directory.path().join("key.pem"),
        client_ca: None,
    };
    make_self_signed(&files, &["localhost".to_owned()]).unwrap();
    let tls = Arc::new(Tls::open(files).unwrap());
    let limits = Limits {
        handshake: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = start(Some(tls), limits, Duration::from_secs(3600)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut one = [0; 1];
    let ended = stream.read(&mut one).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    server.stop().await;
}
