//! A billing provider for tests.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::ledger::{BillingProvider, Invoice};

/// A [`BillingProvider`] in memory, for tests. It bills each id once, and loses replies on demand.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use std::time::{Duration, SystemTime};
/// use tollgate::{Client, Ledger, MemoryProvider, OnFailure, Plan, QuotaLayer};
///
/// let (ledger, provider) = (Ledger::sqlite_in_memory().open().await.unwrap(), MemoryProvider::new());
/// let quotas = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailClosed).handle();
/// quotas.charge(&Client::named("acme"), ("queries", 3)).await.unwrap();
/// let (from, until) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
/// let invoice = ledger.invoice("acme", from, until, |_, quantity| quantity).await.unwrap();
/// provider.lose_next_reply();
/// ledger.push(&provider, &invoice).await.unwrap_err(); // unknown whether it was billed
/// ledger.push(&provider, &invoice).await.unwrap();
/// assert_eq!(provider.invoices(), [invoice]);
/// # });
/// ```
#[derive(Debug, Default)]
pub struct MemoryProvider(Mutex<Billed>);

#[derive(Debug, Default)]
struct Billed {
    invoices: BTreeMap<String, Invoice>,
    loses_reply: bool,
}

impl MemoryProvider {
    /// Creates a provider that has billed nothing.
    ///
    /// ```
    /// assert!(tollgate::MemoryProvider::new().invoices().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bills the next pushed invoice, but replies with an error.
    ///
    /// ```
    /// tollgate::MemoryProvider::new().lose_next_reply();
    /// ```
    pub fn lose_next_reply(&self) {
        self.billed().loses_reply = true;
    }

    /// Returns the billed invoices, in the order of their ids.
    ///
    /// ```
    /// assert_eq!(tollgate::MemoryProvider::new().invoices(), []);
    /// ```
    #[must_use]
    pub fn invoices(&self) -> Vec<Invoice> {
        self.billed().invoices.values().cloned().collect()
    }

    fn billed(&self) -> MutexGuard<'_, Billed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BillingProvider for MemoryProvider {
    type Error = io::Error;

    async fn totals(&self, tenant: &str, from: SystemTime, until: SystemTime) -> io::Result<BTreeMap<String, i64>> {
        let mut totals = BTreeMap::<String, i64>::new();
        let within = |invoice: &&Invoice| invoice.tenant == tenant && invoice.from >= from && invoice.until <= until;
        for line in self.billed().invoices.values().filter(within).flat_map(|invoice| &invoice.lines) {
            let total = totals.entry(line.kind.clone()).or_default();
            *total = total.saturating_add(line.quantity);
        }
        Ok(totals)
    }

    /// Another invoice under an id that was billed is an error and is not billed.
    async fn push(&self, id: &str, invoice: &Invoice) -> io::Result<()> {
        let mut billed = self.billed();
        let known = billed.invoices.entry(id.to_owned()).or_insert_with(|| invoice.clone());
        if known != invoice {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{id} was billed with other lines")));
        }
        if std::mem::take(&mut billed.loses_reply) {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the reply was lost"));
        }
        Ok(())
    }
}
