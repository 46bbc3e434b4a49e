use executor_protocol::{Document, DocumentError, MAX_DOCUMENT_BYTES, Outcome, Record, Report};

/// A result document whose line, digest, size and out-of-band copy agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The document.
    pub document: Document,
    /// What it says.
    pub outcome: Outcome,
    /// Measurements, limits and isolation, when they came along.
    pub record: Option<Record>,
}

/// Why a result was refused. It is never repaired.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// The result stream is not exactly one line.
    #[error("the result stream is not one line")]
    NotOneLine,
    /// The line is not a result document.
    #[error("the result line is not a result document: {0}")]
    Document(#[from] DocumentError),
    /// The report is not one.
    #[error("the report cannot be read: {0}")]
    Report(#[from] serde_json::Error),
    /// The named part of the report is another than the line's.
    #[error("the report's {0} is not that of the result line")]
    Differs(&'static str),
    /// A stream is larger than a result can be.
    #[error("a stream is larger than a result can be")]
    TooLarge,
}

impl Verified {
    /// The largest result stream: a document and the end of its line.
    pub const MAX_LINE_BYTES: usize = MAX_DOCUMENT_BYTES + 1;

    /// The largest report: a document as a JSON string, which at most doubles it, and a record.
    pub const MAX_REPORT_BYTES: usize = 2 * MAX_DOCUMENT_BYTES + (64 << 10);

    /// Takes the result stream and the report of an executor that ended well.
    pub fn read(line: &[u8], report: &[u8]) -> Result<Self, Mismatch> {
        if line.len() > Self::MAX_LINE_BYTES || report.len() > Self::MAX_REPORT_BYTES {
            return Err(Mismatch::TooLarge);
        }
        let bytes = line.strip_suffix(b"\n").ok_or(Mismatch::NotOneLine)?;
        if bytes.contains(&b'\n') {
            return Err(Mismatch::NotOneLine);
        }
        let (document, outcome) = Document::parse(bytes)?;
        let report: Report = serde_json::from_slice(report)?;
        if report.sha256 != hex::encode(document.digest()) {
            return Err(Mismatch::Differs("digest"));
        }
        if usize::try_from(report.size) != Ok(bytes.len()) {
            return Err(Mismatch::Differs("size"));
        }
        if report.document.is_some_and(|text| text.as_bytes() != document.bytes()) {
            return Err(Mismatch::Differs("document"));
        }
        Ok(Self { document, outcome, record: report.record })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use executor_protocol::Value;

    use super::*;

    fn report(document: &Document) -> Report {
        Report {
            sha256: hex::encode(document.digest()),
            size: document.bytes().len() as u64,
            document: Some(document.as_str().to_owned()),
            record: None,
        }
    }

    fn read(line: &str, report: &Report) -> Result<Verified, Mismatch> {
        Verified::read(line.as_bytes(), &serde_json::to_vec(report).unwrap())
    }

    #[test]
    fn a_result_is_taken_only_when_every_copy_agrees() {
        let outcome = Outcome::Ok(Value::parse("144").unwrap());
        let document = Document::of(&outcome);
        let other = Document::of(&Outcome::TimedOut);
        let line = format!("{}\n", document.as_str());
        let good = report(&document);
        assert_eq!(read(&line, &good).unwrap().outcome, outcome);
        let without = Report { document: None, ..good.clone() };
        assert_eq!(read(&line, &without).unwrap().document, document);

        for (line, report) in [
            (line.clone(), report(&other)),
            (line.clone(), Report { size: 1, ..good.clone() }),
            (line.clone(), Report { sha256: String::new(), ..good.clone() }),
            (line.clone(), Report { document: Some(other.as_str().to_owned()), ..good.clone() }),
            (document.as_str().to_owned(), good.clone()),
            (format!("{line}{line}"), good.clone()),
            (format!("\n{line}"), good.clone()),
            (format!(" {line}"), good.clone()),
            (String::new(), good.clone()),
            ("{}\n".to_owned(), good.clone()),
        ] {
            assert!(read(&line, &report).is_err(), "{line:?} {report:?}");
        }
        assert!(Verified::read(line.as_bytes(), b"").is_err());
    }
}
