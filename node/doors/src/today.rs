//! What the cluster stored and refused since local midnight, from what its replicas say.

use dtm_proto::admin as wire;
use dtm_types::local_day;

use crate::http::Today;

/// The sum over the ingest groups: of each, the replica that is furthest. A group whose time is past
/// midnight already begins the new day for all. `None` where the count of a group is not known: no
/// replica of it answers, or it is at version 1, which counts no days.
pub(crate) fn today(groups: &[wire::GroupStatus], now_us: i64) -> Option<Today> {
    let ingest = groups.iter().filter(|group| group.group != 0);
    let furthest = |group: &wire::GroupStatus| {
        let counted = group.replicas.iter().filter(|replica| replica.day > 0).cloned();
        counted.max_by_key(|replica| (replica.day, replica.day_records + replica.day_refused))
    };
    let known: Vec<_> = ingest.map(furthest).collect::<Option<_>>()?;
    let newest = known.iter().map(|replica| replica.day).max()?;
    let day = newest.max(local_day(now_us));
    let mut today = Today::default();
    for replica in known.iter().filter(|replica| replica.day == day) {
        today.records += replica.day_records;
        today.refused += replica.day_refused;
        today.from_us = today.from_us.max(replica.day_from_us);
    }
    Some(today)
}

#[cfg(test)]
mod tests {
    use dtm_types::DAY_US;

    use super::*;

    const NOW_US: i64 = 1_795_000_000_000_000;

    fn replica(day: u32, day_records: u64, day_refused: u64) -> wire::ReplicaStatus {
        wire::ReplicaStatus { day, day_records, day_refused, ..Default::default() }
    }

    fn group(group: u32, replicas: &[wire::ReplicaStatus]) -> wire::GroupStatus {
        wire::GroupStatus { group, replicas: replicas.to_vec(), ..Default::default() }
    }

    fn sum(groups: &[wire::GroupStatus], now_us: i64) -> Option<(u64, u64, i64)> {
        today(groups, now_us).map(|today| (today.records, today.refused, today.from_us))
    }

    #[test]
    fn the_day_is_the_sum_of_its_groups_and_begins_anew() {
        let day = local_day(NOW_US);
        // Meta counts nothing; a replica behind, and one that does not answer, say less.
        let meta = group(0, &[replica(0, 0, 0)]);
        let first = group(1, &[replica(day, 90, 1), replica(day, 100, 2), replica(0, 0, 0)]);
        let second = group(2, &[replica(day - 1, 7_000, 50)]);
        let groups = [meta.clone(), first.clone(), second];
        assert_eq!(sum(&groups, NOW_US), Some((100, 2, 0)), "yesterday is not today");
        assert_eq!(sum(&groups, NOW_US + DAY_US), Some((0, 0, 0)), "nothing came in yet");
        let ahead = group(2, &[replica(day + 1, 5, 0), replica(day, 7_000, 50)]);
        assert_eq!(sum(&[meta.clone(), first.clone(), ahead], NOW_US), Some((5, 0, 0)));

        let raised = wire::ReplicaStatus { day_from_us: NOW_US - 9, ..replica(day, 3, 0) };
        let raised = group(2, &[raised]);
        assert_eq!(sum(&[first.clone(), raised], NOW_US), Some((103, 2, NOW_US - 9)));
    }

    #[test]
    fn what_is_not_known_is_not_told_as_nothing() {
        let day = local_day(NOW_US);
        let known = group(1, &[replica(day, 3, 0)]);
        for unknown in [group(2, &[replica(0, 0, 0)]), group(2, &[])] {
            assert_eq!(sum(&[known.clone(), unknown], NOW_US), None);
        }
        assert_eq!(sum(&[group(0, &[replica(day, 3, 0)])], NOW_US), None, "no ingest group");
    }
}
