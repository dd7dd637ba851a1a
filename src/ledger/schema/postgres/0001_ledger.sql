-- The ledger of quotas, version 1. What reads these tables may read while programs charge; what writes into them by hand must
-- lock the account first (SELECT .. FROM quota_account WHERE tenant_id = .. FOR UPDATE), and must leave quota_consumption as
-- it is: corrections are rows of their own. Names sort byte by byte, for accounts are locked in the order of their names.

CREATE TABLE quota_account (
    tenant_id  text COLLATE "C" NOT NULL PRIMARY KEY,
    created_at timestamptz      NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE quota_account IS 'Who has an account. Every writer locks the accounts that it changes, in their order.';

-- Room in each page: counts change with every batch, and their new versions stay beside the old ones.
CREATE TABLE quota_counter (
    tenant_id    text COLLATE "C" NOT NULL,
    limit_id     text COLLATE "C" NOT NULL,
    quota_type   text COLLATE "C" NOT NULL,
    window_start timestamptz      NOT NULL,
    epoch        bigint           NOT NULL CHECK (epoch >= 0),
    window_end   timestamptz      NOT NULL,
    used         bigint           NOT NULL CHECK (used >= 0),
    reserved     bigint           NOT NULL CHECK (reserved >= 0),
    warned       boolean          NOT NULL,
    untold       boolean          NOT NULL,
    PRIMARY KEY (tenant_id, limit_id, quota_type, window_start, epoch)
) WITH (fillfactor = 50);
CREATE INDEX quota_counter_by_end ON quota_counter (tenant_id, window_end);
COMMENT ON TABLE quota_counter IS
    'What is counted in one period of one limit: used + reserved is the sum of the amounts of its rows in quota_consumption.';
COMMENT ON COLUMN quota_counter.epoch IS 'How often the account had counted something anew when this began.';
COMMENT ON COLUMN quota_counter.warned IS 'The client was warned that it is near the end.';
COMMENT ON COLUMN quota_counter.untold IS 'A response must still tell of that warning.';

CREATE TABLE quota_grant (
    tenant_id    text COLLATE "C" NOT NULL,
    id           bigint           NOT NULL,
    limit_id     text COLLATE "C" NOT NULL,
    quota_type   text COLLATE "C" NOT NULL,
    amount       bigint           NOT NULL CHECK (amount >= 0),
    until        timestamptz      NOT NULL,
    approver     text             NOT NULL,
    reason       text             NOT NULL,
    used_before  bigint           NOT NULL CHECK (used_before >= 0),
    used_now     bigint           NOT NULL CHECK (used_now >= 0),
    window_start timestamptz      NOT NULL,
    epoch        bigint           NOT NULL CHECK (epoch >= 0),
    ended        boolean          NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE quota_grant IS 'Amounts allowed on top of a plan, their approver, and the part that is used.';
COMMENT ON COLUMN quota_grant.used_before IS 'Used up in periods that are over.';
COMMENT ON COLUMN quota_grant.used_now IS 'Used up in the period that begins at window_start with epoch.';

CREATE TABLE quota_consumption (
    -- Rows of an account are in the order of their ids. No index: each costs a charge as much as the row itself.
    id           bigint           NOT NULL GENERATED ALWAYS AS IDENTITY,
    tenant_id    text COLLATE "C" NOT NULL,
    job_id       text COLLATE "C" NOT NULL,
    quota_type   text COLLATE "C" NOT NULL,
    limit_id     text COLLATE "C" NOT NULL,
    window_start timestamptz      NOT NULL,
    epoch        bigint           NOT NULL CHECK (epoch >= 0),
    entry        text COLLATE "C" NOT NULL CHECK (entry IN
        ('charge', 'reserve', 'commit', 'void', 'expire', 'record', 'adjust', 'grant', 'reset')),
    attempt      bigint           NOT NULL CHECK (attempt >= 0),
    part         bigint           NOT NULL CHECK (part >= 0),
    amount       bigint           NOT NULL,
    consumed_at  timestamptz      NOT NULL,
    order_id     uuid             NOT NULL,
    fingerprint  uuid,
    granted      bigint           CHECK (granted >= 0),
    until        timestamptz,
    approver     text,
    reason       text,
    CONSTRAINT quota_consumption_once
        PRIMARY KEY (tenant_id, job_id, limit_id, quota_type, attempt, entry, part)
);
-- Its condition is always true, and shown to be so by every condition on consumed_at: without one, the index is no choice. A
-- plan made while the table was small would otherwise look up a job among all rows of its account.
CREATE INDEX quota_consumption_by_time ON quota_consumption (tenant_id, consumed_at) WHERE consumed_at IS NOT NULL;
COMMENT ON TABLE quota_consumption IS
    'What happened, one row for each thing that was counted; rows are never changed. The sum of amount is what is used.';
COMMENT ON COLUMN quota_consumption.quota_type IS 'What is counted; empty in the row of a job that nothing counts.';
COMMENT ON COLUMN quota_consumption.attempt IS 'How often the job was given back before: then its id is free again.';
COMMENT ON COLUMN quota_consumption.part IS 'Tells the records of one job apart.';
COMMENT ON COLUMN quota_consumption.amount IS 'Signed: what goes back is negative.';
COMMENT ON COLUMN quota_consumption.order_id IS
    'The order that wrote it: by this a program that never heard of its commit knows its own rows.';
COMMENT ON COLUMN quota_consumption.fingerprint IS 'What the job is about, digested; null where its id names nothing else.';
COMMENT ON COLUMN quota_consumption.granted IS 'The size of a grant; until when, who approved it and why stand beside it.';
COMMENT ON INDEX quota_consumption_once IS 'Keeps every writer from charging a job twice.';

-- Archiving is the one who may delete, and says so: SET LOCAL tollgate.archives = 'on'.
CREATE FUNCTION quota_consumption_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('tollgate.archives', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'rows of quota_consumption are never changed: write a row that corrects';
END $$;
CREATE TRIGGER quota_consumption_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON quota_consumption
    FOR EACH STATEMENT EXECUTE FUNCTION quota_consumption_stays();

CREATE TABLE quota_archive (
    only_row     boolean     NOT NULL PRIMARY KEY CHECK (only_row),
    sealed_until timestamptz NOT NULL
);
COMMENT ON TABLE quota_archive IS
    'Rows of before sealed_until may be archived, and so the ids of their jobs forgotten: older ids are refused.';

CREATE TABLE quota_hold (
    tenant_id text COLLATE "C" NOT NULL,
    job_id    text COLLATE "C" NOT NULL,
    attempt   bigint           NOT NULL CHECK (attempt >= 0),
    until     timestamptz      NOT NULL,
    -- When it was made, and whether it stays charged when its time runs out.
    since     timestamptz      NOT NULL,
    charge    boolean          NOT NULL,
    PRIMARY KEY (tenant_id, job_id, attempt)
);
CREATE INDEX quota_hold_by_end ON quota_hold (until);
COMMENT ON TABLE quota_hold IS 'Reservations that are open, and until when.';
