//! Rows that a ledger did not write: they are read, summed and archived without a panic.

use std::time::{Duration, SystemTime};

use tollgate::{Client, Ledger, OnFailure, Period, Plan, Quota, QuotaLayer, Quotas};

use crate::{
    engine::{Fuzz, fuzz, summary},
    input::Input,
    support::directory::Directory,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Cases on one file, so that no case has many accounts to pass.
const CASES: usize = 200;

const ENTRIES: [&str; 9] = ["charge", "reserve", "commit", "void", "expire", "record", "adjust", "grant", "reset"];

const ROWS: Fuzz = Fuzz {
    corpus: &[
        b"\x00order 17\ntokens\nlimit\n\x00\x00\x00\x00\x01\x07\x00\x00\x00",
        b"\x00a\ntokens\nlimit\n\xff\x00\x00\x00\xff\xff\x01\xff\xff\x01\x01x\ny\n\x07a\ntokens\nlimit\n\xfe\x00\x00\x00\xfe\xfe",
        b"\x06\x01\x02\x00\n\n\n\x00\xff\xff\xff\x01\x01",
        b"\x08\xc3\xa4\n\xff\n\"\n\x08\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01",
    ],
    words: &[b"\n", b"tokens", b"limit", b"order 17", b"\x00", b"\xff", b"\xfe", b"\xfd", b"\x01", b"\x08", b"\x01\x02", b"'"],
};

/// A ledger whose tables are written by hand.
struct Meddled {
    runtime: tokio::runtime::Runtime,
    pool: sqlx::SqlitePool,
    ledger: Ledger,
    quotas: Quotas,
    tenants: usize,
    _directory: Directory,
}

impl Meddled {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let directory = Directory::new();
        let file = directory.0.join("quota.db");
        let (ledger, pool) = runtime.block_on(async {
            let ledger = Ledger::sqlite(&file).open().await.expect("a ledger").with_horizon(DAY);
            let url = format!("sqlite://{}", file.display());
            (ledger, sqlx::SqlitePool::connect(&url).await.expect("the same file"))
        });
        let plan = Plan::new("paid").limit(Quota::units("tokens", 1_000).per(Period::month()).named("limit"));
        let quotas = QuotaLayer::new(plan).store_in(&ledger, OnFailure::FailClosed).handle();
        Self { runtime, pool, ledger, quotas, tenants: 0, _directory: directory }
    }

    /// Writes rows of an account of its own, and reads them in every way. Returns whether each way succeeded.
    fn case(&mut self, bytes: &[u8]) -> [bool; 6] {
        self.tenants += 1;
        let tenant = format!("tenant {}", self.tenants);
        self.runtime.block_on(async {
            let mut input = Input(bytes);
            let account = sqlx::query("INSERT INTO quota_account (tenant_id, created_at) VALUES (?, 0)").bind(&tenant);
            account.execute(&self.pool).await.expect("an account");
            let mut written = false;
            while !input.0.is_empty() {
                let row = sqlx::query(
                    "INSERT INTO quota_consumption (tenant_id, entry, job_id, quota_type, limit_id, window_start, epoch,
                     attempt, part, amount, consumed_at, granted, until, approver, reason, order_id)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, randomblob(16))",
                );
                let mut row = row.bind(&tenant).bind(ENTRIES[usize::from(input.byte()) % ENTRIES.len()]);
                for _ in 0..3 {
                    row = row.bind(input.text());
                }
                for _ in 0..6 {
                    row = row.bind(input.number().cast_signed());
                }
                let terms = input.byte() == 1;
                for _ in 0..2 {
                    row = row.bind(terms.then(|| input.number().cast_signed()));
                }
                for _ in 0..2 {
                    row = row.bind(terms.then(|| input.text()));
                }
                written |= row.execute(&self.pool).await.is_ok(); // the tables' own checks reject some
            }
            let (epoch, now) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + tollgate::Clock::system().wall());
            let (mut entries, mut all) = (self.ledger.entries(&tenant, epoch, now), true);
            loop {
                match entries.next().await {
                    Ok(Some(entry)) => {
                        let line = entry.to_string();
                        serde_json::from_str::<serde_json::Value>(&line)
                            .unwrap_or_else(|error| panic!("{error}: {line}"));
                    }
                    Ok(None) => break,
                    Err(_) => break all = false,
                }
            }
            let price = |_: &str, quantity: u64| quantity.saturating_mul(2);
            let client = Client::named(tenant.as_str());
            [
                written,
                all,
                self.ledger.invoice(&tenant, epoch, now, price).await.is_ok(),
                self.ledger.usage_at(&tenant, now).await.is_ok(),
                self.quotas.charge(&client, ("tokens", 1)).await.is_ok(),
                self.ledger.archive(now - 2 * DAY).await.is_ok(),
            ]
        })
    }
}

/// Returns a target that opens another file from time to time.
fn rows() -> impl FnMut(&[u8]) -> u64 {
    let mut ledger = Meddled::open();
    move |bytes| {
        if ledger.tenants == CASES {
            ledger = Meddled::open();
        }
        summary(ledger.case(bytes))
    }
}
fuzz!(archived_rows, 100, ROWS, rows());

#[test]
fn first_input_is_a_row() {
    assert_eq!(Meddled::open().case(ROWS.corpus[0])[..2], [true, true]);
}
