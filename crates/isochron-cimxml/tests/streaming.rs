//! Long responses: written while they are sent, never held; and what a client sees
//! of an error that comes after the beginning.

#![allow(clippy::expect_used)] // A test fails by panicking.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Running, TestServer, wrap};
use isochron_cimxml::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server with so many instances of T_Many, of a kilobyte each.
async fn serving(count: usize, fails_after: Option<usize>) -> Running {
    let mut cim = TestServer::new();
    cim.many.count = count;
    cim.many.fails_after = fails_after;
    let config = Config {
        sending_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    Running::start_with(config, cim).await
}

/// Asks for them all.
async fn ask(server: &Running, more: &str) -> TcpStream {
    let class = "<IPARAMVALUE NAME=\"ClassName\"><CLASSNAME NAME=\"T_Many\"/></IPARAMVALUE>";
    let body = wrap("root/test", "EnumerateInstances", class);
    let length = body.len();
    let request = format!(
        "POST /cimom HTTP/1.1\r\nHost: here\r\nContent-Type: application/xml\r\n\
         CIMOperation: MethodCall\r\nCIMMethod: EnumerateInstances\r\nCIMObject: root/test\r\n\
         Content-Length: {length}\r\n{more}\r\n{body}"
    );
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.expect("read");
    String::from_utf8(response).expect("UTF-8")
}

/// The content of a chunked body, and what stands after its last chunk; `None` if
/// it has no last chunk.
fn unchunked(mut body: &str) -> (String, Option<&str>) {
    let mut content = String::new();
    while let Some((size, after)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return (content, Some(after));
        }
        let Some(chunk) = after.get(..size) else {
            break;
        };
        content.push_str(chunk);
        body = after[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    (content, None)
}

#[tokio::test]
async fn a_long_response_is_made_as_it_is_read() {
    let server = serving(100_000, None).await;
    let made = || server.server.many.made.load(Ordering::SeqCst);
    // Until the client reads, only what its connection takes up is made.
    let mut stream = ask(&server, "Connection: close\r\n").await;
    let mut head = [0; 400];
    stream.read_exact(&mut head).await.expect("the beginning");
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(head.contains("wbemserverresponsetime: "), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    assert!(!head.contains("trailer"), "nobody asked for any: {head}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = made();
    assert!(before < 20_000, "{before} instances were made for nobody");
    // Read on, all come, and at no time are many more made than were read.
    let (mut bytes, mut found, mut ahead) = (vec![0; 1 << 20], 0, 0);
    loop {
        match stream.read(&mut bytes).await.expect("read") {
            0 => break,
            length => found += length,
        }
        ahead = ahead.max(made().saturating_sub(found / 2300));
    }
    assert_eq!(made(), 100_000);
    assert!(found > 200_000_000, "{found} bytes");
    assert!(ahead < 30_000, "{ahead} instances were held");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_gets_no_more() {
    let server = serving(100_000, None).await;
    let mut stream = ask(&server, "").await;
    stream.read_exact(&mut [0; 100]).await.expect("a beginning");
    tokio::time::sleep(Duration::from_millis(800)).await;
    let (content, last) = {
        let response = rest(stream).await;
        let (_, body) = response.split_once("\r\n\r\n").expect("a head");
        let (content, last) = unchunked(body);
        (content, last.is_some())
    };
    assert!(!last && !content.contains("</CIM>"), "it was cut");
    let made = server.server.many.made.load(Ordering::SeqCst);
    assert!(made < 100_000, "{made}");
    server.stop().await;
}

#[tokio::test]
async fn short_responses_have_a_length() {
    let server = serving(3, None).await;
    let response = rest(ask(&server, "Connection: close\r\nTE: trailers\r\n").await).await;
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    assert!(!head.contains("trailer"), "{head}");
    server.stop().await;
    // An error before anything is sent is a response of its own.
    let server = serving(30, Some(20)).await;
    let response = rest(ask(&server, "Connection: close\r\n").await).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    assert!(response.contains("<ERROR CODE=\"1\""), "{response}");
    assert!(!response.contains("IRETURNVALUE"), "{response}");
    server.stop().await;
}

#[tokio::test]
async fn a_late_error_is_in_the_trailers_or_cuts_the_connection() {
    let server = serving(2000, Some(1000)).await;
    let asking = "Connection: close, TE\r\nTE: deflate;q=0.5, trailers\r\n";
    let response = rest(ask(&server, asking).await).await;
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("trailer: cimstatuscode, cimstatuscodedescription"),
        "{head}"
    );
    let (content, trailers) = unchunked(body);
    let trailers = trailers.expect("a last chunk").to_ascii_lowercase();
    assert_eq!(
        trailers.lines().collect::<Vec<_>>(),
        [
            "cimstatuscode: 1",
            "cimstatuscodedescription: 100 %25 of the disk: gone",
            ""
        ]
    );
    assert_eq!(content.matches("<INSTANCE ").count(), 1000);
    // Others see that there is no end.
    for connection in ["Connection: close\r\n", ""] {
        let response = rest(ask(&server, connection).await).await;
        let (_, body) = response.split_once("\r\n\r\n").expect("a head");
        let (content, last) = unchunked(body);
        assert_eq!(last, None);
        assert!(content.contains("<INSTANCE ") && !content.contains("</CIM>"));
    }
    server.stop().await;
}
