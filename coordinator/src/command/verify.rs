use chain::FoundResult;
use executor_protocol::{Document, Limits, Outcome, Rejection, Status};
use serde_json::json;
use task::{Hash, Hex, TaskId};

use super::{Error, Output, board, result, run};
use crate::{
    config::Config,
    serve::{self, Workshop},
    work::LimitPolicy,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs nobody's database and nobody's word: reads the task's event and its published result from the
chain, fetches the bytes, runs them again here and compares the digests. Exit code 0 only when they
are equal. Limits that the task left open are taken from this configuration.

Examples:
  coordinator verify 17
  coordinator verify 17 --from-block 19000000")]
pub(super) struct Arguments {
    /// The task's id
    id: TaskId,
}

/// What a verification found.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) equal: bool,
    published: Hash,
    computed: Option<Hash>,
    status: Status,
    chain_engine: String,
    local_engine: String,
    explanation: String,
    open_limits: bool,
}

pub(super) async fn verify(
    config: &Config,
    arguments: &Arguments,
    output: Output,
) -> Result<(), Error> {
    let verdict = {
        let _progress = output.progress("running it again");
        judge(config, arguments.id).await?
    };
    verdict.show(arguments.id, output);
    if verdict.equal { Ok(()) } else { Err(Error::No(verdict.explanation)) }
}

impl Verdict {
    pub(super) fn show(&self, id: TaskId, output: Output) {
        let computed = self.computed.map_or("nothing".to_owned(), |digest| digest.to_string());
        let mut text = format!(
            "task {id}: {}\npublished: {} {} by {}\ncomputed: {computed} by {}",
            if self.equal { "verified" } else { "not verified" },
            self.status,
            self.published,
            self.chain_engine,
            self.local_engine,
        );
        if self.equal && self.status == Status::Rejected {
            text.push_str(&format!("\n{}", self.explanation));
        }
        if self.open_limits {
            output.say(
                "the task left limits to its coordinator; those of this configuration were taken",
            );
        }
        let value = json!({
            "id": id,
            "verified": self.equal,
            "status": self.status,
            "published": self.published,
            "computed": self.computed,
            "engine": {"chain": self.chain_engine, "local": self.local_engine},
            "explanation": self.explanation,
            "limits_from_configuration": self.open_limits,
        });
        output.data(&text, &value);
    }
}

/// Reads, runs and compares.
pub(super) async fn judge(config: &Config, id: TaskId) -> Result<Verdict, Error> {
    let board = board::open(&config.chain).await?;
    let from_block = config.chain.from_block;
    let (found, published) = result::answered(&board, id, from_block).await?;
    // A task that was run had its limits admitted, whatever this configuration would say to them.
    let mut limits = serve::limits(config);
    if published.status != Status::Rejected {
        limits = LimitPolicy { maxima: boundless(limits.maxima), ..limits };
    }
    let workshop = Workshop::open(config, limits).await?;
    let verdict = compare(&workshop, &found.submission, &published).await;
    workshop.close().await;
    verdict
}

fn boundless(limits: Limits) -> Limits {
    Limits { timeout_ms: u64::MAX, memory_mib: u32::MAX, fuel: u64::MAX, ..limits }
}

async fn compare(
    workshop: &Workshop,
    submission: &task::Submission,
    published: &FoundResult,
) -> Result<Verdict, Error> {
    let rejected = published.status == Status::Rejected;
    let mut verdict = Verdict {
        equal: false,
        published: published.digest,
        computed: None,
        status: published.status,
        chain_engine: result::engine(published),
        local_engine: workshop.work.describe().await?.engine,
        explanation: String::new(),
        open_limits: false,
    };
    let document = match &submission.request {
        Err(malformed) => Some(Document::of(&Outcome::Rejected(malformed.code))),
        Ok(request) => {
            verdict.open_limits = request.timeout_s.is_none()
                || request.memory_mib.is_none()
                || request.fuel.is_none();
            if rejected {
                prepared(workshop, request).await?
            } else {
                Some(run::execute(&workshop.work, request).await?.document)
            }
        }
    };
    verdict.computed = document.as_ref().map(|document| Hex(document.digest()));
    verdict.equal = verdict.computed == Some(published.digest);
    let said = match &published.document {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => published.digest.to_string(),
    };
    verdict.explanation = match (verdict.equal, rejected, &document) {
        (true, false, _) => "the same result came out".to_owned(),
        (true, true, _) if verdict.computed == Some(unavailable()) => format!(
            "the coordinator rejected the task without running it ({said}); the content cannot be had here and now \
             either"
        ),
        (true, true, _) => {
            format!("the coordinator rejected the task without running it, and rightly: {said}")
        }
        (false, true, None) => format!(
            "the coordinator rejected the task without running it ({said}); there is no run to repeat, and \
             nothing in the request or its content asks for the rejection here and now"
        ),
        (false, _, Some(document)) => format!(
            "published was {said}, here it is {}",
            document.as_str().chars().take(200).collect::<String>()
        ),
        (false, false, None) => "nothing could be run".to_owned(),
    };
    Ok(verdict)
}

/// The document of a rejection that request and content alone ask for; none when the task could be run here.
async fn prepared(workshop: &Workshop, request: &task::Request) -> Result<Option<Document>, Error> {
    match workshop.work.prepare(request).await {
        Ok(crate::work::Looked::Answered(answered)) => Ok(Some(answered.document)),
        Ok(crate::work::Looked::Runnable(_)) => Ok(None),
        // What the coordinator could not have, we cannot have either.
        Err(crate::work::Error::Content { .. }) => {
            Ok(Some(Document::of(&Outcome::Rejected(Rejection::ContentUnavailable))))
        }
        Err(error) => Err(error.into()),
    }
}

/// The digest of the rejection for content that cannot be had.
fn unavailable() -> Hash {
    Hex(Document::of(&Outcome::Rejected(Rejection::ContentUnavailable)).digest())
}
