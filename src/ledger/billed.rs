//! The rule of [`billed`](crate::rule::ledger::billed) in SQL: one text for every database.

/// Sums what a tenant's rows bill from `$2` on and before `$3`, kind by kind.
///
/// The inner query yields the rows of each item, those that a void takes back with the sign -1: everything that the
/// attempt of the void has written before it, looked up by its job. `CROSS JOIN` keeps SQLite from trying it the other way
/// round. Ids order the rows of an account as they were written.
///
/// An amount is summed in two halves, whose sums fit wherever the rows do.
pub(super) const BILLED: &str = "
    SELECT quota_type, CAST(sum(amount >> 32) AS bigint), CAST(sum(amount & 4294967295) AS bigint) FROM
        (SELECT quota_type, sign * CASE WHEN -min(amount) > max(amount) THEN min(amount) ELSE max(amount) END AS amount
         FROM (
            SELECT 1 AS sign, job_id, attempt, entry, part, quota_type, limit_id, amount FROM quota_consumption
            WHERE tenant_id = $1 AND consumed_at >= $2 AND consumed_at < $3
            UNION ALL
            SELECT -1, r.job_id, r.attempt, r.entry, r.part, r.quota_type, r.limit_id, r.amount
            FROM (SELECT job_id, attempt, min(id) AS id FROM quota_consumption
                  WHERE tenant_id = $1 AND consumed_at >= $2 AND consumed_at < $3 AND entry = 'void'
                  GROUP BY job_id, attempt) v
            CROSS JOIN quota_consumption r
            WHERE r.tenant_id = $1 AND r.job_id = v.job_id AND r.attempt = v.attempt AND r.id < v.id) rows_of_items
         WHERE limit_id <> '' AND entry NOT IN ('void', 'reset', 'grant')
         GROUP BY sign, job_id, attempt, entry, part, quota_type) items
    GROUP BY quota_type ORDER BY quota_type";
