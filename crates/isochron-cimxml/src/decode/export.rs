//! What a listener answers to an indication (DSP0201 §5.2.6, SIMPLEEXPRSP).

use super::xml::{Limits, Pull};
use super::{DecodeError, Decoded};

/// Why a listener did not take an indication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerError {
    /// The CIM status code, as the listener wrote it.
    pub code: String,
    /// The listener's sentence.
    pub description: String,
}

/// Reads the answer to the message of this ID: `None` if the indication was taken.
///
/// # Errors
/// The document is no answer to that message, or exceeds the limits.
pub fn export_response(
    bytes: &[u8],
    id: &str,
    limits: Limits,
) -> Result<Option<ListenerError>, DecodeError> {
    let mut pull = Pull::document(bytes, limits)?;
    let answer = pull.export_answer(id)?;
    pull.drain()?;
    Ok(answer)
}

impl Pull<'_> {
    fn export_answer(&mut self, id: &str) -> Decoded<Option<ListenerError>> {
        let e = self.root()?;
        if e.name != "CIM" {
            return Err(e.unexpected("an answer, whose root is CIM"));
        }
        let e = self.expect("CIM", "MESSAGE")?;
        let answered = e.required("ID")?;
        if answered != id {
            return Err(DecodeError::NotLooselyValid(format!(
                "it answers the message {answered:?}, not {id:?}"
            )));
        }
        self.expect("MESSAGE", "SIMPLEEXPRSP")?;
        self.expect("SIMPLEEXPRSP", "EXPMETHODRESPONSE")?;
        while let Some(e) = self.child()? {
            if e.name == "ERROR" {
                return Ok(Some(ListenerError {
                    code: e.required("CODE")?.to_owned(),
                    description: e.attribute("DESCRIPTION").unwrap_or_default().to_owned(),
                }));
            }
            self.skip()?;
        }
        Ok(None)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(content: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.4\">\
             <MESSAGE ID=\"7\" PROTOCOLVERSION=\"1.4\">{content}</MESSAGE></CIM>"
        )
    }

    fn read(text: &str) -> Result<Option<ListenerError>, DecodeError> {
        export_response(text.as_bytes(), "7", Limits::default())
    }

    #[test]
    fn answers_are_told_apart() {
        let taken = [
            "<EXPMETHODRESPONSE NAME=\"ExportIndication\"/>",
            "<EXPMETHODRESPONSE NAME=\"ExportIndication\"><IRETURNVALUE></IRETURNVALUE></EXPMETHODRESPONSE>",
        ];
        for content in taken {
            let text = answer(&format!("<SIMPLEEXPRSP>{content}</SIMPLEEXPRSP>"));
            assert_eq!(read(&text).unwrap(), None, "{text}");
        }
        let refused = answer(
            "<SIMPLEEXPRSP><EXPMETHODRESPONSE NAME=\"ExportIndication\">\
             <ERROR CODE=\"1\" DESCRIPTION=\"full &amp; busy\"/></EXPMETHODRESPONSE></SIMPLEEXPRSP>",
        );
        let error = read(&refused).unwrap().unwrap();
        assert_eq!(
            (error.code.as_str(), error.description.as_str()),
            ("1", "full & busy")
        );
        let taken = "<SIMPLEEXPRSP><EXPMETHODRESPONSE NAME=\"ExportIndication\"/></SIMPLEEXPRSP>";
        let other = answer(taken).replace("ID=\"7\"", "ID=\"8\"");
        for wrong in [
            "",
            "OK",
            "<html></html>",
            &answer(""),
            &answer("<SIMPLERSP/>"),
            &answer("<SIMPLEEXPRSP/>"),
            &other,
            &answer("<SIMPLEEXPRSP><EXPMETHODRESPONSE><ERROR/></EXPMETHODRESPONSE></SIMPLEEXPRSP>"),
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
