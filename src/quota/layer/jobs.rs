//! Jobs: work that is charged once, however often it is sent.

use std::{fmt, future::Future, sync::Arc};

use http::{HeaderMap, HeaderName, header::CONTENT_LENGTH};

use super::{
    handle::{Quotas, or_anonymous},
    policy::QuotaPolicy,
};
use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Client, Digest, Digester},
    kind::Kind,
    quota::{
        Amounts,
        account::{ChargeRequest, Job},
        store::{Receipt, Settlement},
    },
    refusal::Refusal,
};

/// Source of the job id of a request.
///
/// A job is charged and handed to the service once, however often it is sent: a duplicate is answered with 409, and the
/// same id with another request with 422. A request without an id is a job of its own.
///
/// An id is 1 to 255 visible ASCII characters or spaces, sent once; anything else is answered with 400. Ids belong to their
/// client: two clients with the same id never meet.
///
/// ```
/// use tollgate::{JobIdSource, Plan, QuotaLayer};
/// let layer = QuotaLayer::new(Plan::standard()).job_ids(JobIdSource::header("x-job-id"));
/// ```
#[derive(Clone)]
pub struct JobIdSource {
    source: Source,
    fingerprint: Option<Fingerprint>,
}

type Fingerprint = Arc<dyn Fn(&RequestHead<'_>) -> Vec<u8> + Send + Sync>;
type Closure = Arc<dyn Fn(&RequestHead<'_>) -> Option<String> + Send + Sync>;

#[derive(Clone)]
enum Source {
    Headers(Vec<HeaderName>),
    Closure(Closure),
}

/// Decision on a request whose job was charged before.
///
/// ```
/// use tollgate::{Duplicates, JobIdSource, Plan, QuotaLayer};
/// let layer = QuotaLayer::new(Plan::standard()).job_ids(JobIdSource::header("x-job-id")).duplicates(Duplicates::Pass);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Duplicates {
    /// AdmitError, while the job runs and afterwards: the default, for the service must not do the work again.
    #[default]
    Refuse,
    /// Passes without a charge. **A client that repeats one id never pays again**: only for services that find
    /// duplicates themselves and answer them cheaply.
    Pass,
}

/// The longest id.
const LONGEST: usize = 255;

impl JobIdSource {
    /// In the header of this name; with or without the quotes of a structured field.
    ///
    /// # Panics
    /// When `name` is no header name.
    ///
    /// ```
    /// let ids = tollgate::JobIdSource::header("idempotency-key");
    /// ```
    #[must_use]
    pub fn header(name: &str) -> Self {
        Self { source: Source::Headers(vec![header(name)]), fingerprint: None }
    }

    /// In the header of this name where those before are missing.
    ///
    /// # Panics
    /// When `name` is no header name, or the id does not come from a header.
    ///
    /// ```
    /// let ids = tollgate::JobIdSource::header("idempotency-key").or_header("x-job-id");
    /// ```
    #[must_use]
    pub fn or_header(mut self, name: &str) -> Self {
        match &mut self.source {
            Source::Headers(names) => names.push(header(name)),
            Source::Closure(_) => {
                panic!("{}", ConfigError::new("a job id", "come from a closure or from headers", name))
            }
        }
        self
    }

    /// From the request's head, by a closure.
    ///
    /// ```
    /// let ids = tollgate::JobIdSource::from_head(|request| request.uri.path().strip_prefix("/jobs/").map(String::from));
    /// ```
    #[must_use]
    pub fn from_head(id: impl Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { source: Source::Closure(Arc::new(id)), fingerprint: None }
    }

    /// Sets what must be equal for a request to be a duplicate, besides the units that it is charged; default: the
    /// method, the whole target and the `Content-Length`.
    ///
    /// ```
    /// let ids = tollgate::JobIdSource::header("x-job-id").fingerprint(|request| request.uri.path().as_bytes().to_vec());
    /// ```
    #[must_use]
    pub fn fingerprint(self, of: impl Fn(&RequestHead<'_>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { fingerprint: Some(Arc::new(of)), ..self }
    }

    /// The job that a request asks for, if it names one.
    pub(super) fn read(
        &self,
        request: &RequestHead<'_>,
        client: &Client,
        amounts: &Amounts,
        digester: &Digester,
    ) -> Result<Option<Arc<Job>>, Bad> {
        let job = |id: &str| job(client, id, self.fingerprint_of(request, amounts, digester), digester);
        match &self.source {
            Source::Headers(names) => {
                let id = names.iter().find_map(|name| only(request.headers, name)).transpose()?;
                Ok(id.map(job))
            }
            Source::Closure(id) => match id(request) {
                Some(id) => checked(id.as_bytes()).map(job).map(Some),
                None => Ok(None),
            },
        }
    }

    fn fingerprint_of(&self, request: &RequestHead<'_>, amounts: &Amounts, digester: &Digester) -> Digest {
        let what = match &self.fingerprint {
            Some(fingerprint) => fingerprint(request),
            None => {
                let target = request.uri.path_and_query().map_or("", |target| target.as_str());
                let length = request.headers.get(CONTENT_LENGTH).map_or(&b""[..], |length| length.as_bytes());
                [request.method.as_str().as_bytes(), target.as_bytes(), length].join(&b' ')
            }
        };
        // Only what the request itself says: what else is counted is the plan's matter, which may change in between.
        let units = amounts.iter().filter(|(kind, _)| matches!(kind, Kind::Units(_)));
        digester.digest("job fingerprint", std::iter::once(what).chain(written(units)))
    }
}

/// A job outside http: the same id with other amounts is another job.
pub(super) fn by_hand(id: &str, client: &Client, amounts: &Amounts, digester: &Digester) -> Result<Arc<Job>, Bad> {
    let id = checked(id.as_bytes())?;
    let asked = amounts.iter().filter(|(kind, _)| **kind != Kind::Concurrent);
    Ok(job(client, id, digester.digest("job by hand", written(asked)), digester))
}

/// Amounts as they go into a fingerprint, whatever their order; nothing of a kind is the same as not naming it.
fn written<'a>(amounts: impl Iterator<Item = (&'a Kind, u64)>) -> impl Iterator<Item = Vec<u8>> {
    let mut some: Vec<_> = amounts.filter(|(_, amount)| *amount > 0).collect();
    some.sort_unstable();
    some.into_iter().flat_map(|(kind, amount)| [kind.as_str().as_bytes().to_vec(), amount.to_le_bytes().to_vec()])
}

/// An id that cannot be one.
#[derive(Debug)]
pub(super) struct Bad;

/// The job of a client under this id.
fn job(client: &Client, id: &str, fingerprint: Digest, digester: &Digester) -> Arc<Job> {
    let account = client.digest().0.to_le_bytes();
    Arc::new(Job { id: digester.digest("job", [&account[..], id.as_bytes()]), fingerprint, text: id.into() })
}

/// The value of a header that must not come twice.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<&'a str, Bad>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    Some(if values.next().is_some() { Err(Bad) } else { checked(value.as_bytes()) })
}

/// The id without its quotes.
fn checked(id: &[u8]) -> Result<&str, Bad> {
    let id = id.trim_ascii();
    let id = id.strip_prefix(b"\"").and_then(|id| id.strip_suffix(b"\"")).unwrap_or(id);
    let fits = (1..=LONGEST).contains(&id.len()) && id.iter().all(|byte| (b' '..=b'~').contains(byte));
    if fits { std::str::from_utf8(id).map_err(|_| Bad) } else { Err(Bad) }
}

fn header(name: &str) -> HeaderName {
    HeaderName::try_from(name).unwrap_or_else(|_| {
        panic!("{}", ConfigError::new("header of a job id", "be a header name", format_args!("{name:?}")))
    })
}

impl fmt::Debug for JobIdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Headers(names) => f.debug_tuple("JobIdSource").field(names).finish(),
            Source::Closure(_) => f.write_str("JobIdSource(closure)"),
        }
    }
}

/// Result of a job that was not refused.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, JobRun, Plan, QuotaLayer};
///
/// let (quotas, alice) = (QuotaLayer::new(Plan::standard()).handle(), Client::named("alice"));
/// let scan = || quotas.run_job(&alice, "order 17", ("queries", 20), async { 42 });
/// assert_eq!(scan().await.unwrap(), JobRun::Done(42));
/// assert_eq!(scan().await.unwrap(), JobRun::Replayed);
/// assert_eq!(quotas.usage(&alice).await.unwrap().get("queries_per_hour").unwrap().used, 20);
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobRun<T> {
    /// The work was done, and came to this.
    Done(T),
    /// It was done, or at least begun, before: this time nothing was charged and the work was not polled.
    Replayed,
}

impl Quotas {
    /// Charges all of this and runs `work`, once for each id; where the plan limits requests at a time, it takes a place
    /// until the work has ended. Without a client it is the anonymous one's.
    ///
    /// An id is 1 to 255 visible ASCII characters or spaces, and belongs to its client. It is remembered as long as those of
    /// requests, [24 hours](crate::QuotaLayer::job_retention) by default and in a ledger as long as its rows are kept, and
    /// means one job only: what a request has named is another job.
    ///
    /// # Errors
    /// The [`Refusal`]; then `work` was never polled. Of its [`reason`](Refusal::reason)s
    /// [`JobRunning`](crate::Reason::JobRunning) says that the same job is under way,
    /// [`JobConflict`](crate::Reason::JobConflict) that the id was sent with other amounts, and
    /// [`InvalidJobId`](crate::Reason::InvalidJobId) that it cannot be one.
    ///
    /// # Cancel safety
    /// Dropped before it was polled, nothing is charged and the id is free. If it is dropped while the work is under
    /// way, or the work panics, its progress is unknown: the charge stays, the id is taken, and the slot is released.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, JobRun, Plan, QuotaLayer, Reason};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let alice = Client::named("alice");
    /// let done = quotas.run_job(&alice, "order 17", ("queries", 20), async { "rows" }).await.unwrap();
    /// assert_eq!(done, JobRun::Done("rows"));
    /// let other = quotas.run_job(&alice, "order 17", ("queries", 21), async { "rows" }).await.unwrap_err();
    /// assert_eq!(other.reason(), Reason::JobConflict);
    /// # });
    /// ```
    pub async fn run_job<'a, T>(
        &self,
        client: impl Into<Option<&'a Client>>,
        job_id: &str,
        amounts: impl Into<Amounts>,
        work: impl Future<Output = T>,
    ) -> Result<JobRun<T>, Refusal> {
        let (client, mut amounts) = (or_anonymous(client.into()), amounts.into());
        let job = by_hand(job_id, &client, &amounts, self.0.common.store.digester());
        let job = job.map_err(|Bad| self.refused(&client, self.0.bad_job_id()))?;
        amounts.set(&Kind::Concurrent, 1);
        let ask =
            ChargeRequest { amounts: &amounts, each: &[], reserve: false, lasting: false, open: true, job: Some(&job) };
        let Some(receipt) = self.begin(&client, ask).await? else { return Ok(JobRun::Replayed) };
        let _begun = Begun { policy: &self.0, receipt };
        Ok(JobRun::Done(work.await))
    }
}

/// A job under way: however it ends, its charge stays and its id is taken.
struct Begun<'a> {
    policy: &'a QuotaPolicy,
    receipt: Receipt,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let none = Amounts::new();
        self.policy.common.settle(&self.receipt, &Settlement::Served { used: &none, actual: &none });
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_job_carries_its_id_as_it_was_sent_without_quotes() {
        let (ids, alice) = (JobIdSource::header("x-job-id"), Client::named("alice"));
        let read = |id: &str| {
            let request = Request::get("/").header("x-job-id", id).body(()).unwrap();
            ids.read(&RequestHead::of(&request), &alice, &Amounts::new(), Digester::process()).unwrap().unwrap()
        };
        let quoted = read("\"order 17\"");
        assert_eq!(&*quoted.text, "order 17");
        assert_eq!(quoted, read(" order 17 "));
        assert_ne!(quoted.id, read("order 18").id);
    }
}
