//! Jobs: units of work that are charged exactly once.

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
/// A job is charged and handed to the service once. A duplicate is refused with 409, and the same id with another
/// request with 422. A request without an id is a job of its own.
///
/// An id is 1 to 255 visible ASCII characters or spaces, sent once; any other id is refused with 400. Ids belong to
/// their client: two clients can use the same id.
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
    /// Refuses the duplicate, while the job runs and afterwards. The default, because the service must not repeat the
    /// work.
    #[default]
    Refuse,
    /// Admits the duplicate without a charge. **A client that repeats one id never pays again**: only for services that
    /// detect duplicates themselves and answer them cheaply.
    Pass,
}

/// Greatest length of an id, in bytes.
const LONGEST: usize = 255;

impl JobIdSource {
    /// Reads the id from the header of this name, with or without the quotes of a structured field.
    ///
    /// # Panics
    /// If `name` is not a header name.
    ///
    /// ```
    /// let ids = tollgate::JobIdSource::header("idempotency-key");
    /// ```
    #[must_use]
    pub fn header(name: &str) -> Self {
        Self { source: Source::Headers(vec![header(name)]), fingerprint: None }
    }

    /// Reads the id from the header of this name if the headers before it are absent.
    ///
    /// # Panics
    /// If `name` is not a header name, or the source is a closure.
    ///
    /// ```
    /// let ids = tollgate::JobIdSource::header("idempotency-key").or_header("x-job-id");
    /// ```
    #[must_use]
    pub fn or_header(mut self, name: &str) -> Self {
        match &mut self.source {
            Source::Headers(names) => names.push(header(name)),
            Source::Closure(_) => {
                let got = format!("a closure and {name:?}");
                panic!("{}", ConfigError::new("source of job ids", "be a closure or headers", got))
            }
        }
        self
    }

    /// Computes the id from the request's head by a closure.
    ///
    /// ```
    /// let ids = tollgate::JobIdSource::from_head(|request| request.uri.path().strip_prefix("/jobs/").map(String::from));
    /// ```
    #[must_use]
    pub fn from_head(id: impl Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { source: Source::Closure(Arc::new(id)), fingerprint: None }
    }

    /// Sets the content that must be equal for a request to be a duplicate, besides the units that it is charged.
    /// Default: the method, the whole target and the `Content-Length`.
    ///
    /// ```
    /// let ids = tollgate::JobIdSource::header("x-job-id").fingerprint(|request| request.uri.path().as_bytes().to_vec());
    /// ```
    #[must_use]
    pub fn fingerprint(self, of: impl Fn(&RequestHead<'_>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { fingerprint: Some(Arc::new(of)), ..self }
    }

    /// Returns the job of a request, if the request carries an id.
    pub(super) fn read(
        &self,
        request: &RequestHead<'_>,
        client: &Client,
        amounts: &Amounts,
        digester: &Digester,
    ) -> Result<Option<Arc<Job>>, InvalidJob> {
        let job = |id: &str| job(client, id, self.fingerprint_of(request, amounts, digester), digester);
        match &self.source {
            Source::Headers(names) => {
                Ok(names.iter().find_map(|name| only(request.headers, name)).transpose()?.map(job))
            }
            Source::Closure(id) => id(request).map(|id| checked(id.as_bytes()).map(job)).transpose(),
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
        // Only units, which the request determines: other kinds depend on the plan, which may change between
        // retries.
        let units = amounts.iter().filter(|(kind, _)| matches!(kind, Kind::Units(_)));
        digester.digest("job fingerprint", std::iter::once(what).chain(written(units)))
    }
}

/// Returns the job of a call by the handle: the same id with other amounts is another job.
pub(super) fn job_of_handle(
    id: &str,
    client: &Client,
    amounts: &Amounts,
    digester: &Digester,
) -> Result<Arc<Job>, InvalidJob> {
    let id = checked(id.as_bytes())?;
    let asked = amounts.iter().filter(|(kind, _)| **kind != Kind::Concurrent);
    Ok(job(client, id, digester.digest("job by hand", written(asked)), digester))
}

/// Returns the amounts in the form that is fingerprinted: sorted, and without amounts of 0.
fn written<'a>(amounts: impl Iterator<Item = (&'a Kind, u64)>) -> impl Iterator<Item = Vec<u8>> {
    let mut some: Vec<_> = amounts.filter(|(_, amount)| *amount > 0).collect();
    some.sort_unstable();
    some.into_iter().flat_map(|(kind, amount)| [kind.as_str().as_bytes().to_vec(), amount.to_le_bytes().to_vec()])
}

/// Error of an id that is not valid.
#[derive(Debug)]
pub(super) struct InvalidJob;

/// Returns the job of a client under this id.
fn job(client: &Client, id: &str, fingerprint: Digest, digester: &Digester) -> Arc<Job> {
    let account = client.digest().0.to_le_bytes();
    Arc::new(Job { id: digester.digest("job", [&account[..], id.as_bytes()]), fingerprint, text: id.into() })
}

/// Returns the value of a header that may be present only once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Result<&'a str, InvalidJob>> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    Some(if values.next().is_some() { Err(InvalidJob) } else { checked(value.as_bytes()) })
}

/// Returns the id without its quotes.
fn checked(id: &[u8]) -> Result<&str, InvalidJob> {
    let id = id.trim_ascii();
    let id = id.strip_prefix(b"\"").and_then(|id| id.strip_suffix(b"\"")).unwrap_or(id);
    let fits = (1..=LONGEST).contains(&id.len()) && id.iter().all(|byte| (b' '..=b'~').contains(byte));
    if fits { std::str::from_utf8(id).map_err(|_| InvalidJob) } else { Err(InvalidJob) }
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
    /// The work was done; this is its output.
    Done(T),
    /// The job was done before, or at least begun: nothing was charged and the work was not polled.
    Replayed,
}

impl Quotas {
    /// Charges all these amounts and runs `work`, once for each id. If the plan limits requests in flight, a slot is
    /// held until the work has ended. `None` stands for the shared client of unidentified requests.
    ///
    /// An id is 1 to 255 visible ASCII characters or spaces, and belongs to its client. It is remembered as long as
    /// those of requests: [24 h](crate::QuotaLayer::job_retention) by default, in a ledger as long as its rows are
    /// stored. An id names one job only: the id of a request's job is refused here as that of another job.
    ///
    /// # Errors
    /// The [`Refusal`]; then `work` was never polled. Three of its [`reason`](Refusal::reason)s concern the id:
    /// [`JobRunning`](crate::Reason::JobRunning) if the same job is under way,
    /// [`JobConflict`](crate::Reason::JobConflict) if the id was sent with other amounts, and
    /// [`InvalidJobId`](crate::Reason::InvalidJobId) if the id is not valid.
    ///
    /// # Cancel safety
    /// If the future is dropped before its first poll, nothing is charged and the id is free. If it is dropped while
    /// `work` runs, or the work panics, its progress is unknown: the charge stays, the id is taken, and the slot is
    /// released.
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
        let job = job_of_handle(job_id, &client, &amounts, self.0.common.store.digester());
        let job = job.map_err(|InvalidJob| self.refused(&client, self.0.bad_job_id()))?;
        amounts.set(&Kind::Concurrent, 1);
        let ask =
            ChargeRequest { amounts: &amounts, each: &[], reserve: false, lasting: false, open: true, job: Some(&job) };
        let Some(receipt) = self.begin(&client, ask).await? else { return Ok(JobRun::Replayed) };
        let _begun = Begun { policy: &self.0, receipt };
        Ok(JobRun::Done(work.await))
    }
}

/// A job under way. However it ends, its charge stays and its id is taken.
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
    fn job_has_its_id_as_sent_without_quotes() {
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
