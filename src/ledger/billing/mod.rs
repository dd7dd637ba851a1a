//! Billing: invoices, and a provider to which each invoice is pushed once.

mod invoice;
mod memory_provider;

use std::{collections::BTreeMap, error::Error, fmt, future::Future, time::SystemTime};

pub use invoice::{Invoice, InvoiceLine};
pub use memory_provider::MemoryProvider;

use super::{Ledger, handle::on_database, sql::BilledSum};
use crate::{
    error::ConfigError,
    quota::QuotaError,
    time::{Instant, from_1970},
};
use invoice::{fits, period};

/// A billing provider, which sends the bills.
///
/// Its methods can be written as `async fn`:
///
/// ```
/// use std::{collections::BTreeMap, io, time::SystemTime};
/// use tollgate::{BillingProvider, Invoice};
///
/// struct Payments;
///
/// impl BillingProvider for Payments {
///     type Error = io::Error;
///
///     async fn totals(&self, tenant: &str, from: SystemTime, until: SystemTime) -> io::Result<BTreeMap<String, i64>> {
///         Ok(BTreeMap::new()) // what it says that it has billed of each kind
///     }
///
///     async fn push(&self, id: &str, invoice: &Invoice) -> io::Result<()> {
///         Ok(()) // a request with `id` as its idempotency key
///     }
/// }
/// ```
pub trait BillingProvider: Send + Sync {
    /// Error of a call.
    type Error: Error + Send + Sync + 'static;

    /// Returns the quantity of each kind that was billed to a tenant, in the periods within these times. Times are
    /// whole microseconds, as in an invoice.
    fn totals(
        &self,
        tenant: &str,
        from: SystemTime,
        until: SystemTime,
    ) -> impl Future<Output = Result<BTreeMap<String, i64>, Self::Error>> + Send;

    /// Bills an invoice once for each `id`: the same invoice again is accepted and not billed.
    fn push(&self, id: &str, invoice: &Invoice) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// A kind of which a billing provider has billed another quantity than the rows show.
///
/// ```
/// # fn example(drift: tollgate::BillingDrift) {
/// println!("{}: written {}, billed {}", drift.kind, drift.written, drift.billed);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BillingDrift {
    /// Kind that was used.
    pub kind: String,
    /// Quantity by the ledger's rows.
    pub written: i64,
    /// Quantity that the provider has billed.
    pub billed: i64,
}

/// Error of a push to a billing provider or of a comparison with it.
///
/// ```
/// # async fn example(ledger: tollgate::Ledger, provider: tollgate::MemoryProvider, invoice: tollgate::Invoice) {
/// use tollgate::BillingError;
/// match ledger.push(&provider, &invoice).await {
///     Err(BillingError::Provider(error)) => println!("perhaps billed, push it again: {error}"),
///     Err(error) => println!("not billed: {error}"),
///     Ok(()) => println!("billed"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BillingError<E> {
    /// Error of the ledger: it does not answer, or an argument is invalid.
    Ledger(QuotaError),
    /// Error of the provider. After a push it is unknown whether the invoice was billed; a retry bills it once.
    Provider(E),
}

impl Ledger {
    /// Pushes an invoice to a provider, which bills it once however often it is pushed. The [id](Invoice::id) is the
    /// same for the same tenant and period.
    ///
    /// After an error of the provider it is unknown whether the invoice was billed: retry until the push succeeds.
    ///
    /// # Errors
    /// If the invoice is not [closed](Invoice::closed), because later rows of its period would never be billed, or if
    /// the provider does not answer.
    ///
    /// ```no_run
    /// # async fn example(ledger: tollgate::Ledger, provider: tollgate::MemoryProvider) -> Result<(), Box<dyn std::error::Error>> {
    /// # let (november, december) = (std::time::SystemTime::UNIX_EPOCH, std::time::SystemTime::UNIX_EPOCH);
    /// let invoice = ledger.invoice("acme", november, december, |_, quantity| quantity * 2).await?;
    /// while let Err(error) = ledger.push(&provider, &invoice).await {
    ///     println!("again: {error}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn push<P: BillingProvider>(
        &self,
        provider: &P,
        invoice: &Invoice,
    ) -> Result<(), BillingError<P::Error>> {
        if !invoice.closed {
            let until = Instant(invoice.until);
            return Err(BillingError::Ledger(
                ConfigError::new("period of an invoice", "have ended when the invoice was read", until).into(),
            ));
        }
        provider.push(&invoice.id(), invoice).await.map_err(BillingError::Provider)
    }

    /// Returns the kinds of which a provider has billed another quantity than the rows show; empty if both agree.
    ///
    /// # Errors
    /// If the database or the provider does not answer, `until` is not after `from`, or rows at `from` were
    /// [archived](Self::archive).
    ///
    /// ```no_run
    /// # async fn example(ledger: tollgate::Ledger, provider: tollgate::MemoryProvider) -> Result<(), Box<dyn std::error::Error>> {
    /// # let (november, december) = (std::time::SystemTime::UNIX_EPOCH, std::time::SystemTime::UNIX_EPOCH);
    /// for drift in ledger.compare(&provider, "acme", november, december).await? {
    ///     println!("{}: {} more billed than written", drift.kind, drift.billed - drift.written);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn compare<P: BillingProvider>(
        &self,
        provider: &P,
        tenant: &str,
        from: SystemTime,
        until: SystemTime,
    ) -> Result<Vec<BillingDrift>, BillingError<P::Error>> {
        let (from, until) = period(from, until)?;
        let billed =
            provider.totals(tenant, from_1970(from), from_1970(until)).await.map_err(BillingError::Provider)?;
        let sums = self.sums(tenant, from, until).await?;
        self.check_kept("beginning of a comparison", from).await?;
        let mut both: BTreeMap<String, (i64, i64)> =
            billed.into_iter().map(|(kind, billed)| (kind, (0, billed))).collect();
        for sum in sums {
            let written = fits(&format!("quantity of {}", sum.kind), sum.amount)?;
            both.entry(sum.kind).or_default().0 = written;
        }
        let apart = both.into_iter().filter(|(_, (written, billed))| written != billed);
        Ok(apart.map(|(kind, (written, billed))| BillingDrift { kind, written, billed }).collect())
    }
}

impl Ledger {
    /// Returns the sums of a period once every row that is being written is committed.
    async fn sums(&self, tenant: &str, from: u64, until: u64) -> Result<Vec<BilledSum>, QuotaError> {
        Ok(on_database!(self, inner => {
            let database = &inner.writer.database;
            inner.report(async {
                database.wait_for_writers(tenant).await?;
                database.sums(tenant, from, until).await
            }).await
        })?)
    }
}

impl<E: fmt::Display> fmt::Display for BillingError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ledger(error) => error.fmt(f),
            Self::Provider(error) => write!(f, "the billing provider: {error}"),
        }
    }
}

impl<E: Error + 'static> Error for BillingError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Ledger(error) => Some(error),
            Self::Provider(error) => Some(error),
        }
    }
}

impl<E> From<QuotaError> for BillingError<E> {
    fn from(error: QuotaError) -> Self {
        Self::Ledger(error)
    }
}

impl<E> From<ConfigError> for BillingError<E> {
    fn from(invalid: ConfigError) -> Self {
        Self::Ledger(invalid.into())
    }
}
