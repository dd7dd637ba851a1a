//! Where the accounts of a quota are kept: the door behind which memory, a database or a shared store stands.

use std::{num::NonZeroU64, sync::Arc};

use crate::{
    Answer, Client, Invalid,
    quota::{Amounts, Grant, GrantId, Granted, Plan, Usage},
    rule::{
        Lease,
        quota::{Ask, Closed, Job, Nearest, No, Now, Warning},
    },
};

/// Keeps accounts, and decides on them one at a time.
///
/// What must be waited for is an [`Answer`]; the end of a charge never is: a store that needs time for it has a task of
/// its own.
pub(crate) trait QuotaStore: Send + Sync + 'static {
    /// Takes everything that is asked for, or nothing.
    fn admit(&self, order: &Order<'_>) -> Answer<Result<Admission, Refused>>;

    /// The end of what was admitted.
    fn settle(&self, receipt: &Receipt, end: &End<'_>, now: Now) -> Near;

    /// The response to what was admitted has begun: if nothing more is heard of it, its reader is stuck.
    fn watch(&self, receipt: &Receipt, now: Now);

    /// What was admitted goes on, and has used so much since it was last heard of.
    fn go_on(&self, receipt: &Receipt, used: &Amounts, now: Now) -> Near;

    /// Ends a reservation by its id: with what was used, or with nothing.
    fn close(&self, reserved: &Reserved, actual: Option<&Amounts>, now: Now) -> Answer<(Closed, Near)>;

    /// Notes what was used, whether there was room for it or not.
    fn record(&self, account: &Account<'_>, amounts: &Amounts) -> Answer<Near>;

    /// What is used of each limit.
    fn usage(&self, account: &Account<'_>) -> Answer<Usage>;

    /// Whether everything that is asked for could be taken.
    fn check(&self, account: &Account<'_>, amounts: &Amounts) -> Answer<Result<(), Refused>>;

    /// The usage of some clients, and where to go on.
    fn page(&self, from: u64, most: usize, plan_of: &dyn Fn(&Client) -> Arc<Plan>, now: Now) -> Answer<Page>;

    /// Counts the limits of this name or kind, or all of them, from zero.
    fn reset(&self, account: &Account<'_>, limit: Option<&str>) -> Answer<Result<(), Invalid>>;

    /// Raises a limit.
    fn grant(&self, account: &Account<'_>, grant: Grant) -> Answer<Result<GrantId, Invalid>>;

    /// Ends a grant before its time.
    fn revoke(&self, account: &Account<'_>, id: GrantId) -> Answer<bool>;

    /// The grants that have not ended.
    fn grants(&self, account: &Account<'_>) -> Answer<Vec<Granted>>;

    /// How many clients have an account, and how many could have one.
    fn population(&self) -> (usize, usize);
}

/// The usage of some clients, and where to go on.
pub(crate) type Page = (Vec<(Client, Usage)>, Option<u64>);

/// Whose account, under which plan, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account<'a> {
    pub(crate) client: &'a Client,
    pub(crate) plan: &'a Arc<Plan>,
    pub(crate) now: Now,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) account: Account<'a>,
    pub(crate) ask: Ask<'a>,
    /// Whether a response will tell of the limit that is nearest to its end.
    pub(crate) told: bool,
    /// Whether somebody wants to see all of them.
    pub(crate) usage: bool,
}

/// What was taken, and from where.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) receipt: Receipt,
    pub(crate) nearest: Option<Nearest>,
    /// Mostly nothing: an admission is moved about with the request, and has to be small.
    pub(crate) news: Option<Box<News>>,
}

/// What there is to tell about few admissions.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Another lost the slot for it.
    pub(crate) reclaimed: bool,
    /// The limits that the client has just come near to, and those of which the response must tell.
    pub(crate) near: Near,
    pub(crate) untold: Vec<Warning>,
    /// What is used of each limit, where somebody wants to see it.
    pub(crate) usage: Option<Usage>,
}

/// Who has just come near which limits: mostly nobody, to none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Near {
    pub(crate) client: Option<Client>,
    pub(crate) limits: Vec<Warning>,
}

/// Why nothing was taken, and whether from an account that newcomers share.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) no: No,
    pub(crate) shared: bool,
}

/// By what a store finds again what it admitted.
#[derive(Debug, Default)]
pub(crate) struct Receipt {
    pub(crate) place: Place,
    pub(crate) turn: u32,
    pub(crate) lease: Option<Lease>,
    pub(crate) hold: Option<NonZeroU64>,
    pub(crate) job: Option<Box<Job>>,
    /// The account is kept until the charge is settled.
    pub(crate) open: bool,
    /// It is from an account that newcomers share.
    pub(crate) shared: bool,
}

/// By what a store finds again what was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reserved {
    pub(crate) place: Place,
    pub(crate) hold: NonZeroU64,
}

/// Where an account is, and which of those that were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) shard: u32,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// How a charge ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// It came to nothing: these amounts, which were charged, and all that was set aside go back.
    Void(&'a Amounts),
    /// It was served: so much was used besides what was charged, and so much of what was set aside; of what is not named,
    /// as much as was estimated.
    Served { used: &'a Amounts, actual: &'a Amounts },
    /// Its slot comes back, what it reserved stays open: it can be ended by its id.
    Detached,
}
