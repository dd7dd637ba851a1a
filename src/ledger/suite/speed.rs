//! Charges per second of a database, in batches of several sizes.

use super::*;
use crate::time::Clock;

/// Prints a line for each size of a batch. Each charge is a job of its own; tenants have one count each.
pub(in crate::ledger) async fn of<D: Database>(name: &str, database: &D, tenants: usize) {
    let (clock, mut session) = (Clock::default(), database.connect().await.unwrap());
    let tenants: Vec<Arc<str>> = (0..tenants).map(|at| format!("customer-{at:05}").into()).collect();
    for size in [1, 32, 256, 512] {
        let (mut number, mut spent) = (0_usize, [Duration::ZERO; 3]);
        let begun = clock.now();
        while clock.now().since(begun) < Duration::from_secs(4) {
            let rows: Vec<_> = (0..size)
                .map(|at| {
                    let job = format!("{:032x}", uuid::Uuid::now_v7().as_u128());
                    let tenant = &tenants[(number + at) % tenants.len()];
                    Row { key: Key { tenant: tenant.clone(), job: job.into() }, ..charge("", "", 1) }
                })
                .collect();
            let mut named: Vec<_> = rows.iter().map(|row| row.key.tenant.clone()).collect();
            named.sort();
            named.dedup();
            let counts = named.iter().map(|tenant| (tenant.clone(), count(number as u64, 0))).collect();
            let reads =
                Reads { tenants: named, jobs: rows.iter().map(|row| row.key.clone()).collect(), ..Reads::default() };
            let writes = Writes { rows, counts, ..Writes::default() };
            let start = clock.now();
            let loaded = session.begin(&reads).await.unwrap();
            let read = clock.now();
            session.write(&writes, loaded.now).await.unwrap();
            let written = clock.now();
            session.commit().await.unwrap();
            let end = clock.now();
            for (sum, part) in spent.iter_mut().zip([read.since(start), written.since(read), end.since(written)]) {
                *sum += part;
            }
            number += size;
        }
        let batches = (number / size) as u32;
        let total: Duration = spent.iter().sum();
        println!(
            "{name}, {} tenants, batches of {size}: {:.0} charges/s; begin {:?}, write {:?}, commit {:?}",
            tenants.len(),
            number as f64 / total.as_secs_f64(),
            spent[0] / batches,
            spent[1] / batches,
            spent[2] / batches,
        );
    }
}
