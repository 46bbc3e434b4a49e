//! Adding through the RPC of a Kubo node. What Kubo names the content must be what we name it.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use reqwest::multipart::{Form, Part};
use reqwest::{Body, Client, Url};
use serde::Deserialize;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use crate::budget::Timeouts;
use crate::cid::{Cid, CidVersion};
use crate::error::Error;
use crate::gateway::{below, checked_root, no_answer};
use crate::health::{Fault, Place, PlaceKind, PlaceState, Pulse};
use crate::import::Profile;

/// Answers of the RPC are some lines of JSON.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The longest look whether it is there.
const LONGEST_PROBE: Duration = Duration::from_secs(10);

/// An RPC root such as `http://127.0.0.1:18501`.
pub(crate) struct Kubo {
    root: Url,
    client: Client,
    timeouts: Timeouts,
    pulse: Pulse,
}

/// The answer to `version`.
#[derive(Deserialize)]
struct Version {
    #[serde(rename = "Version")]
    _version: String,
}

/// One line of the answer to `add` or `block/put`.
#[derive(Deserialize)]
struct Added {
    #[serde(rename = "Hash", alias = "Key")]
    cid: Option<String>,
}

impl Kubo {
    pub(crate) fn new(root: &Url, client: Client, timeouts: Timeouts) -> Result<Self, Error> {
        let mut root = checked_root(root)?;
        // Some write the address of the calls.
        if let Some(start) = root.path().trim_end_matches('/').strip_suffix("/api/v0") {
            let start = start.to_owned();
            root.set_path(&start);
        }
        Ok(Self { root, client, timeouts, pulse: Pulse::default() })
    }

    /// Its state.
    pub(crate) fn place(&self) -> Place {
        self.pulse.place(PlaceKind::Api, self.root.to_string())
    }

    /// Looks whether an RPC answers.
    pub(crate) async fn probe(&self) {
        let limit = self.timeouts.idle.min(LONGEST_PROBE);
        let looked = tokio::time::timeout(limit, self.call("version", &[], None));
        let answer = looked
            .await
            .unwrap_or_else(|_| Err(self.failed("version", format!("no answer within {limit:?}"))));
        let answer = answer.and_then(|answer| match serde_json::from_str::<Version>(&answer) {
            Ok(Version { .. }) => Ok(()),
            Err(_) => Err(self.failed("version", "the answer is not that of Kubo".to_owned())),
        });
        self.pulse.set(match answer {
            Ok(()) => PlaceState::Works,
            Err(error) => {
                let hint =
                    "write the address of Kubo's RPC, which has another port than its gateway";
                PlaceState::Failed(Fault::new(&error, Some(hint.to_owned())))
            }
        });
    }

    /// Uploads a file that has this CID.
    pub(crate) async fn add_file(
        &self,
        path: &Path,
        cid: &Cid,
        version: CidVersion,
    ) -> Result<(), Error> {
        let reading = || Error::io("reading", path);
        let file = File::open(path).await.map_err(reading())?;
        let size_bytes = file.metadata().await.map_err(reading())?.len();
        let body = Body::wrap_stream(ReaderStream::new(file));
        self.add(Part::stream_with_length(body, size_bytes), cid, version).await
    }

    /// Uploads content that has this CID.
    pub(crate) async fn add_bytes(
        &self,
        content: &[u8],
        cid: &Cid,
        version: CidVersion,
    ) -> Result<(), Error> {
        self.add(Part::bytes(content.to_vec()), cid, version).await
    }

    async fn add(&self, part: Part, cid: &Cid, version: CidVersion) -> Result<(), Error> {
        let profile = Profile::of_version(version);
        let chunker = format!("size-{}", profile.chunk_bytes);
        let max_links = profile.max_links.to_string();
        // All that decides the CID is said: a node's own defaults can differ.
        let query = [
            ("cid-version", if profile.version == CidVersion::V0 { "0" } else { "1" }),
            ("raw-leaves", if profile.raw_leaves { "true" } else { "false" }),
            ("hash", "sha2-256"),
            ("chunker", &chunker),
            ("max-file-links", &max_links),
            ("trickle", "false"),
            ("inline", "false"),
            ("nocopy", "false"),
            ("only-hash", "false"),
            ("wrap-with-directory", "false"),
            ("preserve-mode", "false"),
            ("preserve-mtime", "false"),
            ("progress", "false"),
            ("pin", "true"),
        ];
        self.post("add", &query, part, cid).await
    }

    /// Stores one raw block that has this CID.
    pub(crate) async fn put_raw(&self, block: &[u8], cid: &Cid) -> Result<(), Error> {
        let query = [("cid-codec", "raw"), ("mhtype", "sha2-256"), ("pin", "true")];
        self.post("block/put", &query, Part::bytes(block.to_vec()), cid).await
    }

    async fn post(
        &self,
        call: &'static str,
        query: &[(&str, &str)],
        part: Part,
        cid: &Cid,
    ) -> Result<(), Error> {
        let form = Form::new().part("file", part.file_name("content"));
        let answer = self.within_total(cid, self.call(call, query, Some(form))).await?;
        let named = answer
            .lines()
            .filter_map(|line| serde_json::from_str::<Added>(line).ok()?.cid)
            .next_back()
            .ok_or_else(|| self.failed(call, "the answer names no CID".to_owned()))?;
        let theirs = Cid::parse(&named);
        match &theirs {
            Ok(theirs) if theirs == cid => return Ok(()),
            // Nobody asked for what was made of the content, so nobody would ever let go of it.
            Ok(theirs) => self.unpin(theirs).await,
            Err(_) => {}
        }
        Err(Error::CidDiffers {
            place: self.root.to_string(),
            ours: cid.clone(),
            theirs: shown(&named),
        })
    }

    async fn unpin(&self, cid: &Cid) {
        let text = cid.to_string();
        let query = [("arg", text.as_str()), ("recursive", "true")];
        if let Err(error) = self.within_total(cid, self.call("pin/rm", &query, None)).await {
            tracing::warn!(ipfs.cid = text, %error, "content that was added differently stays pinned");
        }
    }

    /// One call, and its answer as text.
    async fn call(
        &self,
        call: &'static str,
        query: &[(&str, &str)],
        form: Option<Form>,
    ) -> Result<String, Error> {
        let mut url = below(&self.root, &["api", "v0"]);
        url = below(&url, &call.split('/').collect::<Vec<_>>());
        let mut request = self.client.post(url).query(query);
        if let Some(form) = form {
            request = request.multipart(form);
        }
        let mut response = request
            .send()
            .await
            .map_err(|source| no_answer(self.root.to_string(), self.timeouts.connect, source))?;
        let mut answer = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| self.failed(call, error.without_url().to_string()))?
        {
            if answer.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(self.failed(call, "the answer has no end".to_owned()));
            }
            answer.extend_from_slice(&piece);
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let message = format!("HTTP {status}: {}", shown(answer.trim()));
            return Err(self.failed(call, message));
        }
        Ok(answer)
    }

    async fn within_total<T>(
        &self,
        cid: &Cid,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let limit = self.timeouts.total;
        tokio::time::timeout(limit, call)
            .await
            .unwrap_or_else(|_| Err(Error::TotalTimeout { cid: cid.clone(), limit }))
    }

    fn failed(&self, operation: &'static str, message: String) -> Error {
        Error::Rpc { operation, place: self.root.to_string(), message }
    }
}

/// As much of a text of somebody else as belongs into a message, on one line.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}
