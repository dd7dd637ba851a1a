//! Jobs: units of work that are charged exactly once.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, header::CONTENT_LENGTH};

use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Client, Digest, Digester},
    kind::Kind,
    quota::{Amounts, account::Job},
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
///
/// # Outcomes
/// The end of a job decides on its id and its charge. It is the same for requests under
/// [`job_ids`](crate::QuotaLayer::job_ids) and for [`run_job`](crate::Quotas::run_job) and
/// [`try_run_job`](crate::Quotas::try_run_job) of the handle:
///
/// | end | id and charge |
/// |---|---|
/// | refused, by this layer or one further in, or not polled | the id is free, nothing is charged |
/// | response with a status below 500, sent to its end; output of the work | done: the id is taken, the charge stays |
/// | response with a status from 500; `Err` of the work of `try_run_job` | the id is free, the charge is returned |
/// | panic, cancellation, failed or cut body, service error without a response | outcome unknown: the id is taken, the charge stays; with [`free_unfinished`](crate::QuotaLayer::free_unfinished) both are undone |
/// | killed process | outcome unknown in a ledger; memory has forgotten the job |
///
/// Work whose outcome is unknown may have taken place. By default it stays charged, or a client that hangs up early would
/// have it for free. A duplicate learns which of the states applies:
///
/// | state | a request | [`run_job`](crate::Quotas::run_job) |
/// |---|---|---|
/// | running in this process, or its end is being written | 409, [`JobRunning`](crate::Reason::JobRunning), `Retry-After` | refused alike |
/// | done | 409, [`DuplicateJob`](crate::Reason::DuplicateJob) | [`Replayed`](crate::JobRun::Replayed) |
/// | outcome unknown | 409, [`JobOutcomeUnknown`](crate::Reason::JobOutcomeUnknown) | refused alike |
/// | outcome unknown in a ledger, and within [`max_hold`](crate::QuotaLayer::max_hold) of its charge, so that it may run in another process | as above, with `Retry-After` | refused alike |
///
/// [`settle_job`](crate::Quotas::settle_job) settles a job whose outcome is unknown: as done, or its id is freed and its
/// charge returned. A ledger writes the end of a job after the response, with one of its next transactions. If the
/// process is killed in between, the outcome of the job is unknown.
///
/// Two settings go before the table. If the handler has [recorded](crate::Charge::record) an amount,
/// the id is taken and the charge stays, whatever the response. Any other request that
/// [`charge_when`](crate::QuotaLayer::charge_when) does not charge is undone. A gRPC status is no HTTP status: a failed
/// call is a response of status 200.
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
    #[track_caller]
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
    #[track_caller]
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

/// Returns the job of this id, whatever it is about.
pub(super) fn job_of_id(id: &str, client: &Client, digester: &Digester) -> Result<Arc<Job>, InvalidJob> {
    let id = checked(id.as_bytes())?;
    Ok(job(client, id, digester.digest("any job", [id.as_bytes()]), digester))
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

#[track_caller]
fn header(name: &str) -> HeaderName {
    let must = "be a header name";
    let name = HeaderName::try_from(name).map_err(|_| ConfigError::quoted("header of a job id", must, name));
    ConfigError::or_panic(name)
}

impl fmt::Debug for JobIdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Headers(names) => f.debug_tuple("JobIdSource").field(names).finish(),
            Source::Closure(_) => f.write_str("JobIdSource(closure)"),
        }
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
