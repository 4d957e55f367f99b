//! Every operation, with what exactly is answered, and beside it the rule or else the section
//! that asks for it: of DSP0226 1.0.0, DSP0227 1.0.0 and DSP0230 1.0.1.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use common::{DMTF, ENUMERATION, NAMESPACE, Running, TRANSFER, WMI, envelope, selectors};
use isochron_wsman::Config;

/// What a reply holds between two of its tags.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text
        .find(from)
        .unwrap_or_else(|| panic!("no {from} in {text}"))
        + from.len();
    let rest = &text[start..];
    &rest[..rest.find(to).unwrap_or_else(|| panic!("no {to} in {rest}"))]
}

fn body(reply: &str) -> &str {
    between(reply, "<s:Body>", "</s:Body>")
}

async fn get(server: &Running, resource: &str, pairs: &[(&str, &str)]) -> String {
    let action = format!("{TRANSFER}/Get");
    server
        .ok(&envelope(&action, resource, &selectors(pairs), ""))
        .await
}

async fn enumerate(server: &Running, resource: &str, body: &str) -> String {
    let action = format!("{ENUMERATION}/Enumerate");
    let body = format!("<n:Enumerate>{body}</n:Enumerate>");
    server.ok(&envelope(&action, resource, "", &body)).await
}

async fn pull(server: &Running, resource: &str, context: &str, more: &str) -> String {
    let action = format!("{ENUMERATION}/Pull");
    let context = format!("<n:EnumerationContext>{context}</n:EnumerationContext>");
    let body = format!("<n:Pull>{context}{more}</n:Pull>");
    server.ok(&envelope(&action, resource, "", &body)).await
}

fn context(reply: &str) -> String {
    between(reply, "<n:EnumerationContext>", "<").to_owned()
}

/// Get: 7.3, R6.3-4 (`xml:lang`), 5.4.4 (`RelatesTo`); values: DSP0230 8, 9.
#[tokio::test]
async fn an_instance_is_got_with_every_kind_of_value() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Thing");
    let reply = get(&server, &resource, &[("Name", "one")]).await;
    for part in [
        "<a:Action>http://schemas.xmlsoap.org/ws/2004/09/transfer/GetResponse</a:Action>",
        "<a:RelatesTo>uuid:5E6FD101-710A-4EEA-A50D-70C0BF863AA3</a:RelatesTo>",
        "xml:lang=\"en-US\"",
    ] {
        assert!(reply.contains(part), "{part}\n{reply}");
    }
    let awkward = "a&lt;b&gt;&amp;\"c\" 'd' \u{e9}\u{1f600} ]]&gt; \ttab\nline&#13;\nend  ";
    let expected = format!(
        "<p:T_Thing xmlns:p=\"{WMI}/T_Thing\" xsi:type=\"p:T_Thing_Type\">\
         <p:Name>one</p:Name><p:Caption>{awkward}</p:Caption>\
         <p:Size>18446744073709551615</p:Size><p:Delta>-9223372036854775808</p:Delta>\
         <p:Ratio>INF</p:Ratio><p:Letter>\u{20ac}</p:Letter><p:On>true</p:On>\
         <p:When><cim:Datetime>2026-01-02T03:04:05.123456+01:00</cim:Datetime></p:When>\
         <p:Length><cim:Interval>P1DT2H3M4.000005S</cim:Interval></p:Length>\
         <p:Tags>x</p:Tags><p:Tags>y</p:Tags>\
         <p:Settings xmlns:p0=\"{WMI}/T_Settings\" xsi:type=\"p0:T_Settings_Type\">\
         <p0:Level>3</p0:Level><p0:Text>{awkward}</p0:Text></p:Settings></p:T_Thing>"
    );
    assert_eq!(body(&reply), expected);
    // A null, a character that XML cannot carry, keys that need escaping.
    let resource = format!("{WMI}/T_BigThing");
    let reply = get(&server, &resource, &[("name", "two \"<&>")]).await;
    assert!(reply.contains("<p:On xsi:nil=\"true\"/>"), "{reply}");
    assert!(
        reply.contains("<p:Caption>bell\u{fffd}</p:Caption>"),
        "{reply}"
    );
    server.stop().await;
}

/// 5.1.2, DSP0227 6.1 and 6.3, MS-WSMV 3.1.4.1.1.
#[tokio::test]
async fn both_families_of_uris_and_references_name_the_same() {
    let server = Running::start(Config::default()).await;
    let dmtf = format!("{DMTF}/T_Thing");
    let named = [("__cimnamespace", NAMESPACE), ("Name", "one")];
    let reply = get(&server, &dmtf, &named).await;
    let start = format!("<p:T_Thing xmlns:p=\"{dmtf}\"");
    assert!(body(&reply).starts_with(&start), "{reply}");
    // Backslashes, and another case.
    let wmi = r"http://schemas.microsoft.com/wbem/wsman/1/wmi/ROOT\test/V2/T_Thing";
    let reply = get(&server, wmi, &[("Name", "one")]).await;
    assert!(body(&reply).contains(">one<"), "{reply}");
    // An instance whose keys are references, by endpoint references.
    let epr = |class: &str, name: &str| {
        format!(
            "<a:EndpointReference><a:Address>x</a:Address><a:ReferenceParameters>\
             <w:ResourceURI>{DMTF}/{class}</w:ResourceURI><w:SelectorSet>\
             <w:Selector Name=\"__cimnamespace\">{NAMESPACE}</w:Selector>\
             <w:Selector Name=\"Name\">{name}</w:Selector></w:SelectorSet>\
             </a:ReferenceParameters></a:EndpointReference>"
        )
    };
    let set = format!(
        "<w:SelectorSet><w:Selector Name=\"Antecedent\">{}</w:Selector>\
         <w:Selector Name=\"Dependent\">{}</w:Selector>\
         <w:Selector Name=\"__cimnamespace\">{NAMESPACE}</w:Selector></w:SelectorSet>",
        epr("T_Thing", "one"),
        epr("T_BigThing", "two \"&lt;&amp;&gt;")
    );
    let action = format!("{TRANSFER}/Get");
    let reply = server
        .ok(&envelope(&action, &format!("{DMTF}/T_Link"), &set, ""))
        .await;
    let expected = format!(
        "<p:Antecedent><a:Address>http://here:5985/wsman</a:Address><a:ReferenceParameters>\
         <w:ResourceURI>{DMTF}/T_Thing</w:ResourceURI><w:SelectorSet>\
         <w:Selector Name=\"__cimnamespace\">{NAMESPACE}</w:Selector>\
         <w:Selector Name=\"Name\">one</w:Selector></w:SelectorSet>\
         </a:ReferenceParameters></p:Antecedent>"
    );
    assert!(body(&reply).contains(&expected), "{reply}");
    server.stop().await;
}

/// 5.1.2.2; a method: DSP0227 11.
#[tokio::test]
async fn the_only_instance_of_a_class_need_not_be_selected() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Only");
    let reply = get(&server, &resource, &[]).await;
    assert!(reply.contains("<p:Number>5</p:Number>"), "{reply}");
    let action = format!("{resource}/Count");
    let reply = server.ok(&envelope(&action, &resource, "", "")).await;
    let expected = format!(
        "<p:Count_OUTPUT xmlns:p=\"{resource}\"><p:Counted>1</p:Counted>\
         <p:ReturnValue>0</p:ReturnValue></p:Count_OUTPUT>"
    );
    assert_eq!(body(&reply), expected);
    server.stop().await;
}

/// Create: R7.6-5; Put: 7.4; Delete: 7.5.
#[tokio::test]
async fn an_instance_is_created_changed_and_deleted() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Thing");
    let thing = |content: &str| {
        format!(
            "<t:T_Thing xmlns:t=\"{resource}\" xmlns:cim=\"http://schemas.dmtf.org/wbem/wscim/1/common\">{content}</t:T_Thing>"
        )
    };
    let content = "<t:Name>new</t:Name><t:Size>0x10</t:Size><t:On>1</t:On>\
        <t:When><cim:Datetime>2026-01-02T03:04:05Z</cim:Datetime></t:When>\
        <t:Length>PT5M</t:Length><t:Tags>a</t:Tags><t:Tags xsi:nil=\"true\"/>\
        <t:Caption xsi:nil=\"true\"/>\
        <t:Settings xmlns:q=\"x\" xsi:type=\"q:T_Settings_Type\"><q:Level>7</q:Level>\
        <q:Unknown>1</q:Unknown></t:Settings>";
    let create = envelope(
        &format!("{TRANSFER}/Create"),
        &resource,
        "",
        &thing(content),
    );
    let reply = server.ok(&create).await;
    let expected = format!(
        "<x:ResourceCreated><a:Address>http://here:5985/wsman</a:Address>\
         <a:ReferenceParameters><w:ResourceURI>{resource}</w:ResourceURI><w:SelectorSet>\
         <w:Selector Name=\"__cimnamespace\">{NAMESPACE}</w:Selector>\
         <w:Selector Name=\"Name\">new</w:Selector></w:SelectorSet></a:ReferenceParameters>\
         </x:ResourceCreated>"
    );
    assert_eq!(body(&reply), expected);
    let reply = get(&server, &resource, &[("Name", "new")]).await;
    for part in [
        "<p:Size>16</p:Size>",
        "<p:On>true</p:On>",
        "<cim:Datetime>2026-01-02T03:04:05Z<",
        "<cim:Interval>P0DT0H5M0.000000S<",
        "<p:Tags>a</p:Tags><p:Tags xsi:nil=\"true\"/>",
        "<p:Caption xsi:nil=\"true\"/>",
        "<p0:Level>7</p0:Level></p:Settings>",
    ] {
        assert!(reply.contains(part), "{part}\n{reply}");
    }
    // The key may be sent along as it is, and other properties stay.
    let changed = thing("<t:Name>new</t:Name><t:Size>17</t:Size>");
    let selected = selectors(&[("Name", "new")]);
    let put = envelope(&format!("{TRANSFER}/Put"), &resource, &selected, &changed);
    let reply = server.ok(&put).await;
    assert!(reply.contains("transfer/PutResponse"), "{reply}");
    assert!(reply.contains("<p:Size>17</p:Size><p:On>true"), "{reply}");
    let delete = envelope(&format!("{TRANSFER}/Delete"), &resource, &selected, "");
    let reply = server.ok(&delete).await;
    assert_eq!(body(&reply), "");
    let (status, reply) = server.send(&delete).await;
    assert_eq!(status, 500);
    assert!(reply.contains("a:DestinationUnreachable"), "{reply}");
    server.stop().await;
}

/// 9, DSP0227 11, DSP0230 10.3 (the action).
#[tokio::test]
async fn a_method_takes_and_gives_every_kind_of_parameter() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Thing");
    let work = |input: &str| {
        envelope(
            &format!("{resource}/Work"),
            &resource,
            &selectors(&[("Name", "one")]),
            &format!(
                "<p:Work_INPUT xmlns:p=\"{resource}\" \
                 xmlns:cim=\"http://schemas.dmtf.org/wbem/wscim/1/common\">{input}</p:Work_INPUT>"
            ),
        )
    };
    let epr = format!(
        "<a:Address>http://here</a:Address><a:ReferenceParameters>\
         <w:ResourceURI>{WMI}/T_Thing</w:ResourceURI><w:SelectorSet>\
         <w:Selector Name=\"Name\">one</w:Selector></w:SelectorSet></a:ReferenceParameters>"
    );
    let one = format!("{NAMESPACE}:T_Thing.Name=\"one\"");
    for (input, said) in [
        (String::new(), String::new()),
        // A reference: an endpoint reference, one within another element, a whole
        // instance, the text of a path.
        (format!("<p:Other>{epr}</p:Other>"), format!("Other={one}")),
        (
            format!("<p:Other><a:EndpointReference>{epr}</a:EndpointReference></p:Other>"),
            format!("Other={one}"),
        ),
        (
            "<p:Other xmlns:q=\"u\" xsi:type=\"q:T_Thing_Type\"><q:Name>one</q:Name>\
             <q:Size>1</q:Size></p:Other>"
                .into(),
            format!("Other={one}"),
        ),
        (
            "<p:Other>T_Thing.Name=\"one\"</p:Other>".into(),
            format!("Other={one}"),
        ),
        // An embedded instance: escaped text, CDATA, an element with a type, with and
        // without a prefix, an element in an element.
        (
            "<p:Settings>&lt;INSTANCE CLASSNAME=\"T_Settings\"/&gt;</p:Settings>".into(),
            "Settings=<INSTANCE CLASSNAME=\"T_Settings\"/>".into(),
        ),
        (
            "<p:Settings><![CDATA[<INSTANCE CLASSNAME=\"T_Settings\"/>]]></p:Settings>".into(),
            "Settings=<INSTANCE CLASSNAME=\"T_Settings\"/>".into(),
        ),
        (
            "<p:Settings xmlns:q=\"u\" xsi:type=\"q:T_Settings_Type\"><q:Level>7</q:Level>\
             </p:Settings>"
                .into(),
            "Settings=T_Settings{Level=7}".into(),
        ),
        (
            "<p:Settings xmlns:q=\"u\" xsi:type=\"T_Settings_Type\"><q:Level>8</q:Level>\
             </p:Settings>"
                .into(),
            "Settings=T_Settings{Level=8}".into(),
        ),
        (
            "<p:Settings><T_Settings xmlns=\"u\"><Level>9</Level></T_Settings></p:Settings>".into(),
            "Settings=T_Settings{Level=9}".into(),
        ),
        (
            "<p:Settings xsi:nil=\"true\"/><p:Numbers>1</p:Numbers><p:Numbers>2</p:Numbers>".into(),
            "Settings=null;Numbers=[1,2]".into(),
        ),
        ("<p:Settings/>".into(), "Settings=".into()),
        (
            "<p:At><cim:Datetime>2026-01-02T03:04:05Z</cim:Datetime></p:At>".into(),
            "At=20260102030405.000000+000".into(),
        ),
        ("<p:flag>1</p:flag>".into(), "Flag=true".into()),
    ] {
        let reply = server.ok(&work(&input)).await;
        let reply_said = between(&reply, "<p:Said>", "</p:Said>");
        let escaped = said.replace('<', "&lt;").replace('>', "&gt;");
        assert_eq!(reply_said, escaped, "{input}");
        let expected = format!(
            "<p:Job><a:Address>http://here:5985/wsman</a:Address><a:ReferenceParameters>\
             <w:ResourceURI>{resource}</w:ResourceURI><w:SelectorSet>\
             <w:Selector Name=\"__cimnamespace\">{NAMESPACE}</w:Selector>\
             <w:Selector Name=\"Name\">one</w:Selector></w:SelectorSet>\
             </a:ReferenceParameters></p:Job>"
        );
        assert!(reply.contains(&expected), "{reply}");
        assert!(reply.contains("<p:ReturnValue>4096</p:ReturnValue></p:Work_OUTPUT>"));
        let action = format!("<a:Action>{resource}/WorkResponse</a:Action>");
        assert!(reply.contains(&action), "{reply}");
    }
    // What is in and out comes back; and without a namespace on the elements.
    let input = "<p:At>00000000000500.000000:000</p:At><p:Flag>false</p:Flag>";
    let reply = server.ok(&work(input)).await;
    let expected =
        "<p:At><cim:Interval>P0DT0H5M0.000000S</cim:Interval></p:At><p:Flag>false</p:Flag>";
    assert!(reply.contains(expected), "{reply}");
    // A static method.
    let add = envelope(
        &format!("{resource}/Add"),
        &resource,
        "",
        "<Add_INPUT><A>2</A><B>3</B></Add_INPUT>",
    );
    let reply = server.ok(&add).await;
    assert!(
        reply.contains("<p:ReturnValue>5</p:ReturnValue>"),
        "{reply}"
    );
    server.stop().await;
}

#[tokio::test]
async fn enumerations_are_read_in_pages() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Many");
    // 8.4. Not optimized: no items come at first, and one by one where nothing is said.
    let reply = enumerate(&server, &resource, "").await;
    assert!(!reply.contains("<w:Items>"), "{reply}");
    let all = format!("{WMI}/*");
    let reply = pull(&server, &all, &context(&reply), "").await;
    assert_eq!(reply.matches("<p:T_Many ").count(), 1, "{reply}");
    let more = "<n:MaxElements>20</n:MaxElements>";
    let reply = pull(&server, &resource, &context(&reply), more).await;
    assert_eq!(reply.matches("<p:T_Many ").count(), 20, "{reply}");
    let reply = pull(&server, &resource, &context(&reply), more).await;
    assert_eq!(reply.matches("<p:T_Many ").count(), 4, "{reply}");
    // R8.4-8.
    assert!(reply.contains("<n:EndOfSequence/>"), "{reply}");
    assert!(!reply.contains("<n:EnumerationContext>"), "{reply}");
    // R8.2.3-5: optimized, all at once.
    let optimized = "<w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>";
    let reply = enumerate(&server, &resource, optimized).await;
    assert_eq!(reply.matches("<p:T_Many ").count(), 25, "{reply}");
    assert!(reply.contains("<n:EnumerationContext/>"), "{reply}");
    assert!(reply.contains("</w:Items><w:EndOfSequence/>"), "{reply}");
    server.stop().await;
}

/// R6.2-2.
#[tokio::test]
async fn a_page_fits_into_the_envelope_that_is_asked_for() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Many");
    let size = "<w:MaxEnvelopeSize s:mustUnderstand=\"true\">10000</w:MaxEnvelopeSize>";
    let asked = |action: &str, body: &str| {
        envelope(&format!("{ENUMERATION}/{action}"), &resource, size, body)
    };
    let first = "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>100</w:MaxElements>\
        </n:Enumerate>";
    let mut reply = server.ok(&asked("Enumerate", first)).await;
    let mut found = 0;
    loop {
        assert!(reply.len() <= 10_000, "{}", reply.len());
        let here = reply.matches("<p:T_Many ").count();
        assert!(here > 0, "{reply}");
        found += here;
        if reply.contains("EndOfSequence") {
            break;
        }
        let body = format!(
            "<n:Pull><n:EnumerationContext>{}</n:EnumerationContext>\
             <n:MaxElements>100</n:MaxElements></n:Pull>",
            context(&reply)
        );
        reply = server.ok(&asked("Pull", &body)).await;
    }
    assert_eq!(found, 25);
    server.stop().await;
}

/// Expires: 8.2.1; Release: 8.5.
#[tokio::test]
async fn a_released_enumeration_is_gone_and_others_contexts_are_nobodys() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Many");
    let reply = enumerate(&server, &resource, "<n:Expires>PT60S</n:Expires>").await;
    assert!(
        reply.contains("<n:Expires>P0DT0H1M0.000000S</n:Expires>"),
        "{reply}"
    );
    let open = context(&reply);
    let body =
        format!("<n:Release><n:EnumerationContext>{open}</n:EnumerationContext></n:Release>");
    let release = envelope(&format!("{ENUMERATION}/Release"), &resource, "", &body);
    let reply = server.ok(&release).await;
    assert_eq!(self::body(&reply), "");
    let (status, reply) = server.send(&release).await;
    assert_eq!(status, 500);
    assert!(reply.contains("n:InvalidEnumerationContext"), "{reply}");
    server.stop().await;
}

/// EnumerationMode: 8.7; PolymorphismMode: DSP0227 9.3.
#[tokio::test]
async fn items_are_objects_or_references_and_subclasses_are_seen_as_asked() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{DMTF}/T_Thing");
    let named = selectors(&[("__cimnamespace", NAMESPACE)]);
    let all = |more: &str| {
        let body = format!(
            "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>9</w:MaxElements>{more}\
             </n:Enumerate>"
        );
        envelope(
            &format!("{ENUMERATION}/Enumerate"),
            &resource,
            &named,
            &body,
        )
    };
    let reply = server.ok(&all("")).await;
    assert!(reply.contains("<p:T_BigThing ") && reply.contains("<p:Extra>1</p:Extra>"));
    let epr = "<w:EnumerationMode>EnumerateEPR</w:EnumerationMode>";
    let reply = server.ok(&all(epr)).await;
    assert_eq!(reply.matches("<a:EndpointReference>").count(), 2, "{reply}");
    assert!(!reply.contains("<p:T_"), "{reply}");
    let both = "<w:EnumerationMode>EnumerateObjectAndEPR</w:EnumerationMode>";
    let reply = server.ok(&all(both)).await;
    assert!(
        reply.contains("</p:T_BigThing><a:EndpointReference>"),
        "{reply}"
    );
    assert_eq!(reply.matches("<w:Item>").count(), 2, "{reply}");
    let none = "<b:PolymorphismMode>None</b:PolymorphismMode>";
    let reply = server.ok(&all(none)).await;
    assert!(!reply.contains("two"), "{reply}");
    let exclude = "<b:PolymorphismMode>ExcludeSubClassProperties</b:PolymorphismMode>";
    let reply = server.ok(&all(exclude)).await;
    assert!(
        reply.contains("two") && !reply.contains("BigThing"),
        "{reply}"
    );
    assert!(!reply.contains("Extra"), "{reply}");
    server.stop().await;
}

/// WQL: MS-WSMV 3.1.4.1.13; CQL: DSP0227 8.1; selectors: annex E; associations: DSP0227 8.2,
/// parts of what they lead to: DSP0227 R8.2.1-10.
#[tokio::test]
async fn filters_are_queries_selectors_and_associations() {
    let server = Running::start(Config::default()).await;
    let wql = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
    let cql = "http://schemas.dmtf.org/wbem/cql/1/dsp0202.pdf";
    let by_selectors = "http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter";
    let associations = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";
    let object = format!(
        "<b:Object><a:Address>x</a:Address><a:ReferenceParameters>\
         <w:ResourceURI>{WMI}/T_Thing</w:ResourceURI><w:SelectorSet>\
         <w:Selector Name=\"Name\">one</w:Selector></w:SelectorSet></a:ReferenceParameters>\
         </b:Object>"
    );
    let many = format!("{WMI}/T_Many");
    let thing = format!("{WMI}/T_Thing");
    let all = format!("{WMI}/*");
    for (resource, dialect, filter, expected) in [
        (
            &all,
            wql,
            "SELECT * FROM T_Thing WHERE Name LIKE 't%' AND Size = 7".to_owned(),
            "<p:T_BigThing ",
        ),
        (
            &all,
            wql,
            "select name from T_Thing where On = TRUE".into(),
            "<w:XmlFragment ",
        ),
        (
            &all,
            wql,
            "ASSOCIATORS OF {T_Thing.Name='one'}".into(),
            "<p:T_BigThing ",
        ),
        (
            &all,
            wql,
            "REFERENCES OF {T_Thing.Name='one'}".into(),
            "<p:T_Link ",
        ),
        (
            &all,
            cql,
            "SELECT * FROM T_Thing WHERE Size = 7".into(),
            "<p:T_BigThing ",
        ),
        (
            &thing,
            by_selectors,
            "<w:SelectorSet><w:Selector Name=\"Size\">7</w:Selector></w:SelectorSet>".into(),
            "<p:T_BigThing ",
        ),
        (
            &many,
            by_selectors,
            format!(
                "<w:SelectorSet><w:Selector Name=\"Name\">{:0>900}</w:Selector></w:SelectorSet>",
                7
            ),
            "<p:T_Many ",
        ),
        (
            &all,
            associations,
            format!("<b:AssociatedInstances>{object}</b:AssociatedInstances>"),
            "<p:T_BigThing ",
        ),
        (
            &all,
            associations,
            format!(
                "<b:AssociationInstances>{object}<b:ResultClassName>T_Link</b:ResultClassName>\
                 </b:AssociationInstances>"
            ),
            "<p:T_Link ",
        ),
        (
            &all,
            associations,
            format!(
                "<b:AssociatedInstances>{object}<b:IncludeResultProperty>Name\
                 </b:IncludeResultProperty></b:AssociatedInstances>"
            ),
            "<p:Name>two \"&lt;&amp;&gt;</p:Name></w:XmlFragment>",
        ),
    ] {
        let body = format!(
            "<w:OptimizeEnumeration/><w:MaxElements>9</w:MaxElements>\
             <w:Filter Dialect=\"{dialect}\">{filter}</w:Filter>"
        );
        let reply = enumerate(&server, resource, &body).await;
        let items = between(&reply, "<w:Items>", "</w:Items>");
        assert_eq!(items.matches(expected).count(), 1, "{filter}\n{reply}");
        assert_eq!(
            items.matches("xsi:type=\"p:").count(),
            1,
            "{filter}\n{reply}"
        );
    }
    server.stop().await;
}

/// MS-WSMV 3.1.4.1.38, DSP0227 1.1.0 15.3 and 15.4.
#[tokio::test]
async fn classes_are_declared_as_cim_xml_has_them() {
    let server = Running::start(Config::default()).await;
    let resource = "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2/*";
    let named = [("__cimnamespace", NAMESPACE), ("ClassName", "T_BigThing")];
    let reply = get(&server, resource, &named).await;
    let class = body(&reply);
    assert!(
        class.starts_with("<CLASS NAME=\"T_BigThing\" SUPERCLASS=\"T_Thing\">"),
        "{class}"
    );
    assert!(class.contains("<METHOD NAME=\"Work\""), "{class}");
    assert!(class.contains("<QUALIFIER NAME=\"Key\""), "{class}");
    // All that derive from one, in pages like instances.
    let set = selectors(&[("__cimnamespace", NAMESPACE), ("ClassName", "T_Base")]);
    let body =
        "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>9</w:MaxElements></n:Enumerate>";
    let enumerate = envelope(&format!("{ENUMERATION}/Enumerate"), resource, &set, body);
    let reply = server.ok(&enumerate).await;
    assert_eq!(reply.matches("<CLASS ").count(), 2, "{reply}");
    server.stop().await;
}

/// 11.
#[tokio::test]
async fn identify_is_answered_in_the_namespace_of_the_question() {
    let server = Running::start(Config::default()).await;
    for namespace in [
        "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd",
        "http://schemas.dmtf.org/wbem/wsman/identify/1/wsmanidentity.xsd",
    ] {
        let question = format!(
            "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
             xmlns:i=\"{namespace}\"><s:Header/><s:Body><i:Identify/></s:Body></s:Envelope>"
        );
        let headers = ["Content-Type: application/soap+xml"];
        for (path, version) in [
            ("/wsman", env!("CARGO_PKG_VERSION")),
            ("/wsman-anon/identify", ""),
        ] {
            let (status, _, reply) = server.post(path, &headers, question.as_bytes()).await;
            assert_eq!(status, 200, "{reply}");
            let expected = format!(
                "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
                 xmlns:wsmid=\"{namespace}\"><s:Header/><s:Body><wsmid:IdentifyResponse>\
                 <wsmid:ProtocolVersion>http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\
                 </wsmid:ProtocolVersion><wsmid:ProductVendor>Isochron</wsmid:ProductVendor>\
                 <wsmid:ProductVersion>{version}</wsmid:ProductVersion>"
            );
            assert!(reply.starts_with(&expected), "{reply}");
        }
    }
    // R5.3-2: nothing else is answered to who does not say who they are.
    let get = envelope(&format!("{TRANSFER}/Get"), &format!("{WMI}/T_Only"), "", "");
    let headers = ["Content-Type: application/soap+xml"];
    let (status, _, reply) = server
        .post("/wsman-anon/identify", &headers, get.as_bytes())
        .await;
    assert_eq!(status, 500);
    assert!(reply.contains("w:AccessDenied"), "{reply}");
    assert_eq!(
        server
            .server
            .reached
            .load(std::sync::atomic::Ordering::SeqCst),
        0
    );
    server.stop().await;
}

/// R13.1-5.
#[tokio::test]
async fn utf_16_is_read_and_answered_in() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Only");
    let get = envelope(&format!("{TRANSFER}/Get"), &resource, "", "");
    let units = std::iter::once(0xfeff).chain(get.encode_utf16());
    let bytes: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
    let head = format!(
        "POST /wsman HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/soap+xml;charset=UTF-16\r\n\r\n",
        bytes.len()
    );
    let response = server.exchange(&[head.as_bytes(), &bytes].concat()).await;
    let at = response.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&response[..at]).to_lowercase();
    assert!(head.contains("charset=utf-16"), "{head}");
    let (pairs, _) = response[at + 4..].as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|p| u16::from_le_bytes(*p)).collect();
    let reply = String::from_utf16(&units).unwrap();
    assert!(reply.contains("<p:Number>5</p:Number>"), "{reply}");
    server.stop().await;
}
