-- The ledger of quotas, version 4. The key of quota_consumption begins with the job. Ids that grow with time, as those that the
-- ledger generates, are then neighbours: the rows of a batch change few pages of the index, whichever accounts they belong to.
-- A query for the entries of an account names their time too, and is answered by quota_consumption_by_time.

ALTER TABLE quota_consumption
    DROP CONSTRAINT quota_consumption_once,
    ADD CONSTRAINT quota_consumption_once
        PRIMARY KEY (job_id, tenant_id, limit_id, quota_type, attempt, entry, part);
COMMENT ON INDEX quota_consumption_once IS 'Keeps every writer from charging a job twice.';
