//! The order to go over to the next life, and its plan, in files: a version byte, the message, the
//! CRC32C of both.

use std::io;
use std::path::Path;

use bytes::Bytes;
use dtm_proto::cluster as wire;
use dtm_storage::vfs::{RealVfs, replace_file};
use dtm_types::{Incarnation, NodeId};
use prost::Message;

use super::Order;

const VERSION: u8 = 1;

/// Reads a plan; none where there is no file.
///
/// # Errors
/// `InvalidData` where it is damaged, with its path and what to do.
pub fn read_plan(path: &Path) -> io::Result<Option<wire::PromotionPlan>> {
    read(path, "take it away, this node then asks the others for it")
}

/// Writes a plan. Durable when it returns.
///
/// # Errors
/// Of the disk.
pub fn write_plan(path: &Path, plan: &wire::PromotionPlan) -> io::Result<()> {
    write(path, plan)
}

impl Order {
    /// Reads an order; none where there is no file.
    ///
    /// # Errors
    /// `InvalidData` where it is damaged, with its path and what to do.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let message: Option<wire::PromotionOrder> =
            read(path, "take it away, the register tells this node again")?;
        Ok(message.map(|order| Self {
            next: Incarnation(order.incarnation),
            site: order.site,
            coordinator: NodeId::from_slice(&order.coordinator).unwrap_or_default(),
            cause: order.cause,
            stamp_us: order.stamp_us,
            is_split: order.split,
        }))
    }

    /// Writes it. Durable when it returns.
    ///
    /// # Errors
    /// Of the disk.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let order = wire::PromotionOrder {
            incarnation: self.next.0,
            site: self.site.clone(),
            coordinator: Bytes::copy_from_slice(&self.coordinator.0),
            cause: self.cause.clone(),
            stamp_us: self.stamp_us,
            split: self.is_split,
        };
        write(path, &order)
    }
}

pub(crate) fn read<M: Message + Default>(path: &Path, remedy: &str) -> io::Result<Option<M>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    parse(&bytes).map(Some).ok_or_else(|| {
        let cause = format!("{} is damaged: {remedy}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, cause)
    })
}

pub(crate) fn write(path: &Path, message: &impl Message) -> io::Result<()> {
    let mut bytes = vec![VERSION];
    message.encode(&mut bytes).map_err(io::Error::other)?;
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    replace_file(&RealVfs, path, &bytes)
}

fn parse<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    let (&version, message) = body.split_first()?;
    let is_whole = version == VERSION && u32::from_le_bytes(*sum) == crc32c::crc32c(body);
    is_whole.then(|| M::decode(message).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written_and_damage_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("plan");
        assert_eq!(read_plan(&path).expect("none"), None);
        let groups = vec![wire::PlannedGroup { group: 3, leader: 7, ..Default::default() }];
        let plan = wire::PromotionPlan { incarnation: 2, groups, ..Default::default() };
        write_plan(&path, &plan).expect("writes");
        assert_eq!(read_plan(&path).expect("reads"), Some(plan));
        let order = Order {
            next: Incarnation(2),
            site: "b".to_owned(),
            coordinator: NodeId([3; 16]),
            cause: "site a is lost".to_owned(),
            stamp_us: 5,
            is_split: true,
        };
        let file = folder.path().join("promotion");
        order.write(&file).expect("writes");
        assert_eq!(Order::read(&file).expect("reads"), Some(order));
        let whole = std::fs::read(&path).expect("reads");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).expect("writes");
            assert!(read_plan(&path).is_err(), "bit of byte {at}");
            std::fs::write(&path, &whole[..at]).expect("writes");
            assert!(read_plan(&path).is_err(), "cut at {at}");
        }
    }
}
