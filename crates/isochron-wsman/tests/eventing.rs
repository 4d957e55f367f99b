//! Subscriptions whose events are pulled (DSP0226 §10).

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::sync::Arc;

use common::eventing::{
    PULL, PUSH, between, event, filter, manage, notify_to, pull, subscribe, subscribe_to,
};
use common::{Running, WMI};
use isochron_cim::{Principal, Role};
use isochron_net::{Authenticator, Denied, Peer};
use isochron_wsman::Config;

#[tokio::test]
async fn events_are_pulled_as_they_come() {
    let server = Running::start(Config::default()).await;
    let query = "SELECT * FROM CIM_InstModification";
    let more = format!("<e:Expires>PT60S</e:Expires>{}", filter(query));
    let reply = server.ok(&subscribe(PULL, &more)).await;
    assert!(
        reply.contains("eventing/SubscribeResponse</a:Action>"),
        "{reply}"
    );
    assert!(
        reply.contains("<e:Expires>P0DT0H1M0.000000S</e:Expires>"),
        "{reply}"
    );
    let identifier = between(&reply, "<e:Identifier>", "<").to_owned();
    let context = between(&reply, "<n:EnumerationContext>", "<").to_owned();

    // 10.2.9.5: a Pull waits for the first event, and takes along what else is there.
    let asked = pull(&context, "", "<n:MaxElements>2</n:MaxElements>");
    let (reply, ()) = tokio::join!(server.ok(&asked), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        server.server.happens("CIM_InstDeletion", event(0));
        for number in 1..=3 {
            server.server.happens("CIM_InstModification", event(number));
        }
    });
    assert!(
        reply.contains("enumeration/PullResponse</a:Action>"),
        "{reply}"
    );
    assert!(
        !reply.contains("<p:Number>0<") && reply.contains("<p:Number>1<"),
        "{reply}"
    );
    let embedded = format!(
        "<p:SourceInstance xmlns:p0=\"{WMI}/T_Thing\" xsi:type=\"p0:T_Thing_Type\">\
         <p0:Name>one</p0:Name></p:SourceInstance>"
    );
    assert!(reply.contains(&embedded), "{reply}");
    assert!(!reply.contains("EndOfSequence"), "{reply}");
    let mut seen = reply.matches("<p:Number>").count();
    while seen < 3 {
        seen += server.ok(&asked).await.matches("<p:Number>").count();
    }
    // 6.1: none comes: the client's time, and the Pull's own.
    for (headers, more) in [
        ("<w:OperationTimeout>PT0.2S</w:OperationTimeout>", ""),
        ("", "<n:MaxTime>PT0.2S</n:MaxTime>"),
    ] {
        let (status, reply) = server.send(&pull(&context, headers, more)).await;
        assert_eq!(status, 500);
        assert!(reply.contains("<s:Value>w:TimedOut</s:Value>"), "{reply}");
        assert!(reply.contains("Code=\"2150858793\""), "{reply}");
    }
    // 10.5, 10.3, 10.4: it lasts longer, and ends; whoever still waits is told.
    let renew = manage("Renew", &identifier, "<e:Expires>PT2H</e:Expires>");
    let reply = server.ok(&renew).await;
    assert!(
        reply.contains("<e:Expires>P0DT2H0M0.000000S</e:Expires>"),
        "{reply}"
    );
    let reply = server.ok(&manage("GetStatus", &identifier, "")).await;
    assert!(reply.contains("<e:Expires>P0DT1H59M"), "{reply}");
    let waits = pull(&context, "", "");
    let ends = manage("Unsubscribe", &identifier, "");
    let ((status, told), ended) = tokio::join!(server.send(&waits), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        server.ok(&ends).await
    });
    assert!(
        ended.contains("eventing/UnsubscribeResponse</a:Action>"),
        "{ended}"
    );
    assert_eq!(status, 500);
    assert!(told.contains("n:InvalidEnumerationContext"), "{told}");
    for gone in [renew, ends] {
        let (_, reply) = server.send(&gone).await;
        assert!(
            reply.contains("<s:Value>e:InvalidMessage</s:Value>"),
            "{reply}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_ends_with_its_time_or_its_release() {
    let server = Running::start(Config::default()).await;
    let short = format!(
        "<e:Expires>PT0.3S</e:Expires>{}",
        filter("SELECT * FROM CIM_InstModification")
    );
    let reply = server.ok(&subscribe(PULL, &short)).await;
    let context = between(&reply, "<n:EnumerationContext>", "<").to_owned();
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    // 10.2.9.5, as of an enumeration: 8.4, 8.5.
    let (_, reply) = server.send(&pull(&context, "", "")).await;
    assert!(reply.contains("n:InvalidEnumerationContext"), "{reply}");
    let reply = server
        .ok(&subscribe(PULL, &filter("SELECT * FROM X")))
        .await;
    let context = between(&reply, "<n:EnumerationContext>", "<").to_owned();
    let release = pull(&context, "", "").replace("Pull", "Release");
    server.ok(&release).await;
    let (_, reply) = server.send(&release).await;
    assert!(reply.contains("n:InvalidEnumerationContext"), "{reply}");
    server.stop().await;
}

/// Everybody is a reader.
struct Readers;

#[async_trait::async_trait]
impl Authenticator for Readers {
    async fn authenticate(&self, _: Option<&str>, _: &Peer) -> Result<Principal, Denied> {
        Ok(Principal::user("ada", Role::Reader))
    }

    fn role_now(&self, _: &Principal) -> Option<Role> {
        Some(Role::Reader)
    }
}

#[tokio::test]
async fn a_reader_pulls_events_and_does_not_say_where_we_send_to() {
    let server = Running::start(Config {
        authenticator: Arc::new(Readers),
        ..Config::default()
    })
    .await;
    let query = filter("SELECT * FROM X");
    server.ok(&subscribe(PULL, &query)).await;
    let notified = subscribe_to(PUSH, "", &notify_to("http://127.0.0.1:1"), &query);
    let end_to = "<e:EndTo><a:Address>http://127.0.0.1:1</a:Address></e:EndTo>";
    let ended = subscribe(PULL, &format!("{end_to}{query}"));
    for sent in [notified, ended] {
        let (_, reply) = server.send(&sent).await;
        assert!(
            reply.contains("<s:Value>w:AccessDenied</s:Value>"),
            "{reply}"
        );
    }
    server.stop().await;
}

/// Where it is said, in DSP0226 1.0.0 unless it says otherwise; what is sent; the subcode,
/// the detail's last step, the number.
type Case = (
    &'static str,
    String,
    &'static str,
    Option<&'static str>,
    u32,
);

#[tokio::test]
async fn what_cannot_be_subscribed_to_has_its_fault() {
    let server = Running::start(Config::default()).await;
    let query = filter("SELECT * FROM CIM_InstModification");
    let expires = format!("<e:Expires>2001-01-01T00:00:00Z</e:Expires>{query}");
    let xpath = "<e:Filter Dialect=\"http://www.w3.org/TR/1999/REC-xpath-19991116\">x</e:Filter>";
    let here = notify_to("http://127.0.0.1:1/sink");
    let to = |delivery: &str, more: &str| {
        subscribe_to(
            PUSH,
            "",
            &format!("{here}{delivery}"),
            &format!("{more}{query}"),
        )
    };
    let unsupported = |rule, sent, detail| -> Case {
        (rule, sent, "w:UnsupportedFeature", Some(detail), 2150858818)
    };
    let elsewhere = |url: &str| subscribe_to(PUSH, "", &notify_to(url), &query);
    let end_to = |url: &str| {
        to(
            "",
            &format!("<e:EndTo><a:Address>{url}</a:Address></e:EndTo>"),
        )
    };
    let profile = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile";
    let anonymous = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";
    let cases: Vec<Case> = vec![
        (
            "10.2.7",
            subscribe("urn:other", &query),
            "e:DeliveryModeRequestedUnavailable",
            None,
            2150858782,
        ),
        (
            "10.2",
            subscribe(PULL, &expires),
            "e:InvalidExpirationTime",
            None,
            2150858783,
        ),
        (
            "14.6, MS-WSMV 3.1.4.1.30.5",
            subscribe(PULL, xpath),
            "e:FilteringRequestedUnavailable",
            None,
            2150858786,
        ),
        (
            "10.2.2",
            subscribe(PULL, ""),
            "e:FilteringRequestedUnavailable",
            Some("FilteringRequired"),
            2150858786,
        ),
        (
            "1.2 R10.2.2-52",
            subscribe(PULL, &format!("{query}{}", query.replace("w:", "e:"))),
            "e:InvalidMessage",
            None,
            2150858789,
        ),
        (
            "10.2.2",
            subscribe(PULL, &filter("SELECT")),
            "n:CannotProcessFilter",
            None,
            2150858778,
        ),
        (
            "10.5",
            manage("Renew", "none", ""),
            "e:InvalidMessage",
            None,
            2150858789,
        ),
        (
            "10.3",
            manage("GetStatus", "none", ""),
            "e:InvalidMessage",
            None,
            2150858789,
        ),
        (
            "10.4",
            manage("Unsubscribe", "none", "").replace("Identifier", "Other"),
            "e:InvalidMessage",
            None,
            2150858789,
        ),
        // Delivery by us.
        unsupported("10.2.1", subscribe(PUSH, &query), "AddressingMode"),
        unsupported("10.2.1", elsewhere(""), "AddressingMode"),
        unsupported("10.2.1", elsewhere(anonymous), "AddressingMode"),
        unsupported("10.2.1", elsewhere("http://192.0.2.1/x"), "AddressingMode"),
        unsupported("10.2.1", elsewhere("http://sink.example"), "AddressingMode"),
        unsupported("10.2.1", elsewhere("ftp://127.0.0.1"), "AddressingMode"),
        unsupported("10.6", end_to("http://192.0.2.1/x"), "AddressingMode"),
        unsupported(
            "10.2.1",
            to(&format!("<w:Auth Profile=\"{profile}/http/digest\"/>"), ""),
            "AuthorizationMode",
        ),
        unsupported(
            "10.2.1",
            to(&format!("<w:Auth Profile=\"{profile}/http/basic\"/>"), ""),
            "FormatSecurityToken",
        ),
        unsupported(
            "R10.2.1-7",
            to("<w:ContentEncoding>EBCDIC</w:ContentEncoding>", ""),
            "CharacterSet",
        ),
        (
            "10.2.3",
            to(
                "<w:ConnectionRetry Total=\"x\">PT1S</w:ConnectionRetry>",
                "",
            ),
            "w:SchemaValidationError",
            None,
            2150858817,
        ),
        unsupported(
            "10.2.5",
            to("<w:Heartbeats>PT0.5S</w:Heartbeats>", ""),
            "Heartbeats",
        ),
        unsupported("10.2.6", to("", "<w:SendBookmarks/>"), "Bookmarks"),
        unsupported("10.2.6", to("", "<w:Bookmark>x</w:Bookmark>"), "Bookmarks"),
        unsupported(
            "10.2.9.4",
            to("<w:MaxElements>2</w:MaxElements>", ""),
            "FormatMismatch",
        ),
        unsupported(
            "10.2.9.4",
            to("<w:MaxTime>PT1S</w:MaxTime>", ""),
            "FormatMismatch",
        ),
        unsupported(
            "10.2.9.4",
            to(
                "<w:MaxEnvelopeSize Policy=\"x\">9000</w:MaxEnvelopeSize>",
                "",
            ),
            "MaxEnvelopePolicy",
        ),
        unsupported(
            "10.2.9.4",
            to("<w:MaxEnvelopeSize>100</w:MaxEnvelopeSize>", ""),
            "MaxEnvelopeSize",
        ),
    ];
    for (rule, sent, subcode, detail, number) in cases {
        let (status, reply) = server.send(&sent).await;
        assert_eq!(status, 500, "{rule}: {reply}");
        assert!(
            reply.contains(&format!("<s:Value>{subcode}</s:Value>")),
            "{rule}: {reply}"
        );
        assert!(
            reply.contains(&format!("Code=\"{number}\"")),
            "{rule}: {reply}"
        );
        let told = reply.contains("<w:FaultDetail>");
        assert_eq!(told, detail.is_some(), "{rule}: {reply}");
        let detail = format!(
            "/faultDetail/{}</w:FaultDetail>",
            detail.unwrap_or_default()
        );
        assert!(!told || reply.contains(&detail), "{rule} {detail}: {reply}");
    }
    server.stop().await;
}
