-- The ledger of quotas, version 2. A counter is what one limit counts in one period, window and epoch: limits of one name may
-- count in different periods, as those of two plans do. Rows of version 1 have an empty period, and belong to the limit whose
-- window they name.

-- The one ledger that these tables are; a spool is merged only into its own.
CREATE TABLE quota_identity (
    only_row  INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    ledger_id BLOB    NOT NULL CHECK (length(ledger_id) = 16)
) STRICT;
INSERT INTO quota_identity (only_row, ledger_id) VALUES (1, randomblob(16));

-- The tier that the client had last; null for none.
ALTER TABLE quota_account ADD COLUMN tier TEXT;
-- What is written from now on is no older: a span that was reported as closed does not grow.
ALTER TABLE quota_account ADD COLUMN closed_until INTEGER NOT NULL DEFAULT 0;

-- Jobs that are charged and whose work has no recorded end: it is under way, at most until the given time, or was interrupted.
CREATE TABLE quota_unfinished_job (
    tenant_id TEXT    NOT NULL,
    job_id    TEXT    NOT NULL,
    attempt   INTEGER NOT NULL CHECK (attempt >= 0),
    until     INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, job_id, attempt)
) STRICT, WITHOUT ROWID;

ALTER TABLE quota_grant ADD COLUMN period TEXT NOT NULL DEFAULT '';
ALTER TABLE quota_consumption ADD COLUMN period TEXT NOT NULL DEFAULT '';

CREATE TABLE quota_counter_2 (
    tenant_id    TEXT    NOT NULL,
    limit_id     TEXT    NOT NULL,
    quota_type   TEXT    NOT NULL,
    -- The period whose windows it counts, as "hour" or "month in Europe/Berlin".
    period       TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    -- How often the account had counted something anew when this began.
    epoch        INTEGER NOT NULL CHECK (epoch >= 0),
    window_end   INTEGER NOT NULL,
    used         INTEGER NOT NULL CHECK (used >= 0),
    reserved     INTEGER NOT NULL CHECK (reserved >= 0),
    -- Whether the client was warned that it is near its end, and whether a response must still tell of it.
    warned       INTEGER NOT NULL CHECK (warned IN (0, 1)),
    untold       INTEGER NOT NULL CHECK (untold IN (0, 1)),
    PRIMARY KEY (tenant_id, limit_id, quota_type, period, window_start, epoch)
) STRICT, WITHOUT ROWID;
INSERT INTO quota_counter_2 (tenant_id, limit_id, quota_type, period, window_start, epoch, window_end, used, reserved, warned,
    untold)
SELECT tenant_id, limit_id, quota_type, '', window_start, epoch, window_end, used, reserved, warned, untold FROM quota_counter;
DROP TABLE quota_counter;
ALTER TABLE quota_counter_2 RENAME TO quota_counter;
CREATE INDEX quota_counter_by_end ON quota_counter (tenant_id, window_end);

DROP VIEW IF EXISTS quota_ledger;
-- quota_consumption for people: times and digests as text.
CREATE VIEW quota_ledger AS
SELECT id, tenant_id, job_id, quota_type, limit_id, period,
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
