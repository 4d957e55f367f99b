//! Subscriptions whose events are delivered by us (DSP0226 §10), to receivers on real
//! sockets. Beside each assertion is the rule, or else the section, that asks for it: of
//! DSP0226 1.0.0 unless it says otherwise.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::Running;
use common::eventing::{
    EVENTING, EVENTS, PULL, PUSH, PUSH_WITH_ACK, between, event, filter, manage, notify_to,
    subscribe_to,
};
use common::sink::{Answer, Sink};
use isochron_cim::{Instance, Principal, Role};
use isochron_net::{Authenticator, Denied, Peer};
use isochron_wsman::Config;
use isochron_wsman::soap::Charset;

/// Fails soon.
const RETRY: &str = "<w:ConnectionRetry Total=\"2\">PT0.01S</w:ConnectionRetry>";

/// Waits until something is so.
async fn until(what: &str, there: impl AsyncFn() -> bool) {
    for _ in 0..6000 {
        if there().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not after a minute");
}

/// Subscribes to changes; the subscription's name.
async fn subscribed(server: &Running, mode: &str, delivery: &str, more: &str) -> String {
    let query = filter("SELECT * FROM CIM_InstModification");
    let sent = subscribe_to(mode, "", delivery, &format!("{more}{query}"));
    let reply = server.ok(&sent).await;
    // 10.2.4, 10.2.9.5: a context is of a subscription whose events are pulled.
    let pulled = reply.contains("<n:EnumerationContext>");
    assert_eq!(pulled, mode == PULL, "{reply}");
    between(&reply, "<e:Identifier>", "<").to_owned()
}

async fn is_there(server: &Running, identifier: &str) -> bool {
    let (status, _) = server.send(&manage("GetStatus", identifier, "")).await;
    status == 200
}

fn happens(server: &Running, numbers: impl IntoIterator<Item = u32>) {
    for number in numbers {
        server.server.happens("CIM_InstModification", event(number));
    }
}

fn end_to(url: &str) -> String {
    format!(
        "<e:EndTo><a:Address>{url}/end</a:Address><a:ReferenceParameters>\
         <z:Mine xmlns:z=\"urn:z\">7</z:Mine></a:ReferenceParameters></e:EndTo>"
    )
}

#[tokio::test]
async fn events_are_pushed_as_they_come_one_in_each_message() {
    let server = Running::start(Config::default()).await;
    let sink = Sink::start(Answer::Accepted).await;
    let reference = format!(
        "<e:NotifyTo><a:Address>{}?a=b</a:Address><a:ReferenceProperties>\
         <e:Identifier>mine &amp; only</e:Identifier></a:ReferenceProperties>\
         <a:ReferenceParameters><z:Deep xmlns:z=\"urn:z\" z:k=\"&lt;\"><z:er/></z:Deep>\
         </a:ReferenceParameters></e:NotifyTo>",
        sink.url
    );
    let identifier = subscribed(&server, PUSH, &reference, "").await;
    happens(&server, 0..10);
    let received = sink.wait(10).await;
    let numbers: Vec<u32> = received.iter().flat_map(|one| one.numbers()).collect();
    // 10.2.9.2: one in each, in order.
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    let first = &received[0];
    // 10.2.8: the action of events that have no other.
    assert_eq!(first.action(), "Event");
    // WS-Addressing 2004/08, 2.3: the reference's headers go with every message.
    for part in [
        format!("<a:To>{}?a=b</a:To>", sink.url),
        format!("<q:Identifier xmlns:q=\"{EVENTING}\">mine &amp; only</q:Identifier>"),
        "<q:Deep xmlns:q=\"urn:z\" xmlns:q0=\"urn:z\" q0:k=\"&lt;\"><q:er xmlns:q=\"urn:z\">\
         </q:er></q:Deep>"
            .to_owned(),
    ] {
        assert!(first.envelope.contains(&part), "{part}: {}", first.envelope);
    }
    // 10.7: nothing is to be acknowledged.
    assert!(!first.envelope.contains("AckRequested"));
    // R5.4.4-2.
    let ids: std::collections::HashSet<_> = received.iter().map(|one| one.id()).collect();
    assert_eq!(ids.len(), 10);

    // 10.5, 10.3: it lasts longer.
    let renew = manage("Renew", &identifier, "<e:Expires>PT2H</e:Expires>");
    server.ok(&renew).await;
    let reply = server.ok(&manage("GetStatus", &identifier, "")).await;
    assert!(reply.contains("<e:Expires>P0DT1H59M"), "{reply}");
    // 10.4: and ends.
    server.ok(&manage("Unsubscribe", &identifier, "")).await;
    let after = subscribed(&server, PUSH, &notify_to(&sink.url), "").await;
    happens(&server, [10]);
    let received = sink.wait(11).await;
    assert_eq!(
        received.len(),
        11,
        "only the subscription that is left tells"
    );
    assert!(is_there(&server, &after).await);
    server.stop().await;
    sink.stop().await;
}

#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_before_the_next() {
    let server = Running::start(Config::default()).await;
    let sink = Sink::start(Answer::Ack).await;
    // 10.2.9.3, 10.7: none of these is an acknowledgement; 10.8: a receiver's trouble passes.
    let unwell = [
        Answer::Accepted,
        Answer::OtherAck,
        Answer::Http(503),
        Answer::Fault("Receiver", "QuotaLimit"),
    ];
    sink.answers(unwell);
    let patient = "<w:ConnectionRetry Total=\"9\">PT0.01S</w:ConnectionRetry>";
    let delivery = format!("{}{patient}", notify_to(&sink.url));
    subscribed(&server, PUSH_WITH_ACK, &delivery, "").await;
    happens(&server, 0..3);
    let received = sink.wait(7).await;
    let numbers: Vec<u32> = received.iter().flat_map(|one| one.numbers()).collect();
    assert_eq!(numbers, [0, 0, 0, 0, 0, 1, 2]);
    // The receiver can tell that it is the same.
    assert!(received[..5].iter().all(|one| one.id() == received[0].id()));
    let asked = received
        .iter()
        .all(|one| one.envelope.contains("<w:AckRequested/>"));
    assert!(asked);
    server.stop().await;
    sink.stop().await;
}

#[tokio::test]
async fn events_come_several_in_a_message() {
    let server = Running::start(Config::default()).await;
    let sink = Sink::start(Answer::Ack).await;
    // 10.2.9.4: as many as are asked for, and not before the time is over.
    let most = "<w:MaxElements>3</w:MaxElements><w:MaxTime>PT1H</w:MaxTime>";
    let delivery = format!("{}{most}", notify_to(&sink.url));
    subscribed(&server, EVENTS, &delivery, "").await;
    happens(&server, 0..3);
    let received = sink.wait(1).await;
    assert_eq!(received[0].numbers(), [0, 1, 2]);
    assert_eq!(received[0].action(), "Events");
    let action = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Event";
    let begins = format!("<s:Body><w:Events><w:Event Action=\"{action}\"><p:CIM_InstModification ");
    assert!(received[0].envelope.contains(&begins));
    assert!(received[0].envelope.contains("<w:AckRequested/>"));
    happens(&server, 3..5);
    server.stop().await;
    assert_eq!(sink.received().len(), 1);

    let server = Running::start(Config::default()).await;
    let soon = "<w:MaxElements>3</w:MaxElements><w:MaxTime>PT0.05S</w:MaxTime>";
    let delivery = format!("{}{soon}", notify_to(&sink.url));
    subscribed(&server, EVENTS, &delivery, "").await;
    happens(&server, [7]);
    assert_eq!(sink.wait(2).await[1].numbers(), [7]);
    server.stop().await;
    sink.stop().await;
}

#[tokio::test]
async fn heartbeats_come_where_no_event_does() {
    let server = Running::start(Config::default()).await;
    let sink = Sink::start(Answer::Ack).await;
    let delivery = format!("{}<w:Heartbeats>PT1S</w:Heartbeats>", notify_to(&sink.url));
    for mode in [PUSH, EVENTS] {
        // R10.2.5-2.
        let before = sink.received().len();
        let identifier = subscribed(&server, mode, &delivery, "").await;
        let received = sink.wait(before + 1).await;
        assert_eq!(received[before].action(), "Heartbeat");
        assert!(received[before].envelope.contains("<s:Body></s:Body>"));
        server.ok(&manage("Unsubscribe", &identifier, "")).await;
    }
    server.stop().await;
    sink.stop().await;
}

#[tokio::test]
async fn a_subscription_ends_where_delivery_fails_and_that_is_told() {
    let server = Running::start(Config::default()).await;
    let ends = Sink::start(Answer::Accepted).await;
    let nobody = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", socket.local_addr().unwrap())
    };
    let sink = Sink::start(Answer::Ack).await;
    // 10.2.3: nobody is there; 10.8: the receiver refuses, each in its way. By MS-WSMV
    // 3.1.4.1.30.2 a server of Windows does not tell of DeliveryRefused.
    let mut told = 0;
    for answer in [
        None,
        Some(Answer::Http(404)),
        Some(Answer::Fault("Receiver", "DeliveryRefused")),
        Some(Answer::Fault("Sender", "AccessDenied")),
    ] {
        let url = match answer {
            None => &nobody,
            Some(answer) => {
                sink.answers([answer]);
                &sink.url
            }
        };
        let delivery = format!("{}{RETRY}", notify_to(url));
        let end_to = end_to(&ends.url);
        let identifier = subscribed(&server, PUSH_WITH_ACK, &delivery, &end_to).await;
        happens(&server, [0]);
        told += 1;
        let end = ends.wait(told).await.pop().unwrap();
        // 10.6.
        assert_eq!(end.action(), "SubscriptionEnd");
        for part in [
            format!("<a:To>{}/end</a:To>", ends.url),
            "<q:Mine xmlns:q=\"urn:z\">7</q:Mine>".to_owned(),
            format!("<e:Identifier>{identifier}</e:Identifier>"),
            format!("<e:Status>{EVENTING}/DeliveryFailure</e:Status>"),
            "<e:Reason xml:lang=\"en-US\">".to_owned(),
        ] {
            assert!(end.envelope.contains(&part), "{part}: {}", end.envelope);
        }
        assert!(!is_there(&server, &identifier).await);
    }
    // Each was sent once.
    assert_eq!(sink.received().len(), 3);
    server.stop().await;
    sink.stop().await;
    ends.stop().await;
}

/// Lets Ada in as long as she is there.
#[derive(Default)]
struct Ada {
    gone: AtomicBool,
}

#[async_trait::async_trait]
impl Authenticator for Ada {
    async fn authenticate(&self, _: Option<&str>, _: &Peer) -> Result<Principal, Denied> {
        let ada = Principal::user("ada", Role::Administrator);
        self.role_now(&ada).map(|_| ada).ok_or(Denied::Unknown)
    }

    fn role_now(&self, _: &Principal) -> Option<Role> {
        (!self.gone.load(Ordering::SeqCst)).then_some(Role::Administrator)
    }
}

#[tokio::test]
async fn nothing_is_sent_in_the_name_of_somebody_who_is_gone() {
    let ada = Arc::new(Ada::default());
    let server = Running::start(Config {
        authenticator: ada.clone(),
        ..Config::default()
    })
    .await;
    let sink = Sink::start(Answer::Accepted).await;
    subscribed(&server, PUSH, &notify_to(&sink.url), &end_to(&sink.url)).await;
    happens(&server, [0]);
    sink.wait(1).await;
    ada.gone.store(true, Ordering::SeqCst);
    // 10.6.
    happens(&server, [1]);
    let received = sink.wait(2).await;
    assert_eq!(received[0].numbers(), [0]);
    let status = format!("<e:Status>{EVENTING}/SourceCancelling</e:Status>");
    assert!(received[1].envelope.contains(&status));
    server.stop().await;
    assert_eq!(sink.received().len(), 2);
    sink.stop().await;
}

#[tokio::test]
async fn the_end_of_the_server_is_told() {
    let server = Running::start(Config::default()).await;
    let sink = Sink::start(Answer::Accepted).await;
    let query = filter("SELECT * FROM CIM_InstModification");
    for mode in [PUSH, PULL] {
        subscribed(&server, mode, &notify_to(&sink.url), &end_to(&sink.url)).await;
    }
    // 10.6. One that is ended by its client, or that asked for nothing, is told of nothing.
    let ended = subscribed(&server, PUSH, &notify_to(&sink.url), &end_to(&sink.url)).await;
    server.ok(&manage("Unsubscribe", &ended, "")).await;
    server
        .ok(&subscribe_to(PUSH, "", &notify_to(&sink.url), &query))
        .await;
    server.stop().await;
    let received = sink.received();
    assert_eq!(received.len(), 2);
    for end in received {
        let status = format!("<e:Status>{EVENTING}/SourceShuttingDown</e:Status>");
        assert!(end.envelope.contains(&status), "{}", end.envelope);
        assert!(!end.envelope.contains(&ended));
    }
    sink.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_holds_up_nobody_else() {
    let server = Running::start(Config::default()).await;
    let (slow, quick) = (
        Sink::start(Answer::Never).await,
        Sink::start(Answer::Ack).await,
    );
    subscribed(&server, PUSH, &notify_to(&slow.url), "").await;
    subscribed(&server, PUSH_WITH_ACK, &notify_to(&quick.url), "").await;
    happens(&server, 0..10);
    quick.wait(10).await;
    // 10.2.9: it has the first, and gets no other before it has answered.
    assert_eq!(slow.wait(1).await.len(), 1);
    server.stop().await;
    slow.stop().await;
    quick.stop().await;
}

#[tokio::test]
async fn an_event_that_does_not_fit_is_dealt_with_as_it_was_asked() {
    let server = Running::start(Config::default()).await;
    let large = |number: u32| {
        let mut large = event(number);
        large.set("Much", "x".repeat(20_000));
        large
    };
    let happens = |event: Instance| server.server.happens("CIM_InstModification", event);
    // 10.2.9.4, the policies; 10.9, events that were dropped.
    for (policy, actions) in [
        ("Skip", &["Event", "Event"][..]),
        ("Notify", &["Event", "DroppedEvents", "Event"]),
    ] {
        let sink = Sink::start(Answer::Ack).await;
        let delivery = format!(
            "{}<w:MaxEnvelopeSize Policy=\"{policy}\">9000</w:MaxEnvelopeSize>",
            notify_to(&sink.url)
        );
        let identifier = subscribed(&server, PUSH_WITH_ACK, &delivery, "").await;
        for event in [event(0), large(1), event(2)] {
            happens(event);
        }
        let received = sink.wait(actions.len()).await;
        let seen: Vec<_> = received.iter().map(|one| one.action()).collect();
        assert_eq!(seen, actions, "{policy}");
        let numbers: Vec<u32> = received.iter().flat_map(|one| one.numbers()).collect();
        assert_eq!(numbers, [0, 2]);
        let dropped = "<s:Body><w:DroppedEvents>1</w:DroppedEvents></s:Body>";
        assert_eq!(received[1].envelope.contains(dropped), policy == "Notify");
        server.ok(&manage("Unsubscribe", &identifier, "")).await;
        sink.stop().await;
    }
    let sink = Sink::start(Answer::Ack).await;
    let delivery = format!(
        "{}<w:MaxEnvelopeSize>9000</w:MaxEnvelopeSize>",
        notify_to(&sink.url)
    );
    let identifier = subscribed(&server, PUSH, &delivery, &end_to(&sink.url)).await;
    happens(large(0));
    let end = sink.wait(1).await.pop().unwrap();
    let status = format!("<e:Status>{EVENTING}/SourceCancelling</e:Status>");
    assert!(end.envelope.contains(&status), "{}", end.envelope);
    until("it is gone", async || !is_there(&server, &identifier).await).await;
    server.stop().await;
    sink.stop().await;
}

#[tokio::test]
async fn a_receivers_password_and_charset_are_as_the_subscriber_says() {
    let server = Running::start(Config::default()).await;
    let sink = Sink::start(Answer::Accepted).await;
    let other = Sink::start(Answer::Accepted).await;
    let secext =
        "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
    let header = format!(
        "<t:IssuedTokens xmlns:t=\"http://schemas.xmlsoap.org/ws/2005/02/trust\" \
         s:mustUnderstand=\"true\"><t:RequestSecurityTokenResponse>\
         <t:RequestedSecurityToken><o:UsernameToken xmlns:o=\"{secext}\"><o:Username>ada\
         </o:Username><o:Password>open sesame</o:Password></o:UsernameToken>\
         </t:RequestedSecurityToken></t:RequestSecurityTokenResponse></t:IssuedTokens>"
    );
    let delivery = format!(
        "{}<w:Auth Profile=\"http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/http/basic\"/>\
         <w:ContentEncoding>UTF-16</w:ContentEncoding>",
        notify_to(&sink.url)
    );
    let query = filter("SELECT * FROM CIM_InstModification");
    for end in [&sink, &other] {
        let more = format!("{}{query}", end_to(&end.url));
        server
            .ok(&subscribe_to(PUSH, &header, &delivery, &more))
            .await;
    }
    happens(&server, [5]);
    sink.wait(2).await;
    server.stop().await;
    // Two events and an end; R10.2.1-7: in the charset that was asked for.
    let received = sink.received();
    assert_eq!(received.len(), 3);
    for one in received {
        assert_eq!(one.headers["authorization"], "Basic YWRhOm9wZW4gc2VzYW1l");
        assert_eq!(one.charset, Charset::Utf16);
    }
    // 10.2.1: the password is for the receiver that it was given for.
    let received = other.received();
    assert_eq!(received.len(), 1);
    assert!(!received[0].headers.contains_key("authorization"));
    sink.stop().await;
    other.stop().await;
}
