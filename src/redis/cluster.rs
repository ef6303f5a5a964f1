//! Cluster mode: which node owns which slots, put together from what each node says.
//!
//! Nodes may differ for a moment, and each knows itself best: what a node says of itself counts before what others say of
//! it, and of two owners of a slot the one with the higher epoch. What then is not covered once is told, by its slots.
//!
//! Every version from 6.2 to the newest answers CLUSTER NODES, and it alone tells epochs and migrations; so it is the one
//! question.

use super::connection::Connection;
use super::{Address, Error};
use crate::backup::SlotRange;
use crate::cluster::Role;
use std::collections::{BTreeMap, BTreeSet};

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// Most nodes of one cluster that are looked at.
pub const NODES: usize = 1024;

/// Most moves of slots that are told of one shard.
pub const MOVES: usize = 16;

/// Most ranges of slots that a sentence names.
const NAMED_RANGES: usize = 16;

/// Length of a node's identifier, in characters.
const ID_CHARS: usize = 40;

/// Most steps from a replica to the primary of its primary.
const CHAIN: usize = 4;

/// A node as one of them tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its identifier, which stays with it.
    pub id: String,
    /// Where it announces to listen; absent when it is not known.
    pub address: Option<Address>,
    /// What it is.
    pub role: Role,
    /// Of a replica: the identifier of its primary.
    pub primary_id: Option<String>,
    /// Epoch of its configuration: the higher one owns.
    pub epoch: u64,
    /// Slots that it owns.
    pub slots: Vec<SlotRange>,
    /// Slots on their way, in words; a node tells its own only.
    pub moves: Vec<String>,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Identifier of the node that tells.
    pub me: String,
    /// All nodes, itself among them.
    pub nodes: Vec<Node>,
}

impl View {
    /// Asks a node.
    ///
    /// # Errors
    ///
    /// What the connection or the server says.
    pub async fn ask(connection: &mut Connection) -> Result<Self, Error> {
        let reply = connection.call(&[b"CLUSTER", b"NODES"]).await?;
        let odd = || Error::Protocol { host: connection.host().to_owned(), what: "an odd reply to CLUSTER NODES".to_owned() };
        Self::parse(&reply.text().ok_or_else(odd)?).ok_or_else(odd)
    }

    /// Reads the reply to CLUSTER NODES; `None` when it is none. Nodes that are being made known are left out.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut me, mut nodes) = (None, Vec::new());
        for line in text.lines().filter(|line| !line.trim().is_empty()).take(NODES) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [id, address, flags, primary, _, _, epoch, _, rest @ ..] = words.as_slice() else { return None };
            let flags: Vec<&str> = flags.split(',').collect();
            let has = |flag: &str| flags.contains(&flag);
            if !is_id(id) {
                return None;
            }
            if has("myself") {
                me = Some((*id).to_owned());
            }
            if has("handshake") {
                continue;
            }
            let role = if has("master") {
                Role::Primary
            } else if has("slave") {
                Role::Replica
            } else {
                Role::Unknown
            };
            let mut slots = Vec::new();
            let mut moves = Vec::new();
            for word in rest {
                match word.strip_prefix('[') {
                    Some(moving) if moves.len() < MOVES => moves.extend(in_words(moving)),
                    Some(_) => {}
                    None => slots.push(range(word)?),
                }
            }
            let address = if has("noaddr") { None } else { announced(address) };
            let primary_id = (role == Role::Replica && is_id(primary)).then(|| (*primary).to_owned());
            nodes.push(Node { id: (*id).to_owned(), address, role, primary_id, epoch: epoch.parse().ok()?, slots, moves });
        }
        Some(Self { me: me?, nodes })
    }

    /// What the node says of itself.
    pub fn myself(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == self.me)
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads `5` or `0-5460`.
fn range(word: &str) -> Option<SlotRange> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some(SlotRange { first, last })
}

/// Reads `93->-ID]` and `93-<-ID]`.
fn in_words(moving: &str) -> Option<String> {
    let moving = moving.strip_suffix(']')?;
    let (slot, verb, id) = match (moving.split_once("->-"), moving.split_once("-<-")) {
        (Some((slot, id)), _) => (slot, "migrating to", id),
        (None, Some((slot, id))) => (slot, "being imported from", id),
        (None, None) => return None,
    };
    let slot: u16 = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
    is_id(id).then(|| format!("slot {slot} is {verb} node {}", &id[..8]))
}

/// Reads `ip:port@bus,name`, in which the address may be missing.
pub(super) fn announced(text: &str) -> Option<Address> {
    let endpoint = text.split(['@', ',']).next()?;
    let (host, port) = endpoint.rsplit_once(':')?;
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    format!("{host}:{port}").parse().ok()
}

/// A shard: a primary that owns slots, with its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Identifier of its primary.
    pub primary_id: String,
    /// Epoch of its primary's configuration.
    pub epoch: u64,
    /// Slots that it owns, in order.
    pub slots: Vec<SlotRange>,
    /// Identifiers of its nodes, the primary's first.
    pub node_ids: Vec<String>,
    /// Slots on their way, in words, at most [`MOVES`].
    pub moves: Vec<String>,
}

/// A cluster put together from the views of its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Its shards, in order of their slots.
    pub shards: Vec<Shard>,
    /// Announced addresses by node.
    pub addresses: BTreeMap<String, Address>,
    /// Slots that nobody owns.
    pub uncovered: Vec<SlotRange>,
    /// Slots that two nodes own with the same right.
    pub disputed: Vec<SlotRange>,
    /// Into how many clusters the nodes fall that do not know one another; one when all belong together.
    pub clusters: usize,
}

impl Layout {
    /// Puts together what the nodes say.
    pub fn of(views: &[&View]) -> Self {
        let nodes = merged(views);
        let mut owners: Vec<Owner> = vec![Owner::Nobody; usize::from(SLOTS)];
        for (index, node) in nodes.values().enumerate() {
            for slot in node.slots.iter().flat_map(|range| range.first..=range.last) {
                let owner = &mut owners[usize::from(slot)];
                *owner = match *owner {
                    Owner::One(_, epoch) if epoch > node.epoch => *owner,
                    Owner::One(_, epoch) | Owner::Several(epoch) if epoch == node.epoch => Owner::Several(epoch),
                    Owner::Several(epoch) if epoch > node.epoch => *owner,
                    Owner::Nobody | Owner::One(..) | Owner::Several(_) => Owner::One(index, node.epoch),
                };
            }
        }
        let mut shards: Vec<Shard> = Vec::new();
        for (index, node) in nodes.values().enumerate() {
            let slots = ranges(&owners, |owner| matches!(owner, Owner::One(other, _) if *other == index));
            if slots.is_empty() {
                continue;
            }
            shards.push(Shard { primary_id: node.id.clone(), epoch: node.epoch, slots, node_ids: vec![node.id.clone()], moves: Vec::new() });
        }
        shards.sort_by_key(|shard| shard.slots.first().map(|range| range.first));
        for node in nodes.values() {
            let primary = primary_of(node, &nodes);
            let Some(shard) = shards.iter_mut().find(|shard| shard.primary_id == primary) else { continue };
            if node.id != primary {
                shard.node_ids.push(node.id.clone());
            }
            let room = MOVES.saturating_sub(shard.moves.len());
            shard.moves.extend(node.moves.iter().take(room).cloned());
        }
        Self {
            shards,
            addresses: nodes.values().filter_map(|node| Some((node.id.clone(), node.address.clone()?))).collect(),
            uncovered: ranges(&owners, |owner| matches!(owner, Owner::Nobody)),
            disputed: ranges(&owners, |owner| matches!(owner, Owner::Several(_))),
            clusters: groups(views),
        }
    }

    /// What stands against a backup of all of it, in words.
    pub fn fault(&self) -> Option<String> {
        if self.clusters > 1 {
            return Some(format!("the nodes belong to {} clusters that do not know one another", self.clusters));
        }
        if !self.uncovered.is_empty() {
            return Some(format!("nobody owns {}", named(&self.uncovered)));
        }
        (!self.disputed.is_empty()).then(|| format!("more than one primary claims {}", named(&self.disputed)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    /// The node of this index, by this epoch.
    One(usize, u64),
    /// More than one, by this epoch.
    Several(u64),
}

/// Slots by their ranges, in words: `slot 7`, `slots 0-99, 300`.
pub fn named(slots: &[SlotRange]) -> String {
    let one = |range: &SlotRange| if range.first == range.last { range.first.to_string() } else { format!("{}-{}", range.first, range.last) };
    let mut words: Vec<String> = slots.iter().take(NAMED_RANGES).map(one).collect();
    if slots.len() > NAMED_RANGES {
        words.push(format!("and {} more ranges", slots.len() - NAMED_RANGES));
    }
    let is_one = matches!(slots, [range] if range.first == range.last);
    format!("{} {}", if is_one { "slot" } else { "slots" }, words.join(", "))
}

/// Slots that lie in one of the sets and not in the other.
pub fn moved(before: &[SlotRange], after: &[SlotRange]) -> Vec<SlotRange> {
    let mut held = vec![0_u8; usize::from(SLOTS)];
    for (bit, slots) in [(1, before), (2, after)] {
        for slot in slots.iter().flat_map(|range| range.first..=range.last.min(SLOTS - 1)) {
            held[usize::from(slot)] |= bit;
        }
    }
    ranges(&held, |bits| matches!(bits, 1 | 2))
}

/// The slots whose entries satisfy `is`, as ranges.
fn ranges<T>(slots: &[T], is: impl Fn(&T) -> bool) -> Vec<SlotRange> {
    let mut found: Vec<SlotRange> = Vec::new();
    for (slot, _) in (0_u16..).zip(slots).filter(|(_, entry)| is(entry)) {
        match found.last_mut() {
            Some(range) if range.last + 1 == slot => range.last = slot,
            Some(_) | None => found.push(SlotRange { first: slot, last: slot }),
        }
    }
    found
}

/// Each node as it is known best: by itself, else by the view with its highest epoch.
fn merged(views: &[&View]) -> BTreeMap<String, Node> {
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    for node in views.iter().filter_map(|view| view.myself()) {
        nodes.insert(node.id.clone(), node.clone());
    }
    let known_by_themselves: BTreeSet<String> = nodes.keys().cloned().collect();
    for node in views.iter().flat_map(|view| &view.nodes) {
        if known_by_themselves.contains(&node.id) {
            // Nobody need know his own address.
            if let Some(known) = nodes.get_mut(&node.id) {
                known.address = known.address.take().or_else(|| node.address.clone());
            }
            continue;
        }
        if nodes.len() >= NODES && !nodes.contains_key(&node.id) {
            continue;
        }
        let newer = nodes.get(&node.id).is_none_or(|known| known.epoch < node.epoch);
        if newer {
            nodes.insert(node.id.clone(), node.clone());
        }
    }
    nodes
}

/// The primary of a node's shard; the node itself when it is one.
fn primary_of(node: &Node, nodes: &BTreeMap<String, Node>) -> String {
    let mut at = node;
    for _ in 0..CHAIN {
        match at.primary_id.as_ref().and_then(|id| nodes.get(id)) {
            Some(primary) => at = primary,
            None => break,
        }
    }
    at.id.clone()
}

/// How many groups the nodes fall into that answered and do not know one another.
fn groups(views: &[&View]) -> usize {
    let mut left: Vec<&View> = views.to_vec();
    let mut groups = 0;
    while let Some(first) = left.pop() {
        groups += 1;
        let mut group = vec![first];
        while let Some(view) = group.pop() {
            let knows = |one: &View, other: &View| one.nodes.iter().any(|node| node.id == other.me);
            let (related, others) = left.into_iter().partition(|other| knows(view, other) || knows(other, view));
            left = others;
            let related: Vec<&View> = related;
            group.extend(related);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    fn id(letter: char) -> String {
        letter.to_string().repeat(ID_CHARS)
    }

    /// The text of CLUSTER NODES in which `me` tells of nodes: letter, primary's letter or `-`, epoch, slots.
    fn text(me: char, nodes: &[(char, char, u64, &str)]) -> String {
        let line = |(node, primary, epoch, slots): &(char, char, u64, &str)| {
            let role = if *primary == '-' { "master" } else { "slave" };
            let primary = if *primary == '-' { "-".to_owned() } else { id(*primary) };
            let (myself, port) = (if *node == me { "myself," } else { "" }, u32::from(*node));
            format!("{} 10.0.0.1:{port}@1{port},name {myself}{role} {primary} 0 0 {epoch} connected {slots}\n", id(*node))
        };
        nodes.iter().map(line).collect()
    }

    fn view(me: char, nodes: &[(char, char, u64, &str)]) -> View {
        View::parse(&text(me, nodes)).unwrap()
    }

    fn slots(shard: &Shard) -> String {
        named(&shard.slots)
    }

    #[test]
    fn a_reply_is_read() {
        let moving = format!("0-99 300 [300->-{}] [7-<-{}]", id('b'), id('c'));
        let view = view('a', &[('a', '-', 3, &moving), ('b', 'a', 2, "")]);
        let me = view.myself().unwrap();
        assert_eq!((me.role, me.epoch, me.address.as_ref().unwrap().to_string()), (Role::Primary, 3, "10.0.0.1:97".to_owned()));
        assert_eq!(me.moves, ["slot 300 is migrating to node bbbbbbbb", "slot 7 is being imported from node cccccccc"]);
        assert_eq!((named(&me.slots), view.nodes[1].primary_id.clone()), ("slots 0-99, 300".to_owned(), Some(id('a'))));
        assert_eq!(announced(":0@0"), None);
        assert_eq!(announced("::1:7000@17000").unwrap().to_string(), "[::1]:7000");
    }

    #[test]
    fn nonsense_is_refused_without_panic() {
        let good = text('a', &[('a', '-', 1, "0-16383")]);
        for bad in ["", "a b c", &good.replace("16383", "16384"), &good.replace("0-16383", "5-4"), &good.replace("myself,", ""), &good.replace("aaaa", "zzzz")]
        {
            assert_eq!(View::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn shards_are_put_together_from_all_views() {
        let nodes = [('a', '-', 1, "0-8191"), ('b', '-', 2, "8192-16383"), ('c', 'a', 1, ""), ('d', 'b', 2, "")];
        let views = ['a', 'b', 'c', 'd'].map(|me| view(me, &nodes));
        let layout = Layout::of(&views.iter().collect::<Vec<_>>());
        assert_eq!(layout.fault(), None);
        assert_eq!(layout.shards.iter().map(slots).collect::<Vec<_>>(), ["slots 0-8191", "slots 8192-16383"]);
        assert_eq!(layout.shards[0].node_ids, [id('a'), id('c')]);
        // One that answers is enough.
        assert_eq!(Layout::of(&[&views[2]]).shards, layout.shards);
    }

    #[test]
    fn a_node_knows_itself_best_and_the_higher_epoch_owns() {
        let stale = view('a', &[('a', '-', 1, "0-8191"), ('b', '-', 2, "8192-16383")]);
        let moved = view('b', &[('a', '-', 1, "0-8190"), ('b', '-', 5, "8191-16383")]);
        let layout = Layout::of(&[&stale, &moved]);
        assert_eq!((layout.fault(), slots(&layout.shards[1])), (None, "slots 8191-16383".to_owned()));
        let dropped = view('a', &[('a', '-', 1, "0-8189"), ('b', '-', 2, "8192-16383")]);
        let late = view('b', &[('a', '-', 1, "0-8191"), ('b', '-', 2, "8192-16383")]);
        assert_eq!(Layout::of(&[&dropped, &late]).fault().unwrap(), "nobody owns slots 8190-8191");
        let split = view('b', &[('b', '-', 1, "0-16383"), ('a', '-', 1, "")]);
        assert_eq!(Layout::of(&[&stale, &split]).fault().unwrap(), "more than one primary claims slots 0-8191");
    }

    #[test]
    fn strangers_are_told() {
        let (one, other) = (view('a', &[('a', '-', 1, "0-16383")]), view('b', &[('b', '-', 1, "0-16383")]));
        assert!(Layout::of(&[&one, &other]).fault().unwrap().contains("2 clusters"));
    }

    #[test]
    fn slots_that_moved_are_named() {
        let range = |first, last| SlotRange { first, last };
        assert_eq!(moved(&[range(0, 99)], &[range(0, 98), range(200, 200)]), [range(99, 99), range(200, 200)]);
        assert_eq!(named(&moved(&[range(0, 99)], &[range(0, 98)])), "slot 99");
        assert_eq!(moved(&[range(0, 99)], &[range(0, 99)]), []);
    }
}
