//! dag-pb: a node is an ordered list of links and some bytes.

use crate::cid::Cid;
use crate::wire::{Fields, Malformed, put_bytes, put_number};

/// A decoded node. The links' CIDs are left as bytes: what the node is gets decided first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Node<'a> {
    /// The binary CIDs, in order.
    pub(crate) links: Vec<&'a [u8]>,
    /// Whether any link has a name.
    pub(crate) has_names: bool,
    pub(crate) data: Option<&'a [u8]>,
}

/// A link as the encoder writes it: unnamed, as in files.
pub(crate) struct Link {
    pub(crate) cid: Cid,
    /// Bytes of all blocks below the link, as Kubo counts them.
    pub(crate) total_bytes: u64,
}

/// Reads a node. Links must stand together, before or after the data; fields of a link in their order; nothing
/// unknown and nothing twice.
pub(crate) fn decode(block: &[u8]) -> Result<Node<'_>, Malformed> {
    let mut node = Node::default();
    let mut links_ended = false;
    for field in Fields(block) {
        match field? {
            (1, value) => {
                if node.data.replace(value.bytes()?).is_some() {
                    return Err("two data fields in a node");
                }
                links_ended = !node.links.is_empty();
            }
            (2, value) => {
                if links_ended {
                    return Err("links on both sides of the data");
                }
                let (cid, name) = decode_link(value.bytes()?)?;
                node.links.push(cid);
                node.has_names |= !name.is_empty();
            }
            _ => return Err("an unknown field in a node"),
        }
    }
    Ok(node)
}

/// A link's CID and name; an empty name is none.
fn decode_link(bytes: &[u8]) -> Result<(&[u8], &str), Malformed> {
    let mut hash = None;
    let mut name = "";
    let mut last = 0;
    for field in Fields(bytes) {
        let (number, value) = field?;
        if number <= last {
            return Err("fields of a link out of order");
        }
        last = number;
        match number {
            1 => hash = Some(value.bytes()?),
            2 => {
                name = std::str::from_utf8(value.bytes()?)
                    .map_err(|_| "a link's name is not UTF-8")?;
            }
            3 => {
                value.number()?;
            }
            _ => return Err("an unknown field in a link"),
        }
    }
    Ok((hash.ok_or("a link without a CID")?, name))
}

/// Writes a node as Kubo does.
pub(crate) fn encode(links: &[Link], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + links.len() * 52 + 8);
    let mut link_bytes = Vec::with_capacity(64);
    for link in links {
        link_bytes.clear();
        put_bytes(&mut link_bytes, 1, &link.cid.to_bytes());
        put_bytes(&mut link_bytes, 2, b"");
        put_number(&mut link_bytes, 3, link.total_bytes);
        put_bytes(&mut out, 2, &link_bytes);
    }
    put_bytes(&mut out, 1, data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cid::{CidVersion, Codec};
    use ipld_dagpb::PbNode;
    use proptest::prelude::*;

    fn links() -> impl Strategy<Value = Vec<(bool, [u8; 32], u64)>> {
        prop::collection::vec(any::<(bool, [u8; 32], u64)>(), 0..8)
    }

    fn node(links: &[(bool, [u8; 32], u64)]) -> Vec<Link> {
        links
            .iter()
            .map(|(v0, digest, total_bytes)| {
                let version = if *v0 { CidVersion::V0 } else { CidVersion::V1 };
                let codec = if *v0 { Codec::DagPb } else { Codec::Raw };
                let cid = Cid::from_sha256(version, codec, *digest).unwrap();
                Link { cid, total_bytes: *total_bytes }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_we_write_another_decoder_reads_and_writes_alike(links in links(), data: Vec<u8>) {
            let links = node(&links);
            let block = encode(&links, &data);
            let theirs = PbNode::from_bytes(block.clone().into()).unwrap();
            prop_assert_eq!(theirs.data.as_deref(), Some(data.as_slice()));
            prop_assert_eq!(theirs.links.len(), links.len());
            for (their, our) in theirs.links.iter().zip(&links) {
                prop_assert_eq!(their.cid.to_bytes(), our.cid.to_bytes());
                prop_assert_eq!(their.size, Some(our.total_bytes));
            }
            prop_assert_eq!(theirs.into_bytes(), block);
        }

        #[test]
        fn what_we_accept_another_decoder_reads_alike(
            links in links(),
            data: Vec<u8>,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            end: prop::sample::Index,
        ) {
            let mut block = encode(&node(&links), &data);
            for (at, byte) in &edits {
                let at = at.index(block.len());
                block[at] = *byte;
            }
            if edits.len() == 3 {
                block.truncate(end.index(block.len()));
            }
            let Ok(ours) = decode(&block) else { return Ok(()) };
            // Another decoder parses the CIDs as well, ours does so later.
            let cids = ours.links.iter().all(|link| ::cid::Cid::try_from(*link).is_ok());
            if let Ok(theirs) = PbNode::from_bytes(block.clone().into()) {
                prop_assert_eq!(theirs.data.as_deref(), ours.data);
                let their_links: Vec<_> = theirs.links.iter().map(|link| link.cid.to_bytes()).collect();
                if cids && their_links.iter().map(Vec::len).eq(ours.links.iter().map(|link| link.len())) {
                    prop_assert_eq!(their_links, ours.links);
                }
            } else {
                prop_assert!(!cids, "only a link's CID may be what the other one minds: {}", hex::encode(&block));
            }
        }
    }

    #[test]
    fn what_the_format_forbids_is_refused() {
        let link = [0x12, 0x06, 0x0a, 0x04, 1, 0x55, 0, 0];
        let data = [0x0a, 0x01, 7];
        assert_eq!(decode(&[]).unwrap(), Node::default());
        assert!(decode(&[link.as_slice(), &data].concat()).is_ok());
        assert!(decode(&[data.as_slice(), &link].concat()).is_ok());
        assert!(decode(&[link.as_slice(), &data, &link].concat()).is_err());
        assert!(decode(&[data, data].concat()).is_err());
        for bad in [
            "1200",             // no CID
            "12020801",         // a number for the CID
            "120418010a00",     // size before CID
            "12050a000a0000",   // two CIDs
            "120412010a00",     // name cut
            "12050a001201ff",   // name not UTF-8
            "12040a002000",     // unknown field of a link
            "1a00",             // unknown field of a node
            "0a05",             // data past the end
            "0affffffffffff7f", // 2^49 bytes announced
            "0d00000000",       // fixed 32
            "0b0c",             // group
        ] {
            assert!(decode(&hex::decode(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
