-- The ledger of quotas, version 1. Times are microseconds since 1970-01-01 00:00 UTC; the view quota_ledger shows them as
-- text. What reads these tables may read while a program charges; what writes into them by hand must hold the one lock that
-- SQLite has (BEGIN IMMEDIATE), and must leave quota_consumption as it is: corrections are rows of their own.

-- Who has an account. Every writer locks the accounts that it changes.
CREATE TABLE quota_account (
    tenant_id  TEXT    NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is counted in one period of one limit. used + reserved is the sum of the amounts of its rows in quota_consumption.
CREATE TABLE quota_counter (
    tenant_id    TEXT    NOT NULL,
    limit_id     TEXT    NOT NULL,
    quota_type   TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    -- How often the account had counted something anew when this began.
    epoch        INTEGER NOT NULL CHECK (epoch >= 0),
    window_end   INTEGER NOT NULL,
    used         INTEGER NOT NULL CHECK (used >= 0),
    reserved     INTEGER NOT NULL CHECK (reserved >= 0),
    -- Whether the client was warned that it is near its end, and whether a response must still tell of it.
    warned       INTEGER NOT NULL CHECK (warned IN (0, 1)),
    untold       INTEGER NOT NULL CHECK (untold IN (0, 1)),
    PRIMARY KEY (tenant_id, limit_id, quota_type, window_start, epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX quota_counter_by_end ON quota_counter (tenant_id, window_end);

-- Amounts allowed on top of a plan, their approver, and the part that is used.
CREATE TABLE quota_grant (
    tenant_id    TEXT    NOT NULL,
    id           INTEGER NOT NULL,
    limit_id     TEXT    NOT NULL,
    quota_type   TEXT    NOT NULL,
    amount       INTEGER NOT NULL CHECK (amount >= 0),
    until        INTEGER NOT NULL,
    approver     TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    -- Used up in periods that are over, and in the one that begins at window_start with epoch.
    used_before  INTEGER NOT NULL CHECK (used_before >= 0),
    used_now     INTEGER NOT NULL CHECK (used_now >= 0),
    window_start INTEGER NOT NULL,
    epoch        INTEGER NOT NULL CHECK (epoch >= 0),
    ended        INTEGER NOT NULL CHECK (ended IN (0, 1)),
    PRIMARY KEY (tenant_id, id)
) STRICT, WITHOUT ROWID;

-- What happened, one row for each thing that was counted; rows are never changed. The sum of amount is what is used.
CREATE TABLE quota_consumption (
    id           INTEGER PRIMARY KEY,
    tenant_id    TEXT    NOT NULL,
    job_id       TEXT    NOT NULL,
    -- What is counted, and by which limit; both empty in the row of a job that nothing counts.
    quota_type   TEXT    NOT NULL,
    limit_id     TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    epoch        INTEGER NOT NULL CHECK (epoch >= 0),
    entry        TEXT    NOT NULL CHECK (entry IN
        ('charge', 'reserve', 'commit', 'void', 'expire', 'record', 'adjust', 'grant', 'reset')),
    -- How often the job was given back before: then its id is free again.
    attempt      INTEGER NOT NULL CHECK (attempt >= 0),
    -- Tells the records of one job apart.
    part         INTEGER NOT NULL CHECK (part >= 0),
    -- Signed: what goes back is negative.
    amount       INTEGER NOT NULL,
    consumed_at  INTEGER NOT NULL,
    -- The order that wrote it: by this a program that never heard of its commit knows its own rows.
    order_id     BLOB    NOT NULL CHECK (length(order_id) = 16),
    -- What the job is about, digested; null where its id names nothing else.
    fingerprint  BLOB             CHECK (length(fingerprint) = 16),
    -- What a grant says: its size, until when (null for no end), who approved it, and why.
    granted      INTEGER          CHECK (granted >= 0),
    until        INTEGER,
    approver     TEXT,
    reason       TEXT
) STRICT;
-- Keeps every writer from charging a job twice.
CREATE UNIQUE INDEX quota_consumption_once
    ON quota_consumption (tenant_id, job_id, limit_id, quota_type, attempt, entry, part);
CREATE INDEX quota_consumption_by_time ON quota_consumption (tenant_id, consumed_at);

-- To archive rows, drop these two within the transaction that moves the rows, and make them anew.
CREATE TRIGGER quota_consumption_unchanged BEFORE UPDATE ON quota_consumption
BEGIN SELECT raise(ABORT, 'rows of quota_consumption are never changed: write a row that corrects'); END;
CREATE TRIGGER quota_consumption_kept BEFORE DELETE ON quota_consumption
BEGIN SELECT raise(ABORT, 'rows of quota_consumption are never deleted: write a row that corrects'); END;

-- Rows of before sealed_until may be archived, and so the ids of their jobs forgotten: older ids are refused.
CREATE TABLE quota_archive (
    only_row     INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    sealed_until INTEGER NOT NULL
) STRICT;

-- Reservations that are open, and until when.
CREATE TABLE quota_hold (
    tenant_id TEXT    NOT NULL,
    job_id    TEXT    NOT NULL,
    attempt   INTEGER NOT NULL CHECK (attempt >= 0),
    until     INTEGER NOT NULL,
    -- When it was made, and whether it stays charged when its time runs out.
    since     INTEGER NOT NULL,
    charge    INTEGER NOT NULL CHECK (charge IN (0, 1)),
    PRIMARY KEY (tenant_id, job_id, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX quota_hold_by_end ON quota_hold (until);

-- quota_consumption for people: times and digests as text.
CREATE VIEW quota_ledger AS
SELECT id, tenant_id, job_id, quota_type, limit_id,
    strftime('%Y-%m-%dT%H:%M:%S', window_start / 1000000, 'unixepoch')
        || printf('.%06dZ', window_start % 1000000) AS window_start,
    epoch, entry, attempt, part, amount,
    strftime('%Y-%m-%dT%H:%M:%S', consumed_at / 1000000, 'unixepoch')
        || printf('.%06dZ', consumed_at % 1000000) AS consumed_at,
    lower(hex(order_id)) AS order_id, lower(hex(fingerprint)) AS fingerprint, granted,
    strftime('%Y-%m-%dT%H:%M:%S', until / 1000000, 'unixepoch')
        || printf('.%06dZ', until % 1000000) AS until,
    approver, reason
FROM quota_consumption;
