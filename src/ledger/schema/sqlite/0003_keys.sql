-- The ledger of quotas, version 3. The key of quota_consumption begins with the job. Ids that grow with time, as those that the
-- ledger generates, are then neighbours: the rows of a batch change few pages of the index, whichever accounts they belong to.

DROP INDEX quota_consumption_once;
-- Keeps every writer from charging a job twice.
CREATE UNIQUE INDEX quota_consumption_once
    ON quota_consumption (job_id, tenant_id, limit_id, quota_type, attempt, entry, part);
