-- The ledger of quotas, version 2. A counter is what one limit counts in one period, window and epoch: limits of one name may
-- count in different periods, as those of two plans do. Rows of version 1 have an empty period, and belong to the limit whose
-- window they name.

CREATE TABLE quota_identity (
    only_row  boolean NOT NULL PRIMARY KEY CHECK (only_row),
    ledger_id uuid    NOT NULL
);
INSERT INTO quota_identity (only_row, ledger_id) VALUES (true, gen_random_uuid());
COMMENT ON TABLE quota_identity IS 'The one ledger that these tables are; a spool is merged only into its own.';

ALTER TABLE quota_account
    ADD COLUMN tier text,
    ADD COLUMN closed_until timestamptz NOT NULL DEFAULT '1970-01-01 00:00+00';
COMMENT ON COLUMN quota_account.tier IS 'The tier that the client had last; null for none.';
COMMENT ON COLUMN quota_account.closed_until IS
    'What is written from now on is no older: a span that was reported as closed does not grow.';

CREATE TABLE quota_unfinished_job (
    tenant_id text COLLATE "C" NOT NULL,
    job_id    text COLLATE "C" NOT NULL,
    attempt   bigint           NOT NULL CHECK (attempt >= 0),
    until     timestamptz      NOT NULL,
    PRIMARY KEY (tenant_id, job_id, attempt)
);
COMMENT ON TABLE quota_unfinished_job IS
    'Jobs that are charged and whose work has no recorded end: it is under way, at most until the given time, or was interrupted.';

ALTER TABLE quota_grant ADD COLUMN period text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE quota_consumption ADD COLUMN period text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE quota_counter
    ADD COLUMN period text COLLATE "C" NOT NULL DEFAULT '',
    DROP CONSTRAINT quota_counter_pkey,
    ADD PRIMARY KEY (tenant_id, limit_id, quota_type, period, window_start, epoch);
COMMENT ON COLUMN quota_counter.period IS 'The period whose windows it counts, as "hour" or "month in Europe/Berlin".';
