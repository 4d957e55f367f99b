//! Subscriptions whose events are pulled (DSP0226 §10).

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use common::{ENUMERATION, Running, WMI, envelope};
use isochron_cim::Instance;
use isochron_wsman::Config;

const EVENTING: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing";
const PULL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Pull";
const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";

fn with_eventing(envelope: String) -> String {
    envelope
        .replacen(
            "<s:Header>",
            "<s:Header xmlns:e=\"http://schemas.xmlsoap.org/ws/2004/08/eventing\">",
            1,
        )
        .replacen(
            "<s:Body>",
            "<s:Body xmlns:e=\"http://schemas.xmlsoap.org/ws/2004/08/eventing\">",
            1,
        )
}

fn subscribe(mode: &str, more: &str) -> String {
    let body = format!("<e:Subscribe><e:Delivery Mode=\"{mode}\"/>{more}</e:Subscribe>");
    let action = format!("{EVENTING}/Subscribe");
    with_eventing(envelope(&action, &format!("{WMI}/*"), "", &body))
}

fn filter(query: &str) -> String {
    format!("<w:Filter Dialect=\"{WQL}\">{query}</w:Filter>")
}

fn manage(verb: &str, identifier: &str, body: &str) -> String {
    let headers = format!("<e:Identifier>{identifier}</e:Identifier>");
    let body = format!("<e:{verb}>{body}</e:{verb}>");
    let action = format!("{EVENTING}/{verb}");
    with_eventing(envelope(&action, &format!("{WMI}/*"), &headers, &body))
}

fn pull(context: &str, headers: &str, more: &str) -> String {
    let body =
        format!("<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>{more}</n:Pull>");
    envelope(
        &format!("{ENUMERATION}/Pull"),
        &format!("{WMI}/*"),
        headers,
        &body,
    )
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let at = text
        .find(from)
        .unwrap_or_else(|| panic!("no {from} in {text}"))
        + from.len();
    &text[at..at + text[at..].find(to).unwrap()]
}

/// Something that happens, with a number.
fn event(number: u32) -> Instance {
    let mut thing = Instance::new("T_Thing");
    thing.set("Name", "one");
    let mut event = Instance::new("CIM_InstModification");
    event.set("Number", number).set("SourceInstance", thing);
    event
}

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

    // A Pull waits for the first event, and takes along what else is there.
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
    // None comes: the client's time, and the Pull's own.
    for (headers, more) in [
        ("<w:OperationTimeout>PT0.2S</w:OperationTimeout>", ""),
        ("", "<n:MaxTime>PT0.2S</n:MaxTime>"),
    ] {
        let (status, reply) = server.send(&pull(&context, headers, more)).await;
        assert_eq!(status, 500);
        assert!(reply.contains("<s:Value>w:TimedOut</s:Value>"), "{reply}");
        assert!(reply.contains("Code=\"2150858793\""), "{reply}");
    }
    // It lasts longer, and ends; whoever still waits is told.
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

#[tokio::test]
async fn what_cannot_be_subscribed_to_has_its_fault() {
    let server = Running::start(Config::default()).await;
    let push = "http://schemas.xmlsoap.org/ws/2004/08/eventing/DeliveryModes/Push";
    let query = filter("SELECT * FROM CIM_InstModification");
    let end = format!("<e:EndTo><a:Address>x:y</a:Address></e:EndTo>{query}");
    let expires = format!("<e:Expires>2001-01-01T00:00:00Z</e:Expires>{query}");
    let xpath = "<e:Filter Dialect=\"http://www.w3.org/TR/1999/REC-xpath-19991116\">x</e:Filter>";
    for (what, sent, subcode, number) in [
        (
            "10.2.9",
            subscribe(push, &query),
            "e:DeliveryModeRequestedUnavailable",
            2150858782_u32,
        ),
        (
            "10.2",
            subscribe(PULL, &end),
            "w:UnsupportedFeature",
            2150858818,
        ),
        (
            "10.2",
            subscribe(PULL, &expires),
            "e:InvalidExpirationTime",
            2150858783,
        ),
        (
            "10.2.2",
            subscribe(PULL, xpath),
            "n:FilterDialectRequestedUnavailable",
            2150858777,
        ),
        (
            "10.2.2",
            subscribe(PULL, ""),
            "e:FilteringRequestedUnavailable",
            2150858786,
        ),
        (
            "10.2.2",
            subscribe(PULL, &filter("SELECT")),
            "n:CannotProcessFilter",
            2150858778,
        ),
        (
            "10.3",
            manage("Renew", "none", ""),
            "e:InvalidMessage",
            2150858789,
        ),
        (
            "10.4",
            manage("Unsubscribe", "none", "").replace("Identifier", "Other"),
            "e:InvalidMessage",
            2150858789,
        ),
    ] {
        let (status, reply) = server.send(&sent).await;
        assert_eq!(status, 500, "{what}: {reply}");
        assert!(
            reply.contains(&format!("<s:Value>{subcode}</s:Value>")),
            "{what}: {reply}"
        );
        assert!(
            reply.contains(&format!("Code=\"{number}\"")),
            "{what}: {reply}"
        );
    }
    server.stop().await;
}
