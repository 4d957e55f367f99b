//! Indications as a listener receives them: what is sent, what its answers mean,
//! and that a connection is kept while the listener keeps it.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::time::Duration;

use isochron_cim::{Instance, ObjectPath};
use isochron_cimxml::Listener;
use isochron_net::outgoing::{Outgoing, SendError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn config() -> Outgoing {
    Outgoing {
        answer: Duration::from_millis(500),
        message_max: 10_000,
        ..Outgoing::default()
    }
}

async fn listener() -> (TcpListener, Listener) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/listen?to=me", socket.local_addr().unwrap());
    (socket, Listener::at(&url, config()).unwrap())
}

/// Reads one request: its head and its body.
async fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse::<usize>().unwrap())
            });
            let body = &read[end + 4..];
            if body.len() == length.unwrap() {
                return Some((head, String::from_utf8(body.to_vec()).unwrap()));
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await.unwrap() {
            0 => return None,
            n => read.extend_from_slice(&piece[..n]),
        }
    }
}

async fn answer(stream: &mut TcpStream, status: &str, body: &str) {
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn taken(id: &str) -> String {
    said(id, "")
}

fn said(id: &str, content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\" ?><CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.4\">\
         <MESSAGE ID=\"{id}\" PROTOCOLVERSION=\"1.4\"><SIMPLEEXPRSP>\
         <EXPMETHODRESPONSE NAME=\"ExportIndication\">{content}</EXPMETHODRESPONSE>\
         </SIMPLEEXPRSP></MESSAGE></CIM>"
    )
}

fn indication() -> Instance {
    let mut source = Instance::new("EX_Thing");
    source.path = Some(ObjectPath::class("EX_Thing").with_key("Id", 1_u16));
    source.set("Name", "a < b & \"c\"");
    let mut indication = Instance::new("CIM_InstCreation");
    indication
        .set("SourceInstance", source)
        .set("SequenceContext", "here");
    indication
}

#[tokio::test]
async fn what_is_sent_is_an_export_message_over_one_connection() {
    let (socket, mut listener) = listener().await;
    let serve = tokio::spawn(async move {
        let (mut stream, _) = socket.accept().await.unwrap();
        let mut seen = Vec::new();
        for id in ["1", "2", "3"] {
            seen.push(request(&mut stream).await.unwrap());
            answer(&mut stream, "200 OK", &taken(id)).await;
        }
        seen
    });
    for _ in 0..3 {
        listener.export(&indication()).await.unwrap();
    }
    let seen = serve.await.unwrap();
    let (head, body) = &seen[0];
    assert!(
        head.starts_with("POST /listen?to=me HTTP/1.1\r\n"),
        "{head}"
    );
    let head = head.to_lowercase();
    for line in [
        "content-type: application/xml; charset=\"utf-8\"",
        "cimexport: methodrequest",
        "cimexportmethod: exportindication",
    ] {
        assert!(head.contains(line), "{head}");
    }
    assert_eq!(
        body,
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE ID=\"1\" PROTOCOLVERSION=\"1.0\">\
         <SIMPLEEXPREQ><EXPMETHODCALL NAME=\"ExportIndication\">\
         <EXPPARAMVALUE NAME=\"NewIndication\"><INSTANCE CLASSNAME=\"CIM_InstCreation\">\
         <PROPERTY NAME=\"SourceInstance\" TYPE=\"string\" EmbeddedObject=\"instance\"><VALUE>\
         &lt;INSTANCE CLASSNAME=\"EX_Thing\"&gt;&lt;PROPERTY NAME=\"Name\" \
         TYPE=\"string\"&gt;&lt;VALUE&gt;a &amp;lt; b &amp;amp; \"c\"&lt;/VALUE&gt;\
         &lt;/PROPERTY&gt;&lt;/INSTANCE&gt;</VALUE></PROPERTY>\
         <PROPERTY NAME=\"SequenceContext\" TYPE=\"string\"><VALUE>here</VALUE></PROPERTY>\
         </INSTANCE></EXPPARAMVALUE></EXPMETHODCALL></SIMPLEEXPREQ></MESSAGE></CIM>\n"
    );
}

#[tokio::test]
async fn a_connection_that_the_listener_closed_is_made_again() {
    let (socket, mut listener) = listener().await;
    let serve = tokio::spawn(async move {
        for id in ["1", "2"] {
            let (mut stream, _) = socket.accept().await.unwrap();
            request(&mut stream).await.unwrap();
            answer(&mut stream, "200 OK", &taken(id)).await;
            // Said nothing of it, as a listener that is started again.
        }
    });
    listener.export(&indication()).await.unwrap();
    listener.export(&indication()).await.unwrap();
    serve.await.unwrap();
}

#[tokio::test]
async fn answers_say_whether_to_send_again() {
    let error = |code: &str| said("1", &format!("<ERROR CODE=\"{code}\" DESCRIPTION=\"no\"/>"));
    for (status, body, again) in [
        ("200 OK", error("1"), true),
        ("200 OK", error("4"), false),
        ("200 OK", taken("99"), true),
        ("200 OK", "<html/>".to_owned(), true),
        ("200 OK", "x".repeat(100_000), true),
        ("400 Bad Request", String::new(), false),
        ("503 Service Unavailable", String::new(), true),
    ] {
        let (socket, mut listener) = listener().await;
        let shown = format!("{status} {body:.40}");
        let serve = tokio::spawn(async move {
            let (mut stream, _) = socket.accept().await.unwrap();
            request(&mut stream).await.unwrap();
            answer(&mut stream, status, &body).await;
            stream
        });
        let error = listener.export(&indication()).await.unwrap_err();
        assert_eq!(
            matches!(error, SendError::Unreachable(_)),
            again,
            "{shown}: {error}"
        );
        drop(serve);
    }
}

#[tokio::test]
async fn silence_and_absence_and_size_are_errors() {
    let (socket, mut silent) = listener().await;
    assert!(matches!(
        silent.export(&indication()).await,
        Err(SendError::Unreachable(_))
    ));
    drop(socket);
    assert!(matches!(
        silent.export(&indication()).await,
        Err(SendError::Unreachable(_))
    ));

    let (_socket, mut listener) = listener().await;
    let mut large = indication();
    large.set("Padding", "x".repeat(20_000));
    assert!(matches!(
        listener.export(&large).await,
        Err(SendError::Refused(_))
    ));
}
