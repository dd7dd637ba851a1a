//! Invoices: the priced sums of the rows of one tenant in one period.

use std::{
    fmt::{self, Write},
    time::SystemTime,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    error::ConfigError,
    ledger::{Ledger, handle::on_database, report::Json},
    quota::QuotaError,
    time::{Instant, from_1970, since_1970},
};

/// Priced usage of a tenant in a period; see [`Ledger::invoice`].
///
/// ```no_run
/// # async fn example(invoice: tollgate::Invoice) {
/// for line in &invoice.lines {
///     println!("{} {}: {}", line.quantity, line.kind, line.amount);
/// }
/// println!("{invoice}"); // all of it, as one line of JSON
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invoice {
    /// Tenant of the account.
    pub tenant: String,
    /// Start of the period; rows written at this time are included. Whole microseconds.
    pub from: SystemTime,
    /// End of the period; rows written at this time are not included. Whole microseconds.
    pub until: SystemTime,
    /// Whether the period had ended when it was read, so that no row can be added to it.
    pub closed: bool,
    /// One line for each kind whose sum is not 0, ordered by name.
    pub lines: Vec<InvoiceLine>,
    /// Sum of the lines; negative if the client is owed more than it owes.
    pub total: i64,
}

/// Quantity and price of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvoiceLine {
    /// Kind that was used.
    pub kind: String,
    /// Quantity; negative if more was returned and [credited](crate::Quotas::credit) in the period than was used.
    pub quantity: i64,
    /// Price in the smallest unit of the currency; a credit if the quantity is negative.
    pub amount: i64,
}

impl Ledger {
    /// Returns the priced usage of a tenant in `from..until`. `price` returns the price of a quantity of a kind, in the
    /// smallest unit of the currency.
    ///
    /// A row belongs to the period in which it was written, however late, and so to one invoice: adjacent periods bill
    /// every row once. An amount that is returned after its period is a credit in the next, at the same price.
    ///
    /// An amount is billed once, however many limits count it, and so is its return. The rows of
    /// [`entries`](Self::entries) are not a bill, because each limit has its own. A limit that is added, renamed or
    /// removed in mid-period changes nothing, as long as some limit counts the kind. If the first limit of a kind is
    /// added in mid-period, earlier usage was not written and is not billed. A [`reset`](crate::Quotas::reset) makes
    /// room and refunds no money; a [`credit`](crate::Quotas::credit) takes its amount off the invoice of the period in
    /// which it is given.
    ///
    /// A line is what was charged in the period, less what was returned, less what was credited. It is negative, and the
    /// total may be, if more was returned or credited than charged: an amount of an earlier period, or one that was
    /// credited and later returned too. It is not clamped at 0, because the client would lose the rest: the next invoice
    /// has rows of its own period only.
    ///
    /// A kind that no limit counts is not written. To show usage that costs nothing, such as usage on a customer's own
    /// key, record it as a kind of its own with a limit that is never reached, and price it 0:
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use std::time::{Duration, SystemTime};
    /// use tollgate::{Client, Ledger, OnFailure, Period, Plan, Quota, QuotaLayer};
    ///
    /// let ledger = Ledger::sqlite_in_memory().open().await.unwrap();
    /// let plan = Plan::new("paid")
    ///     .limit(Quota::units("tokens", 1_000_000).per(Period::month()))
    ///     .limit(Quota::units("own_key_tokens", (1 << 53) - 1).per(Period::month()));
    /// let quotas = QuotaLayer::new(plan).store_in(&ledger, OnFailure::FailClosed).handle();
    /// quotas.charge(&Client::named("acme"), ("tokens", 700)).await.unwrap();
    /// quotas.record(&Client::named("acme"), ("own_key_tokens", 90_000)).await.unwrap();
    ///
    /// let price = |kind: &str, quantity: u64| if kind == "tokens" { quantity.saturating_mul(2) } else { 0 };
    /// let (from, until) = (SystemTime::UNIX_EPOCH, SystemTime::now() + Duration::from_secs(60));
    /// let invoice = ledger.invoice("acme", from, until, price).await.unwrap();
    /// assert_eq!((invoice.lines[0].kind.as_str(), invoice.lines[0].amount), ("own_key_tokens", 0));
    /// assert_eq!((invoice.lines[1].kind.as_str(), invoice.lines[1].amount), ("tokens", 1_400));
    /// # });
    /// ```
    ///
    /// # Errors
    /// If the database does not answer, the tenant has no account ([`tenants`](Self::tenants) lists those that do), `until`
    /// is not after `from`, rows at `from` were [archived](Self::archive), or a quantity, an amount or the total is above 2^63 - 1. A price that saturates is an error and is not billed.
    pub async fn invoice(
        &self,
        tenant: &str,
        from: SystemTime,
        until: SystemTime,
        price: impl Fn(&str, u64) -> u64,
    ) -> Result<Invoice, QuotaError> {
        let (from, until) = period(from, until)?;
        // Before the rows are read, so that none is added to them.
        let closed = on_database!(self, inner => inner.report(inner.writer.database.close(tenant, until)).await)?;
        let closed = closed.ok_or(QuotaError::UnknownAccount)?;
        let sums = self.sums(tenant, from, until).await?;
        self.check_kept("beginning of an invoice", from).await?;
        let mut lines = Vec::with_capacity(sums.len());
        for sum in sums.iter().filter(|sum| sum.amount != 0) {
            let quantity = fits(&format!("quantity of {}", sum.kind), sum.amount)?;
            let amount = i128::from(price(&sum.kind, quantity.unsigned_abs())) * i128::from(quantity.signum());
            let amount = fits(&format!("amount of {}", sum.kind), amount)?;
            lines.push(InvoiceLine { kind: sum.kind.clone(), quantity, amount });
        }
        let total = fits("total", lines.iter().map(|line| i128::from(line.amount)).sum())?;
        let (from, until) = (from_1970(from), from_1970(until));
        Ok(Invoice { tenant: tenant.into(), from, until, closed, lines, total })
    }
}

impl Invoice {
    /// Returns the id of the invoice at a billing provider: one for each tenant and period.
    ///
    /// It is visible ASCII, and for periods of our time 42 characters longer than the tenant's name, of which each byte that
    /// is no letter, digit, `-`, `.`, `_` or `~` takes three. A provider that takes ids of at most 255 characters takes
    /// names of about 200.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// # use std::time::{Duration, SystemTime};
    /// # use tollgate::{Client, Ledger, OnFailure, Plan, QuotaLayer};
    /// # let ledger = Ledger::sqlite_in_memory().open().await.unwrap();
    /// # let quotas = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailClosed).handle();
    /// # quotas.charge(&Client::named("acme"), ("queries", 5)).await.unwrap();
    /// let november = SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_491_200); // of 2026
    /// let december = november + Duration::from_secs(30 * 86_400);
    /// let invoice = ledger.invoice("acme", november, december, |_, quantity| quantity).await.unwrap();
    /// assert_eq!(invoice.id(), "invoice-acme-1793491200000000-1796083200000000"); // in microseconds
    /// # });
    /// ```
    #[must_use]
    pub fn id(&self) -> String {
        let micros = |time| since_1970(time) / 1_000;
        let tenant = utf8_percent_encode(&self.tenant, UNSAFE);
        format!("invoice-{tenant}-{}-{}", micros(self.from), micros(self.until))
    }
}

/// All characters but those that RFC 3986 calls unreserved.
const UNSAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns the period in nanoseconds since 1970, rounded to the ledger's microseconds.
pub(super) fn period(from: SystemTime, until: SystemTime) -> Result<(u64, u64), ConfigError> {
    let whole = |time| since_1970(time) / 1_000 * 1_000;
    if whole(from) >= whole(until) {
        return Err(ConfigError::new("end of a period", &format!("lie after {}", Instant(from)), Instant(until)));
    }
    Ok((whole(from), whole(until)))
}

/// Converts an amount to the range of a billing provider's columns.
pub(super) fn fits(what: &str, value: i128) -> Result<i64, ConfigError> {
    i64::try_from(value).map_err(|_| ConfigError::new(what, "be at most 2^63 - 1", value))
}

/// One line of JSON. Times are RFC 3339 with microseconds.
impl fmt::Display for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"{{"id":"{}","tenant":"{}","from":"{}""#, self.id(), Json(&self.tenant), Instant(self.from))?;
        write!(f, r#","until":"{}","closed":{},"lines":["#, Instant(self.until), self.closed)?;
        for (at, InvoiceLine { kind, quantity, amount }) in self.lines.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, r#"{comma}{{"kind":"{}","quantity":{quantity},"amount":{amount}}}"#, Json(kind))?;
        }
        write!(f, r#"],"total":{}"#, self.total)?;
        f.write_char('}')
    }
}
